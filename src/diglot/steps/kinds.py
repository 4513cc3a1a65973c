"""The table of step kinds, as strings: listing them imports nothing, and a kind's module loads when it is used."""

from __future__ import annotations

import functools
import importlib

from diglot.core.errors import unknown
from diglot.steps.context import StepKind

KINDS = {
    "ingest": "diglot.steps.ingest:STEP",
    "annotate": "diglot.steps.annotate:STEP",
    "train_classifier": "diglot.steps.train_classifier:STEP",
    "classify": "diglot.steps.classify:STEP",
    "recall": "diglot.steps.recall:STEP",
    "select": "diglot.steps.select:STEP",
    "deduplicate": "diglot.steps.deduplicate:STEP",
    "edit": "diglot.steps.edit:STEP",
    "decontaminate": "diglot.steps.decontaminate:STEP",
    "split": "diglot.steps.split:STEP",
    "write": "diglot.steps.write:STEP",
    "train_tokenizer": "diglot.steps.train_tokenizer:STEP",
    "import_model": "diglot.steps.import_model:STEP",
    "pack": "diglot.steps.pack:STEP",
    "mixture_search": "diglot.steps.mixture_search:STEP",
    "pretrain": "diglot.steps.pretrain:STEP",
    "compose": "diglot.steps.compose:STEP",
    "finetune": "diglot.steps.finetune:STEP",
    "prefer": "diglot.steps.prefer:STEP",
    "evaluate": "diglot.steps.evaluate:STEP",
    "export": "diglot.steps.export:STEP",
    "index": "diglot.steps.index:STEP",
    "report": "diglot.steps.report:STEP",
}


@functools.cache
def step_kind(name: str, where: str = "") -> StepKind:
    """The kind called `name`. Raises ConfigError with the nearest known name."""
    if name not in KINDS:
        raise unknown("step kind", name, KINDS, where)
    module, _, attribute = KINDS[name].partition(":")
    kind: StepKind = getattr(importlib.import_module(module), attribute)
    return kind
