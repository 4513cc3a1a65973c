"""Text to token ids and back, exactly: `decode(encode(text)) == text` for every text.

Only the text's own characters are encoded: no prefix, no document end, and never a special token, whatever the text
says: `<|user|>` in a web page is a few harmless pieces. Who wants a special token asks for `special_id`.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from diglot.core.errors import InputError
from diglot.core.storage import read_json
from diglot.tokenizer.vocabulary import BOS, EOS, FIRST_PIECE, PAD, SPECIAL_TOKENS, Vocabulary

TOKENIZER_FILE = "tokenizer.json"
FILES = (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens.json", "tokenizer.model")


class Tokenizer:
    """A trained tokenizer. `Tokenizer.load(folder)` reads what the step train_tokenizer, or a model folder, holds.

    The encoder is built when it is first used, so that decoding and counting stay cheap, and so that a tokenizer can be
    sent to another process.
    """

    def __init__(self, vocabulary: Vocabulary, folder: Path) -> None:
        self.vocabulary = vocabulary
        self.folder = folder
        self._bytes = dict(enumerate(vocabulary.token_bytes))  # a dict, so that an id of -100 is no valid index

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Raises InputError when the folder holds no tokenizer, or one that this project did not make."""
        path = folder / TOKENIZER_FILE
        try:
            ids: dict[str, int] = read_json(path)["model"]["vocab"]
            spellings = sorted(ids, key=lambda spelling: ids[spelling])
        except FileNotFoundError:
            raise InputError(
                f"{folder} holds no {TOKENIZER_FILE}. Name the folder of a train_tokenizer step."
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}). Delete its artifact and run the recipe again.") from error
        vocabulary = Vocabulary(tuple(spellings[FIRST_PIECE:]))
        if any(ids.get(vocabulary.spelling(token)) != token for token in range(len(ids))):
            raise InputError(
                f"{path} was made by another program: its ids do not start with {', '.join(SPECIAL_TOKENS)}."
            )
        return cls(vocabulary, folder)

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @property
    def bos_id(self) -> int:
        return self.special_id(BOS)

    @property
    def eos_id(self) -> int:
        """The token that ends every document."""
        return self.special_id(EOS)

    @property
    def pad_id(self) -> int:
        return self.special_id(PAD)

    def special_id(self, name: str) -> int:
        """Raises InputError for a name that is not in SPECIAL_TOKENS."""
        if name not in SPECIAL_TOKENS:
            raise InputError(f"no special token '{name}'. Known: {', '.join(SPECIAL_TOKENS)}.")
        return SPECIAL_TOKENS.index(name)

    def encode(self, text: str) -> list[int]:
        """Raises InputError for a text with half a surrogate pair, which is not Unicode."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], *, threads: bool = True) -> list[list[int]]:
        """`[encode(text) for text in texts]`. threads: use all cores; False where each core has a process already."""
        batches = [texts] if threads else [[text] for text in texts]  # the library spreads a batch over threads
        try:
            return [
                encoding.ids
                for batch in batches
                for encoding in self._backend.encode_batch_fast(batch, add_special_tokens=False)
            ]
        except (UnicodeEncodeError, TypeError) as error:
            raise InputError(f"not Unicode text: {error}. Replace lone surrogates before encoding.") from error

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of some tokens. Bytes that are no UTF-8, which a model may well write, become U+FFFD.

        skip_special: False writes special tokens out by name, for people to read.
        """
        return self.decode_bytes(ids, skip_special=skip_special).decode(errors="replace")

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
        for name in FILES:
            shutil.copyfile(self.folder / name, folder / name)

    @functools.cached_property
    def _bytes_with_special(self) -> dict[int, bytes]:
        return self._bytes | {token: name.encode() for token, name in enumerate(SPECIAL_TOKENS)}

    @functools.cached_property
    def _backend(self) -> Any:
        from tokenizers import Tokenizer as Backend

        backend = Backend.from_file(str(self.folder / TOKENIZER_FILE))
        backend.encode_special_tokens = True  # names of special tokens in a text are ordinary text
        return backend

    def __getstate__(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary, "folder": self.folder, "_bytes": self._bytes}
