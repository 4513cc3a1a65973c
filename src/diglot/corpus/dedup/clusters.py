"""Loose clusters: documents that resemble each other without being duplicates, such as pages of one template.

They are held out or trained on together, because a held-out page whose sister was trained on measures memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diglot.corpus.dedup.linking import Comparisons, link
from diglot.corpus.dedup.lsh import Buckets
from diglot.corpus.dedup.near import Similar
from diglot.corpus.dedup.signatures import Signatures

# An estimate from 112 places has a standard deviation of at most 0.047, so this margin is more than four of them.
ESTIMATE_MARGIN = 0.2


@dataclass(frozen=True)
class AgreesEnough:
    """Does the similarity that two signatures suggest come within ESTIMATE_MARGIN of `jaccard`?"""

    signatures: Signatures
    jaccard: float

    def __call__(self, left: Any, right: Any) -> Any:
        needed = (self.jaccard - ESTIMATE_MARGIN) * self.signatures.num_places
        return self.signatures.agreements(left, right) >= needed


def loose_clusters(
    found: Buckets, comparisons: Comparisons, jaccard: float, agrees: AgreesEnough, *, max_rounds: int
) -> tuple[Any, int]:
    """Components of documents connected by Jaccard similarity >= `jaccard`.

    Returns: the smallest document number of every document's cluster, int64 [N]; how many pairs max_rounds left out.
    """
    return link(found, comparisons, Similar(jaccard), max_rounds=max_rounds, worth_comparing=agrees)


def cluster_names(component: Any, ids: Any) -> Any:
    """The smallest id of every document's component: component int64 [N], ids bytes [N] -> bytes [N]."""
    by_id = np.argsort(ids, kind="stable")
    rank = np.empty(len(ids), np.int64)
    rank[by_id] = np.arange(len(ids))
    smallest = np.full(len(ids), len(ids), np.int64)
    np.minimum.at(smallest, component, rank)
    return ids[by_id[smallest[component]]]
