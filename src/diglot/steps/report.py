"""report: one self-contained page, and report.json with every number on it, from the manifests and files of a run.

Writes
    report.json   the facts; a section whose step is not in the recipe is absent
    report.html   the same, to be read: no script, no font, no picture from elsewhere
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError
from diglot.steps.context import StepContext, StepKind, input_step

if TYPE_CHECKING:
    from diglot.ledger.artifact import Artifact
    from diglot.steps.report_page.score_facts import Trace


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What is reported.

    from_: an evaluation, or a corpus without a model, reported with everything it was made from.
    index: traces the samples to training documents.
    """

    from_: str = input_step("evaluate", "split", "decontaminate", "edit", "deduplicate", "select")
    index: str | None = input_step("index", optional=True)
    title: str = "A model built in the open"
    min_traced_tokens: int = 6  # shorter matches are found for almost any text and say nothing

    def __post_init__(self) -> None:
        if self.min_traced_tokens < 1:
            raise ConfigError(f"min_traced_tokens = {self.min_traced_tokens}, but a span has at least 1 token.")


def report(config: ReportConfig, context: StepContext) -> dict[str, Any]:
    """Gather the facts, then draw them."""
    from diglot.core.storage import write_json, write_text
    from diglot.steps.report_page.page import render

    facts = gather(config, context.input(), context.inputs.get("index"))
    write_json(context.out / "report.json", facts)
    page = render(facts)
    write_text(context.out / "report.html", page)
    context.progress.say(f"  {context.step}: {context.out / 'report.html'}")
    return {
        "page_bytes": len(page.encode()),
        "sections": sorted(name for name in facts if facts[name]),
        "warnings": facts["warnings"],
    }


def gather(config: ReportConfig, last: Artifact, index: Artifact | None) -> dict[str, Any]:
    """Everything the page says, as plain values; a pure function of the artifacts."""
    from diglot.corpus.tables import DECIDING
    from diglot.steps.report_page import build_facts, corpus_facts, duplicates, model_facts, score_facts

    artifacts = build_facts.steps_in_order(last, *([index] if index else []))
    by_kind: dict[str, Artifact] = {}
    for artifact in (above for root in (last, index) if root for above in root.ancestors()):
        by_kind.setdefault(artifact.kind, artifact)  # of several of a kind the one nearest to the last
    facts: dict[str, Any] = {
        "title": config.title,
        "lineage": build_facts.lineage(artifacts),
        "cost": build_facts.cost(artifacts),
        "environment": build_facts.environment(artifacts),
        "counts": {a.manifest.step: a.counts for a in artifacts},
        "training": [model_facts.training(by_kind[kind]) for kind in build_facts.MODEL_KINDS if kind in by_kind],
        "warnings": build_facts.warnings(artifacts),
    }
    if last.kind == "evaluate":
        facts["scores"] = score_facts.scores(last)
        facts["samples"] = score_facts.samples(last, _tracer(config, index, by_kind))
    if by_kind.keys() & set(DECIDING):
        facts["funnel"] = corpus_facts.funnel(last)
        facts["sources"] = corpus_facts.sources(last)
        facts["ingest"] = by_kind["ingest"].counts
    if "deduplicate" in by_kind:
        facts["duplicates"] = duplicates.facts(by_kind["deduplicate"])
    if "split" in by_kind:
        facts["heldout"] = by_kind["split"].counts
    if "train_tokenizer" in by_kind:
        facts["tokenizer"] = model_facts.tokenizer(by_kind["train_tokenizer"])
    if "pack" in by_kind:
        facts["tokens"] = model_facts.tokens(by_kind["pack"], by_kind.get("pretrain"))
    facts["cost"] |= model_facts.flops(facts["training"])
    # Through JSON and back, so that the page is drawn from exactly what report.json says, in its order of keys.
    plain: dict[str, Any] = json.loads(json.dumps(facts, ensure_ascii=False, sort_keys=True))
    return plain


def _tracer(config: ReportConfig, index: Artifact | None, by_kind: dict[str, Artifact]) -> Trace | None:
    """A function that finds the spans of a text in the training tokens, with the training steps that read them."""
    if index is None:
        return None
    from diglot.trace.answer import tracer

    trace = tracer(index, by_kind.get("pretrain"))
    return lambda text: trace(text, min_tokens=config.min_traced_tokens)


STEP = StepKind(kind="report", version=4, config=ReportConfig, run=report)
