"""Finds who has a key first in a corpus that does not fit in memory: keys go through files, parted by hash, text never.

Every shard writes the keys of its documents into one file for each partition; then every partition is sorted alone, and
what it found goes back through a file for each shard. "First" means the document with the smallest id, so neither the
order of the shards nor the number of workers matters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diglot.core.storage import atomic_path

# A key and the text it stands for: bytes [start, stop) of the document that has this rank by id.
KEY = np.dtype([("low", "<u8"), ("high", "<u8"), ("rank", "<i8"), ("start", "<i4"), ("stop", "<i4")])
COPY = np.dtype([("rank", "<i8"), ("first", "<i8"), ("start", "<i4"), ("stop", "<i4")])  # `first` has it before `rank`
FINGERPRINT = np.dtype([("low", "<u8"), ("rank", "<i8")])
PARTITION_BYTES = 96 << 20  # of keys; sorting takes some four times as much
MAX_PARTITIONS = 512  # files that are open at once; keys of more than 48 GiB make partitions larger than that


def num_partitions(num_bytes: int) -> int:
    """Into how many parts keys of so many bytes are split."""
    return min(max(1, -(-num_bytes // PARTITION_BYTES)), MAX_PARTITIONS)


class PartWriter:
    """Appends records to one file for each partition; `folder/<partition>/<name>.bin` exist when the block ends."""

    def __init__(self, folder: Path, name: str, partitions: int) -> None:
        self.paths = [folder / str(part) / f"{name}.bin" for part in range(partitions)]
        self._files = contextlib.ExitStack()

    def __enter__(self) -> PartWriter:
        with contextlib.ExitStack() as opening:
            partials = [opening.enter_context(atomic_path(path)) for path in self.paths]
            self._streams = [opening.enter_context(partial.open("wb")) for partial in partials]
            self._files = opening.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)

    def write(self, records: Any, parts: Any) -> None:
        """Append `records` [R] to the files of `parts`, int [R]."""
        parts = np.asarray(parts, np.int64)
        order = np.argsort(parts, kind="stable")
        ends = np.searchsorted(parts[order], np.arange(len(self.paths)), side="right")
        begin = 0
        for stream, end in zip(self._streams, ends.tolist(), strict=True):
            if end > begin:
                stream.write(records[order[begin:end]].tobytes())
            begin = end


def write_parts(folder: Path, name: str, records: Any, parts: Any) -> list[Path]:
    """Write `records` [R], which fit in memory, to `folder/<part>/<name>.bin`, one file after the other; their paths.

    For parts without limit, such as shards: a PartWriter holds a file open for each. Empty parts get no file.
    """
    parts = np.asarray(parts, np.int64)
    order = np.argsort(parts, kind="stable")
    numbers, begins = np.unique(parts[order], return_index=True)
    paths = []
    for number, rows in zip(numbers.tolist(), np.split(order, begins[1:]), strict=False):  # of nothing: one empty split
        paths.append(folder / str(number) / f"{name}.bin")
        with atomic_path(paths[-1]) as partial:
            records[rows].tofile(partial)
    return paths


def read_parts(folder: Path, partition: int, dtype: Any) -> Iterator[Any]:
    """The records of one partition, an array for each file, in the order of their names."""
    for path in sorted((folder / str(partition)).glob("[!.]*.bin")):
        yield np.fromfile(path, dtype)


def read_part(folder: Path, partition: int, dtype: Any) -> Any:
    """All records of one partition."""
    return np.concatenate([np.zeros(0, dtype), *read_parts(folder, partition, dtype)])


def later_copies(keys: Any) -> Any:
    """Every text whose key an earlier document has: KEY [K] in any order -> COPY, sorted by rank and start."""
    if len(keys) == 0:
        return np.zeros(0, COPY)
    order = np.argsort(keys["low"], kind="stable")
    new = _changes(keys["low"][order])
    begins = np.flatnonzero(new)
    high = keys["high"][order]
    if not np.array_equal(high[begins][np.cumsum(new) - 1], high):  # two keys share one half: sort by both
        order = np.lexsort((keys["high"], keys["low"]))
        new = _changes(keys["low"][order]) | _changes(keys["high"][order])
        begins = np.flatnonzero(new)
    ranks = keys["rank"][order]
    first = np.minimum.reduceat(ranks, begins)[np.cumsum(new) - 1]
    later = ranks > first
    copied = keys[order[later]]
    copies = np.zeros(len(copied), COPY)
    for name in ("rank", "start", "stop"):
        copies[name] = copied[name]
    copies["first"] = first[later]
    return copies[np.lexsort((copies["start"], copies["rank"]))]


def _changes(values: Any) -> Any:
    """Where a value differs from the one before it, the first included: bool [N]."""
    return np.concatenate([[True], values[1:] != values[:-1]])


def shared_keys(records: Any) -> Any:
    """The keys that at least two documents have: FINGERPRINT [K] -> uint64, sorted, each once."""
    if len(records) == 0:
        return np.zeros(0, np.uint64)
    ordered = records[np.argsort(records["low"], kind="stable")]
    keys, ranks = ordered["low"], ordered["rank"]
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    several = np.minimum.reduceat(ranks, begins) < np.maximum.reduceat(ranks, begins)
    return keys[begins[several]].copy()
