"""Measures how much of their shingles two documents share, reading only the texts that are asked about.

Shingle sets stay in memory up to a budget; beyond it pairs are measured in portions and texts are read again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diglot.core.errors import InputError
from diglot.corpus.dedup.keys import DocumentKeys

BYTES_PER_SHINGLE = 8

# Numbers of documents int64 [D], ascending -> the same documents in portions, in any order: numbers int64 [d],
# starts int64 [d + 1] and hashes uint64, one sorted set a document.
Read = Callable[[Any], Iterable[tuple[Any, Any, Any]]]


@dataclass
class ShingleStore:
    """Shingle sets of numbered documents, loaded on demand.

    num_shingles: int [N], an upper bound of every set's size. budget_bytes: of the sets in memory; what a single pair
    needs may exceed it.
    """

    read: Read
    num_shingles: Any
    budget_bytes: int
    num_read: int = 0  # documents, each time one is read
    _sizes: Any = field(init=False)
    _starts: Any = field(init=False)
    _ends: Any = field(init=False)
    _hashes: Any = field(init=False)
    _used: int = field(init=False)

    def __post_init__(self) -> None:
        self._sizes = np.zeros(len(self.num_shingles), np.int64)
        # Of the budget only what is written to becomes memory; growing step by step would copy the sets each time.
        self._hashes = np.empty(self.budget_bytes // BYTES_PER_SHINGLE, np.uint64)
        self._clear()

    def sizes(self, documents: Any) -> Any:
        """How many different shingles documents that were measured before have."""
        return self._sizes[documents]

    def prefetch(self, documents: Any) -> bool:
        """Read these at once if they fit the budget: otherwise the same files would be opened for every few of them."""
        fits = self._upper_bound(documents) <= self.budget_bytes
        if fits:
            self._require(np.unique(documents))
        return fits

    def overlaps(self, left: Any, right: Any) -> Any:
        """Shared shingles of P pairs, int64 [P]."""
        from diglot.kernels import minhash

        common = np.zeros(len(left), np.int64)
        for portion in self._portions(left, right):
            self._require(np.unique(np.concatenate([left[portion], right[portion]])))
            common[portion] = minhash.overlaps(self._starts, self._ends, self._hashes, left[portion], right[portion])
        return common

    def _portions(self, left: Any, right: Any) -> list[slice]:
        """Cut the pairs so that the sets of each portion fit the budget (a single pair may exceed it)."""
        if self._upper_bound(np.concatenate([left, right])) <= self.budget_bytes:
            return [slice(0, len(left))]
        cost = self.num_shingles.astype(np.int64) * BYTES_PER_SHINGLE
        portion = np.cumsum(cost[left] + cost[right]) // self.budget_bytes
        cuts = [0, *(np.flatnonzero(np.diff(portion)) + 1).tolist(), len(left)]
        return [slice(a, b) for a, b in itertools.pairwise(cuts)]

    def _require(self, documents: Any) -> None:
        missing = documents[self._ends[documents] < 0]
        if len(missing) == 0:
            return
        needed = self._upper_bound(missing) // BYTES_PER_SHINGLE
        if self._used + needed > len(self._hashes):
            self._clear()
            missing, needed = documents, self._upper_bound(documents) // BYTES_PER_SHINGLE
        if needed > len(self._hashes):
            self._hashes = np.empty(needed, np.uint64)
        for numbers, starts, hashes in self.read(missing):
            self._hashes[self._used : self._used + len(hashes)] = hashes
            self._starts[numbers] = starts[:-1] + self._used
            self._ends[numbers] = starts[1:] + self._used
            self._sizes[numbers] = np.diff(starts)
            self._used += len(hashes)
        self.num_read += len(missing)

    def _upper_bound(self, documents: Any) -> int:
        """Bytes that the sets of these documents take at most, each counted once."""
        return int(self.num_shingles[np.unique(documents)].astype(np.int64).sum()) * BYTES_PER_SHINGLE

    def _clear(self) -> None:
        num_documents = len(self.num_shingles)
        self._starts, self._ends = np.zeros(num_documents, np.int64), np.full(num_documents, -1, np.int64)
        self._used = 0


@dataclass(frozen=True)
class TextReader:
    """Reads shingle sets of numbered documents from the Parquet files of a corpus, row group by row group.

    workers: threads; Arrow and the kernels run without the interpreter lock.
    """

    keys: DocumentKeys
    workers: int = 1

    def __call__(self, documents: Any) -> Iterator[tuple[Any, Any, Any]]:
        wanted = documents[np.lexsort((self.keys.row[documents], self.keys.shard[documents]))]
        with ThreadPoolExecutor(self.workers) as threads:
            yield from threads.map(lambda place: self._read_row_group(*place), list(self._places(wanted)))

    def _places(self, wanted: Any) -> Iterator[tuple[Any, Path, int, Any]]:
        """(documents, file, row group, rows inside it) of documents that are sorted by place."""
        shard = self.keys.shard[wanted]
        for first, last in itertools.pairwise([0, *(np.flatnonzero(np.diff(shard)) + 1).tolist(), len(wanted)]):
            mine = wanted[first:last]
            rows, path = self.keys.row[mine], self.keys.files[int(shard[first])]
            metadata = _metadata(path)
            ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
            group_of_row = np.searchsorted(ends, rows, side="right")
            for group in np.unique(group_of_row).tolist():
                inside = group_of_row == group
                yield mine[inside], path, group, rows[inside] - (ends[group - 1] if group else 0)

    def _read_row_group(self, documents: Any, path: Path, group: int, rows: Any) -> tuple[Any, Any, Any]:
        from diglot.kernels import minhash
        from diglot.kernels.jit import text_buffers

        with pq.ParquetFile(path) as file:
            column = file.read_row_group(group, columns=["text"], use_threads=False)["text"]
        texts = column.take(pa.array(rows)).combine_chunks()
        starts, hashes = minhash.shingle_sets(*text_buffers(texts.cast(pa.large_string())))
        return documents, starts, hashes


def _metadata(path: Path) -> Any:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}). Delete it and run the recipe again.") from error
