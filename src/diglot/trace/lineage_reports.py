"""The answers of `diglot why`, `diglot seen` and `diglot batch`: plain records, as fields and as text."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass
from typing import Any

NUM_STEPS_SHOWN = 8  # training steps listed of one phase in a text; the fields hold all
WIDTH = 120  # of a text
NUM_LISTED = 10  # duplicates or conversations listed in a text


@dataclass(frozen=True, kw_only=True)
class Objection:
    """One rule that objects to a document: what it measured, its limit in words, and why the rule exists."""

    rule: str
    value: float | None
    limit: str | None
    why: str | None


@dataclass(frozen=True, kw_only=True)
class Resemblance:
    """Another document: Jaccard of both shingle sets, and which share of the dropped one's the kept one has."""

    id: str
    url: str | None
    jaccard: float | None
    containment: float | None


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Bytes [start, stop) that an edit step replaced, empty for deleted; `text` is how they begin.

    Offsets count in the text that the step read. first_in: id of the document that has the same text first.
    """

    step: str
    rule: str
    start: int
    stop: int
    text: str
    replacement: str
    first_in: str | None


@dataclass(frozen=True, kw_only=True)
class TokenSpan:
    """Tokens [start, start + num_tokens) of a stream, the document-end token included."""

    split: str
    stream: str
    start: int
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one phase of one pre-training step read of a document: training steps counted from 0 over all phases."""

    step: str
    phase: str
    train_steps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ConversationUse:
    """A conversation composed from a document, and the recipe steps that use it.

    A finetune step uses the training split, except conversations longer than its limit; a prefer step those it made
    pairs of.
    """

    id: str
    kind: str
    lang: str
    split: str
    used_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SeenReport:
    """Every training step that read a document."""

    id: str
    url: str | None
    keep: bool | None
    split: str | None
    span: TokenSpan | None
    readings: tuple[Reading, ...]
    conversations: tuple[ConversationUse, ...]
    finished_runs: tuple[str, ...]  # recipe steps of kind pretrain that could have read it

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        return "\n".join([f"{self.id}  {self.url or ''}", *seen_lines(self)])


@dataclass(frozen=True, kw_only=True)
class WhyReport:
    """One document's whole life. `signals` by family; `keep` None before any step decided."""

    id: str
    source: str
    url: str | None
    origin: dict[str, Any] | None
    license: str | None
    date: str | None
    declared_lang: str | None
    lang: str | None
    num_bytes: int
    beginning: str
    signals: dict[str, dict[str, float | str | None]]
    keep: bool | None
    objections: tuple[Objection, ...]
    cuts: tuple[Cut, ...]
    duplicate_of: Resemblance | None
    dropped_for_this: tuple[Resemblance, ...]
    cluster: str | None
    num_in_cluster: int
    seen: SeenReport

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        lines = [f"document   {self.id}", f"source     {self.source}", f"address    {self.url or 'unknown'}"]
        if self.origin:
            place = f", byte {self.origin['offset']:,}" if self.origin.get("offset") else ""
            lines.append(f"read from  {self.origin['container']}{place}")
        lines.append(f"license    {self.license or 'unknown'}" + (f", dated {self.date}" if self.date else ""))
        lines.append(f"language   {self.lang or 'not identified'}; declared {self.declared_lang or 'nothing'}")
        lines.append(f"text       {self.num_bytes:,} bytes: {self.beginning}")
        for family, signals in self.signals.items():
            shown = "  ".join(f"{name}={_value(value)}" for name, value in signals.items())
            lines.append(textwrap.fill(f"{family:<10} {shown}", WIDTH, subsequent_indent=" " * 11))
        lines += self._verdict_lines()
        return "\n".join([*lines, *seen_lines(self.seen)])

    def _verdict_lines(self) -> list[str]:
        if self.keep is None:
            return ["verdict    no step has decided on it yet"]
        lines = ["verdict    kept" if self.keep else f"verdict    dropped by {self.objections[0].rule}"]
        for objection in self.objections:
            measured = f"  measured {_value(objection.value)}" if objection.value is not None else ""
            limit = f", limit: {objection.limit}" if objection.limit else ""
            why = f"  ({objection.why})" if objection.why else ""
            lines.append(f"  objects  {objection.rule}{measured}{limit}{why}")
        lines += [f"edited     {_cut(cut)}" for cut in self.cuts[:NUM_LISTED]]
        lines += _more(len(self.cuts))
        if self.duplicate_of:
            lines.append(f"duplicate  of {_resemblance(self.duplicate_of)}")
        if self.dropped_for_this:
            lines.append(f"duplicates {len(self.dropped_for_this)} dropped in its favour")
            lines += [f"           {_resemblance(one)}" for one in self.dropped_for_this[:NUM_LISTED]]
            lines += _more(len(self.dropped_for_this))
        if self.cluster and self.num_in_cluster > 1:
            lines.append(f"cluster    {self.cluster}, {self.num_in_cluster} kept documents that resemble each other")
        return lines


@dataclass(frozen=True, kw_only=True)
class ReadDocument:
    """The part of a document inside one sequence: tokens [start, stop) of the document's num_tokens."""

    id: str
    url: str | None
    start: int
    stop: int
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class ReadSequence:
    """One sequence of a batch: tokens [start, stop) of a stream, inputs and the last target."""

    stream: str
    sequence: int
    start: int
    stop: int
    documents: tuple[ReadDocument, ...]


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """What one training step read. `phase_train_step` counts from 0 inside the phase."""

    step: str
    train_step: int
    num_train_steps: int
    phase: str
    phase_train_step: int
    sequences: tuple[ReadSequence, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        num_documents = len({document.id for sequence in self.sequences for document in sequence.documents})
        lines = [
            f"{self.step}: train step {self.train_step} of 0..{self.num_train_steps - 1}, "
            f"step {self.phase_train_step} of phase '{self.phase}': "
            f"{len(self.sequences)} sequences, {num_documents} documents"
        ]
        for sequence in self.sequences:
            lines.append(f"{sequence.stream}[{sequence.start:,}:{sequence.stop:,}]")
            for document in sequence.documents:
                part = f"{document.start:,}-{document.stop:,} of {document.num_tokens:,}"
                lines.append(f"  {document.id}  tokens {part:<24} {document.url or ''}")
        return "\n".join(lines)


def seen_lines(seen: SeenReport) -> list[str]:
    """The part of a document's life after the corpus was made."""
    lines = []
    if seen.split:
        lines.append(f"split      {seen.split}")
    if seen.span:
        stop = seen.span.start + seen.span.num_tokens
        lines.append(f"tokens     {seen.span.stream}[{seen.span.start:,}:{stop:,}] ({seen.span.num_tokens:,})")
    for reading in seen.readings:
        steps = ", ".join(map(str, reading.train_steps[:NUM_STEPS_SHOWN]))
        more = f" and {len(reading.train_steps) - NUM_STEPS_SHOWN} more" * (len(reading.train_steps) > NUM_STEPS_SHOWN)
        lines.append(f"read by    {reading.step}, phase '{reading.phase}': train steps {steps}{more}")
    if not seen.readings:
        lines.append(f"read by    {_unread(seen)}")
    for use in seen.conversations[:NUM_LISTED]:
        by = ", ".join(use.used_by) or "no training"
        lines.append(f"talked of  {use.kind} conversation {use.id} ({use.lang}, {use.split}), used by {by}")
    return lines + _more(len(seen.conversations))


def _unread(seen: SeenReport) -> str:
    if not seen.keep:
        return "no training step: it was dropped" if seen.keep is False else "no training step"
    if seen.split == "heldout":
        return "no training step: it is held out"
    if seen.span is None:
        return "no training step: it is not packed yet"
    if not seen.finished_runs:
        return "no training step: no pre-training over its tokens is finished"
    return "no training step: the mixture or the length of the run left its sequences out"


def _resemblance(other: Resemblance) -> str:
    numbers = [
        f"{name} {value:.3f}"
        for name, value in (("Jaccard", other.jaccard), ("containment", other.containment))
        if value is not None
    ]
    return f"{other.id}  {', '.join(numbers)}  {other.url or ''}"


def _cut(cut: Cut) -> str:
    became = f" -> {cut.replacement}" if cut.replacement else ""
    first = f"  (first in {cut.first_in})" if cut.first_in else ""
    return f"{cut.rule} [{cut.start:,}:{cut.stop:,}] {' '.join(cut.text.split())}{became}{first}"


def _more(number: int) -> list[str]:
    return [f"           and {number - NUM_LISTED} more"] if number > NUM_LISTED else []


def _value(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    if math.isfinite(value) and value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}"
