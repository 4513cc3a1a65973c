"""The two passes over the shards: which n-grams stand in which document, then what they cover and what follows.

    places/<source>/<shard>.parquet   first pass: PLACES, one row a hit; gone when the step is finished
    hits/<source>/<shard>.parquet     second pass: HITS, one row for each document and part of an item with a hit

Between them stands the count of documents by n-gram: one in more than `common_documents` documents is a phrase of the
corpus and counts for nothing. Only kept documents are read, and each once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diglot.corpus.decide import object_to
from diglot.corpus.decontaminate.index import Index, coverage
from diglot.corpus.decontaminate.items import ANSWER
from diglot.corpus.finished import once, record_path
from diglot.corpus.ranges import Range, joined
from diglot.corpus.tables import Shard, decisions_of, documents_of, read_table, write_table
from diglot.kernels.jit import text_buffers
from diglot.kernels.ngrams import find
from diglot.ledger.artifact import Artifact

CONTAMINATED, HELDOUT_OVERLAP = "contaminated", "heldout_overlap"  # rules
HELDOUT = "held-out documents"  # the benchmark that held-out documents are the items of
ROWS_PER_BATCH = 1024

PLACES = pa.schema(
    [
        ("row", pa.int32()),  # of the document in its shard
        ("ngram", pa.int32()),  # number in the index
        ("start", pa.int64()),  # bytes of the text
        ("stop", pa.int64()),
    ]
)
HITS = pa.schema(
    [
        ("id", pa.string()),  # of the document
        ("benchmark", pa.string()),
        ("item", pa.string()),
        ("part", pa.string()),  # question, passage or answer
        ("coverage", pa.float32()),  # share of the part's units that stand in the document
        ("num_units", pa.int32()),  # that many units
        ("drops", pa.bool_()),  # enough to drop the document
        (
            "spans",
            pa.list_(pa.list_(pa.int64(), 2)),
        ),  # [start, stop) bytes of the text, in order, apart from each other
    ]
)


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard, for both passes. `split`: the split step when held-out documents are told apart, else None."""

    corpus: Artifact
    shard: Shard
    out: Path
    index: Path
    index_key: str  # digest of the index: what the first pass depends on
    split: Artifact | None

    @property
    def places(self) -> Path:
        return self.out / "places" / self.shard.file

    @property
    def hits(self) -> Path:
        return self.out / "hits" / self.shard.file


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the second pass needs beside the shard. `common`: bool [G]. `rules`: name -> bit, those of this step."""

    common: Any
    drop_coverage: float
    heldout_coverage: float
    rules: dict[str, int]


def scan_shard(task: ShardTask) -> dict[str, int]:
    """First pass: write the places of one shard, or find them written. Returns documents and bytes that were read."""
    result: dict[str, int] = once(record_path(task.places), task.index_key, lambda: _scan(task))
    return result


def documents_by_ngram(tasks: list[ShardTask], num_ngrams: int) -> Any:
    """How many documents each n-gram stands in, over all shards: int64 [G]."""
    counts = np.zeros(num_ngrams, np.int64)
    for task in tasks:
        places = read_table(task.places, ["row", "ngram"])
        pairs = np.unique(places["row"].to_numpy().astype(np.int64) * num_ngrams + places["ngram"].to_numpy())
        counts += np.bincount(pairs % num_ngrams, minlength=num_ngrams)
    return counts


def judge_shard(task: ShardTask, verdict: Verdict) -> dict[str, Any]:
    """Second pass: write hits and decisions of one shard. Returns its counts.

    A document may be dropped by the question or the passage of an item. An answer alone ("all of the above", a
    function everybody writes) is recorded and drops nothing.
    """
    index, places = Index.load(task.index, task.index_key), read_table(task.places)
    places = places.filter(pa.array(~verdict.common[places["ngram"].to_numpy()]))
    row, ngram = places["row"].to_numpy(), places["ngram"].to_numpy()
    found = coverage(index, row, ngram)
    parts = [index.parts[part] for part in found.part.tolist()]
    is_heldout_item = np.array([part.benchmark == HELDOUT for part in parts], bool)
    held_out = _held_out(task)
    relevant = ~(is_heldout_item & held_out[found.document])  # a held-out document holds itself
    limit = np.where(is_heldout_item, verdict.heldout_coverage, verdict.drop_coverage)
    drops = relevant & (found.share >= limit) & np.array([part.part != ANSWER for part in parts], bool)
    decisions = decisions_of(task.corpus, task.shard)
    was_kept = decisions["keep"].to_numpy(zero_copy_only=False)
    for rule, mine in ((CONTAMINATED, ~is_heldout_item), (HELDOUT_OVERLAP, is_heldout_item)):
        if rule in verdict.rules:
            rows, values = _highest(found.document[drops & mine], found.share[drops & mine])
            decisions = object_to(decisions, rows, verdict.rules[rule], values)
    write_table(task.out / "decisions" / task.shard.file, decisions)
    chosen = np.flatnonzero(relevant)
    hits = pa.table(
        {
            "id": decisions["id"].take(pa.array(found.document[chosen])),
            "benchmark": [parts[k].benchmark for k in chosen],
            "item": [parts[k].item for k in chosen],
            "part": [parts[k].part for k in chosen],
            "coverage": found.share[chosen],
            "num_units": found.matched_units[chosen].astype(np.int32),
            "drops": drops[chosen],
            "spans": _spans(index, places, [(int(found.document[k]), int(found.part[k])) for k in chosen]),
        },
        schema=HITS,
    )
    write_table(task.hits, hits)
    num_bytes = decisions["num_bytes"].to_numpy()
    dropped = was_kept & ~decisions["keep"].to_numpy(zero_copy_only=False)
    return {
        "documents": int(was_kept.sum()),
        "dropped": int(dropped.sum()),
        "bytes": int(num_bytes[was_kept].sum()),
        "bytes_dropped": int(num_bytes[dropped].sum()),
        "reasons": _reasons(decisions, dropped, verdict.rules),
        "source": task.shard.source,
    }


def _scan(task: ShardTask) -> tuple[list[Path], dict[str, int]]:
    index = Index.load(task.index, task.index_key)
    texts = documents_of(task.corpus, task.shard, ["text"])["text"]
    keep = decisions_of(task.corpus, task.shard, ["keep"])["keep"].to_numpy(zero_copy_only=False)
    found: dict[str, list[Any]] = {name: [] for name in PLACES.names}
    num_bytes = 0
    for first in range(0, len(texts), ROWS_PER_BATCH):
        rows = first + np.flatnonzero(keep[first : first + ROWS_PER_BATCH])
        batch = pc.fill_null(texts.take(pa.array(rows)).combine_chunks().cast(pa.large_string()), "")
        hits = find(*text_buffers(batch), index.table)
        num_bytes += int(pc.sum(pc.binary_length(batch)).as_py() or 0)
        for name, column in zip(PLACES.names, (rows[hits.document], hits.ngram, hits.start, hits.stop), strict=True):
            found[name].append(column)
    columns = {
        field.name: np.concatenate(found[field.name] or [[]]).astype(field.type.to_pandas_dtype()) for field in PLACES
    }
    write_table(task.places, pa.table(columns, schema=PLACES))
    return [task.places], {"documents": int(keep.sum()), "bytes": num_bytes}


def _held_out(task: ShardTask) -> Any:
    """Which rows of the shard are held out: bool [rows]; none without a split."""
    if task.split is None:
        return np.zeros(len(decisions_of(task.corpus, task.shard, ["keep"])), bool)
    table = read_table(task.split.path / "heldout" / task.shard.file, ["held_out"])
    return table["held_out"].to_numpy(zero_copy_only=False)


def _highest(rows: Any, values: Any) -> tuple[Any, Any]:
    """Each row once, with its highest value."""
    order = np.lexsort((-values, rows))
    unique, first = np.unique(rows[order], return_index=True)
    return unique.astype(np.int64), values[order][first]


def _spans(index: Index, places: pa.Table, wanted: list[tuple[int, int]]) -> list[list[Range]]:
    """The merged byte spans of each (row, part)."""
    spans: dict[tuple[int, int], list[Range]] = {key: [] for key in wanted}
    columns = (places[name].to_pylist() for name in PLACES.names)
    for row, ngram, start, stop in zip(*columns, strict=True):
        for part in set(index.part[index.first[ngram] : index.first[ngram + 1]].tolist()):
            if (row, part) in spans:
                spans[row, part].append((start, stop))
    return [joined(spans[key]) for key in wanted]


def _reasons(decisions: pa.Table, dropped: Any, rules: dict[str, int]) -> dict[str, int]:
    first = decisions["first_reason"].to_numpy()[dropped]
    return {name: int((first == number).sum()) for name, number in rules.items()}
