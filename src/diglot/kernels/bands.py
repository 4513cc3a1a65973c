"""Bands of MinHash signatures: the hash that names a bucket, and which hashes can have a partner at all.

The hash of band k of a signature starts from (k + 1) MULTIPLIER and takes in its places one by one, so equal places in
two bands have different hashes and the hash alone is the name of a bucket. A collision only adds a candidate.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diglot.kernels.jit import kernel

MULTIPLIER = 0x9E3779B97F4A7C15
_MULTIPLIER, _SHIFT = np.uint64(MULTIPLIER), np.uint64(29)
SLOTS_PER_KEY = 4  # of the table in `may_repeat`: one key of five meets another one by chance


@kernel
def band_keys(signature, num_bands, rows_per_band):
    """Hashes of all bands: uint32 [N, K] -> uint64 [num_bands, N]."""
    keys = np.empty((num_bands, signature.shape[0]), np.uint64)
    for d in range(signature.shape[0]):
        for band in range(num_bands):
            key = np.uint64(band + 1) * _MULTIPLIER
            for place in range(band * rows_per_band, (band + 1) * rows_per_band):
                key = (key ^ np.uint64(signature[d, place])) * _MULTIPLIER
                key ^= key >> _SHIFT
            keys[band, d] = key
    return keys


def band_keys_oracle(signature: list[int], num_bands: int, rows_per_band: int) -> list[int]:
    """The hashes of one signature's bands: the definition."""
    keys = []
    for band in range(num_bands):
        key = (band + 1) * MULTIPLIER % 2**64
        for place in signature[band * rows_per_band : (band + 1) * rows_per_band]:
            key = (key ^ place) * MULTIPLIER % 2**64
            key ^= key >> 29
        keys.append(key)
    return keys


def may_repeat(keys: Any) -> Any:
    """Which keys may occur more than once, bool [N]: all that do, and few others. uint64 [N].

    Most documents share a band with none, and finding that out is cheaper than sorting them.
    """
    bits = int(max(len(keys) * SLOTS_PER_KEY, 2) - 1).bit_length()
    found: Any = _may_repeat(keys, np.zeros(1 << bits, np.uint8), np.uint64(64 - bits))
    return found


@kernel
def _may_repeat(keys, seen, shift):
    for i in range(keys.shape[0]):
        slot = keys[i] >> shift
        seen[slot] = min(seen[slot] + 1, 2)
    several = np.empty(keys.shape[0], np.bool_)
    for i in range(keys.shape[0]):
        several[i] = seen[keys[i] >> shift] > 1
    return several
