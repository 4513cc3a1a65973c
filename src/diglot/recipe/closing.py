"""The last words of a run: a question and an answer in each language, a traced span, the scores, the report's path.

Everything is read from the report step's `report.json`; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diglot.core.storage import read_json
from diglot.ledger.artifact import Artifact

BASELINES = ("ngram-2", "ngram-3", "ngram-5")


def closing_lines(report: Artifact) -> Iterator[str]:
    """Lines to print after a run that has a report."""
    facts = read_json(report.path / "report.json")
    by_language = (facts.get("scores") or {}).get("bits_per_byte", {})
    for lang, scores in by_language.items():
        overall = {s["model"]: s for s in scores if s["source"] is None}
        yield f"held-out bits per byte, {lang}: " + ", ".join(
            f"{name} {_score(overall[name])}" for name in ("base", *BASELINES) if name in overall
        )
    samples = facts.get("samples") or []
    for lang in by_language:
        asked = [s for s in samples if s["kind"] == "question" and s["lang"] == lang]
        if asked:
            best = max(asked, key=lambda s: s["reward"]["total"])  # of the held-out questions that the report shows
            yield f"question [{lang}]: {best['prompt']}"
            yield f"answer   [{lang}]: {best['answer']}"
    if any("spans" in sample for sample in samples):  # of a recipe with an index step
        yield from _longest_span(samples)
    elif funnel := facts.get("funnel"):
        for lang, counts in funnel["languages"].items():
            if counts["kept"]:
                yield f"kept [{lang}]: {counts['kept']:,} of {counts['ingested']:,} documents"
    yield f"report: {_short(report.path / 'report.html')}"


def _longest_span(samples: list[Mapping[str, Any]]) -> Iterator[str]:
    spans = [(span, sample) for sample in samples for span in sample.get("spans", ()) if span["documents"]]
    if not spans:
        yield "trace: none of the shown answers repeats six or more tokens of the training text"
        return
    span, sample = max(spans, key=lambda pair: pair[0]["num_tokens"])
    document = span["documents"][0]
    steps, words = document["train_steps"] or [], " ".join(span["text"].split())
    yield f"trace    [{sample['lang']}]: “{words}” stands in {document['url'] or document['source']}"
    yield f"           document {document['id']}, read in training steps {', '.join(map(str, steps[:6])) or 'none'}"


def _score(score: Mapping[str, Any]) -> str:
    """`2.243 [1.823, 2.357]`; no interval where a single cluster was held out."""
    interval = "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
    return f"{score['value']:.3f}{interval}"


def _short(path: Path) -> str:
    """Relative to the working folder where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
