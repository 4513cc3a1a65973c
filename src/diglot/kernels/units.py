"""Text units over UTF-8 bytes: the compiled form of `diglot.text.units.segments` and `unit_hash`."""

from __future__ import annotations

import numpy as np

from diglot.kernels.jit import kernel
from diglot.text.units import CJK, FIRST_CORE, LAST_BORDER, MARK

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(33)


@kernel
def mix(state):
    """`diglot.text.units.mix`: uint64 -> uint64."""
    state = (state ^ (state >> SHIFT)) * MIX_1
    state = (state ^ (state >> SHIFT)) * MIX_2
    return state ^ (state >> SHIFT)


@kernel
def decode(utf8, position):
    """The code point that starts at byte `position`, and its length in bytes."""
    first = np.int64(utf8[position])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | (np.int64(utf8[position + 1]) & 0x3F), 2
    low = (np.int64(utf8[position + 1]) & 0x3F) << 6 | (np.int64(utf8[position + 2]) & 0x3F)
    if first < 0xF0:
        return (first & 0x0F) << 12 | low, 3
    return (first & 0x07) << 18 | low << 6 | (np.int64(utf8[position + 3]) & 0x3F), 4


@kernel
def scan_units(utf8, start, stop, classes, hashes, lengths):
    """Hash and length in characters of every unit of the document utf8[start:stop].

    Args:
        classes: uint8 [0x110000], `diglot.kernels.jit.classes()`.
        hashes, lengths: uint64 and int32, at least stop - start long (a unit has at least one byte); filled.
    Returns: the number of units.
    """
    num_units = 0
    core, run = 0, 0  # characters up to the last core character, and since the first; 0 before the first
    state = at_core = FNV_OFFSET
    after_core = False
    position = start
    while position < stop:
        code, width = decode(utf8, position)
        kind = classes[code]
        position += width
        if 0 < kind <= LAST_BORDER:
            if core:
                hashes[num_units], lengths[num_units] = mix(at_core), core
                num_units += 1
                core, run = 0, 0
                state = FNV_OFFSET
            after_core = False
            if kind == CJK:
                hashes[num_units], lengths[num_units] = mix((FNV_OFFSET ^ np.uint64(code)) * FNV_PRIME), 1
                num_units += 1
            continue
        after_core = kind >= FIRST_CORE or (kind == MARK and after_core)
        if run or after_core:
            run += 1
            state = (state ^ np.uint64(code)) * FNV_PRIME
            if after_core:
                # The rest of an ASCII word, where most of the time is spent.
                while position < stop and utf8[position] < 0x80 and classes[utf8[position]] >= FIRST_CORE:
                    state = (state ^ np.uint64(utf8[position])) * FNV_PRIME
                    run += 1
                    position += 1
                core, at_core = run, state
    if core:
        hashes[num_units], lengths[num_units] = mix(at_core), core
        num_units += 1
    return num_units


@kernel
def scan_lines(utf8, start, stop, classes, hashes, lengths):
    """Hash and length in characters of every line of utf8[start:stop] that is not blank, its ends stripped.

    Arguments and result as in `scan_units`. Lines end at line feeds: `diglot.text.lines.lines`.
    """
    num_lines = 0
    core, run = 0, 0
    state = at_core = FNV_OFFSET
    position = start
    while position < stop:
        code, width = decode(utf8, position)
        position += width
        if code == 10:
            if core:
                hashes[num_lines], lengths[num_lines] = mix(at_core), core
                num_lines += 1
                core, run = 0, 0
                state = FNV_OFFSET
            continue
        is_space = classes[code] == 1
        if run or not is_space:
            run += 1
            state = (state ^ np.uint64(code)) * FNV_PRIME
            if not is_space:
                core, at_core = run, state
    if core:
        hashes[num_lines], lengths[num_lines] = mix(at_core), core
        num_lines += 1
    return num_lines
