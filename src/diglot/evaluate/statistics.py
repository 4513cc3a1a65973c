"""Intervals for scores that are a ratio of sums, such as bits per byte: bootstrap over clusters of documents.

Near-duplicate documents are not independent evidence, so whole clusters are drawn (cluster bootstrap: Cameron, Gelbach
and Miller 2008), and the interval is that of percentiles (Efron 1979). Two models are compared on the same draws: both
are divided by the same bytes, so the difference of the ratios is the ratio of the differences, and one function does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
MIN_CLUSTERS = 2  # one cluster says nothing about the spread between clusters


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; without one (None) where there were fewer than two clusters."""

    value: float
    low: float | None
    high: float | None
    num_items: int
    num_clusters: int


def ratio_of_sums(
    numerator: ArrayLike,
    denominator: ArrayLike,
    clusters: Sequence[str],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """sum(numerator) / sum(denominator) with a bootstrap interval.

    Args:
        numerator, denominator: [D] per document, e.g. bits and bytes; for a paired difference the numerator is the
            difference of both models' bits.
        clusters: [D] which documents belong together; documents with ids of their own are their own clusters.
        seed: the draws, and so the interval, are a pure function of it and of the order of the clusters' names.
    Raises: ValueError without documents or with a denominator that is not positive.
    """
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if not len(below) or below.sum() <= 0:
        raise ValueError(f"{len(below)} documents with {below.sum():g} bytes in all; a ratio needs at least one byte.")
    names, member = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    value = float(above.sum() / below.sum())
    if len(names) < MIN_CLUSTERS:
        return Estimate(value, None, None, len(below), len(names))
    sums = np.stack([np.bincount(member, weights=part, minlength=len(names)) for part in (above, below)], axis=1)
    generator = np.random.Generator(np.random.PCG64(seed))
    draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=num_resamples)
    drawn_above, drawn_below = (draws @ sums).T
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn_above / drawn_below, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), len(below), len(names))
