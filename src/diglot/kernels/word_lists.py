"""Occurrences of listed words in a batch of documents: the compiled form of `diglot.corpus.signals.word_lists`.

Units are compared by 64-bit hashes of their folded characters. Only where the last unit of an entry stands are whole
entries looked up, so that a list costs one more scan over the bytes and little for its length.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from diglot.kernels.jit import kernel
from diglot.kernels.units import FNV_OFFSET, FNV_PRIME, decode, mix
from diglot.text.units import CJK, FIRST_CORE, LAST_BORDER, MARK, unit_hash

BASE = 0xD6E8FEB86659FD93  # odd, of the polynomial over the unit hashes of an entry
TIGHT = 0x5851F42D4C957F2D  # added for an entry whose units must touch
_BASE, _TIGHT = np.uint64(BASE), np.uint64(TIGHT)


class Tables(NamedTuple):
    """Hash sets of an entry's last units and of whole entries (uint64, a power of two long, 0: free slot), and the
    lengths that occur in units (int64)."""

    last_units: Any
    entries: Any
    lengths: Any


def word_tables(loose: Collection[tuple[str, ...]], tight: Collection[tuple[str, ...]]) -> Tables:
    """The tables of a word list, whose entries are folded units."""
    keys, lasts, lengths = set(), set(), set()
    for entries, extra in ((loose, 0), (tight, TIGHT)):
        for entry in entries:
            value = 0
            for unit in entry:
                value = (value * BASE + unit_hash(unit)) % 2**64
            keys.add((value + extra) % 2**64 or 1)
            lasts.add(unit_hash(entry[-1]) or 1)
            lengths.add(len(entry))
    return Tables(_hash_set(lasts), _hash_set(keys), np.array(sorted(lengths), np.int64))


def occurrences(offsets: Any, utf8: Any, classes: Any, tables: Tables) -> Any:
    """How often the entries occur in each of N documents: float32 [N]. Arguments as in `diglot.kernels.quality`."""
    return _occurrences(offsets, utf8, classes, folds(), tables.last_units, tables.entries, tables.lengths)


@functools.cache
def folds() -> Any:
    """The lower-case form of every code point that has one of a single character: uint32 [0x110000]."""
    table = np.arange(0x110000, dtype=np.uint32)
    for code in range(0x20000):  # no script beyond has capitals
        lower = chr(code).lower()
        if len(lower) == 1:
            table[code] = ord(lower)
    return table


def _hash_set(keys: set[int]) -> Any:
    size = 16
    while size < 2 * len(keys):
        size *= 2
    table = np.zeros(size, np.uint64)
    for key in sorted(keys):
        slot = key & (size - 1)
        while table[slot]:
            slot = (slot + 1) & (size - 1)
        table[slot] = key
    return table


@kernel
def _contains(table, key):
    mask = len(table) - 1
    slot = np.int64(key) & mask
    while table[slot]:
        if table[slot] == key:
            return True
        slot = (slot + 1) & mask
    return False


@kernel
def _occurrences(offsets, utf8, classes, folds, last_units, entries, entry_lengths):
    num_documents = len(offsets) - 1
    out = np.zeros(num_documents, np.float32)
    longest = 0
    for document in range(num_documents):
        longest = max(longest, offsets[document + 1] - offsets[document])
    hashes, begins, ends = np.empty(longest, np.uint64), np.empty(longest, np.int64), np.empty(longest, np.int64)
    for document in range(num_documents):
        num_units = _scan(utf8, offsets[document], offsets[document + 1], classes, folds, hashes, begins, ends)
        found = 0
        for last in range(num_units):
            if _contains(last_units, max(hashes[last], np.uint64(1))):
                for length in entry_lengths:
                    first = last - length + 1
                    if first < 0:
                        break
                    value, touching = np.uint64(0), True
                    for i in range(first, last + 1):
                        value = value * _BASE + hashes[i]
                        touching &= i == first or begins[i] == ends[i - 1]
                    found += _contains(entries, max(value, np.uint64(1)))
                    found += touching and _contains(entries, max(value + _TIGHT, np.uint64(1)))
        out[document] = found
    return out


@kernel
def _scan(utf8, start, stop, classes, folds, hashes, begins, ends):
    """Hash of the folded characters, first byte and end of every unit; their number. As `units.scan_units`."""
    num_units, begin, end = 0, -1, 0
    state = at_core = FNV_OFFSET
    after_core = False
    position = start
    while position <= stop:
        code, width = decode(utf8, position) if position < stop else (32, 1)  # the end of the text cuts like a space
        kind = classes[code]
        if 0 < kind <= LAST_BORDER:
            if begin >= 0:
                hashes[num_units], begins[num_units], ends[num_units] = mix(at_core), begin, end
                num_units += 1
                begin, state = -1, FNV_OFFSET
            after_core = False
            if kind == CJK:
                hashes[num_units] = mix((FNV_OFFSET ^ np.uint64(folds[code])) * FNV_PRIME)
                begins[num_units], ends[num_units] = position, position + width
                num_units += 1
        else:
            after_core = kind >= FIRST_CORE or (kind == MARK and after_core)
            if after_core and begin < 0:
                begin = position
            if begin >= 0:
                state = (state ^ np.uint64(folds[code])) * FNV_PRIME
                if after_core:
                    at_core, end = state, position + width
        position += width
    return num_units
