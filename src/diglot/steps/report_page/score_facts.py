"""What the models score, and what they write: samples with the training documents their words were found in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from diglot.core.storage import read_json
from diglot.ledger.artifact import Artifact

MAX_QUESTIONS = 3  # shown per language
MAX_CONTINUATIONS = 2
MAX_DOCUMENTS = 3  # named per traced span
MAX_TRAIN_STEPS = 12  # named per document

Trace = Callable[[str], Sequence[Any]]  # text -> trace.attribution.Span


def scores(evaluation: Artifact) -> dict[str, Any]:
    """Every eval_result record, and bits per byte arranged for the chart: language -> models from best to worst."""
    records = read_json(evaluation.path / "scores.json")
    whole = [r for r in records if r["task"] == "bits_per_byte" and r["source"] is None]
    by_language: dict[str, list[dict[str, Any]]] = {}
    differences: dict[str, list[dict[str, Any]]] = {}
    for record in whole:
        group = differences if " - " in record["model"] else by_language
        group.setdefault(record["language"], []).append(record)
    return {
        "records": records,
        "bits_per_byte": {
            lang: sorted(found, key=lambda r: (r["value"], r["model"])) for lang, found in sorted(by_language.items())
        },
        "differences": dict(sorted(differences.items())),
        "ngram": read_json(evaluation.path / "ngram.json"),
    }


def samples(evaluation: Artifact, trace: Trace | None) -> list[dict[str, Any]]:
    """The samples to show, in the order of the page: for each kind and language a few, with different topics first.

    trace: finds the spans of a text in the training tokens; None where no index was built.
    """
    found = read_json(evaluation.path / "samples.json")
    shown: list[dict[str, Any]] = []
    for kind, limit in (("question", MAX_QUESTIONS), ("continuation", MAX_CONTINUATIONS)):
        for lang in sorted({s["lang"] for s in found if s["kind"] == kind}):
            mine = [s for s in found if s["kind"] == kind and s["lang"] == lang]
            shown += _varied(mine, limit)
    return [{**sample, **(_traced(sample["answer"], trace) if trace else {})} for sample in shown]


def _varied(group: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The first of each topic, then the rest, in order."""
    topics: set[str] = set()
    first: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for sample in group:
        (rest if sample["topic"] in topics else first).append(sample)
        topics.add(sample["topic"])
    return (first + rest)[:limit]


def _traced(text: str, trace: Trace) -> dict[str, Any]:
    """`pieces`: the text cut at its spans, each with the number of its span or None; `spans`; share of it in spans."""
    spans = sorted(trace(text), key=lambda span: span.start)
    pieces: list[dict[str, Any]] = []
    at = 0
    for number, span in enumerate(spans):
        pieces.append({"text": text[at : span.start], "span": None})
        pieces.append({"text": text[span.start : span.end], "span": number})
        at = span.end
    pieces.append({"text": text[at:], "span": None})
    covered = sum(span.end - span.start for span in spans)
    return {
        "pieces": [piece for piece in pieces if piece["text"]],
        "spans": [_span(span) for span in spans],
        "traced_share": round(covered / len(text), 4) if text else 0.0,
    }


def _span(span: Any) -> dict[str, Any]:
    return {
        "text": span.text,
        "num_tokens": span.num_tokens,
        "count": span.count,
        "num_documents": span.num_documents,
        "documents": [
            {
                "id": document.id,
                "source": document.source,
                "url": document.url,
                "lang": document.lang,
                "train_steps": None if document.train_steps is None else list(document.train_steps[:MAX_TRAIN_STEPS]),
                "num_reads": None if document.train_steps is None else len(document.train_steps),
            }
            for document in span.documents[:MAX_DOCUMENTS]
        ],
    }
