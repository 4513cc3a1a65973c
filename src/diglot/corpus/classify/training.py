"""Training of a classifier, from documents with labels to a model and what it is worth.

Examples to train on are shuffled by a hash of their names through files on disk, and a 64th of them is in memory at a
time; those for validation stay in memory. One thread trains: the same examples, settings and seed give the same bytes,
also of the quantised model.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from diglot.core.errors import DiglotError, InputError
from diglot.core.seeds import derive_seed
from diglot.core.storage import atomic_path
from diglot.corpus.classify.model import MODEL, PREFIX, QUANTISED, Classifier, ClassifierFacts, floret, load
from diglot.corpus.classify.quality import report
from diglot.corpus.classify.settings import TextSettings, TrainingSettings

NUM_BUCKETS = 64  # files that examples are shuffled through
FEW_UPDATES = 30_000  # examples shown in all; with fewer and MAP-Neo's learning rate scores stay near one half


class Example(NamedTuple):
    """`name`: unique; decides the place in the shuffled order. `line`: as training_lines gives it."""

    name: str
    label: str
    line: str
    validation: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained. quantise_to: features that stay in the quantised model; None makes none."""

    labels: tuple[str, ...]
    positive_label: str
    text: TextSettings
    training: TrainingSettings
    threshold: float | None
    wanted_precision: float
    quantise_to: int | None
    seed: int


@dataclass
class Validation:
    """Held-out lines with their labels, in the order given."""

    lines: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def train(examples: Iterable[Example], plan: Plan, folder: Path) -> dict[str, Any]:
    """Write the model's files to `folder` and return its report: examples, validation by label, sizes, quantisation.

    Raises InputError when a label has no training example with a token.
    """
    work = folder / ".training"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        counts, validation = _write_examples(examples, plan, work)
        for label in plan.labels:
            if not counts[label]["train"]:
                raise InputError(f"no text to train the label '{label}' on. Give documents that are not empty.")
        model = _fit(work / "train.txt", plan)
        _save(model, folder / MODEL)
        found: dict[str, Any] = {
            "examples": counts,
            "updates": sum(count["train"] for count in counts.values()) * plan.training.epochs,
            "model_bytes": (folder / MODEL).stat().st_size,
            "validation": _measure(Classifier(model.f, _facts(plan, None)), validation, plan),
        }
        threshold = found["validation"][plan.positive_label]["threshold"]
        _facts(plan, threshold).write(folder)
        if plan.quantise_to is not None:
            found["quantised"] = _quantise(model, plan, work, folder, validation, threshold)
        load.cache_clear()  # it may hold a model that stood in this folder before
        return found
    finally:
        shutil.rmtree(work, ignore_errors=True)


def few_updates(found: dict[str, Any], plan: Plan) -> str | None:
    """A warning for a model that saw too little, or None."""
    if found["updates"] >= FEW_UPDATES or plan.training.learning_rate > 0.1:
        return None
    return (
        f"only {found['updates']:,} examples were shown (epochs included), so scores will stay near one half. "
        "Set training: {epochs: 25, learning_rate: 0.5}, or give more documents."
    )


def _facts(plan: Plan, threshold: float | None) -> ClassifierFacts:
    return ClassifierFacts(labels=plan.labels, positive_label=plan.positive_label, text=plan.text, threshold=threshold)


def _write_examples(
    examples: Iterable[Example], plan: Plan, work: Path
) -> tuple[dict[str, dict[str, int]], Validation]:
    """train.txt in an order that depends on names and seed alone; validation stays in memory."""
    counts = {label: {"train": 0, "validation": 0, "without_tokens": 0} for label in plan.labels}
    held: list[tuple[int, str, str]] = []
    files = [(work / f"{number:02}").open("w", encoding="utf-8") for number in range(NUM_BUCKETS)]
    try:
        for example in examples:
            if example.line == "\n":
                counts[example.label]["without_tokens"] += 1
                continue
            lot = xxhash.xxh3_64_intdigest(example.name.encode(), seed=plan.seed)
            counts[example.label]["validation" if example.validation else "train"] += 1
            if example.validation:
                held.append((lot, example.label, example.line))
            else:
                files[lot % NUM_BUCKETS].write(f"{lot:016x}\t{PREFIX}{example.label} {example.line}")
    finally:
        for file in files:
            file.close()
    with (work / "train.txt").open("w", encoding="utf-8") as out:
        for number in range(NUM_BUCKETS):
            with (work / f"{number:02}").open(encoding="utf-8", newline="\n") as lines:
                out.writelines(line.partition("\t")[2] for line in sorted(lines))
            (work / f"{number:02}").unlink()
    held.sort()
    return counts, Validation([line for *_, line in held], [label for _, label, _ in held])


def _fit(examples: Path, plan: Plan) -> Any:
    """Supervised fastText on one thread. A second thread would race on the weights, as Hogwild does."""
    settings = plan.training
    try:
        return floret().train_supervised(
            input=str(examples),
            epoch=settings.epochs,
            lr=settings.learning_rate,
            dim=settings.dimension,
            wordNgrams=settings.word_ngrams,
            minCount=settings.min_count,
            bucket=settings.num_buckets,
            loss="softmax",
            thread=1,
            seed=derive_seed(plan.seed, "weights") % 2**31,
            label=PREFIX,
            verbose=0,
        )
    except (RuntimeError, ValueError, MemoryError) as error:
        raise DiglotError(
            f"training failed: {error}. Lower learning_rate if it speaks of NaN, num_buckets or dimension if of "
            "memory, min_count if of an empty vocabulary."
        ) from error


def _quantise(
    model: Any, plan: Plan, work: Path, folder: Path, validation: Validation, threshold: float | None
) -> dict[str, Any]:
    """model.ftz: the features of largest norm, trained again and product-quantised (Joulin et al. 2016b).

    The released pipeline asks for retraining without a cutoff, and retraining then does nothing.
    """
    try:
        model.quantize(
            input=str(work / "train.txt"), cutoff=plan.quantise_to, retrain=True, qnorm=True, thread=1, verbose=0
        )
    except ValueError as error:
        raise InputError(
            f"the model cannot be quantised ({error}). It is small already: set quantise_to: null."
        ) from error
    _save(model, folder / QUANTISED)
    return {
        "features": plan.quantise_to,
        "model_bytes": (folder / QUANTISED).stat().st_size,
        "validation": _measure(Classifier(model.f, _facts(plan, None)), validation, plan, threshold),
    }


def _measure(
    classifier: Classifier, validation: Validation, plan: Plan, threshold: float | None = None
) -> dict[str, Any]:
    """Label -> its quality against all others. `threshold` and plan.threshold are of the positive label."""
    labels: Sequence[str] = plan.labels
    scores = classifier.of_lines(validation.lines, labels)
    truth = np.array(validation.labels, object)
    fixed = threshold if threshold is not None else plan.threshold
    return {
        label: report(
            scores[:, number], truth == label, fixed if label == plan.positive_label else None, plan.wanted_precision
        )
        for number, label in enumerate(labels)
    }


def _save(model: Any, path: Path) -> None:
    with atomic_path(path) as partial:
        model.save_model(str(partial))
