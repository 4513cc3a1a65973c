"""Labelled documents to train on: chosen out of the corpus by place, or read from files that carry labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from diglot.core.errors import InputError
from diglot.corpus.classify.holdout import Holdout, hold_out
from diglot.corpus.classify.pages import Pages
from diglot.corpus.classify.settings import TextSettings, check_label
from diglot.corpus.classify.sites import place_of
from diglot.corpus.classify.text import training_lines
from diglot.corpus.classify.training import Example
from diglot.corpus.ingestion import Entry, row_of
from diglot.corpus.read.jsonl import read_jsonl
from diglot.corpus.read.parquet import read_parquet
from diglot.corpus.read.record import Limits, Reached, Record, Refused, SourceFile

BATCH = 1024
LABEL_FIELDS = ("label", "labels", "class")
MAX_DOCUMENT_BYTES = 16 << 20


def labelled_pages(
    pages: Pages, numbers: Mapping[str, Any], *, text: TextSettings, validation_share: float, seed: int
) -> tuple[Iterator[Example], Holdout]:
    """Examples out of the corpus. numbers: label -> document numbers int64, no document under two labels."""
    names = list(numbers)
    every = np.concatenate([numbers[name] for name in names])
    label = np.repeat(np.arange(len(names)), [len(numbers[name]) for name in names])
    order = np.argsort(every, kind="stable")
    every, label = every[order], label[order]
    levels = [pages.groups(number) for number in every.tolist()]
    held = hold_out(levels, label, names, share=validation_share, seed=seed)

    def examples() -> Iterator[Example]:
        for mine, texts in pages.texts(every):
            places = np.searchsorted(every, mine).tolist()
            for number, place, line in zip(mine.tolist(), places, training_lines(texts, text), strict=True):
                yield Example(pages.ids[number], names[label[place]], line, bool(held.validation[place]))

    return examples(), held


@dataclass(frozen=True)
class LabelledFiles:
    """JSON lines or Parquet files with a text and a label in each record, in order."""

    files: Sequence[SourceFile]

    def records(self) -> Iterator[tuple[str, str, Record, SourceFile]]:
        """(unique name, label, record, file). Records that cannot be read are left out: `outline` counts them."""
        for file in self.files:
            for record in _read(file):
                if isinstance(record, Record) and (label := _label(record)) is not None:
                    yield f"{file.source}/{file.container}:{record.offset}", label, record, file

    def outline(self) -> Outline:
        """A first pass without texts. Raises InputError when nothing in the files is labelled."""
        names, labels, levels, refused = [], [], [], Counter[str]()
        for file in self.files:
            for record in _read(file):
                if isinstance(record, Refused):
                    refused[record.reason] += 1
                elif isinstance(record, Reached):
                    continue
                elif (label := _label(record)) is None:
                    refused["no_label"] += 1
                else:
                    check_label(label, f"{file.container} at {record.offset}:")
                    names.append(f"{file.source}/{file.container}:{record.offset}")
                    labels.append(label)
                    levels.append(_levels(record))
        if not names:
            raise InputError(
                f"no record of {', '.join(file.container for file in self.files)} has a text and a label "
                f"({dict(refused)}). Give JSON lines or Parquet with the fields text and label."
            )
        return Outline(names, labels, levels, dict(refused))


class Outline(NamedTuple):
    """names, labels, levels: lists [N], of labelled records in order. refused: reason -> how many others."""

    names: list[str]
    labels: list[str]
    levels: list[tuple[str, ...]]
    refused: dict[str, int]


def labelled_files(
    files: LabelledFiles, outline: Outline, *, text: TextSettings, validation_share: float, seed: int
) -> tuple[Iterator[Example], Holdout]:
    """Examples out of files."""
    label_names = sorted(set(outline.labels))
    labels = np.array([label_names.index(label) for label in outline.labels])
    held = hold_out(outline.levels, labels, label_names, share=validation_share, seed=seed)

    def examples() -> Iterator[Example]:
        batch: list[tuple[str, str, str, bool]] = []
        for number, (name, label, record, file) in enumerate(files.records()):
            batch.append((name, label, _text(record, file), bool(held.validation[number])))
            if len(batch) == BATCH:
                yield from _lines(batch, text)
                batch.clear()
        yield from _lines(batch, text)

    return examples(), held


def _lines(batch: list[tuple[str, str, str, bool]], text: TextSettings) -> Iterator[Example]:
    lines = training_lines(pa.array([content for _, _, content, _ in batch], pa.large_string()), text)
    for (name, label, _, validation), line in zip(batch, lines, strict=True):
        yield Example(name, label, line, validation)


def _read(file: SourceFile) -> Iterator[Record | Refused | Reached]:
    limits = Limits(max_document_bytes=MAX_DOCUMENT_BYTES)
    if file.format == "jsonl":
        return read_jsonl(file, limits)
    if file.format == "parquet":
        return read_parquet(file, limits)
    raise InputError(f"{file.container} is {file.format}, but labelled documents come as JSON lines or Parquet.")


def _label(record: Record) -> str | None:
    for name in LABEL_FIELDS:
        value = record.meta.get(name)
        if value is not None and value != "":
            return str(value)
    return None


def _levels(record: Record) -> tuple[str, ...]:
    """As Pages.groups; copies of a text stay together."""
    content = record.content if isinstance(record.content, bytes) else record.content.encode("utf-8", "replace")
    own = f"text:{xxhash.xxh3_128_hexdigest(content)}"
    place = place_of(record.url)
    if place is None:
        return (own,)
    folders = range(len(place.folders) + 1)
    return (*("/".join([place.site, *place.folders[:depth]]) for depth in folders), own)


def _text(record: Record, file: SourceFile) -> str:
    """The text as ingest would store it."""
    row = row_of(Entry(id="", file=file, content=record), record, None, declared_languages=False)
    return str(row["text"])
