"""clusters.json: what deduplication did, so that a wipe-out is seen by a person and not by a benchmark.

Whole sources have been lost to one cluster of templated pages elsewhere; so the largest groups are listed with
addresses, and a source that loses more than the alarm share is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diglot.corpus.dedup.keys import DocumentKeys
from diglot.corpus.dedup.linking import Pairs
from diglot.corpus.dedup.verdicts import Verdicts
from diglot.corpus.tables import read_table

NUM_LARGEST = 20  # groups that are listed
NUM_MEMBERS = 10  # documents that are listed of each
JACCARD_STEPS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
MIN_ALARM_DOCUMENTS = 20  # a source of one page that is a copy is no wipe-out


def losses(names: Sequence[str], label: Any, keys: DocumentKeys, verdicts: Verdicts) -> dict[str, dict[str, Any]]:
    """Documents and bytes that came in, were dropped and stayed, for every label (source or language).

    names, label: names of the labels, also repeated, and the number of each document's, int [N].
    """
    distinct_names, group_of_label = np.unique(np.array(names, str), return_inverse=True)
    group = group_of_label[label[keys.own]]

    def total(chosen: Any, weights: Any = None) -> list[int]:
        weights = None if weights is None else weights[keys.own][chosen]
        return [int(count) for count in np.bincount(group[chosen], weights, minlength=len(distinct_names))]

    everything, keep = np.ones(len(group), bool), verdicts.keep[keys.own]
    columns = {
        "documents": total(everything),
        "exact_duplicate": total(verdicts.exact[keys.own]),
        "near_duplicate": total(verdicts.near[keys.own]),
        "kept": total(keep),
        "bytes": total(everything, keys.num_bytes),
        "bytes_dropped": total(~keep, keys.num_bytes),
    }
    rows = [dict(zip(columns, counts, strict=True)) for counts in zip(*columns.values(), strict=True)]
    return {
        str(name): {**row, "dropped_share": round(1 - row["kept"] / row["documents"], 4)}
        for name, row in zip(distinct_names, rows, strict=True)
        if row["documents"]
    }


def removed_by_jaccard(verdicts: Verdicts, compared: Pairs, accepted: Any) -> list[dict[str, Any]]:
    """Near-duplicates removed, and pairs compared and accepted, at a Jaccard similarity of at least each step.

    What is removed below the Jaccard limit is contained in the document that stays.
    """
    removed, pairs = verdicts.jaccard[verdicts.near], compared.jaccard
    return [
        {
            "jaccard_at_least": step,
            "removed": int((removed >= np.float32(step)).sum()),
            "compared": int((pairs >= np.float32(step)).sum()),
            "accepted": int((pairs[accepted] >= np.float32(step)).sum()),
        }
        for step in JACCARD_STEPS
    ]


def alarms(by_source: dict[str, dict[str, Any]], alarm_share: float) -> list[str]:
    """A sentence for every source of some size that lost more than `alarm_share` of its documents."""
    return [
        f"source {source} lost {loss['dropped_share']:.0%} of its {loss['documents']:,} documents as duplicates, more "
        f"than alarm_share {alarm_share:.0%}. Look at its groups in clusters.json before training on it."
        for source, loss in by_source.items()
        if loss["documents"] >= MIN_ALARM_DOCUMENTS and loss["dropped_share"] > alarm_share
    ]


def largest_duplicate_groups(keys: DocumentKeys, verdicts: Verdicts) -> list[dict[str, Any]]:
    """The kept documents that most others were dropped for."""
    dropped = np.flatnonzero(~verdicts.keep)
    groups = _largest(verdicts.duplicate_of[dropped], dropped, smallest_size=1)
    urls = _urls(keys, [number for kept, members in groups for number in (kept, *members)])
    return [
        {
            "kept": _named(kept, keys, urls),
            "num_dropped": len(members),
            "jaccard_lowest": round(float(verdicts.jaccard[members].min()), 4),
            "dropped": [
                _named(number, keys, urls)
                | {
                    "jaccard": round(float(verdicts.jaccard[number]), 4),
                    "containment": round(float(verdicts.containment[number]), 4),
                }
                for number in members[:NUM_MEMBERS]
            ],
        }
        for kept, members in groups
    ]


def largest_clusters(keys: DocumentKeys, verdicts: Verdicts) -> list[dict[str, Any]]:
    """The loose clusters with most kept documents."""
    kept = np.flatnonzero(verdicts.keep)
    kept = kept[kept >= keys.num_fixed]
    _, label = np.unique(verdicts.cluster[kept], return_inverse=True)
    groups = _largest(label, kept, smallest_size=2)
    urls = _urls(keys, [number for _, members in groups for number in members])
    return [
        {
            "cluster": verdicts.cluster[members[0]].decode(),
            "num_documents": len(members),
            "documents": [_named(number, keys, urls) for number in members[:NUM_MEMBERS]],
        }
        for _, members in groups
    ]


def _largest(label: Any, numbers: Any, smallest_size: int) -> list[tuple[int, Any]]:
    """(label, numbers that carry it), largest first, then by smallest number; at most NUM_LARGEST."""
    order = np.argsort(label, kind="stable")
    values, first, counts = np.unique(label[order], return_index=True, return_counts=True)
    groups = [
        (int(value), numbers[order[start : start + count]])
        for value, start, count in zip(values, first, counts, strict=True)
        if count >= smallest_size
    ]
    return sorted(groups, key=lambda group: (-len(group[1]), int(group[1][0])))[:NUM_LARGEST]


def _named(number: int, keys: DocumentKeys, urls: dict[int, str | None]) -> dict[str, Any]:
    return {
        "id": keys.ids[number].decode(),
        "source": keys.shards[keys.shard[number]].source,
        "url": urls.get(int(number)),
        "num_bytes": int(keys.num_bytes[number]),
    }


def _urls(keys: DocumentKeys, numbers: list[int]) -> dict[int, str | None]:
    """Addresses of some documents, read shard by shard."""
    wanted = np.array(sorted(set(map(int, numbers))), np.int64)
    urls: dict[int, str | None] = {}
    for shard in np.unique(keys.shard[wanted]) if len(wanted) else []:
        mine = wanted[keys.shard[wanted] == shard]
        column = read_table(keys.files[shard], ["url"])["url"].take(keys.row[mine])
        urls |= dict(zip(mine.tolist(), column.to_pylist(), strict=True))
    return urls
