"""Scores of every document of a corpus: tables of `id` and float32 columns, co-partitioned with the documents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diglot.corpus.classify.model import load
from diglot.corpus.finished import once, record_path
from diglot.corpus.tables import Shard, decisions_of, documents_of, write_table
from diglot.ledger.artifact import Artifact

ROWS = 4096  # scored at a time, so that their lines and not the shard's are in memory


@dataclass(frozen=True, kw_only=True)
class ScoreTask:
    """One shard to score.

    corpus, shard: its documents, as the edit steps above leave their texts.
    columns: (label, name of the column and of its folder under `out`), one or more.
    kept_only: what the verdicts on the shard drop is not scored and has 0.
    key: of what may count as done in this folder; a folder whose model can change must name the model.
    """

    corpus: Artifact
    shard: Shard
    out: Path
    model: Path
    quantised: bool
    columns: tuple[tuple[str, str], ...]
    key: str
    kept_only: bool = False


def score_shard(task: ScoreTask) -> dict[str, Any]:
    """Write the scores of one shard, or find them written. Counts: documents, bytes, a histogram of each column."""
    first = task.out / task.columns[0][1] / task.shard.file
    result: dict[str, Any] = once(record_path(first), task.key, lambda: _write(task))
    return result


def _write(task: ScoreTask) -> tuple[list[Path], dict[str, Any]]:
    classifier = load(task.model, task.quantised)
    labels = [label for label, _ in task.columns]
    table = documents_of(task.corpus, task.shard, ["id", "text"])
    rows = np.arange(len(table))
    if task.kept_only:
        rows = rows[decisions_of(task.corpus, task.shard, ["keep"])["keep"].to_numpy(zero_copy_only=False)]
    scores, num_bytes = np.zeros((len(table), len(labels)), np.float32), 0
    for start in range(0, len(rows), ROWS):
        mine = rows[start : start + ROWS]
        texts = table["text"].take(pa.array(mine)).combine_chunks().cast(pa.large_string())
        texts = pc.fill_null(texts, "") if texts.null_count else texts
        num_bytes += pc.sum(pc.binary_length(texts)).as_py() or 0
        scores[mine] = classifier.probabilities(texts, labels)
    files = []
    for number, (_, name) in enumerate(task.columns):
        path = task.out / name / task.shard.file
        column = np.ascontiguousarray(scores[:, number])
        write_table(path, pa.table({"id": table["id"], name: pa.array(column, pa.float32())}))
        files.append(path)
    tenths = np.minimum((scores * 10).astype(int), 9)
    return files, {
        "documents": len(table),
        "bytes": num_bytes,
        "tenths": {
            name: np.bincount(tenths[:, number], minlength=10).tolist() for number, (_, name) in enumerate(task.columns)
        },
    }
