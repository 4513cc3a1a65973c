"""What a tokenizer is made of, whoever trained it, and what its encoder must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from diglot.core.errors import InputError
from diglot.tokenizer.vocabulary import Vocabulary


class TokenArrays(NamedTuple):
    """Tokens of N texts one after the other."""

    tokens: NDArray[np.int32]  # [T]
    offsets: NDArray[np.int64]  # [N + 1], where each text begins, and the end


class Encoder(Protocol):
    """Text to tokens. threads: use all cores. Every method raises InputError for lone surrogates."""

    def encode_batch(self, texts: Sequence[str], *, threads: bool) -> list[list[int]]: ...

    def encode_arrays(self, texts: Sequence[str], *, threads: bool) -> TokenArrays: ...

    def encode_with_ends(self, text: str) -> tuple[list[int], list[int]]:
        """Tokens and, for each, how many characters of the text are written when it is."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What `Tokenizer` needs to know; the modules `read_*` make it from files."""

    encoder: Encoder
    token_bytes: Mapping[int, bytes]  # UTF-8 that each token writes; nothing for special tokens
    special_ids: Mapping[str, int]
    bos_id: int
    eos_id: int
    pad_id: int
    files: Sequence[str]  # what `save` copies, as far as it is there
    vocabulary: Vocabulary | None = None  # only of our own
    drops_first_space: bool = False  # the encoder puts a space in front of a text, which decoding takes off again


def arrays(encoded: Sequence[Sequence[int]]) -> TokenArrays:
    """Lists of tokens as arrays."""
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(tokens) for tokens in encoded], out=offsets[1:])
    return TokenArrays(np.fromiter((t for tokens in encoded for t in tokens), np.int32, int(offsets[-1])), offsets)


def not_unicode(error: Exception) -> InputError:
    return InputError(f"not Unicode text: {error}. Replace lone surrogates before encoding.")


def spelled_out(name: str, ids: Mapping[str, int], byte_ids: Mapping[int, int], unknown: int) -> list[int]:
    """Tokens that write a special token's name character by character, for a text that only looks like one.

    Args:
        ids: tokens by spelling.
        byte_ids: tokens that write one byte, where the vocabulary has them.
        unknown: the token for what cannot be written.
    """
    tokens: list[int] = []
    for character in name:
        if character in ids:
            tokens.append(ids[character])
        else:
            tokens.extend(byte_ids.get(byte, unknown) for byte in character.encode())
    return tokens


def without_special(tokens: list[int], spelled: Mapping[int, Sequence[int]]) -> list[int]:
    """The tokens with every special one written out."""
    if spelled.keys().isdisjoint(tokens):
        return tokens
    return [part for token in tokens for part in spelled.get(token, (token,))]
