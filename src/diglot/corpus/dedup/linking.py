"""From buckets to components: compare the documents of each bucket until everything similar is connected.

LSH proposes and does not decide: an edge exists only between two documents that were compared and found similar. Pairs
that are already connected are not compared, so a bucket of copies costs one comparison a copy and not one a pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from diglot.corpus.dedup.lsh import Buckets

Decision = Callable[["Pairs"], Any]  # Pairs -> bool [P]


class Pairs(NamedTuple):
    """Compared documents, left < right, so that `left` is the better survivor. All arrays [P].

    common: shared shingles; left_size, right_size: different shingles of each.
    """

    left: Any
    right: Any
    common: Any
    left_size: Any
    right_size: Any

    @property
    def jaccard(self) -> Any:
        """Shared shingles by those of both, in [0, 1], float32; 0 for two documents without shingles."""
        return (self.common / np.maximum(self.left_size + self.right_size - self.common, 1)).astype(np.float32)

    @property
    def containment(self) -> Any:
        """Share of the right document's shingles that the left one has too: what dropping it does not lose."""
        return (self.common / np.maximum(self.right_size, 1)).astype(np.float32)

    def take(self, index: Any) -> Pairs:
        return Pairs(*(column[index] for column in self))


@dataclass
class Comparisons:
    """Every pair that was compared, each once, sorted by (left, right)."""

    num_documents: int
    overlaps: Callable[[Any, Any], Any]  # (left, right) -> shared shingles
    sizes: Callable[[Any], Any]
    _keys: Any = field(default_factory=lambda: np.zeros(0, np.int64))
    _common: Any = field(default_factory=lambda: np.zeros(0, np.int64))

    def compare(self, left: Any, right: Any) -> Pairs:
        """Measure these pairs, or recall them. left < right element by element; repeats are welcome."""
        asked = left * self.num_documents + right
        missing = np.setdiff1d(asked, self._keys)
        if len(missing):
            common = self.overlaps(missing // self.num_documents, missing % self.num_documents)
            keys = np.concatenate([self._keys, missing])
            order = np.argsort(keys, kind="stable")
            self._keys, self._common = keys[order], np.concatenate([self._common, common])[order]
        return self._pairs(asked, self._common[np.searchsorted(self._keys, asked)])

    def all(self) -> Pairs:
        """Every pair compared so far."""
        return self._pairs(self._keys, self._common)

    def _pairs(self, keys: Any, common: Any) -> Pairs:
        left, right = keys // self.num_documents, keys % self.num_documents
        return Pairs(left, right, common, self.sizes(left), self.sizes(right))


def link(
    found: Buckets,
    comparisons: Comparisons,
    similar: Decision,
    *,
    max_rounds: int,
    worth_comparing: Callable[[Any, Any], Any] | None = None,
) -> tuple[Any, int]:
    """Connect all similar documents that share a bucket.

    Round k compares the k-th document of every bucket with the later ones to which it is not connected yet; a bucket
    leaves when what is left of it is connected.

    Args:
        max_rounds: guards against a bucket of very many documents of which few are similar.
        worth_comparing: (left, right) -> bool; a cheaper test that spares the comparison.
    Returns: the component of every document, int64 [num_documents], named by its smallest number; and how many pairs
        were left uncompared by max_rounds.
    """
    from diglot.kernels.union_find import forest, roots, unite

    parents = forest(comparisons.num_documents)
    starts, sizes, members = found.starts[:-1], found.sizes, found.members
    for _ in range(max_rounds):
        hub, other = _star(starts, sizes, members)
        open_ = parents[hub] != parents[other]
        keys = _pair_keys(hub[open_], other[open_], comparisons.num_documents)
        hub, other = keys // comparisons.num_documents, keys % comparisons.num_documents
        if worth_comparing is not None:
            worth = worth_comparing(hub, other)
            hub, other = hub[worth], other[worth]
        pairs = comparisons.compare(hub, other)
        edges = pairs.take(similar(pairs))
        unite(parents, edges.left, edges.right)
        parents = roots(parents)
        starts, sizes, members = _unconnected(starts + 1, sizes - 1, members, parents)
        if len(starts) == 0:
            break
    return parents, int((sizes * (sizes - 1) // 2).sum())


def first_pairs(found: Buckets, num_documents: int, worth_comparing: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """(left, right) of the pairs that the first round of `link` compares, each once."""
    keys = _pair_keys(*_star(found.starts[:-1], found.sizes, found.members), num_documents)
    left, right = keys // num_documents, keys % num_documents
    worth = worth_comparing(left, right)
    return left[worth], right[worth]


def ranges(starts: Any, sizes: Any) -> Any:
    """starts[k], starts[k] + 1, ... (sizes[k] of them), for every k in turn."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(ends[-1] if len(ends) else 0)


def _pair_keys(left: Any, right: Any, num_documents: int) -> Any:
    """One number for each pair, sorted, each once."""
    return np.unique(left * num_documents + right)


def _star(starts: Any, sizes: Any, members: Any) -> tuple[Any, Any]:
    """(first member, other member) of every bucket."""
    return np.repeat(members[starts], sizes - 1), members[ranges(starts + 1, sizes - 1)]


def _unconnected(starts: Any, sizes: Any, members: Any, component: Any) -> tuple[Any, Any, Any]:
    """The buckets whose members lie in more than one component, packed anew."""
    several = sizes > 1
    starts, sizes = starts[several], sizes[several]
    members = members[ranges(starts, sizes)]
    starts = np.cumsum(sizes) - sizes
    if len(starts) == 0:
        return starts, sizes, members
    label = component[members]
    mixed = np.minimum.reduceat(label, starts) != np.maximum.reduceat(label, starts)
    members, sizes = members[np.repeat(mixed, sizes)], sizes[mixed]
    return np.cumsum(sizes) - sizes, sizes, members
