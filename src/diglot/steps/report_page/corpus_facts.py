"""From pages to kept documents: the funnel, its reasons, the languages and the sources."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container
from typing import Any

from diglot.core.storage import read_json
from diglot.corpus.tables import Shard, decisions_of, documents_of, rule_names, shards
from diglot.ledger.artifact import Artifact

STAGES = ("empty", "language", "rules", "exact_duplicate", "near_duplicate", "later")  # in the order of the funnel
STAGE_OF_RULE = {"unmeasured": "empty", **{name: name for name in STAGES if name not in ("rules", "later")}}
COUNTS = ("ingested", *STAGES, "kept", "bytes", "kept_bytes")
MAX_REASONS = 14
UNKNOWN = "und"  # BCP 47: undetermined


def funnel(artifact: Artifact) -> dict[str, Any]:
    """Every ingested document in exactly one place: dropped at the stage of its first objection, or kept.

    Returns: `languages`: per identified language `ingested`, one number per stage, `kept`, `bytes`, `kept_bytes`;
        `total`: their sums; `reasons`: the most frequent first objections, each with an example.
    Raises: AssertionError where documents are lost between the stages: the tables on disk would contradict each other.
    """
    rules = rule_names(artifact)
    of_policies = set(rule_names(artifact.upstream("select")))
    by_language: dict[str, Counter[str]] = defaultdict(Counter)
    first: Counter[int] = Counter()
    objections: Counter[int] = Counter()
    reason_languages: dict[int, Counter[str]] = defaultdict(Counter)
    examples: dict[int, dict[str, Any]] = {}
    for shard in shards(artifact.upstream("ingest")):
        columns = ["id", "keep", "reasons", "first_reason", "value", "lang", "num_bytes", "duplicate_of", "jaccard"]
        rows = decisions_of(artifact, shard, columns).to_pylist()
        fresh: dict[int, int] = {}  # rule -> row of its first example
        for index, row in enumerate(rows):
            lang, rule = row["lang"] or UNKNOWN, row["first_reason"]
            counts = by_language[lang]
            counts["ingested"] += 1
            counts["bytes"] += row["num_bytes"]
            if row["keep"]:
                counts["kept"] += 1
                counts["kept_bytes"] += row["num_bytes"]
                continue
            counts[_stage(rules[rule], of_policies)] += 1
            first[rule] += 1
            reason_languages[rule][lang] += 1
            objections.update(bit for bit in range(len(rules)) if row["reasons"] >> bit & 1)
            if rule not in examples:
                fresh.setdefault(rule, index)
        for rule, index in fresh.items():
            examples[rule] = _example(artifact, shard, index, rows[index])
    languages = {
        lang: {name: counts[name] for name in COUNTS}
        for lang, counts in sorted(
            by_language.items(), key=lambda item: (-item[1]["kept"], -item[1]["ingested"], item[0])
        )
    }
    total = {name: sum(counts[name] for counts in languages.values()) for name in COUNTS}
    for sums in (*languages.values(), total):
        assert sums["ingested"] == sums["kept"] + sum(sums[stage] for stage in STAGES)
    reasons = [
        {
            "rule": rules[rule],
            "stage": _stage(rules[rule], of_policies),
            "documents": count,
            "objections": objections[rule],
            "languages": dict(reason_languages[rule].most_common()),
            "example": examples[rule],
        }
        for rule, count in sorted(first.items(), key=lambda item: (-item[1], item[0]))
    ]
    return {
        "languages": languages,
        "total": total,
        "reasons": reasons[:MAX_REASONS],
        "num_rules_that_dropped": len(reasons),
        "num_rules": len(rules),
    }


def sources(artifact: Artifact) -> list[dict[str, Any]]:
    """The ledger's `source` records with what became of their documents: what each stage dropped, and what stayed."""
    ingest, rules = artifact.upstream("ingest"), rule_names(artifact)
    of_policies = set(rule_names(artifact.upstream("select")))
    kept: dict[str, Counter[str]] = defaultdict(Counter)
    for shard in shards(ingest):
        table = decisions_of(artifact, shard, ["keep", "num_bytes", "first_reason"])
        kept[shard.source]["ingested"] += len(table)
        for rule in table["first_reason"].value_counts().to_pylist():
            if rule["values"] >= 0:
                kept[shard.source][_stage(rules[rule["values"]], of_policies)] += rule["counts"]
        survivors = table.filter(table["keep"])["num_bytes"].to_pylist()
        kept[shard.source]["kept"] += len(survivors)
        kept[shard.source]["kept_bytes"] += sum(survivors)
    path = ingest.path / "sources.json"
    records = {record["id"]: record for record in read_json(path)} if path.exists() else {}
    return [
        {"id": name, **records.get(name, {}), "documents": dict(kept[name])}
        for name in sorted(set(kept) | set(records))
    ]


def _stage(rule: str, of_policies: Container[str]) -> str:
    """Where in the funnel a rule stands; one that no policy has is of a step after the selection (`edited_away`)."""
    return STAGE_OF_RULE.get(rule, "rules" if rule in of_policies else "later")


def _example(artifact: Artifact, shard: Shard, index: int, row: dict[str, Any]) -> dict[str, Any]:
    """One document that a rule dropped, to be looked at."""
    url = documents_of(artifact, shard, ["url"])["url"][index].as_py()
    value, jaccard = row["value"], row["jaccard"]
    return {
        "id": row["id"],
        "url": url,
        "source": shard.source,
        "lang": row["lang"],
        "value": None if value is None or value != value else round(value, 4),
        "duplicate_of": row["duplicate_of"],
        "jaccard": None if jaccard is None or jaccard != jaccard else round(jaccard, 4),
    }
