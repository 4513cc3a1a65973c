"""The corpus for the page: the funnel as stages with bars, its sum as a sentence, and language shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diglot.steps.report_page.language_names import language_name

Facts = Mapping[str, Any]

STAGE_LABELS = {  # what is left after a stage, what the stage dropped
    "empty": ("have text", "without text"),
    "language": ("wanted language", "in other languages"),
    "rules": ("pass the rules", "by quality rules"),
    "exact_duplicate": ("no exact copy", "exact copies"),
    "near_duplicate": ("no near copy", "near copies"),
    "later": ("kept", "by later steps"),
}
ONLY_WHERE_NEEDED = ("empty", "later")  # stages that are left out when they dropped nothing


def css_of(lang: str) -> str:
    """The colour of a language: `en`, `zh` or `other`."""
    return "en" if lang == "en" else "zh" if lang.startswith("zh") else "other"


def wanted_languages(funnel: Facts) -> list[str]:
    """Languages of which something was kept."""
    return sorted(lang for lang, counts in funnel["languages"].items() if counts["kept"])


def corpus_view(funnel: Facts, ingest_counts: Facts) -> dict[str, Any]:
    """The template's `r.corpus`. ingest_counts: of the ingest step, for what was read and refused before the funnel."""
    languages, total = funnel["languages"], funnel["total"]
    wanted = wanted_languages(funnel)
    groups = [([lang], language_name(lang), css_of(lang)) for lang in wanted]
    others = [lang for lang in languages if lang not in wanted]
    if others:
        groups.append((others, f"{len(others)} other language{'' if len(others) == 1 else 's'}", "other"))
    left = {lang: counts["ingested"] for lang, counts in languages.items()}

    def stage(label: str, lost: int | None, why: str) -> dict[str, Any]:
        parts = [
            {"css": css, "width": _percent(sum(left[m] for m in members), total["ingested"])}
            for members, _, css in groups
        ]
        return {"label": label, "documents": sum(left.values()), "lost": lost, "why": why, "parts": parts}

    stages = [stage("ingested", None, "")]
    labels = {name: words for name, words in STAGE_LABELS.items() if name not in ONLY_WHERE_NEEDED or total[name]}
    last = list(labels)[-1]
    labels[last] = ("kept", labels[last][1])
    for name, (label, why) in labels.items():
        left = {lang: left[lang] - languages[lang][name] for lang in left}
        stages.append(stage(label, total[name], why))
    dropped = " + ".join(f"{total[name]:,} {why}" for name, (_, why) in labels.items())
    rows = [{"name": language_name(lang), **languages[lang]} for lang in wanted]
    if others:
        rows.append({"name": groups[-1][1], **{name: sum(languages[lang][name] for lang in others) for name in total}})
    return {
        "groups": [{"name": name, "css": css} for _, name, css in groups],
        "stages": stages,
        "sum": f"{total['ingested']:,} ingested = {total['kept']:,} kept + {dropped}. Exact, in every language.",
        "table": [*rows, {"name": "all", "total": True, **total}],
        "any_later": total["later"] > 0,
        "num_languages": sum(lang != "und" for lang in languages),
        "raw_languages": _shares(languages, "ingested"),
        "kept_languages": _shares(languages, "kept_bytes"),
        "read": _records_read(ingest_counts),
        "reasons": funnel["reasons"],
        "num_rules": funnel["num_rules"],
    }


def source_stages(sources: Sequence[Facts]) -> list[tuple[str, str]]:
    """(heading, stage) of the columns that tell what each source lost: the stages that dropped something anywhere."""
    return [
        (why, stage)
        for stage, (_, why) in STAGE_LABELS.items()
        if any(source["documents"].get(stage) for source in sources)
    ]


def _records_read(counts: Facts) -> str | None:
    """What was read before there were documents, where the ingest step counted it."""
    refused = counts.get("refused")
    if not isinstance(refused, Mapping):
        return None
    reasons = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in refused.items())
    return (
        f"{counts['records_read']:,} records read = {counts['documents']:,} documents + "
        f"{sum(refused.values()):,} refused{f' ({reasons})' if reasons else ''}."
    )


def _shares(languages: Facts, field: str) -> list[dict[str, Any]]:
    whole = sum(counts[field] for counts in languages.values())
    found = sorted(languages.items(), key=lambda item: (-item[1][field], item[0]))
    return [
        {
            "name": language_name(lang),
            "css": css_of(lang),
            "share": counts[field] / whole,
            "count": counts[field],
            "field": field,
        }
        for lang, counts in found
        if counts[field]
    ]


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 3) if whole else 0.0
