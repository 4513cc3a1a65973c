"""Text to token ids and back, exactly: `decode(encode(text)) == text` for every text with a tokenizer of our own.

Only the text's own characters are encoded: no prefix, no document end, and never a special token, whatever the text
says: `<|user|>` in a web page is a few harmless pieces. Who wants a special token asks for `special_id`.

A tokenizer made by others gives the ids that its own library gives, which may mean that it normalises a text first.
"""

from __future__ import annotations

import bisect
import functools
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from diglot.core.errors import InputError
from diglot.tokenizer import read_hub, read_own, read_sentencepiece
from diglot.tokenizer.encoding import Parts, TokenArrays
from diglot.tokenizer.json_file import read_object
from diglot.tokenizer.vocabulary import Vocabulary

TOKENIZER_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"
MAX_NAMED = 30  # special tokens in a message; some tokenizers have hundreds


class Tokenizer:
    """A trained tokenizer. `Tokenizer.load(folder)` reads what the step train_tokenizer, or a model folder, holds.

    The encoder is built when it is first used, so that decoding and counting stay cheap, and so that a tokenizer can be
    sent to another process.
    """

    def __init__(self, parts: Parts, folder: Path) -> None:
        self.folder = folder
        self._parts = parts
        self._bytes = parts.token_bytes

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Our own tokenizer; a Hugging Face `tokenizer.json` of byte-pair kind; a SentencePiece `tokenizer.model`.

        The first of these that the folder holds. No code of a checkpoint is run. Raises InputError when the folder
        holds none, a damaged one, or one of a kind that is not supported.
        """
        path = folder / TOKENIZER_FILE
        if path.is_file():
            content = read_object(path)
            return cls(read_own.parts(path, content) or read_hub.parts(path, content), folder)
        if (folder / MODEL_FILE).is_file():
            return cls(read_sentencepiece.parts(folder / MODEL_FILE), folder)
        raise InputError(
            f"{folder} holds no {TOKENIZER_FILE} and no {MODEL_FILE}. Name the folder of a train_tokenizer step, or of "
            "a model with its tokenizer; a tokenizer of vocab.json and merges.txt is first saved again by transformers."
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """Raises InputError for a tokenizer that others made."""
        if self._parts.vocabulary is None:
            raise InputError(f"{self.folder} holds a tokenizer that others made, and its pieces cannot be looked at.")
        return self._parts.vocabulary

    @property
    def is_exact(self) -> bool:
        """Whether every text is sure to come back as it was."""
        return self._parts.vocabulary is not None

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._vocab_size

    @property
    def bos_id(self) -> int:
        return self._parts.bos_id

    @property
    def eos_id(self) -> int:
        """The token that ends every document.

        Of others: `<|EOD|>` where there is one (MAP-Neo ends documents with it, 64002), else the `eos_token` of
        tokenizer_config.json or special_tokens_map.json, else the first `eos_token_id` of config.json or
        generation_config.json.
        """
        return self._parts.eos_id

    @property
    def pad_id(self) -> int:
        """Of others without one: the unknown token, else the beginning, so that a document end stays one."""
        return self._parts.pad_id

    def special_id(self, name: str) -> int:
        """Raises InputError for a name that is no special or added token."""
        if name not in self._parts.special_ids:
            known = sorted(self._parts.special_ids, key=lambda known: self._parts.special_ids[known])
            more = f" and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
            raise InputError(f"no special token '{name}'. Known: {', '.join(known[:MAX_NAMED])}{more}.")
        return self._parts.special_ids[name]

    def encode(self, text: str) -> list[int]:
        """Raises InputError for a text with half a surrogate pair, which is not Unicode."""
        return self._parts.encoder.encode_batch([text], threads=False)[0]

    def encode_batch(self, texts: Sequence[str], *, threads: bool = True) -> list[list[int]]:
        """`[encode(text) for text in texts]`. threads: use all cores; False where each core has a process already."""
        return self._parts.encoder.encode_batch(texts, threads=threads)

    def encode_arrays(self, texts: Sequence[str], *, threads: bool = True) -> TokenArrays:
        """As `encode_batch`, the tokens of all texts one after the other: for many of them."""
        return self._parts.encoder.encode_arrays(texts, threads=threads)

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The tokens of `context + continuation`, split where the continuation begins.

        The context is the tokens, from the first on, that write characters of the context alone; a token that writes
        characters of both begins the continuation. So the two parts together are `encode(context + continuation)`, and
        the continuation has a token at least. (Counting the tokens of the context alone, as lm-evaluation-harness
        does, can leave none.) Where a tokenizer of others melts the whole continuation into the context's last
        character (NFC makes one of "e" and an accent), the tokens of that character are the continuation.
        Raises: InputError for an empty continuation, or a text of which the tokenizer writes nothing.
        """
        if not continuation:
            raise InputError("the continuation is empty, so there is nothing to score. Leave the item out.")
        tokens, ends = self._parts.encoder.encode_with_ends(context + continuation)
        if not tokens:
            raise InputError(f"the tokenizer writes no token for {continuation[:40]!r}. Leave the item out.")
        split = min(bisect.bisect_right(ends, len(context)), bisect.bisect_left(ends, ends[-1]))
        return tokens[:split], tokens[split:]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of some tokens. Bytes that are no UTF-8, which a model may well write, become U+FFFD.

        The space that some tokenizers put in front of a text is taken off again.
        skip_special: False writes special tokens out by name, for people to read.
        """
        written = self.decode_bytes(ids, skip_special=skip_special)
        if self._parts.drops_first_space:
            written = written.removeprefix(b" ")
        return written.decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = True) -> bytes:
        """As `decode`, before bytes are read as UTF-8. Raises InputError for an id outside the vocabulary."""
        table = self._bytes if skip_special else self._bytes_with_special
        try:
            return b"".join([table[token] for token in ids])
        except KeyError as error:
            raise InputError(
                f"token {error} is outside the vocabulary of {self.vocab_size}. Decode with the tokenizer that encoded."
            ) from None

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that a token stands for: part of a character for byte tokens, none for special tokens."""
        return self._bytes[token]

    def save(self, folder: Path) -> None:
        """Copy the tokenizer's files, so that a model folder can be used without the artifact."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self._parts.files:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)

    @functools.cached_property
    def _vocab_size(self) -> int:
        return 1 + max(self._bytes)

    @functools.cached_property
    def _bytes_with_special(self) -> dict[int, bytes]:
        names = {token: name.encode() for name, token in self._parts.special_ids.items()}
        return {**self._bytes, **names}


def check_fits(tokenizer: Tokenizer, vocab_size: int) -> str | None:
    """Raises InputError when a model whose embedding has `vocab_size` rows lacks some of the tokens.

    Returns: a sentence where rows are to spare, as in embeddings that were padded for speed.
    """
    if tokenizer.vocab_size > vocab_size:
        raise InputError(
            f"the tokenizer in {tokenizer.folder} has {tokenizer.vocab_size:,} tokens, but the model's embedding has "
            f"{vocab_size:,} rows. Take the tokenizer that the model was trained with, or extend the embedding."
        )
    spare = vocab_size - tokenizer.vocab_size
    return f"{tokenizer.vocab_size:,} tokens have {vocab_size:,} rows; {spare:,} pad the embedding." if spare else None
