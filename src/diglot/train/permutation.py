"""Seeded permutations of 0..n-1 that need no memory and can be read at any place, in both directions.

A Feistel network over the smallest even number of bits that holds n, walked until the value falls below n (Black and
Rogaway 2002, format-preserving encryption). Written out here because NumPy does not promise that
`Generator.permutation` stays the same across versions, and the order of training data must.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6  # three already pass for random (Luby and Rackoff 1988); tiny domains like a few more
_M1, _M2, _GOLDEN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), 0x9E3779B97F4A7C15


def permute(indices: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int64]:
    """Where the permutation of 0..n-1 with this seed sends `indices`."""
    return _walk(indices, n, _round_keys(seed))


def permute_back(indices: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int64]:
    """The inverse: `permute_back(permute(i, n, seed), n, seed) == i`."""
    return _walk(indices, n, _round_keys(seed), backwards=True)


def _walk(indices: NDArray[np.int64], n: int, keys: NDArray[np.uint64], backwards: bool = False) -> NDArray[np.int64]:
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    values = _feistel(np.asarray(indices, dtype=np.int64).astype(np.uint64), half, keys, backwards)
    outside = values >= n
    while outside.any():  # under 4 turns on average, as the domain is at most 4 n + 3 large
        values[outside] = _feistel(values[outside], half, keys, backwards)
        outside = values >= n
    return values.astype(np.int64)


def _feistel(
    values: NDArray[np.uint64], half: np.uint64, keys: NDArray[np.uint64], backwards: bool
) -> NDArray[np.uint64]:
    mask = np.uint64((1 << int(half)) - 1)
    left, right = values >> half, values & mask
    if backwards:
        for key in keys[::-1]:
            left, right = right ^ (_mix(left ^ key) & mask), left
    else:
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
    mixed: NDArray[np.uint64] = (left << half) | right
    return mixed


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))


def _round_keys(seed: int) -> NDArray[np.uint64]:
    steps = [(seed + (i + 1) * _GOLDEN) % 2**64 for i in range(ROUNDS)]
    return _mix(np.array(steps, dtype=np.uint64))
