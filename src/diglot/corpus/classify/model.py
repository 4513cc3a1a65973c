"""A trained classifier on disk, and the probabilities that it gives.

    model.bin          fastText's format, as floret writes it
    model.ftz          the same, pruned and quantised; where it was asked for
    classifier.json    labels, what of a text it reads, threshold, how it was trained

floret reads and writes fastText's own format and trains reliably; the fasttext wheels that install beside NumPy 2 do
not (NaN in 20 of 20 runs of one series).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diglot.core.errors import ConfigError, DiglotError, InputError, unknown
from diglot.core.storage import read_json, write_json
from diglot.corpus.classify.settings import TextSettings
from diglot.corpus.classify.text import training_lines

MODEL, QUANTISED, FACTS = "model.bin", "model.ftz", "classifier.json"
PREFIX = "__label__"


@dataclass(frozen=True, kw_only=True)
class ClassifierFacts:
    """What must be known to apply a model. threshold: of the positive label; None where none was chosen."""

    labels: tuple[str, ...]
    positive_label: str
    text: TextSettings
    threshold: float | None

    def write(self, folder: Path) -> None:
        write_json(folder / FACTS, dataclasses.asdict(self))


def read_facts(folder: Path) -> ClassifierFacts:
    """Raises InputError for a folder that holds no classifier."""
    if not (folder / FACTS).exists():
        raise InputError(f"{folder} holds no classifier. Give a train_classifier or recall step as model.")
    content = read_json(folder / FACTS)
    return ClassifierFacts(
        labels=tuple(content["labels"]),
        positive_label=content["positive_label"],
        text=TextSettings(**content["text"]),
        threshold=content["threshold"],
    )


class Classifier:
    """Gives each text a probability for each label. Not to be pickled: workers load their own."""

    def __init__(self, model: Any, facts: ClassifierFacts) -> None:
        self._model, self.facts = model, facts

    def probabilities(self, texts: pa.LargeStringArray, labels: Sequence[str] | None = None) -> Any:
        """float32 [N, L], of the positive label or of `labels`. 0 for a text without tokens: nothing speaks for it."""
        return self.of_lines(training_lines(texts, self.facts.text), labels)

    def of_lines(self, lines: Sequence[str], labels: Sequence[str] | None = None) -> Any:
        """`probabilities` of lines as `training_lines` gives them."""
        wanted = [self.facts.positive_label] if labels is None else list(labels)
        for label in wanted:
            if label not in self.facts.labels:
                raise unknown("label", label, self.facts.labels, "the classifier")
        scores = np.zeros((len(lines), len(wanted)), np.float32)
        read = [number for number, line in enumerate(lines) if line != "\n"]
        if not read:
            return scores
        if len(self.facts.labels) == 2:
            scores[read] = self._of_two([lines[number] for number in read], wanted)
            return scores
        column = {PREFIX + label: number for number, label in enumerate(wanted)}
        for number in read:
            for probability, label in self._model.predict(lines[number], len(self.facts.labels), 0.0, "strict"):
                if label in column:
                    scores[number, column[label]] = probability
        return np.minimum(scores, np.float32(1))

    def _of_two(self, lines: list[str], wanted: list[str]) -> Any:
        """All lines in one call. It is asked for the top label only: floret 0.10.5 repeats the first probability for
        the others."""
        labels, probabilities = self._model.multilinePredict(lines, 1, 0.0, "strict")
        top = np.minimum(np.array([found[0] for found in probabilities], np.float32), np.float32(1))
        first = np.array([found[0] == PREFIX + wanted[0] for found in labels])
        of_first = np.where(first, top, np.float32(1) - top)
        return np.stack([of_first if label == wanted[0] else np.float32(1) - of_first for label in wanted], axis=1)


@functools.lru_cache(maxsize=1)
def load(folder: Path, quantised: bool = False) -> Classifier:
    """The classifier of a train_classifier or recall artifact; the last one stays loaded in this process.

    Raises InputError when the quantised model was not made, ConfigError when floret is not installed.
    """
    facts = read_facts(folder)
    path = folder / (QUANTISED if quantised else MODEL)
    if not path.exists():
        raise InputError(f"{folder} has no {path.name}. Set quantise_to: 20000 in the step that trains it.")
    try:
        return Classifier(floret().load_model(str(path)).f, facts)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise DiglotError(f"{path} cannot be loaded ({error}). Delete its folder and run the recipe again.") from error


def floret() -> Any:
    """The module. Raises ConfigError when it is not installed."""
    try:
        import floret
    except ImportError as error:
        raise ConfigError("classifiers need floret. Install it: pip install 'diglot[classify]'.") from error
    return floret
