"""Encode with a `Vocabulary`: by the compiled kernel, or, for the few words of a chat, by its definition.

Loading the kernel takes longer than many a chat turn, so short texts are cut where no piece can cross and each stretch
is encoded by `encode_oracle`, until SLOWLY characters came together. Both ways give the same tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from diglot.core.hardware import host
from diglot.tokenizer.encoding import TokenArrays, arrays, not_unicode
from diglot.tokenizer.vocabulary import FIRST_BYTE, Vocabulary, encode_oracle

SLOWLY = 200_000  # characters; they take as long as loading the kernel, which has to be compiled once
LONGEST_STRETCH = 100  # characters that the definition, which is quadratic, is used for
BYTES_PER_THREAD = 1 << 16


class VocabularyEncoder:
    """Tables are made when they are first needed, and do not travel to other processes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._encoded_slowly = 0  # characters
        self._stretches: dict[str, list[int]] = {}
        self._kept: list[Any] = []  # of threads that are not encoding now

    def __getstate__(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def encode_batch(self, texts: Sequence[str], *, threads: bool) -> list[list[int]]:
        encoded = [_utf8(text) for text in texts]
        if (lists := self._encode_slowly(texts)) is not None:
            return lists
        tokens, offsets = self._encode_fast(encoded, threads=threads)
        flat = tokens.tolist()
        return [flat[start:stop] for start, stop in pairwise(offsets.tolist())]

    def encode_arrays(self, texts: Sequence[str], *, threads: bool) -> TokenArrays:
        encoded = [_utf8(text) for text in texts]
        if (lists := self._encode_slowly(texts)) is not None:
            return arrays(lists)
        return self._encode_fast(encoded, threads=threads)

    def encode_with_ends(self, text: str) -> tuple[list[int], list[int]]:
        tokens = self.encode_batch([text], threads=False)[0]
        written = [len(self.vocabulary.token_bytes[token]) for token in tokens]
        bytes_before = list(accumulate(len(character.encode()) for character in text))
        return tokens, (np.searchsorted(bytes_before, list(accumulate(written))) + 1).tolist()

    def encode_utf8(self, offsets: Any, utf8: Any) -> TokenArrays:
        """Tokens of documents in one buffer, int64 [N + 1] and uint8; bytes that are no UTF-8 become byte tokens."""
        from diglot.kernels import bpe

        try:
            kept = self._kept.pop()
        except IndexError:
            kept = bpe.kept()
        try:
            return TokenArrays(*bpe.encode(offsets, utf8, self._tables, kept))
        finally:
            self._kept.append(kept)

    @functools.cached_property
    def _tables(self) -> Any:
        from diglot.kernels import bpe

        ids = self.vocabulary.ids
        characters = {piece: token for piece, token in ids.items() if len(piece) == 1}
        joins = [(ids[left], ids[right], ids[joined]) for left, right, joined in self.vocabulary.joins()]
        return bpe.tables(characters, self.vocabulary.neighbours, joins, FIRST_BYTE)

    def _encode_fast(self, encoded: Sequence[bytes], *, threads: bool) -> TokenArrays:
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        utf8 = np.frombuffer(b"".join(encoded), np.uint8)
        num_threads = min(host().num_cores, len(utf8) // BYTES_PER_THREAD) if threads else 1
        if num_threads <= 1:
            return self.encode_utf8(offsets, utf8)
        _ = self._tables  # made before the threads ask for them
        cuts = [0, *np.searchsorted(offsets, np.linspace(0, len(utf8), num_threads + 1)[1:-1]).tolist(), len(encoded)]
        with ThreadPoolExecutor(num_threads) as pool:
            parts = list(pool.map(lambda cut: self.encode_utf8(offsets[cut[0] : cut[1] + 1], utf8), pairwise(cuts)))
        starts = accumulate((len(part.tokens) for part in parts), initial=0)
        ends = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
        return TokenArrays(np.concatenate([part.tokens for part in parts]), np.concatenate([[0], *ends]))

    def _encode_slowly(self, texts: Sequence[str]) -> list[list[int]] | None:
        """The tokens of each text by the definition; None where the kernel should do it."""
        if "_tables" in self.__dict__:
            return None
        self._encoded_slowly += sum(map(len, texts))
        if self._encoded_slowly > SLOWLY:
            return None
        encoded = []
        for text in texts:
            tokens: list[int] = []
            encoded.append(tokens)
            for stretch in self._cut(text):
                if stretch not in self._stretches:
                    if len(stretch) > LONGEST_STRETCH:
                        return None
                    self._stretches[stretch] = encode_oracle(stretch, self.vocabulary.ids)
                tokens += self._stretches[stretch]
        return encoded

    def _cut(self, text: str) -> list[str]:
        """The text in stretches that no piece crosses."""
        neighbours = self.vocabulary.neighbours
        cuts = [at for at, pair in enumerate(pairwise(text), 1) if pair not in neighbours]
        return [text[start:stop] for start, stop in pairwise([0, *cuts, len(text)])]


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except (UnicodeEncodeError, AttributeError) as error:
        raise not_unicode(error) from error
