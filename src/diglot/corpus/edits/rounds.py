"""The rounds over a corpus that the edits need which compare documents with each other: `paragraphs` and `substrings`.

    work/<edit>/keys/<partition>/<shard>.bin      what a shard has
    work/<edit>/copies/<shard>/<partition>.bin    what of it an earlier document has
    work/substrings/...                           the same for fingerprints before

All files are scratch. In memory are, in a worker, the text of a shard or the keys of a partition (`exchange` says how
large one becomes), and for `substrings` the fingerprints that two documents have, 8 bytes each; in the main process the
ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diglot.core.progress import Progress
from diglot.core.storage import atomic_path
from diglot.corpus.edits import PARAGRAPHS, SUBSTRINGS, exchange, paragraphs, substrings
from diglot.corpus.edits.settings import Edits
from diglot.corpus.edits.texts import Texts
from diglot.corpus.executor import map_shards
from diglot.corpus.finished import once
from diglot.corpus.tables import Shard, decisions_of, documents_of
from diglot.ledger.artifact import Artifact

BATCH_BYTES = 4 << 20  # of text at a time: its windows take 32 times as much
BYTES_PER_WORKER = 16 << 20  # a worker takes longer to start than so much text takes in any round
COPIED_SHARE = 2  # windows of 1 / so many of the bytes are expected to be shared, for the number of partitions


@dataclass(frozen=True, kw_only=True)
class Round:
    """One shard or one partition (`number`) of a round.

    partitions: into how many this round's records are parted. fingerprint_partitions: into how many the fingerprints
    of `substrings` were; 0 before.
    """

    corpus: Artifact
    shards: tuple[Shard, ...]
    number: int
    work: Path
    edits: Edits
    partitions: int
    fingerprint_partitions: int


def find_copies(
    corpus: Artifact, shards: Sequence[Shard], work: Path, edits: Edits, workers: int, progress: Progress, label: str
) -> None:
    """Run all rounds that `edits` need; `copies` then reads what they found."""
    if edits.paragraphs is None and edits.substrings is None:
        return
    num_bytes = _rank(corpus, shards, work)
    workers = useful_workers(workers, num_bytes)

    def run(function: Callable[[Round], int], what: str, tasks: int, partitions: int, few: int = 0) -> None:
        rounds = [
            Round(
                corpus=corpus,
                shards=tuple(shards),
                number=number,
                work=work,
                edits=edits,
                partitions=partitions,
                fingerprint_partitions=few,
            )
            for number in range(tasks)
        ]
        map_shards(function, rounds, workers=workers, progress=progress, label=f"{label}: {what}")

    if edits.paragraphs is not None:
        parts = exchange.num_partitions(num_bytes // edits.paragraphs.min_chars * exchange.KEY.itemsize)
        run(_paragraph_keys, "hash paragraphs", len(shards), parts)
        run(_paragraph_copies, "find paragraphs", parts, parts)
    if edits.substrings is not None:
        chosen = num_bytes * 4 // edits.substrings.min_bytes * exchange.FINGERPRINT.itemsize
        few = exchange.num_partitions(chosen)
        parts = exchange.num_partitions(num_bytes // COPIED_SHARE * exchange.KEY.itemsize)
        run(_fingerprints, "choose fingerprints", len(shards), few)
        run(_shared_fingerprints, "find fingerprints", few, few)
        run(_window_keys, "hash windows", len(shards), parts, few)
        run(_window_copies, "find windows", parts, parts)


def useful_workers(workers: int, num_bytes: int) -> int:
    """How many of the workers are worth starting for so many bytes of text."""
    return min(workers, 1 + num_bytes // BYTES_PER_WORKER)


def kept_texts(corpus: Artifact, shard: Shard) -> tuple[Any, pa.Table]:
    """The rows of a shard that are kept, int64, and their `id`, `text` and `lang` (as identified; `und`: unknown)."""
    decisions = decisions_of(corpus, shard, ["keep", "lang"])
    table = documents_of(corpus, shard, ["id", "text"]).append_column("lang", pc.fill_null(decisions["lang"], "und"))
    rows = np.flatnonzero(decisions["keep"].to_numpy(zero_copy_only=False))
    return rows, table.filter(decisions["keep"]).combine_chunks()


def chosen_texts(table: pa.Table, languages: Sequence[str] | None) -> tuple[Any, Texts]:
    """Which rows of `kept_texts` are written in one of the languages, int64, and their texts."""
    rows = np.arange(len(table))
    if languages is not None:
        rows = np.flatnonzero(pc.is_in(table["lang"], pa.array(list(languages), pa.string())).to_numpy())
        table = table.take(pa.array(rows))
    texts = pc.fill_null(pc.cast(table["text"], pa.large_string()), "").combine_chunks()
    return rows, Texts.of(pa.concat_arrays(texts.chunks) if isinstance(texts, pa.ChunkedArray) else texts)


def ranks_of(work: Path, shard: int) -> Any:
    """Places of a shard's kept documents in the order of all ids, int64."""
    return np.load(work / "ranks" / f"{shard}.npy")


def id_reader(work: Path) -> Callable[[int], str]:
    """rank -> id."""
    ids = np.load(work / "ids.npy", mmap_mode="r")
    return lambda rank: bytes(ids[rank]).decode()


def copies(work: Path, edit: str, shard: int) -> Iterator[Any]:
    """The COPY records of a shard, a part at a time."""
    return exchange.read_parts(work / edit / "copies", shard, exchange.COPY)


def _rank(corpus: Artifact, shards: Sequence[Shard], work: Path) -> int:
    """Write the ranks of all kept documents; returns the bytes of their texts."""
    ids, num_bytes = [], 0
    for shard in shards:
        decisions = decisions_of(corpus, shard, ["id", "keep", "num_bytes"])
        kept = decisions.filter(decisions["keep"])
        ids.append(kept["id"].to_numpy(zero_copy_only=False).astype("S32"))
        num_bytes += pc.sum(kept["num_bytes"]).as_py() or 0
    everything = np.concatenate(ids)
    order = np.argsort(everything, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    ends = np.cumsum([0, *map(len, ids)])
    for number in range(len(shards)):
        _save(work / "ranks" / f"{number}.npy", rank[ends[number] : ends[number + 1]])
    _save(work / "ids.npy", everything[order])
    _save(work / "shard_of.npy", np.repeat(np.arange(len(shards), dtype=np.int32), np.diff(ends))[order])
    return num_bytes


def _save(path: Path, array: Any) -> None:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _write(task: Round, folder: str, name: str, partitions: int, records: Callable[[], Iterator[Any]]) -> int:
    """Part the records by `low`, once; returns how many."""

    def work() -> tuple[list[Path], int]:
        count = 0
        with exchange.PartWriter(task.work / folder, name, partitions) as writer:
            for some in records():
                writer.write(some, some["low"] % np.uint64(partitions))
                count += len(some)
        return writer.paths, count

    return _once(task, folder, name, work)


def _once(task: Round, folder: str, name: str, work: Callable[[], tuple[list[Path], int]]) -> int:
    record = task.work / folder / f".{name}.done.json"
    result: int = once(record, task.corpus.fingerprint, work)
    return result


def _texts(task: Round, languages: Sequence[str] | None) -> Iterator[tuple[Texts, Any]]:
    """(texts, ranks) of the documents of a shard that an edit looks at, in batches."""
    _, table = kept_texts(task.corpus, task.shards[task.number])
    rows, texts = chosen_texts(table, languages)
    ranks = ranks_of(task.work, task.number)[rows]
    for first, batch in texts.batches(BATCH_BYTES):
        yield batch, ranks[first : first + len(batch)]


def _paragraph_keys(task: Round) -> int:
    edit = task.edits.paragraphs
    assert edit is not None
    return _write(
        task,
        f"{PARAGRAPHS}/keys",
        str(task.number),
        task.partitions,
        lambda: (paragraphs.keys(texts, ranks, edit) for texts, ranks in _texts(task, edit.languages)),
    )


def _paragraph_copies(task: Round) -> int:
    return _copies(task, PARAGRAPHS)


def _fingerprints(task: Round) -> int:
    edit = task.edits.substrings
    assert edit is not None

    def records() -> Iterator[Any]:
        for texts, ranks in _texts(task, edit.languages):
            rows, _, hashes = substrings.fingerprints(texts, edit.min_bytes)
            found = np.zeros(len(rows), exchange.FINGERPRINT)
            found["low"], found["rank"] = hashes, ranks[rows]
            yield found

    return _write(task, f"{SUBSTRINGS}/fingerprints", str(task.number), task.partitions, records)


def _shared_fingerprints(task: Round) -> int:
    folder = task.work / SUBSTRINGS
    shared = exchange.shared_keys(exchange.read_part(folder / "fingerprints", task.number, exchange.FINGERPRINT))
    _save(folder / "shared" / f"{task.number}.npy", shared)
    return len(shared)


def _window_keys(task: Round) -> int:
    edit = task.edits.substrings
    assert edit is not None

    def records() -> Iterator[Any]:
        folder = task.work / SUBSTRINGS / "shared"
        shared = np.sort(
            np.concatenate([np.load(folder / f"{part}.npy") for part in range(task.fingerprint_partitions)])
        )
        for texts, ranks in _texts(task, edit.languages):
            yield substrings.window_keys(texts, ranks, shared, edit.min_bytes)

    return _write(task, f"{SUBSTRINGS}/keys", str(task.number), task.partitions, records)


def _window_copies(task: Round) -> int:
    return _copies(task, SUBSTRINGS)


def _copies(task: Round, edit: str) -> int:
    """Part the copies of a partition by the shard of their document, once; returns how many."""
    folder, name = f"{edit}/copies", str(task.number)

    def work() -> tuple[list[Path], int]:
        found = exchange.later_copies(exchange.read_part(task.work / edit / "keys", task.number, exchange.KEY))
        shard_of = np.load(task.work / "shard_of.npy", mmap_mode="r")
        return exchange.write_parts(task.work / folder, name, found, shard_of[found["rank"]]), len(found)

    return _once(task, folder, name, work)
