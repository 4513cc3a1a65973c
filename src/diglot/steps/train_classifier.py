"""Recipe step `train_classifier`: learn to tell documents apart, from labelled files or from parts of the corpus.

    model: {kind: train_classifier, labels: labelled.jsonl, positive_label: good}
    model:
      kind: train_classifier
      from: distinct
      positive: {hosts: [d2l.ai], max_documents: 500000, balance_hosts: true}
      negative: {}                            # a random part of everything else

Writes model.bin, model.ftz (with quantise_to), classifier.json and report.json: precision, recall, F1, ROC-AUC, the
threshold for a wanted precision and a calibration table for each label, measured on sites that training did not see.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError, InputError, unknown
from diglot.corpus.classify.settings import Selection, TextSettings, TrainingSettings
from diglot.steps.context import StepContext, StepKind, input_step

if TYPE_CHECKING:
    from diglot.corpus.classify.examples import LabelledFiles
    from diglot.corpus.classify.holdout import Holdout
    from diglot.corpus.classify.training import Example, Plan
    from diglot.corpus.read.sources import Found

POSITIVE, NEGATIVE = "positive", "negative"
CORPUS_KINDS = ("ingest", "annotate", "classify", "select", "deduplicate", "decontaminate", "edit", "split")


@dataclass(frozen=True, kw_only=True)
class TrainClassifierConfig:
    """Where the labels come from, and what is trained.

    labels: files, folders or globs of JSON lines or Parquet with `text`, `label` and perhaps `url`; any number of
        labels. positive_label: which of them scores stand for, where there is a main one; the last in order if empty.
    positive, negative: selections out of the corpus named by `from`, in place of labels. Only kept documents are taken,
        and no positive one is a negative. Without limits of their own, negatives are
        negatives_per_positive times as many as positives; MAP-Neo pairs one to one.
    threshold: a fixed one for the report and for the steps after; None takes the lowest score with wanted_precision.
    validation_share: of the sites, held out to measure on.
    quantise_to: features that stay in the small model; None makes none.
    """

    from_: str | None = input_step(*CORPUS_KINDS, optional=True)
    labels: str | list[str] | None = field(default=None, metadata={"result": False})  # what they hold counts: `observe`
    positive_label: str = ""
    positive: Selection | None = None
    negative: Selection = field(default_factory=Selection)
    negatives_per_positive: float = 1.0
    text: TextSettings = field(default_factory=TextSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    threshold: float | None = None
    wanted_precision: float = 0.9
    validation_share: float = 0.1
    quantise_to: int | None = None

    def __post_init__(self) -> None:
        if (not self.labels) == (self.positive is None):
            raise ConfigError(
                "give either labels: (files with text and label) or from: and positive: (a part of the corpus)."
            )
        if self.labels and self.from_ is not None:
            raise ConfigError("labels: brings its own documents, so from: would do nothing. Take one of them out.")
        if self.positive is not None and self.from_ is None:
            raise ConfigError("positive: chooses documents of a corpus. Name the step that has them: from: STEP.")
        if self.positive is not None and self.positive.takes_all:
            raise ConfigError("positive: takes every document. Narrow it by sources, hosts, url_patterns or ids_file.")
        check_shares(self.threshold, self.wanted_precision, self.validation_share, self.negatives_per_positive)
        check_quantise_to(self.quantise_to)


def check_shares(threshold: float | None, precision: float, validation: float, negatives: float) -> None:
    """Raises ConfigError for a share that is none."""
    for name, value in (("threshold", threshold), ("wanted_precision", precision)):
        if value is not None and not 0 < value <= 1:
            raise ConfigError(f"{name} = {value}, outside (0, 1]: MAP-Neo's threshold is 0.96.")
    if not 0 < validation < 1:
        raise ConfigError(
            f"validation_share = {validation}, outside (0, 1). Set 0.1 to measure on a tenth of the sites."
        )
    if not negatives > 0:
        raise ConfigError(f"negatives_per_positive = {negatives}, but a classifier needs documents to tell apart from.")


def check_quantise_to(features: int | None) -> None:
    if features is not None and features < 256:
        raise ConfigError(
            f"quantise_to = {features}, but product quantisation needs 256 features. Set 20000, or null for none."
        )


def train_classifier(config: TrainClassifierConfig, context: StepContext) -> dict[str, Any]:
    """Choose or read the examples, train, measure; see the module for the files."""
    from diglot.core.storage import write_json
    from diglot.corpus.classify.training import few_updates, train

    started = time.monotonic()
    examples, held, labels, read = _from_files(config, context) if config.labels else _from_corpus(config, context)
    plan = make_plan(config, labels, config.positive_label or labels[-1], context.seed)
    with context.progress.bar(context.step, None, "documents read") as bar:
        found = train(_counted(examples, bar), plan, context.out)
    if warning := few_updates(found, plan):
        context.progress.say(f"{context.step}: {warning}")
    found |= {**read, "groups": held.num_groups, "groups_divided": held.num_divided}
    write_json(context.out / "report.json", found)
    return {**_headline(found, plan.positive_label), "seconds": round(time.monotonic() - started, 3)}


def make_plan(config: Any, labels: list[str], positive_label: str, seed: int) -> Plan:
    """What is trained, from the settings that train_classifier and recall share."""
    from diglot.core.seeds import derive_seed
    from diglot.corpus.classify.training import Plan

    if positive_label not in labels:
        raise unknown("positive_label", positive_label, labels)
    if len(labels) < 2:
        raise InputError(f"the only label is '{labels[0]}'. A classifier needs documents of two labels or more.")
    return Plan(
        labels=tuple(labels),
        positive_label=positive_label,
        text=config.text,
        training=config.training,
        threshold=config.threshold,
        wanted_precision=config.wanted_precision,
        quantise_to=config.quantise_to,
        seed=derive_seed(seed, "classifier"),
    )


def _from_files(
    config: TrainClassifierConfig, context: StepContext
) -> tuple[Iterator[Example], Holdout, list[str], dict[str, Any]]:
    from diglot.corpus.classify.examples import labelled_files

    files = _labelled(config, context.recipe_dir)
    outline = files.outline()
    examples, held = labelled_files(
        files, outline, text=config.text, validation_share=config.validation_share, seed=context.seed
    )
    read = {"read": {"labelled": len(outline.names), "refused": outline.refused}}
    return examples, held, sorted(set(outline.labels)), read


def _from_corpus(
    config: TrainClassifierConfig, context: StepContext
) -> tuple[Iterator[Example], Holdout, list[str], dict[str, Any]]:
    import dataclasses

    import numpy as np

    from diglot.core.seeds import derive_seed
    from diglot.corpus.classify.examples import labelled_pages
    from diglot.corpus.classify.pages import choose, load_pages

    assert config.positive is not None
    pages = load_pages(context.input())
    seed = derive_seed(context.seed, "train_classifier")
    positive = choose(pages, config.positive, folder=context.recipe_dir, seed=seed)
    if not len(positive):
        raise InputError("positive: fits no document that was kept. Look at its hosts, sources and patterns.")
    without = np.zeros(len(pages), bool)
    without[choose(pages, dataclasses.replace(config.positive, max_documents=None, balance_hosts=False),
                   folder=context.recipe_dir, seed=seed)] = True  # fmt: skip
    limit = config.negative.max_documents or max(1, round(len(positive) * config.negatives_per_positive))
    negative = choose(
        pages,
        dataclasses.replace(config.negative, max_documents=limit),
        folder=context.recipe_dir,
        seed=seed,
        without=without,
    )
    if not len(negative):
        raise InputError("negative: leaves no document beside the positive ones. Widen it, or narrow positive:.")
    chosen = {NEGATIVE: negative, POSITIVE: positive}
    examples, held = labelled_pages(
        pages, chosen, text=config.text, validation_share=config.validation_share, seed=context.seed
    )
    read = {"read": {"documents": len(pages), POSITIVE: len(positive), NEGATIVE: len(negative)}}
    return examples, held, [NEGATIVE, POSITIVE], read


def _labelled(config: TrainClassifierConfig, recipe_dir: Path) -> LabelledFiles:
    from diglot.corpus.classify.examples import LabelledFiles

    return LabelledFiles(_find(config, recipe_dir).files)


def _find(config: TrainClassifierConfig, recipe_dir: Path) -> Found:
    from diglot.core.progress import Progress
    from diglot.corpus.read.sources import Selection as FileSelection
    from diglot.corpus.read.sources import find

    specs = [config.labels] if isinstance(config.labels, str) else list(config.labels or ())
    found = find(specs, bases=[recipe_dir, Path.cwd()], selection=FileSelection(), progress=Progress(quiet=True))
    if not found.files:
        raise InputError(f"labels: {', '.join(specs)} holds no files. Paths are relative to the recipe.")
    return found


def _counted(examples: Iterator[Example], bar: Any) -> Iterator[Example]:
    for example in examples:
        bar.advance()
        yield example


def _headline(found: dict[str, Any], positive_label: str) -> dict[str, Any]:
    """What a recipe may expect and a reader wants first."""
    main = found["validation"][positive_label]
    return {
        "documents": sum(sum(count.values()) for count in found["examples"].values()),
        "train": sum(count["train"] for count in found["examples"].values()),
        "validation": sum(count["validation"] for count in found["examples"].values()),
        "without_tokens": sum(count["without_tokens"] for count in found["examples"].values()),
        "labels": {label: sum(count.values()) for label, count in found["examples"].items()},
        **{name: main.get(name) for name in ("precision", "recall", "f1", "roc_auc", "threshold")},
        "model_bytes": found["model_bytes"],
        "quantised_bytes": found.get("quantised", {}).get("model_bytes"),
    }


def observe(config: TrainClassifierConfig, recipe_dir: Path, store: Path) -> dict[str, Any]:
    """What labels and ids_files hold, for the fingerprint."""
    from diglot.corpus.read.observe import observe_files

    seen: dict[str, Any] = observe_selections(recipe_dir, config.positive, config.negative)
    if config.labels:
        seen["labels"] = observe_files(_find(config, recipe_dir))
    return seen


def observe_selections(recipe_dir: Path, *selections: Selection | None) -> dict[str, Any]:
    """A digest of the ids_files of selections, in order."""
    import xxhash

    from diglot.corpus.classify.pages import read_names

    files = [selection.ids_file for selection in selections if selection is not None and selection.ids_file]
    return {
        "ids_files": [
            xxhash.xxh3_64_hexdigest("\n".join(sorted(read_names(recipe_dir / file))).encode()) for file in files
        ]
    }


STEP = StepKind(
    kind="train_classifier",
    version=1,
    config=TrainClassifierConfig,
    run=train_classifier,
    draws_random_numbers=True,
    observe=observe,
)
