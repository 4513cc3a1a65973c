"""Packed tokens on disk: one flat file per stream, and the map from a token's position back to its document.

    streams.json                                   one record per stream: STREAM_FIELDS
    tokens/<split>/<stream>.bin                    token ids, little-endian uint16, or uint32 for more than 65,536 ids
    tokens/<split>/<stream>.documents.parquet      DOCUMENTS: one row per document, in the order of the tokens

A stream is what a mixture weighs: the documents of one source in one language, `<source>.<lang>`, in the order of the
corpus, each followed by the document-end token. Nothing is padded and nothing is cut: trainers read any stretch of it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from diglot.core.errors import InputError, unknown
from diglot.core.storage import read_json
from diglot.corpus.tables import read_table

DOCUMENTS = pa.schema(
    [
        ("id", pa.string()),
        ("start", pa.int64()),  # position of its first token in the stream
        ("num_tokens", pa.int64()),  # with the document-end token
        ("num_bytes", pa.int64()),  # UTF-8 bytes of the text
    ]
)


class PackedDocument(NamedTuple):
    """Where a document lies in its stream. `row` counts the stream's documents from 0."""

    row: int
    id: str
    start: int
    num_tokens: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The tokens of one source in one language, in one split. `stream` is its name in mixtures and in file names."""

    split: str
    stream: str
    source: str
    lang: str
    num_tokens: int
    num_documents: int
    num_bytes: int
    dtype: str
    vocab_size: int
    folder: Path

    @property
    def token_file(self) -> Path:
        return token_file(self.folder, self.split, self.stream)

    @functools.cached_property
    def tokens(self) -> NDArray[np.unsignedinteger[Any]]:
        """All token ids, [num_tokens], read as they are touched.

        Raises: InputError when the file is gone or not as long as the index says.
        """
        path, dtype = self.token_file, np.dtype(self.dtype).newbyteorder("<")
        expected = self.num_tokens * dtype.itemsize
        found = path.stat().st_size if path.is_file() else 0
        if found != expected:
            raise InputError(
                f"{path} has {found:,} bytes, but streams.json says {self.num_tokens:,} tokens, not "
                f"{found // dtype.itemsize:,}. It was cut or changed since: delete {self.folder} and run "
                "the recipe again."
            )
        return np.memmap(path, dtype, mode="r") if found else np.empty(0, dtype)  # an empty file cannot be mapped

    @functools.cached_property
    def documents(self) -> pa.Table:
        """The DOCUMENTS table. Raises InputError when it does not cover the tokens."""
        path = document_file(self.folder, self.split, self.stream)
        table = read_table(path)
        starts, lengths = table["start"].to_numpy(), table["num_tokens"].to_numpy()
        ends = starts + lengths
        covers = np.array_equal(starts, np.append(0, ends)[: len(starts)]) and int(ends[-1:].sum()) == self.num_tokens
        if len(table) != self.num_documents or not covers:
            raise InputError(
                f"{path} does not cover the {self.num_tokens:,} tokens of {self.num_documents:,} documents. "
                f"Delete {self.folder} and run the recipe again."
            )
        return table

    def document_at(self, position: int) -> PackedDocument:
        """The document that holds the token at `position`."""
        if not 0 <= position < self.num_tokens:
            raise InputError(f"stream '{self.stream}' has tokens 0..{self.num_tokens - 1}, not {position}.")
        row = int(np.searchsorted(self._starts, position, side="right")) - 1
        return PackedDocument(row, *(column[row].as_py() for column in self.documents.select(DOCUMENTS.names).columns))

    def documents_between(self, start: int, stop: int) -> list[PackedDocument]:
        """The documents that hold the tokens [start, stop), in order: what a sequence of a trainer reads."""
        first = self.document_at(start).row
        last = self.document_at(min(stop, self.num_tokens) - 1).row
        rows = self.documents.slice(first, last - first + 1).to_pylist()
        return [PackedDocument(first + i, *(row[name] for name in DOCUMENTS.names)) for i, row in enumerate(rows)]

    @functools.cached_property
    def _starts(self) -> NDArray[np.int64]:
        starts: NDArray[np.int64] = self.documents["start"].to_numpy()
        return starts


STREAM_FIELDS = tuple(field.name for field in fields(Stream) if field.name != "folder")


@dataclass(frozen=True)
class PackedTokens:
    """All streams of a pack artifact."""

    folder: Path
    all_streams: Sequence[Stream]

    @classmethod
    def open(cls, folder: Path) -> PackedTokens:
        """Read the list of streams; tokens are read when they are touched. Raises InputError on a damaged list."""
        path = folder / "streams.json"
        try:
            records = read_json(path)
            return cls(folder, tuple(Stream(folder=folder, **record) for record in records))
        except FileNotFoundError:
            raise InputError(f"{folder} holds no packed tokens (no streams.json). Name a pack step's folder.") from None
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}). Delete {folder} and run the recipe again.") from error

    def streams(self, split: str) -> list[Stream]:
        """The streams of `train` or `heldout`, by name."""
        return [stream for stream in self.all_streams if stream.split == split]

    def stream(self, split: str, name: str) -> Stream:
        """Raises ConfigError with the nearest name when there is no such stream."""
        known = {stream.stream: stream for stream in self.streams(split)}
        if name not in known:
            raise unknown("stream", name, known, f"split '{split}' of {self.folder}")
        return known[name]

    def find(self, document: str) -> tuple[Stream, PackedDocument] | None:
        """Where a document's tokens lie, by its id; None when it was not packed."""
        for stream in self.all_streams:
            row = stream.documents["id"].index(pa.scalar(document)).as_py()
            if row >= 0:
                return stream, stream.document_at(stream.documents["start"][row].as_py())
        return None


def language_of(stream: str) -> str:
    """The language of a stream, from its name.

    >>> language_of("debian-faq.zh-Hans")
    'zh-Hans'
    """
    return stream.rpartition(".")[2]


def stream_name(source: str, lang: str) -> str:
    """`<source>.<lang>`, safe as a file name also for a source in a subfolder."""
    return f"{source.replace('/', '-')}.{lang}"


def token_dtype(vocab_size: int) -> str:
    """The smallest type that holds every id: `uint16` up to 65,536 of them, else `uint32`."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def token_file(folder: Path, split: str, stream: str) -> Path:
    return folder / "tokens" / split / f"{stream}.bin"


def document_file(folder: Path, split: str, stream: str) -> Path:
    return folder / "tokens" / split / f"{stream}.documents.parquet"
