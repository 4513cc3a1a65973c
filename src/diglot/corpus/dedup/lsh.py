"""Locality-sensitive hashing: documents whose signatures agree on all rows of some band become candidates.

With b bands of r rows two documents of Jaccard similarity s meet in at least one bucket with probability
1 - (1 - s^r)^b, an S-shaped curve in s. 14 bands of 8 rows propose half of the pairs at s = 0.68 and 95 % at 0.81.

`search_bands` finds b and r for a wanted threshold. What is proposed is compared afterwards, so the two errors are not
alike: a pair that is not proposed stays in the corpus, one too many costs a comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Bands(NamedTuple):
    """How a signature is cut: the first num_bands * rows_per_band places, in order."""

    num_bands: int
    rows_per_band: int

    def probability(self, jaccard: float) -> float:
        """Chance that two documents of this similarity become candidates."""
        return float(1.0 - (1.0 - jaccard**self.rows_per_band) ** self.num_bands)

    def threshold(self) -> float:
        """The similarity at which half of the pairs become candidates: the S-curve solved for 1/2."""
        return float((1.0 - 0.5 ** (1.0 / self.num_bands)) ** (1.0 / self.rows_per_band))


PRESETS = {
    # The released code of MAP-Neo (arXiv 2405.19327), with 128 permutations of which 117 are used. It proposes 40 % of
    # the pairs at 0.80 and 93 % at 0.90: also what `search_bands(0.8, 128, 0.5)` finds, as datasketch does.
    "map-neo": Bands(9, 13),
}
FALSE_NEGATIVE_WEIGHT = 0.95
GRID = (np.arange(1000) + 0.5) / 1000  # similarities at which the areas are summed


def search_bands(
    threshold: float, num_permutations: int, false_negative_weight: float = FALSE_NEGATIVE_WEIGHT
) -> Bands:
    """The bands that separate best at `threshold`, with at most `num_permutations` places.

    They minimise, over all b r <= num_permutations and with P(s) = 1 - (1 - s^r)^b,

        w * (area of 1 - P above the threshold) + (1 - w) * (area of P below it),    w = false_negative_weight.

    Of equal ones the fewest rows, then the fewest bands. With w = 0.95, threshold 0.8 and 112 places that is 14 x 8.
    The areas are those of datasketch (Zhu et al. 2016, LSH Ensemble), whose weights are 0.5 and 0.5.
    """
    above = threshold <= GRID
    best, lowest = Bands(1, 1), np.inf
    for rows in range(1, num_permutations + 1):
        bands = np.arange(1, num_permutations // rows + 1)[:, None]
        misses = (1.0 - GRID**rows) ** bands
        false_negatives, false_positives = misses[:, above].sum(1), (1.0 - misses[:, ~above]).sum(1)
        cost = false_negative_weight * false_negatives + (1.0 - false_negative_weight) * false_positives
        first = int(np.argmin(cost))
        if cost[first] < lowest - 1e-9:  # the last bits of a sum differ from machine to machine
            best, lowest = Bands(first + 1, rows), cost[first]
    return best


class Buckets(NamedTuple):
    """Documents that share a band, one bucket after the other: members[starts[k] : starts[k + 1]], ascending.

    starts int64 [B + 1], members int64. A bucket has at least two members; no two buckets have the same ones.
    """

    starts: Any
    members: Any

    @property
    def sizes(self) -> Any:
        return np.diff(self.starts)


def band_keys(signature: Any, bands: Bands) -> Any:
    """For each band the hashes that name its buckets: uint32 [N, K] -> uint64 [num_bands, N]."""
    from diglot.kernels import bands as kernel

    return kernel.band_keys(signature, bands.num_bands, bands.rows_per_band)


def group(keys: Any, documents: Any) -> Buckets:
    """Buckets of the documents with equal keys: uint64 [M], and numbers int64 [M], ascending among equal keys."""
    from diglot.kernels.bands import may_repeat

    candidates = np.flatnonzero(may_repeat(keys))
    keys, documents = keys[candidates], documents[candidates]
    order = np.argsort(keys, kind="stable")  # stable: members of a bucket come out in ascending order
    sorted_keys = keys[order]
    first = np.flatnonzero(np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])[: len(keys)])
    sizes = np.diff(np.append(first, len(keys)))
    several = sizes > 1
    starts = np.concatenate([[0], np.cumsum(sizes[several])])
    return Buckets(starts, documents[order[np.repeat(several, sizes)]])


def curve(bands: Bands) -> dict[str, Any]:
    """The S-curve in numbers, for a report."""
    at = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)
    return {
        "num_bands": bands.num_bands,
        "rows_per_band": bands.rows_per_band,
        "half_at_jaccard": round(bands.threshold(), 4),
        "probability": {f"{s:.2f}": round(bands.probability(s), 4) for s in at},
    }


def distinct(parts: Sequence[Buckets]) -> Buckets:
    """All buckets of the parts, those with the same members once: near-copies share most of their bands."""
    starts, offset = [np.zeros(0, np.int64)], 0
    for part in parts:
        starts.append(part.starts[:-1] + offset)
        offset += len(part.members)
    members = np.concatenate([np.zeros(0, np.int64), *(part.members for part in parts)])
    found = Buckets(np.append(np.concatenate(starts), offset), members)
    if not len(members):
        return found
    weights = (members.astype(np.uint64) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    weights = (weights ^ (weights >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
    sums = np.add.reduceat(weights ^ (weights >> np.uint64(29)), found.starts[:-1])
    # Same size, same smallest member and same 64-bit sum of hashes: the same set.
    identity = np.stack([found.sizes.astype(np.uint64), found.members[found.starts[:-1]].astype(np.uint64), sums], 1)
    keep = np.sort(np.unique(identity, axis=0, return_index=True)[1])
    sizes = found.sizes[keep]
    chosen = np.zeros(len(found.sizes), bool)
    chosen[keep] = True
    return Buckets(np.concatenate([[0], np.cumsum(sizes)]), found.members[np.repeat(chosen, found.sizes)])
