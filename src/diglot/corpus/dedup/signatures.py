"""The MinHash signatures of all documents, in memory or on disk: which documents share a band, and how much two agree.

On disk, no text and no signature is exchanged: every shard writes the hashes of its bands, cut into partitions by the
hash itself, so equal hashes meet in the same partition, which is sorted and grouped on its own. Memory holds one
partition at a time and worker, and the work spreads over the workers. Both ways give the same buckets.

    <shard>.signature.npy    uint32 [n, K], memory-mapped where candidates are compared
    <shard>.<name>.keys.npy  uint64 [b n], hashes of bands by partition; <name> is `near` or `cluster`
    <shard>.<name>.rows.npy  uint32 [b n], the row of the signature that each belongs to
    <shard>.<name>.cuts.npy  int64 [partitions + 1], where each partition begins
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash

from diglot.core.progress import Progress
from diglot.core.storage import atomic_path
from diglot.corpus.dedup.lsh import Bands, Buckets, band_keys, distinct, group
from diglot.corpus.executor import map_shards
from diglot.corpus.finished import once

BYTES_PER_KEY = 48  # what a key of a partition takes while it is sorted: hash, number, order, and copies of them
PAIRS_AT_A_TIME = 1 << 16


class Signatures(Protocol):
    """Signatures of numbered documents."""

    @property
    def num_places(self) -> int: ...

    def buckets(self, name: str, bands: Bands, documents: Any) -> Buckets:
        """Documents among these (int64 [M], ascending) that share a band. `name`: `near` or `cluster`."""
        ...

    def agreements(self, left: Any, right: Any) -> Any:
        """In how many places two documents agree, int64 [P]."""
        ...


@dataclass(frozen=True)
class InMemory:
    """signature uint32 [N, K] in any order; row int64 [N]: which of them belongs to each document."""

    signature: Any
    row: Any

    @property
    def num_places(self) -> int:
        return int(self.signature.shape[1])

    def buckets(self, name: str, bands: Bands, documents: Any) -> Buckets:
        rows = self.row[documents]
        return distinct([group(keys[rows], documents) for keys in band_keys(self.signature, bands)])

    def agreements(self, left: Any, right: Any) -> Any:
        from diglot.kernels.minhash import agreements

        return agreements(self.signature, self.row[left], self.row[right])


@dataclass(frozen=True, kw_only=True)
class ShardSignatures:
    """One shard whose band hashes are to be written.

    read: () -> uint32 [n, K], the signatures of the documents that take part; picklable.
    """

    read: Callable[[], Any]
    key: str  # names what `read` reads: a finished shard of another key is written again
    folder: Path
    number: int
    bands: tuple[tuple[str, Bands], ...]
    num_partitions: int

    def file(self, name: str) -> Path:
        return self.folder / f"{self.number:06d}.{name}.npy"


@dataclass(frozen=True, kw_only=True)
class OnDisk:
    """Signatures that were written by `write`.

    first_row: int64 [S + 1], number of the first row of every shard when all are counted in a line. row: as InMemory.
    """

    folder: Path
    num_places: int
    first_row: Any
    row: Any
    num_partitions: int
    workers: int
    progress: Progress
    label: str

    def buckets(self, name: str, bands: Bands, documents: Any) -> Buckets:
        """`bands` are those that were written under this name."""
        number_of_row = np.full(self.first_row[-1], -1, np.int64)
        number_of_row[self.row[documents]] = documents
        numbers = self.folder / f"{name}.numbers.npy"
        _save(numbers, number_of_row)
        key = f"{xxhash.xxh3_128_hexdigest(number_of_row.tobytes())} {self.num_partitions}"
        tasks = [
            Partition(self.folder, name, number, tuple(self.first_row.tolist()), numbers, key)
            for number in range(self.num_partitions)
        ]
        map_shards(group_partition, tasks, workers=self.workers, progress=self.progress, label=f"{self.label}: {name}")
        return distinct([task.load() for task in tasks])

    def agreements(self, left: Any, right: Any) -> Any:
        from diglot.kernels.minhash import agreements

        equal = np.zeros(len(left), np.int64)
        for first in range(0, len(left), PAIRS_AT_A_TIME):
            some = slice(first, first + PAIRS_AT_A_TIME)
            documents, place = np.unique(np.concatenate([left[some], right[some]]), return_inverse=True)
            half = len(place) // 2
            equal[some] = agreements(self._rows(self.row[documents]), place[:half], place[half:])
        return equal

    def _rows(self, rows: Any) -> Any:
        """Signatures of some rows, each read from the file of its shard: int64 [M] -> uint32 [M, K]."""
        found = np.empty((len(rows), self.num_places), np.uint32)
        shard = np.searchsorted(self.first_row, rows, side="right") - 1
        for number in np.unique(shard).tolist():
            mine = np.flatnonzero(shard == number)
            signature = np.load(self.folder / f"{number:06d}.signature.npy", mmap_mode="r")
            found[mine] = signature[rows[mine] - self.first_row[number]]
        return found


@dataclass(frozen=True)
class Partition:
    """One partition to group: its part of every shard's keys."""

    folder: Path
    name: str
    number: int
    first_row: tuple[int, ...]
    numbers: Path  # int64, the document of every row, -1 where it does not take part
    key: str

    def file(self, what: str) -> Path:
        return self.folder / f"{self.name}-{self.number:05d}.{what}.npy"

    def load(self) -> Buckets:
        return Buckets(np.load(self.file("starts")), np.load(self.file("members")))


def write(shards: Sequence[ShardSignatures], *, row: Any, workers: int, progress: Progress, label: str) -> OnDisk:
    """Write signatures and partitioned band hashes of all shards. row: as in `InMemory`."""
    found = map_shards(write_shard, shards, workers=workers, progress=progress, label=f"{label}: signatures")
    first_row = np.concatenate([[0], np.cumsum([num_rows for num_rows, _ in found])]).astype(np.int64)
    return OnDisk(
        folder=shards[0].folder,
        num_places=max((num_places for _, num_places in found), default=0),
        first_row=first_row,
        row=row,
        num_partitions=shards[0].num_partitions,
        workers=workers,
        progress=progress,
        label=label,
    )


def write_shard(task: ShardSignatures) -> tuple[int, int]:
    """Write one shard's files, or find them written. Returns rows and places of its signatures."""

    def work() -> tuple[list[Path], list[int]]:
        signature = task.read()
        files = [task.file("signature")]
        _save(files[0], signature)
        for name, bands in task.bands:
            keys = band_keys(signature, bands).ravel()
            rows = np.tile(np.arange(len(signature), dtype=np.uint32), bands.num_bands)
            partition = _partition(keys, task.num_partitions)
            order = np.argsort(partition, kind="stable")
            cuts = np.searchsorted(partition[order], np.arange(task.num_partitions + 1))
            for what, array in (("keys", keys[order]), ("rows", rows[order]), ("cuts", cuts)):
                files.append(task.file(f"{name}.{what}"))
                _save(files[-1], array)
        return files, list(signature.shape)

    bands = [[name, *pair] for name, pair in task.bands]
    record = task.folder / f".{task.number:06d}.done.json"
    num_rows, num_places = once(record, f"{task.key} {bands} {task.num_partitions}", work)
    return num_rows, num_places


def group_partition(task: Partition) -> int:
    """Write the buckets of one partition, or find them written. Returns how many there are."""

    def work() -> tuple[list[Path], int]:
        numbers = np.load(task.numbers, mmap_mode="r")
        keys, documents = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for shard in range(len(task.first_row) - 1):
            path = task.folder / f"{shard:06d}.{task.name}"
            begin, end = np.load(f"{path}.cuts.npy")[task.number : task.number + 2]
            rows = np.load(f"{path}.rows.npy", mmap_mode="r")[begin:end]
            number = numbers[rows.astype(np.int64) + task.first_row[shard]]
            taking_part = number >= 0
            keys.append(np.load(f"{path}.keys.npy", mmap_mode="r")[begin:end][taking_part])
            documents.append(number[taking_part])
        all_documents = np.concatenate(documents)
        order = np.argsort(all_documents, kind="stable")
        found = group(np.concatenate(keys)[order], all_documents[order])
        _save(task.file("starts"), found.starts)
        _save(task.file("members"), found.members)
        return [task.file("starts"), task.file("members")], len(found.sizes)

    num_buckets: int = once(task.folder / f".{task.name}-{task.number:05d}.done.json", task.key, work)
    return num_buckets


def partitions_for(num_documents: int, num_places: int, num_bands: int, budget_bytes: int) -> int:
    """How many partitions keep signatures and keys within a quarter of the budget each; 1: stay in memory."""
    quarter = budget_bytes / 4
    if num_documents * num_places * 4 <= quarter:
        return 1
    return min(max(2, int(np.ceil(num_documents * num_bands * BYTES_PER_KEY / quarter))), 1 << 14)


def remove(folder: Path) -> None:
    """Delete what was exchanged: it can be made again from the attributes."""
    shutil.rmtree(folder, ignore_errors=True)


def _partition(keys: Any, num_partitions: int) -> Any:
    """Which partition a hash belongs to: the upper 32 bits, scaled. uint16, for which NumPy sorts by counting."""
    return ((keys >> np.uint64(32)) * np.uint64(num_partitions) >> np.uint64(32)).astype(np.uint16)


def _save(path: Path, array: Any) -> None:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.save(stream, array)
