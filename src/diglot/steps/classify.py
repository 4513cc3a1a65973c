"""Recipe step `classify`: the score that a trained classifier gives to every document. Nothing is decided here.

    scored: {kind: classify, from: signals, model: math, name: math}

Writes attributes/score.<name>/<source>/<shard>.parquet: `id` and `score.<name>`, float32, the probability of the
positive label; with `labels`, a table score.<name>.<label> for each. The rows are those of the documents table in the
same order, so that a policy can judge by it through `select`, like by any signal:

    - {signal: score.math, drop_below: 0.96, why: "not about mathematics", source: "MAP-Neo"}

A document without tokens scores 0.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from diglot.core.errors import ConfigError
from diglot.corpus.classify.settings import check_label
from diglot.steps.context import StepContext, StepKind, input_step

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """Which classifier scores which documents.

    name: of the score; policies call it `score.<name>`.
    labels: of a classifier with several, those to have a column each; empty: the positive label alone.
    quantised: use the small model, which scores a little differently and loads faster.
    """

    from_: str = input_step("annotate", "classify")
    model: str = input_step("train_classifier", "recall")
    name: str
    labels: tuple[str, ...] = ()
    quantised: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(f"name = '{self.name}', but policies say score.NAME: use letters, digits, - and _.")
        for label in self.labels:
            check_label(label, "labels:")
        if len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"labels = {list(self.labels)}, but each must be named once.")


def classify(config: ClassifyConfig, context: StepContext) -> dict[str, Any]:
    """Score all shards; see the module for the files."""
    from diglot.core.errors import InputError, unknown
    from diglot.corpus.classify.model import QUANTISED, load, read_facts
    from diglot.corpus.classify.scoring import ScoreTask, score_shard
    from diglot.corpus.executor import map_shards
    from diglot.corpus.tables import shards

    started = time.monotonic()
    corpus, model = context.input(), context.input("model")
    facts = read_facts(model.path)
    for label in config.labels:
        if label not in facts.labels:
            raise unknown("label", label, facts.labels, f"model {model.fingerprint}")
    if config.quantised and not (model.path / QUANTISED).exists():
        raise InputError(
            "quantised: true, but the model was not quantised. Set quantise_to: 20000 where it is trained."
        )
    columns = tuple((label, f"score.{config.name}.{label}") for label in config.labels)
    columns = columns or ((facts.positive_label, f"score.{config.name}"),)
    ingest = corpus.upstream("ingest")
    tasks = [
        ScoreTask(
            corpus=corpus,
            shard=shard,
            out=context.out / "attributes",
            model=model.path,
            quantised=config.quantised,
            columns=columns,
            key="scores",
        )
        for shard in shards(ingest)
    ]
    found = map_shards(score_shard, tasks, workers=context.workers, progress=context.progress, label=context.step)
    load.cache_clear()  # the model's memory is the next step's
    measured, seconds = sum(counts["bytes"] for counts in found), time.monotonic() - started
    return {
        "documents": sum(counts["documents"] for counts in found),
        "bytes": measured,
        "threshold": facts.threshold,
        # documents with a score in [0, 0.1), [0.1, 0.2) ... [0.9, 1]
        "tenths": {
            name: [sum(part) for part in zip(*(c["tenths"][name] for c in found), strict=True)] for _, name in columns
        },
        "seconds": round(seconds, 3),
        "megabytes_per_second": round(measured / 1e6 / seconds, 3),
    }


STEP = StepKind(kind="classify", version=1, config=ClassifyConfig, run=classify)
