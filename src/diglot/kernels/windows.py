"""Hashes of byte windows, for finding passages that two documents share: `corpus.edits.substrings` says how.

`fingerprints` is winnowing (Schleimer, Wilkerson and Aiken 2003): of every `span` windows in a row the one with the
smallest hash is chosen, the last of equals. So two equal passages of width + span - 1 bytes choose the same window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diglot.kernels.jit import kernel
from diglot.kernels.units import mix

BASE_64 = np.uint64(0x9E3779B97F4A7C15)
BASE_61 = np.uint64(0x0A3F17C94E2B6D81)
PRIME_61 = np.uint64((1 << 61) - 1)
LOW_32, LOW_29 = np.uint64((1 << 32) - 1), np.uint64((1 << 29) - 1)
ONE = np.uint64(1)


def fingerprints(offsets: Any, utf8: Any, width: int, span: int) -> tuple[Any, Any, Any]:
    """Chosen windows of all documents: row int64, start int64 (bytes, from where its document begins), hash uint64."""
    sizes = np.maximum(np.diff(offsets) - width - span + 2, 0)  # an upper bound of what each document chooses
    room = int(sizes.sum())
    row, start, hashes = np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room, np.uint64)
    count = _fingerprints(offsets, utf8, width, span, row, start, hashes)
    return row[:count].copy(), start[:count].copy(), hashes[:count].copy()


@kernel
def _fingerprints(offsets, utf8, width, span, row, start, hashes):
    count = 0
    power = ONE
    for _ in range(width):
        power *= BASE_64
    size = 1
    while size < span:
        size *= 2
    mask = size - 1
    ring, at = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    for document in range(len(offsets) - 1):
        begin, length = offsets[document], offsets[document + 1] - offsets[document]
        if length < width + span - 1:
            continue
        state = np.uint64(0)
        head, tail = 0, 0  # of the queue of windows that can still be the smallest, hashes ascending
        chosen = -1
        for position in range(length):
            state = state * BASE_64 + np.uint64(utf8[begin + position]) + ONE
            if position >= width:
                state -= power * (np.uint64(utf8[begin + position - width]) + ONE)
            window = position - width + 1
            if window < 0:
                continue
            value = mix(state)
            while tail > head and ring[(tail - 1) & mask] >= value:
                tail -= 1
            if tail > head and at[head & mask] <= window - span:
                head += 1
            ring[tail & mask], at[tail & mask] = value, window
            tail += 1
            if window >= span - 1 and at[head & mask] != chosen:
                chosen = at[head & mask]
                row[count], start[count], hashes[count] = document, chosen, ring[head & mask]
                count += 1
    return count


@kernel
def _times(a, b):
    """a * b modulo 2^61 - 1, for a and b below it."""
    a_high, a_low = a >> np.uint64(32), a & LOW_32
    b_high, b_low = b >> np.uint64(32), b & LOW_32
    middle = a_high * b_low + a_low * b_high
    high, low = a_high * b_high, a_low * b_low
    # 2^64 = 8 and 2^61 = 1 here.
    total = high * np.uint64(8) + (middle >> np.uint64(29)) + ((middle & LOW_29) << np.uint64(32))
    total = (total & PRIME_61) + (total >> np.uint64(61)) + (low & PRIME_61) + (low >> np.uint64(61))
    total = (total & PRIME_61) + (total >> np.uint64(61))
    return total - PRIME_61 if total >= PRIME_61 else total


@kernel
def hash_windows(utf8, first, last, width, low, high):
    """Two hashes of the windows of `width` bytes that begin at first..last, both included: uint64 [last - first + 1].

    low is a polynomial modulo 2^64 through a finaliser, high one modulo 2^61 - 1: together some 125 bits.
    """
    power_64, power_61 = ONE, ONE
    for _ in range(width):
        power_64 *= BASE_64
        power_61 = _times(power_61, BASE_61)
    state_64, state_61 = np.uint64(0), np.uint64(0)
    for position in range(first, last + width):
        incoming = np.uint64(utf8[position]) + ONE
        state_64 = state_64 * BASE_64 + incoming
        state_61 = _times(state_61, BASE_61) + incoming
        if position >= first + width:
            outgoing = np.uint64(utf8[position - width]) + ONE
            state_64 -= power_64 * outgoing
            state_61 += PRIME_61 - _times(power_61, outgoing)
        state_61 = (state_61 & PRIME_61) + (state_61 >> np.uint64(61))
        if state_61 >= PRIME_61:
            state_61 -= PRIME_61
        window = position - width + 1 - first
        if window >= 0:
            low[window], high[window] = mix(state_64), state_61
