"""`diglot trace TEXT`: a text in; its spans, their documents and the training steps that read them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diglot.core.errors import InputError
from diglot.core.storage import read_json
from diglot.ledger.artifact import Artifact
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.trace.attribution import Reads, Span, attribute
from diglot.trace.place import Artifacts, of_kind
from diglot.trace.training_index import TrainingIndex
from diglot.train.order import DataOrder

NUM_TRAIN_STEPS_SHOWN = 6


@dataclass(frozen=True)
class TraceReport:
    """The spans of one text. `share_traced`: of its characters, in [0, 1]."""

    text: str
    spans: tuple[Span, ...]

    @property
    def share_traced(self) -> float:
        return sum(span.end - span.start for span in self.spans) / max(1, len(self.text))

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "share_traced": self.share_traced,
            "spans": [span.to_dict() for span in self.spans],
        }

    def to_text(self) -> str:
        if not self.spans:
            return "no stretch of this text stands in the training tokens (spans of 6 tokens and more are shown)"
        return "\n".join(line for span in self.spans for line in _span_lines(span))


def tracer(index: Artifact, pretrain: Artifact | None) -> Callable[..., list[Span]]:
    """A function like `attribute(text, min_tokens=...)` over one index, with the training steps of one run.

    pretrain: the run whose steps are named; None names no steps.
    """
    tokenizer = Tokenizer.load(index.upstream("train_tokenizer", "import_model").path)
    opened = TrainingIndex.open(index.path)
    reads = None
    if pretrain is not None:
        plan = read_json(pretrain.path / "plan.json")
        reads = Reads(DataOrder.from_plan(plan), plan["sequence_length"])
    return lambda text, **limits: attribute(text, tokenizer, opened, reads=reads, **limits)


def trace_text(artifacts: Artifacts, text: str, *, min_tokens: int = 6) -> TraceReport:
    """Trace one text over the newest index of a run.

    Raises: InputError when the run has no finished `index` step.
    """
    indexes = list(of_kind(artifacts, "index").values())
    if not indexes:
        raise InputError("this run has no finished index step, so there is nothing to trace in. Add `kind: index`.")
    index = max(indexes, key=lambda a: a.manifest.ended)
    packed = index.upstream("pack").path
    runs = [a for a in of_kind(artifacts, "pretrain").values() if a.upstream("pack").path == packed]
    newest = max(runs, key=lambda a: a.manifest.ended) if runs else None
    return TraceReport(text, tuple(tracer(index, newest)(text, min_tokens=min_tokens)))


def _span_lines(span: Span) -> list[str]:
    times = "once" if span.count == 1 else f"{span.count} times"
    lines = [f"“{span.text.strip()}”  {span.num_tokens} tokens, {times} in {span.num_documents} documents"]
    for document in span.documents:
        lines.append(f"  {document.id}  {document.url or document.source}")
        if document.train_steps:
            shown = ", ".join(map(str, document.train_steps[:NUM_TRAIN_STEPS_SHOWN]))
            more = len(document.train_steps) - NUM_TRAIN_STEPS_SHOWN
            lines.append(f"    read in training steps {shown}" + (f" and {more} more" if more > 0 else ""))
        elif document.train_steps is not None:
            lines.append("    not read: it lies in the unused rest of its stream or beyond the run's length")
    return lines
