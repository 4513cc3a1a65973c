"""A corpus held against an older one: new documents that resemble an old one are dropped, old ones never are.

Old documents are the smallest numbers. They are not compared with each other, whatever they share: what the older
corpus keeps was decided there. What is left of the new documents is then deduplicated as any corpus is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diglot.corpus.dedup.linking import Comparisons, ranges
from diglot.corpus.dedup.lsh import Buckets
from diglot.corpus.dedup.near import NearDuplicates, Similar


def near_fixed(
    found: Buckets, comparisons: Comparisons, similar: Similar, num_fixed: int, *, max_rounds: int
) -> NearDuplicates:
    """Decide which documents from `num_fixed` on are dropped for one of the first `num_fixed`.

    Round k compares the k-th old document of every bucket with the new ones that are still open; of several that are
    similar in one round the smallest number is pointed at. A bucket leaves when it has no old or no open document more.
    """
    num_documents = comparisons.num_documents
    duplicate_of = np.full(num_documents, -1, np.int64)
    jaccard, containment = (np.full(num_documents, np.nan, np.float32) for _ in range(2))
    starts, ends, members = found.starts[:-1], found.starts[1:], found.members
    # Members ascend, so the old ones of a bucket come first.
    num_old = np.add.reduceat(members < num_fixed, starts) if len(starts) else np.zeros(0, np.int64)
    hub, middle = starts, starts + num_old
    for _ in range(max_rounds):
        alive = (hub < middle) & (middle < ends)
        hub, middle, ends = hub[alive], middle[alive], ends[alive]
        if len(hub) == 0:
            break
        left, right = np.repeat(members[hub], ends - middle), members[ranges(middle, ends - middle)]
        still_open = duplicate_of[right] < 0
        asked = np.unique(left[still_open] * num_documents + right[still_open])
        pairs = comparisons.compare(asked // num_documents, asked % num_documents)
        dropped = pairs.take(np.flatnonzero(similar(pairs)))
        _, first = np.unique(dropped.right, return_index=True)  # pairs are sorted by left: the first is the smallest
        dropped = dropped.take(first)
        duplicate_of[dropped.right] = dropped.left
        jaccard[dropped.right], containment[dropped.right] = dropped.jaccard, dropped.containment
        hub = hub + 1
    alive = (hub < middle) & (middle < ends)
    open_ = np.append(0, np.cumsum(duplicate_of[members] < 0))
    num_uncompared = ((middle - hub) * (open_[ends] - open_[middle]))[alive].sum()
    return NearDuplicates(duplicate_of, jaccard, containment, int(num_uncompared))


def among(found: Buckets, chosen: Any) -> Buckets:
    """The buckets with only the chosen documents in them: bool [N]. Those left with fewer than two go."""
    mine = chosen[found.members]
    counts = np.append(0, np.cumsum(mine))
    sizes = counts[found.starts[1:]] - counts[found.starts[:-1]]
    mine &= np.repeat(sizes > 1, found.sizes)
    return Buckets(np.append(0, np.cumsum(sizes[sizes > 1])), found.members[mine])
