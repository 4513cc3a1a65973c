"""Near-duplicates: which document is dropped for which, with the similarity measured between just those two.

Plain MinHash with connected components drops every member of a component, also one that is similar only to another
dropped member; that emptied whole sources elsewhere. Here the best document of a component stays, every other one is
compared with it directly and dropped only when similar to it; of those that remain the best stays next, and so on. So

- every dropped document is similar to the kept document it points at;
- no two kept documents that shared a bucket are similar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from diglot.corpus.dedup.linking import Comparisons, Pairs, link
from diglot.corpus.dedup.lsh import Buckets


@dataclass(frozen=True)
class Similar:
    """When one document makes another superfluous: Jaccard, or containment in the one that stays, is high enough.

    containment None: only Jaccard counts.
    """

    jaccard: float
    containment: float | None = None

    def __call__(self, pairs: Pairs) -> Any:
        enough = pairs.jaccard >= np.float32(self.jaccard)
        if self.containment is not None:
            enough |= pairs.containment >= np.float32(self.containment)
        return enough


class NearDuplicates(NamedTuple):
    """For N documents: duplicate_of int64 (-1 where kept), jaccard and containment float32 (NaN where kept).

    num_uncompared: pairs of a bucket or of a component that max_rounds left out, at most.
    """

    duplicate_of: Any
    jaccard: Any
    containment: Any
    num_uncompared: int


def near_duplicates(found: Buckets, comparisons: Comparisons, similar: Similar, *, max_rounds: int) -> NearDuplicates:
    """Decide which documents of the buckets are dropped. Of two similar ones the smaller number stays."""
    component, num_uncompared = link(found, comparisons, similar, max_rounds=max_rounds)
    duplicate_of = np.full(len(component), -1, np.int64)
    jaccard, containment = np.full(len(component), np.nan, np.float32), np.full(len(component), np.nan, np.float32)
    open_ = np.argsort(
        component, kind="stable"
    )  # documents whose fate is open: one component after the other, best first
    for _ in range(max_rounds):
        first = np.append(True, component[open_[1:]] != component[open_[:-1]])[: len(open_)]
        survivor, other = open_[np.maximum.accumulate(np.where(first, np.arange(len(open_)), 0))][~first], open_[~first]
        if len(other) == 0:
            break
        pairs = comparisons.compare(survivor, other)
        drop = similar(pairs)
        dropped = other[drop]
        duplicate_of[dropped] = survivor[drop]
        jaccard[dropped], containment[dropped] = pairs.jaccard[drop], pairs.containment[drop]
        open_ = other[~drop]
    _, sizes = np.unique(component[open_], return_counts=True)  # all 1 unless max_rounds came first
    num_uncompared += int((sizes * (sizes - 1) // 2).sum())
    return NearDuplicates(duplicate_of, jaccard, containment, num_uncompared)
