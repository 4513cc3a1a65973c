"""Where known n-grams stand in documents: one pass over the bytes, whatever the lengths of the n-grams.

N-grams are sequences of matching units (`diglot.text.matching`) of any length from `ANCHOR` up. Each is found by the
hash of its first ANCHOR units, its anchor: a bit map in the cache says "no" for nearly every place of an ordinary text,
a hash table gives the n-grams with that anchor, and the hash of the whole n-gram decides. Hashes have 64 bits: a false
hit among 10^7 n-grams and 10^10 places is expected once in 200 corpora.

`find_oracle` is the definition. Kernels take documents as in `diglot.kernels.minhash`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from diglot.kernels.jit import classes, kernel
from diglot.kernels.units import FNV_OFFSET, FNV_PRIME, decode, mix
from diglot.text import units as text_units
from diglot.text.matching import fold_table, match_units
from diglot.text.units import CJK, FIRST_CORE, MARK, OTHER

ANCHOR = 8  # units; no n-gram is shorter
MAX_UNITS = 64  # no n-gram is longer
BASE = 0x9E6C63D0876A9A35  # odd, of the polynomial over the unit hashes of an n-gram
_BASE = np.uint64(BASE)
_ONE = np.uint64(1)
_SIX = np.uint64(6)
_LOW = np.uint64(63)
BITS_PER_ANCHOR = 16


class NgramTable(NamedTuple):
    """G n-grams, sorted by anchor, and the way to them. Made by `build_table`."""

    anchors: Any  # uint64 [G]
    lengths: Any  # int32 [G], units
    hashes: Any  # uint64 [G]
    slots: Any  # int64 [power of two], the first n-gram of the anchor that hashes here, -1 where there is none
    bits: Any  # uint64 [power of two], a bit for every anchor


class Hits(NamedTuple):
    """H places where an n-gram stands, in the order of the text."""

    document: Any  # int32 [H]
    ngram: Any  # int32 [H], its number in the table
    start: Any  # int64 [H], first byte inside the document
    stop: Any  # int64 [H], behind its last byte


def build_table(anchors: Any, lengths: Any, hashes: Any) -> tuple[NgramTable, Any]:
    """The table of distinct n-grams, and the number in it of each n-gram given: int64 [G].

    Arguments as the fields of NgramTable, in any order, each n-gram once.
    """
    order = np.lexsort((hashes, lengths, anchors))
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    anchors, lengths, hashes = anchors[order], np.asarray(lengths, np.int32)[order], hashes[order]
    firsts = np.flatnonzero(np.concatenate([[True], anchors[1:] != anchors[:-1]])) if len(anchors) else np.empty(0, int)
    size = 1 << max(4, int(2 * len(firsts)).bit_length())
    words = 1 << max(4, int(BITS_PER_ANCHOR * len(firsts)).bit_length() - 6)
    slots, bits = np.full(size, -1, np.int64), np.zeros(words, np.uint64)
    _fill(anchors, firsts.astype(np.int64), slots, bits)
    return NgramTable(anchors, lengths, hashes, slots, bits), number


def ngram_hashes(offsets: Any, utf8: Any, num_units: Any) -> tuple[Any, Any, Any]:
    """Every n-gram of N texts: starts int64 [N + 1], anchors and hashes uint64 [starts[N]].

    Args:
        num_units: int32 [N], the length of the n-grams of each text, ANCHOR..MAX_UNITS; 0 leaves the text out.
    """
    assert len(num_units) == 0 or (num_units.max() <= MAX_UNITS and (num_units[num_units > 0] >= ANCHOR).all())
    found: tuple[Any, Any, Any] = _ngrams(
        np.asarray(offsets, np.int64), utf8, classes(), fold_table(), np.asarray(num_units, np.int32), _powers()
    )
    return found


def count_units(offsets: Any, utf8: Any) -> tuple[Any, Any]:
    """Matching units of N texts, and how many of them are CJK characters: int32 [N] each."""
    counts: tuple[Any, Any] = _count(np.asarray(offsets, np.int64), utf8, classes(), fold_table())
    return counts


def find(offsets: Any, utf8: Any, table: NgramTable) -> Hits:
    """Every place of N documents where an n-gram of the table stands."""
    return Hits(*_find(np.asarray(offsets, np.int64), utf8, classes(), fold_table(), *table, _powers()))


def ngrams_oracle(text: str, num_units: int) -> list[tuple[int, int, int, int]]:
    """(anchor, hash, first byte, behind last byte) of every n-gram of one text in order: the definition."""
    units = list(match_units(text))
    found = []
    for first in range(len(units) - num_units + 1):
        window = units[first : first + num_units]
        found.append((_polynomial(window[:ANCHOR]), _polynomial(window), window[0].start, window[-1].stop))
    return found


def find_oracle(text: str, table: NgramTable) -> list[tuple[int, int, int]]:
    """(n-gram, first byte, behind last byte) of every hit in one text: the definition."""
    known = {key: n for n, key in enumerate(zip(table.lengths.tolist(), table.hashes.tolist(), strict=True))}
    found = []
    for length in set(table.lengths.tolist()):
        for _, whole, start, stop in ngrams_oracle(text, length):
            if (length, whole) in known:
                found.append((known[length, whole], start, stop))
    return sorted(found, key=lambda hit: (hit[1], hit[0]))


def _polynomial(window: Any) -> int:
    value = 0
    for unit in window:
        value = (value * BASE + unit.hash) % 2**64
    return text_units.mix(value)


def _powers() -> Any:
    return np.array([pow(BASE, n, 2**64) for n in range(MAX_UNITS + 1)], np.uint64)


@kernel
def _fill(anchors, firsts, slots, bits):
    for i in range(firsts.shape[0]):
        anchor = anchors[firsts[i]]
        slot = np.int64(anchor & np.uint64(slots.shape[0] - 1))
        while slots[slot] >= 0:
            slot = (slot + 1) & (slots.shape[0] - 1)
        slots[slot] = firsts[i]
        bit = anchor >> np.uint64(20)
        bits[np.int64((bit >> _SIX) & np.uint64(bits.shape[0] - 1))] |= _ONE << (bit & _LOW)


@kernel
def _units(utf8, begin, end, classes, folds, prefix, starts, stops, is_cjk):
    """Matching units of one document: prefix hashes uint64 [>= units + 1], byte ranges int64, CJK or not uint8.

    prefix[i] is the polynomial over the first i units, so that the n-gram at i is prefix[i + n] - prefix[i] * BASE^n.
    Returns: the number of units.
    """
    count = 0
    prefix[0] = np.uint64(0)
    state, inside, start, stop = FNV_OFFSET, False, 0, 0
    position = begin
    while position <= end:
        code, width = decode(utf8, position) if position < end else (32, 1)  # the end of the text cuts like a space
        kind = np.int64(classes[code])
        if kind >= FIRST_CORE or (kind == MARK and inside):
            if not inside:
                inside, start = True, position - begin
            state = (state ^ np.uint64(folds[code])) * FNV_PRIME
            position += width
            # The rest of an ASCII word, where most of the time is spent.
            while position < end and utf8[position] < 0x80 and classes[utf8[position]] >= FIRST_CORE:
                state = (state ^ np.uint64(folds[utf8[position]])) * FNV_PRIME
                position += 1
            stop = position - begin
            continue
        position += width
        if kind == OTHER:
            continue
        if inside:
            prefix[count + 1] = prefix[count] * _BASE + mix(state)
            starts[count], stops[count], is_cjk[count] = start, stop, 0
            count += 1
            state, inside = FNV_OFFSET, False
        if kind == CJK:
            value = mix((FNV_OFFSET ^ np.uint64(folds[code])) * FNV_PRIME)
            prefix[count + 1] = prefix[count] * _BASE + value
            starts[count], stops[count], is_cjk[count] = position - width - begin, position - begin, 1
            count += 1
    return count


@kernel
def _scratch(offsets):
    longest = 0
    for d in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    return (
        np.empty(longest + 2, np.uint64),
        np.empty(longest + 1, np.int64),
        np.empty(longest + 1, np.int64),
        np.empty(longest + 1, np.uint8),
    )


@kernel
def _count(offsets, utf8, classes, folds):
    num_texts = offsets.shape[0] - 1
    total, cjk = np.zeros(num_texts, np.int32), np.zeros(num_texts, np.int32)
    prefix, starts, stops, is_cjk = _scratch(offsets)
    for d in range(num_texts):
        count = _units(utf8, offsets[d], offsets[d + 1], classes, folds, prefix, starts, stops, is_cjk)
        total[d] = count
        for i in range(count):
            cjk[d] += is_cjk[i]
    return total, cjk


@kernel
def _ngrams(offsets, utf8, classes, folds, num_units, powers):
    num_texts = offsets.shape[0] - 1
    begins = np.zeros(num_texts + 1, np.int64)
    anchors = np.empty(offsets[num_texts] - offsets[0], np.uint64)  # no text has more n-grams than bytes
    hashes = np.empty_like(anchors)
    prefix, starts, stops, is_cjk = _scratch(offsets)
    total = 0
    for d in range(num_texts):
        n = num_units[d]
        if n:
            count = _units(utf8, offsets[d], offsets[d + 1], classes, folds, prefix, starts, stops, is_cjk)
            for i in range(count - n + 1):
                anchors[total] = mix(prefix[i + ANCHOR] - prefix[i] * powers[ANCHOR])
                hashes[total] = mix(prefix[i + n] - prefix[i] * powers[n])
                total += 1
        begins[d + 1] = total
    return begins, anchors[:total].copy(), hashes[:total].copy()


@kernel
def _find(offsets, utf8, classes, folds, anchors, lengths, hashes, slots, bits, powers):
    prefix, starts, stops, is_cjk = _scratch(offsets)
    room = 1024
    document, ngram = np.empty(room, np.int32), np.empty(room, np.int32)
    first, last = np.empty(room, np.int64), np.empty(room, np.int64)
    total = 0
    word_mask, slot_mask = np.uint64(bits.shape[0] - 1), slots.shape[0] - 1
    for d in range(offsets.shape[0] - 1):
        count = _units(utf8, offsets[d], offsets[d + 1], classes, folds, prefix, starts, stops, is_cjk)
        for i in range(count - ANCHOR + 1):
            anchor = mix(prefix[i + ANCHOR] - prefix[i] * powers[ANCHOR])
            bit = anchor >> np.uint64(20)
            if not (bits[np.int64((bit >> _SIX) & word_mask)] >> (bit & _LOW)) & _ONE:
                continue
            slot = np.int64(anchor & np.uint64(slot_mask))
            while slots[slot] >= 0 and anchors[slots[slot]] != anchor:
                slot = (slot + 1) & slot_mask
            g = slots[slot]
            if g < 0:
                continue
            while g < anchors.shape[0] and anchors[g] == anchor:
                n = lengths[g]
                if i + n <= count and mix(prefix[i + n] - prefix[i] * powers[n]) == hashes[g]:
                    if total == room:
                        room *= 2
                        document, ngram = _grown(document, room), _grown(ngram, room)
                        first, last = _grown(first, room), _grown(last, room)
                    document[total], ngram[total] = d, g
                    first[total], last[total] = starts[i], stops[i + n - 1]
                    total += 1
                g += 1
    return document[:total].copy(), ngram[:total].copy(), first[:total].copy(), last[:total].copy()


@kernel
def _grown(array, room):
    larger = np.empty(room, array.dtype)
    larger[: array.shape[0]] = array
    return larger


@kernel
def covered_units(group, position, length):
    """Units covered by n-grams of each of the groups: group int64 [K], position and length int32 [K] -> int64 [groups].

    Sorted by group, then by position; groups are numbered from 0. Overlaps count once.
    """
    num_groups = group[-1] + 1 if group.shape[0] else 0
    covered = np.zeros(num_groups, np.int64)
    end, current = 0, np.int64(-1)
    for k in range(group.shape[0]):
        if group[k] != current:
            current, end = group[k], 0
        start, stop = np.int64(position[k]), np.int64(position[k]) + length[k]
        if stop > end:
            covered[current] += stop - max(start, end)
            end = stop
    return covered
