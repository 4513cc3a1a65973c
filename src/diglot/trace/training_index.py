"""The index of everything a model was trained on: a suffix array over all training streams laid end to end, and the way
back from a position in it to the document, its address and its place in its stream.

    tokens.npy, suffix_array.npy    `diglot.trace.suffix_array`
    documents.parquet               INDEXED: one row per document, in the order of the tokens
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from diglot.core.errors import InputError
from diglot.corpus.pack import PackedTokens
from diglot.corpus.tables import read_table, write_table
from diglot.trace.suffix_array import SuffixArray

INDEXED = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("lang", pa.string()),
        ("stream", pa.string()),
        ("position", pa.int64()),  # of its first token in its stream
        ("start", pa.int64()),  # of its first token in the index
        ("num_tokens", pa.int64()),  # with the document-end token
    ]
)


class IndexedDocument(NamedTuple):
    """A row of `documents.parquet`."""

    id: str
    source: str
    url: str | None
    lang: str
    stream: str
    position: int
    start: int
    num_tokens: int


@dataclass(frozen=True)
class TrainingIndex:
    """suffixes: over all training tokens; documents: the INDEXED table."""

    suffixes: SuffixArray
    documents: pa.Table

    @classmethod
    def build(cls, packed: PackedTokens, urls: Mapping[str, str | None]) -> TrainingIndex:
        """Index the training streams of a pack artifact. urls: document id -> address.

        No sequence of text tokens can match across two documents, because each document ends with a token that no text
        has.
        """
        streams = packed.streams("train")
        tables, tokens, start = [], [], 0
        for stream in streams:
            listed = stream.documents
            columns = {
                "id": listed["id"],
                "source": pa.repeat(stream.source, len(listed)),
                "url": pa.array([urls.get(name) for name in listed["id"].to_pylist()], pa.string()),
                "lang": pa.repeat(stream.lang, len(listed)),
                "stream": pa.repeat(stream.stream, len(listed)),
                "position": listed["start"],
                "start": pa.array(listed["start"].to_numpy() + start),
                "num_tokens": listed["num_tokens"],
            }
            tables.append(pa.table(columns, schema=INDEXED))
            tokens.append(stream.tokens)
            start += stream.num_tokens
        if not start:
            raise InputError("the packed corpus holds no training tokens to index. Look at the pack step's counts.")
        return cls(SuffixArray.build(np.concatenate(tokens)), pa.concat_tables(tables))

    @classmethod
    def open(cls, folder: Path) -> TrainingIndex:
        """Raises InputError when the folder holds no index, or one whose parts do not fit."""
        index = cls(SuffixArray.open(folder), read_table(folder / "documents.parquet"))
        described = int(np.sum(index.documents["num_tokens"].to_numpy()))
        if described != len(index.suffixes):
            raise InputError(
                f"the index in {folder} has {len(index.suffixes):,} tokens, but its documents have {described:,}. "
                "Delete it and run the recipe again."
            )
        return index

    def save(self, folder: Path) -> None:
        write_table(folder / "documents.parquet", self.documents)
        self.suffixes.save(folder)

    def rows_of(self, positions: NDArray[Any]) -> NDArray[np.int64]:
        """The row of the document that holds each position."""
        return np.searchsorted(self._starts, positions, side="right") - 1

    def document(self, row: int) -> IndexedDocument:
        return IndexedDocument(*(self.documents[name][row].as_py() for name in INDEXED.names))

    @functools.cached_property
    def _starts(self) -> NDArray[np.int64]:
        starts: NDArray[np.int64] = self.documents["start"].to_numpy()
        return starts
