"""From the facts of report.json to what the page shows: sentences, charts and rows, nothing measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from diglot.steps.report_page import duplicates
from diglot.steps.report_page.charts import Dot, dot_whisker, duration, lineage_diagram, short
from diglot.steps.report_page.corpus_view import corpus_view, css_of, source_stages, wanted_languages
from diglot.steps.report_page.language_names import language_name
from diglot.steps.report_page.training_view import training_view

Facts = Mapping[str, Any]

NGRAM_NAMES = {2: "bigram", 3: "trigram"}


def build_view(facts: Facts) -> dict[str, Any]:
    """The template's variables. A section whose step is not in the recipe is None or empty, and absent on the page."""
    samples = facts.get("samples") or []
    first = _first_question_per_language(samples)
    training = [training_view(run) for run in facts.get("training", [])]
    view = {
        "title": facts["title"],
        "summary": _summary(facts),
        "tiles": _tiles(facts),
        "warnings": facts["warnings"],
        "corpus": corpus_view(facts["funnel"], facts["ingest"]) if facts.get("funnel") else None,
        "duplicates": duplicates.view(facts["duplicates"]) if facts.get("duplicates") else None,
        "heldout": _heldout(facts.get("heldout")),
        "sources": [source for source in facts.get("sources", []) if source["documents"]],
        "source_stages": source_stages(facts.get("sources", [])),
        "tokenizer": facts.get("tokenizer"),
        "tokens": _tokens(facts["tokens"]) if facts.get("tokens") else None,
        "training": training,
        "first_curve": training[0]["charts"][0] if training and training[0]["charts"] else None,
        "scores": _scores(facts["scores"]) if facts.get("scores") else None,
        "first_samples": first,
        "more_samples": [sample for sample in samples if not any(sample is shown for shown in first)],
        "lineage": {
            "nodes": facts["lineage"]["nodes"],
            "svg": Markup(lineage_diagram(facts["lineage"]["nodes"], [(a, b) for a, b in facts["lineage"]["edges"]])),
        },
        "cost": facts["cost"],
        "environment": facts["environment"],
    }
    return {**view, "contents": _contents(view)}


def model_label(model: str) -> str:
    """`ngram-3` -> trigram, `base` -> the model, `chat` -> chat model."""
    if model.startswith("ngram-"):
        order = int(model.removeprefix("ngram-"))
        return NGRAM_NAMES.get(order, f"{order}-gram")
    return {"base": "pre-trained", "chat": "chat model", "against": "compared with"}.get(model, model)


def _summary(facts: Facts) -> str:
    funnel, cost = facts.get("funnel"), facts["cost"]
    languages = wanted_languages(funnel) if funnel else []
    parameters = next((run["num_parameters"] for run in facts.get("training", [])), None)
    what = " and ".join(language_name(lang) for lang in languages) or "Documents"
    if parameters:
        article = "An" if what[:1] in "AEIOU" else "A"
        what = f"{article} {what} language model of {short(parameters)} parameters"
    made = f", built from {funnel['total']['ingested']:,} pages" if funnel else ""
    cores = " and ".join(str(n) for n in cost["num_cores"])
    return f"{what}{made} in {duration(cost['seconds'])} on {cores} {'core' if cores == '1' else 'cores'}."


def _tiles(facts: Facts) -> list[dict[str, str]]:
    cost, tiles = facts["cost"], []

    def tile(value: str, label: str) -> None:
        tiles.append({"value": value, "label": label})

    tile(duration(cost["seconds"]), f"all steps, {cost['core_hours']:.2f} core-hours")
    if funnel := facts.get("funnel"):
        tile(f"{funnel['total']['kept']:,}", f"documents kept of {funnel['total']['ingested']:,}")
    if facts.get("tokens"):
        tile(short(sum(s["num_tokens"] for s in facts["tokens"]["streams"])), "training tokens")
    if training := facts.get("training"):
        tile(short(training[0]["num_parameters"]), "parameters")
    if cost.get("flops"):
        tile(f"{cost['flops']:.2g}".replace("e+", "e"), "training FLOPs, estimated")
    for lang, records in ((facts.get("scores") or {}).get("bits_per_byte") or {}).items():
        if base := next((r for r in records if r["model"] == "base"), None):
            tile(f"{base['value']:.3f}", f"bits per byte, {language_name(lang)}")
    return tiles


def _heldout(counts: Facts | None) -> str | None:
    if not counts:
        return None
    return (
        f"{counts['heldout']['documents']:,} of the kept documents are held out for scoring, as "
        f"{counts['heldout_clusters']:,} whole near-duplicate clusters."
    )


def _tokens(tokens: Facts) -> dict[str, Any]:
    streams = sorted(tokens["streams"], key=lambda s: -s["num_tokens"])
    total = {
        "stream": "all",
        "total": True,
        "num_documents": sum(s["num_documents"] for s in streams),
        "num_tokens": sum(s["num_tokens"] for s in streams),
        "heldout_tokens": sum(s["heldout_tokens"] for s in streams),
        "phases": [sum(column) for column in zip(*(s["phases"] for s in streams), strict=True)],
    }
    read = sum(total["phases"])
    total["epochs"] = read / total["num_tokens"] if read else None
    return {"phases": tokens["phases"], "streams": [*streams, total]}


def _scores(scores: Facts) -> dict[str, Any]:
    by_language = scores["bits_per_byte"]
    ends = [
        end
        for records in by_language.values()
        for r in records
        for end in (r["low"], r["high"], r["value"])
        if end is not None
    ]
    charts = [
        {
            "name": language_name(lang),
            "scored_on": f"{records[0]['num_items']:,} documents in {records[0]['num_clusters']:,} clusters",
            "svg": Markup(
                dot_whisker(
                    [
                        Dot(
                            label=model_label(r["model"]),
                            css="" if r["model"].startswith("ngram") else css_of(lang),
                            value=r["value"],
                            low=r["low"],
                            high=r["high"],
                        )
                        for r in records
                    ],
                    x_label="bits per byte, 95 % interval",
                    low=min(ends),
                    high=max(ends),
                )
            ),
        }
        for lang, records in by_language.items()
    ]
    records = scores["records"]
    return {
        "charts": charts,
        "differences": _differences(scores["differences"]),
        "whole": [r for r in records if r["source"] is None],
        "by_source": [r for r in records if r["source"] is not None],
        "signatures": sorted({r["signature"] for r in records if r["source"] is None}),
        "ngram": scores["ngram"],
    }


def _differences(differences: Facts) -> dict[str, Any]:
    """The pre-trained model against each n-gram: a row per n-gram, a column per language, with the paired interval."""
    rows: dict[str, dict[str, str]] = {}
    for lang, records in differences.items():
        for record in records:
            model, _, ngram = record["model"].partition(" - ")
            if model == "base":
                ends = "" if record["low"] is None else f" [{signed(record['low'])}, {signed(record['high'])}]"
                rows.setdefault(model_label(ngram), {})[lang] = signed(record["value"]) + ends
    return {"languages": list(differences), "rows": rows}


def signed(value: float) -> str:
    """`+0.123` or `−0.123`, with a real minus sign."""
    return f"{value:+.3f}".replace("-", "−")


def _first_question_per_language(samples: Sequence[Facts]) -> list[Facts]:
    """One question of each language for the first screen, of one kind in all where possible, and no translation."""
    questions = [sample for sample in samples if sample["kind"] == "question"]
    topics = [{s["topic"] for s in questions if s["lang"] == lang} for lang in {s["lang"] for s in questions}]
    shared = set.intersection(*topics) if topics else set()
    found: dict[str, Facts] = {}
    for sample in sorted(questions, key=lambda s: (s["topic"] not in shared, s["topic"] == "translation", s["topic"])):
        found.setdefault(sample["lang"], sample)
    return [found[lang] for lang in sorted(found)]


def _contents(view: Facts) -> list[tuple[str, str]]:
    names = [
        ("corpus", "Corpus", view["corpus"]),
        ("sources", "Sources", view["sources"]),
        ("tokenizer", "Tokenizer", view["tokenizer"]),
        ("tokens", "Tokens", view["tokens"]),
        *((run["id"], run["name"], True) for run in view["training"]),
        ("scores", "Scores", view["scores"]),
        ("samples", "Samples", view["more_samples"]),
        ("lineage", "Lineage", True),
        ("environment", "Environment", True),
    ]
    return [(id_, name) for id_, name, there in names if there]
