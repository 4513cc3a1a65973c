"""Duplicates for the page: how candidates were found, how many were refused, and who was dropped for whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diglot.core.storage import read_json
from diglot.ledger.artifact import Artifact

NUM_GROUPS = 5


def facts(artifact: Artifact) -> dict[str, Any]:
    """What clusters.json of a deduplicate step says, without the loss of every source, which the sources' table has."""
    found = read_json(artifact.path / "clusters.json")
    names = ("survivor", "pairs", "near_curve", "cluster_curve", "removed_by_jaccard", "against")
    return {
        **{name: found[name] for name in names if name in found},
        "largest_groups": [
            {name: group[name] for name in ("kept", "num_dropped", "jaccard_lowest")}
            for group in found["largest_duplicate_groups"][:NUM_GROUPS]
        ],
    }


def view(found: Mapping[str, Any]) -> dict[str, Any]:
    """The template's `r.duplicates`: sentences, the S-curve beside what was removed, the largest groups."""
    curve, pairs = found["near_curve"], found["pairs"]
    removed = {f"{line['jaccard_at_least']:.2f}": line for line in found["removed_by_jaccard"]}
    sentences = [
        f"{pairs['candidates']:,} pairs were proposed and compared; {pairs['rejected']:,} "
        f"({pairs['rejected_share']:.0%}) were found too different and dropped nothing.",
        f"{curve['num_bands']} bands of {curve['rows_per_band']} rows propose half of the pairs at Jaccard "
        f"{curve['half_at_jaccard']:.2f}. Who stays: {found['survivor']}.",
    ]
    if pairs["uncompared"]:
        sentences.append(f"Up to {pairs['uncompared']:,} pairs of very large buckets were not compared (max_rounds).")
    if "against" in found:
        old = found["against"]
        sentences.append(
            f"Held against {old['documents']:,} documents of another corpus; dropped for one of them: "
            f"{sum(old['dropped_for_them'].values()):,}."
        )
    rows = [
        {"jaccard": step, "proposed": probability, "removed": removed[step]["removed"] if step in removed else None}
        for step, probability in curve["probability"].items()
        if step >= "0.50"
    ]
    return {"sentences": sentences, "rows": rows, "groups": found["largest_groups"]}
