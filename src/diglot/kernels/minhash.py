"""Shingles of a text and what near-duplicate search measures on them: MinHash signatures, shingle sets, overlaps.

A shingle is `shingle_units` consecutive text units (`diglot.text.units`) with ASCII capitals folded, so one definition
serves English and Chinese: white-space words there, single characters here. White space and punctuation at the ends of
words make no difference. A shingle is known by a 64-bit hash: a polynomial over its units' hashes, finalised by `mix`.

A signature holds, for each of `num_permutations` affine maps x -> a x + b modulo 2^32 with odd a, the smallest image of
the upper 32 bits of the document's shingle hashes (Broder 1997, "On the resemblance and containment of documents").
Two documents agree at one place with a probability that is the Jaccard similarity of their shingle sets. Affine maps
are not min-wise independent for every set, but these sets are hashes and so already random; a test holds the share of
agreeing places against the true similarity.

`signature_oracle` and `shingles_oracle` are the definitions; the kernels are held equal to them by a test. Kernels take
N documents as offsets int64 [N + 1] in bytes and utf8 uint8 [offsets[-1]], valid UTF-8 as Arrow strings are.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

from diglot.core.seeds import derive_seed
from diglot.kernels.jit import classes, kernel
from diglot.kernels.units import FNV_OFFSET, FNV_PRIME, decode, mix
from diglot.text import units as text_units
from diglot.text.units import CJK, FIRST_CORE, LAST_BORDER, MARK

NUM_PERMUTATIONS = 112  # 14 bands of 8 rows and 28 of 4
SHINGLE_UNITS = 5
BASE = 0xD6E8FEB86659FD93  # odd, of the polynomial over the unit hashes of a shingle
EMPTY = 0xFFFFFFFF  # every place of the signature of a document without shingles
BLOCK = 2048  # shingle hashes that stay in the first-level cache while all permutations pass over them


def signatures(
    offsets: Any,
    utf8: Any,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
    shingle_units: int = SHINGLE_UNITS,
) -> tuple[Any, Any]:
    """MinHash signatures uint32 [N, num_permutations] and numbers of shingles int32 [N], repeats counted.

    A document with fewer than `shingle_units` units has no shingle and the signature EMPTY; leave it to exact
    deduplication, because all such documents look alike here.
    """
    multipliers, increments = permutations(num_permutations, seed)
    power = _last_power(shingle_units)
    found: tuple[Any, Any] = _signatures(
        np.asarray(offsets, np.int64), utf8, classes(), multipliers, increments, shingle_units, power
    )
    return found


def shingle_sets(offsets: Any, utf8: Any, shingle_units: int = SHINGLE_UNITS) -> tuple[Any, Any]:
    """The shingle set of every document: starts int64 [N + 1] into hashes uint64, sorted and unique per document."""
    offsets = np.asarray(offsets, np.int64)
    starts, hashes = _all_shingles(offsets, utf8, classes(), shingle_units, _last_power(shingle_units))
    for begin, end in itertools.pairwise(starts.tolist()):
        hashes[begin:end].sort()  # NumPy's vectorised sort is several times faster than numba's
    found: tuple[Any, Any] = _unique(starts, hashes)
    return found


@kernel
def overlaps(starts, ends, hashes, left, right):
    """Size of the intersection of shingle sets for P pairs: left, right int64 [P] number documents -> int64 [P].

    The set of document d is hashes[starts[d] : ends[d]], sorted and unique.
    """
    common = np.zeros(left.shape[0], np.int64)
    for p in range(left.shape[0]):
        i, i_end = starts[left[p]], ends[left[p]]
        j, j_end = starts[right[p]], ends[right[p]]
        count = 0
        while i < i_end and j < j_end:
            a, b = hashes[i], hashes[j]
            count += a == b  # without branches: which side is smaller cannot be predicted
            i += a <= b
            j += b <= a
        common[p] = count
    return common


@kernel
def agreements(signature, left, right):
    """How many places agree in the signatures of P pairs: uint32 [N, K], left and right int64 [P] -> int64 [P]."""
    equal = np.zeros(left.shape[0], np.int64)
    for p in range(left.shape[0]):
        count = 0
        for k in range(signature.shape[1]):
            count += signature[left[p], k] == signature[right[p], k]
        equal[p] = count
    return equal


@functools.cache
def permutations(num_permutations: int, seed: int) -> tuple[Any, Any]:
    """Multipliers (odd) and increments uint32 [num_permutations]; the first ones are the same for any number."""
    draw = [derive_seed(seed, "minhash", which, p) for p in range(num_permutations) for which in ("a", "b")]
    values = np.array(draw, np.uint64).reshape(num_permutations, 2) & np.uint64(0xFFFFFFFF)
    return (values[:, 0] | np.uint64(1)).astype(np.uint32), values[:, 1].astype(np.uint32)


def shingles_oracle(text: str, shingle_units: int = SHINGLE_UNITS) -> list[int]:
    """The hashes of a text's shingles in order, repeats included: the definition."""
    hashes = [text_units.unit_hash(_fold(unit)) for unit in text_units.units(text)]
    found = []
    for first in range(len(hashes) - shingle_units + 1):
        value = 0
        for one in hashes[first : first + shingle_units]:
            value = (value * BASE + one) % 2**64
        found.append(text_units.mix(value))
    return found


def signature_oracle(text: str, num_permutations: int = NUM_PERMUTATIONS, seed: int = 0) -> list[int]:
    """The MinHash signature of a text: the definition."""
    keys = {shingle >> 32 for shingle in shingles_oracle(text)}
    multipliers, increments = permutations(num_permutations, seed)
    return [
        min(((a * key + b) % 2**32 for key in keys), default=EMPTY)
        for a, b in zip(multipliers.tolist(), increments.tolist(), strict=True)
    ]


def _fold(unit: str) -> str:
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in unit)


def _last_power(shingle_units: int) -> Any:
    return np.uint64(pow(BASE, shingle_units - 1, 2**64))


_BASE = np.uint64(BASE)


@kernel
def _shingles(utf8, begin, end, classes, shingle_units, last_power, window, out):
    """Write the shingle hashes of one document to `out` and return their number.

    window: uint64 [shingle_units], scratch; the hashes of the last units, in a ring.
    """
    window[:] = np.uint64(0)
    slot, num_units, count = 0, 0, 0
    rolling = np.uint64(0)
    state = at_core = FNV_OFFSET  # hash of the run so far, and up to its last letter or digit
    started = after_core = False
    position = begin
    while position <= end:
        code, width = decode(utf8, position) if position < end else (32, 1)  # the end of the text cuts like a space
        kind = np.int64(classes[code])
        position += width
        if kind == 0 or kind > LAST_BORDER:
            after_core = bool(kind >= FIRST_CORE or (kind == MARK and after_core))
            if after_core or started:
                state = (state ^ np.uint64(code + 32 if 65 <= code <= 90 else code)) * FNV_PRIME
                if after_core:
                    started, at_core = True, state
            continue
        # A border: the run before it may be a unit, and a CJK character is one itself.
        for is_character in range(2):
            if is_character:
                if kind != CJK:
                    break
                value = mix((FNV_OFFSET ^ np.uint64(code)) * FNV_PRIME)
            elif started:
                value = mix(at_core)
            else:
                continue
            rolling = (rolling - window[slot] * last_power) * _BASE + value
            window[slot] = value
            slot = slot + 1 if slot + 1 < shingle_units else 0
            num_units += 1
            if num_units >= shingle_units:
                out[count] = mix(rolling)
                count += 1
        state = FNV_OFFSET
        started = after_core = False
    return count


@kernel
def _signatures(offsets, utf8, classes, multipliers, increments, shingle_units, last_power):
    num_documents = offsets.shape[0] - 1
    signature = np.full((num_documents, multipliers.shape[0]), np.uint32(EMPTY), np.uint32)
    num_shingles = np.zeros(num_documents, np.int32)
    longest = 0
    for d in range(num_documents):
        longest = max(longest, offsets[d + 1] - offsets[d])
    hashes, window, keys = np.empty(longest, np.uint64), np.empty(shingle_units, np.uint64), np.empty(BLOCK, np.uint32)
    for d in range(num_documents):
        count = _shingles(utf8, offsets[d], offsets[d + 1], classes, shingle_units, last_power, window, hashes)
        num_shingles[d] = count
        for first in range(0, count, BLOCK):
            size = min(count - first, BLOCK)
            for k in range(size):
                keys[k] = np.uint32(hashes[first + k] >> np.uint64(32))
            for p in range(multipliers.shape[0]):
                a, b, smallest = multipliers[p], increments[p], signature[d, p]
                for k in range(size):
                    smallest = min(smallest, np.uint32(a * keys[k] + b))
                signature[d, p] = smallest
    return signature, num_shingles


@kernel
def _all_shingles(offsets, utf8, classes, shingle_units, last_power):
    num_documents = offsets.shape[0] - 1
    starts = np.zeros(num_documents + 1, np.int64)
    hashes = np.empty(offsets[num_documents] - offsets[0], np.uint64)  # no document has more shingles than bytes
    window = np.empty(shingle_units, np.uint64)
    total = 0
    for d in range(num_documents):
        total += _shingles(utf8, offsets[d], offsets[d + 1], classes, shingle_units, last_power, window, hashes[total:])
        starts[d + 1] = total
    return starts, hashes[:total]


@kernel
def _unique(starts, hashes):
    """Drop repeats inside each sorted document."""
    kept = np.zeros_like(starts)
    total = 0
    for d in range(starts.shape[0] - 1):
        for i in range(starts[d], starts[d + 1]):
            if i == starts[d] or hashes[i] != hashes[i - 1]:
                hashes[total] = hashes[i]  # never ahead of what is read: total <= i
                total += 1
        kept[d + 1] = total
    return kept, hashes[:total].copy()
