"""Measures how much of their shingles two documents share, reading only the texts that are asked about.

Shingle sets stay in memory up to a budget; beyond it pairs are measured in portions and texts are read again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diglot.corpus.dedup.keys import DocumentKeys

BYTES_PER_SHINGLE = 8
DEFAULT_BUDGET_BYTES = 1 << 30


@dataclass
class ShingleStore:
    """Shingle sets of numbered documents, loaded on demand.

    read: numbers of documents int64 [D], ascending -> starts int64 [D + 1] and hashes uint64, one set a document.
    num_shingles: int [N], an upper bound of every set's size.
    """

    read: Callable[[Any], tuple[Any, Any]]
    num_shingles: Any
    budget_bytes: int = DEFAULT_BUDGET_BYTES
    num_read: int = 0  # documents, each time one is read
    _sizes: Any = field(init=False)
    _starts: Any = field(init=False)
    _ends: Any = field(init=False)
    _hashes: Any = field(init=False)

    def __post_init__(self) -> None:
        self._sizes = np.zeros(len(self.num_shingles), np.int64)
        self._clear()

    def sizes(self, documents: Any) -> Any:
        """How many different shingles documents that were measured before have."""
        return self._sizes[documents]

    def prefetch(self, documents: Any) -> None:
        """Read these at once if they fit the budget: otherwise the same files would be opened for every few of them."""
        if self._upper_bound(documents) <= self.budget_bytes:
            self._require(np.unique(documents))

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
        if self._hashes.nbytes and self._hashes.nbytes + self._upper_bound(missing) > self.budget_bytes:
            self._clear()
            missing = documents
        starts, hashes = self.read(missing)
        self._starts[missing] = starts[:-1] + len(self._hashes)
        self._ends[missing] = starts[1:] + len(self._hashes)
        self._sizes[missing] = np.diff(starts)
        self._hashes = np.concatenate([self._hashes, hashes])
        self.num_read += len(missing)

    def _upper_bound(self, documents: Any) -> int:
        """Bytes that the sets of these documents take at most, each counted once."""
        return int(self.num_shingles[np.unique(documents)].astype(np.int64).sum()) * BYTES_PER_SHINGLE

    def _clear(self) -> None:
        num_documents = len(self.num_shingles)
        self._starts, self._ends = np.zeros(num_documents, np.int64), np.full(num_documents, -1, np.int64)
        self._hashes = np.zeros(0, np.uint64)


@dataclass(frozen=True)
class TextReader:
    """Reads shingle sets of numbered documents from the Parquet files of a corpus, row group by row group.

    folder: the `documents` folder. workers: threads; Arrow and the kernels run without the interpreter lock.
    """

    folder: Path
    keys: DocumentKeys
    workers: int = 1

    def __call__(self, documents: Any) -> tuple[Any, Any]:
        order = np.lexsort((self.keys.row[documents], self.keys.shard[documents]))
        wanted = documents[order]
        places = list(self._places(wanted))
        with ThreadPoolExecutor(self.workers) as threads:
            parts = list(threads.map(lambda place: self._read_row_group(*place), places))
        sizes = np.concatenate([np.diff(starts) for starts, _ in parts])
        by_place = np.concatenate([hashes for _, hashes in parts])
        # Back from the order of the files to the order of the question.
        position = np.empty(len(documents), np.int64)
        position[order] = np.arange(len(documents))
        starts_by_place = np.concatenate([[0], np.cumsum(sizes)])
        starts = np.concatenate([[0], np.cumsum(sizes[position])])
        pick = np.repeat(starts_by_place[position] - starts[:-1], sizes[position]) + np.arange(starts[-1])
        return starts, by_place[pick]

    def _places(self, wanted: Any) -> list[tuple[Path, int, Any]]:
        """(file, row group, rows inside it) that hold the documents, in their order."""
        found = []
        for shard in np.unique(self.keys.shard[wanted]):
            path = self.folder / self.keys.shards[shard].file
            rows = self.keys.row[wanted[self.keys.shard[wanted] == shard]]
            metadata = pq.read_metadata(path)
            first = 0
            for group in range(metadata.num_row_groups):
                size = metadata.row_group(group).num_rows
                inside = rows[(rows >= first) & (rows < first + size)] - first
                if len(inside):
                    found.append((path, group, inside))
                first += size
        return found

    def _read_row_group(self, path: Path, group: int, rows: Any) -> tuple[Any, Any]:
        from diglot.kernels import minhash
        from diglot.kernels.jit import text_buffers

        with pq.ParquetFile(path) as file:
            column = file.read_row_group(group, columns=["text"], use_threads=False)["text"]
        texts = column.take(pa.array(rows)).combine_chunks()
        return minhash.shingle_sets(*text_buffers(texts.cast(pa.large_string())))
