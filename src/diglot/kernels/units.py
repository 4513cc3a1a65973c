"""Text units over UTF-8 bytes: the compiled form of `diglot.text.units.segments` and `unit_hash`."""

from __future__ import annotations

import numpy as np

from diglot.kernels.jit import kernel
from diglot.text.lines import BULLETS, CLOSERS, STOPS, WIDE_STOPS
from diglot.text.units import CJK, FIRST_CORE, LAST_BORDER, MARK, SPACE

# What a mark can be besides punctuation, as bits; a table over the code points of the basic plane.
IS_STOP, IS_WIDE_STOP, IS_CLOSER, IS_BULLET, IS_DOT, IS_JOINER, IS_BULLET_BEFORE_SPACE = (1 << i for i in range(7))


def _marks() -> np.ndarray:
    table = np.zeros(0x10000, np.uint8)
    for characters, bit in (
        (STOPS, IS_STOP),
        (WIDE_STOPS, IS_WIDE_STOP),
        (CLOSERS, IS_CLOSER),
        (BULLETS, IS_BULLET),
        (".。…", IS_DOT),
        ("'’-‐‑", IS_JOINER),
        ("-*+", IS_BULLET_BEFORE_SPACE),
    ):
        for character in characters:
            table[ord(character)] |= bit
    return table


MARKS = _marks()
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
def scan_text(utf8, start, stop, classes, marks, hashes, lengths, starts, line_hashes, line_lengths):
    """What `scan_units` finds, the lines, and where sentences start, in one pass over utf8[start:stop].

    Args:
        marks: uint8 [0x10000], `MARKS`.
        hashes, lengths: of units, as in `scan_units`.
        starts: uint8, as long; filled with 1 where a unit is the first that starts in its sentence, else 0.
        line_hashes, line_lengths: hash and characters of every line that is not blank, its ends stripped, as
            `diglot.text.lines.lines` cuts them.
    Returns: the numbers of units and of lines.
    """
    num_units, num_lines = 0, 0
    core, run, line_core, line_run = 0, 0, 0, 0
    state = at_core = line_state = at_line_core = FNV_OFFSET
    after_core, has_unit, pending, strong, new_sentence, run_starts = False, False, False, False, True, False
    position = start
    while position < stop:
        code, width = decode(utf8, position)
        kind = classes[code]
        position += width
        if pending:
            mark = marks[code] if code < 0x10000 else 0
            if not mark & (IS_STOP | IS_CLOSER):
                if has_unit and (strong or kind in (SPACE, CJK)):
                    new_sentence, has_unit = True, False
                pending = strong = False
        if kind == SPACE and code == 10:
            if line_core:
                line_hashes[num_lines], line_lengths[num_lines] = mix(at_line_core), line_core
                num_lines += 1
                line_core, line_run = 0, 0
                line_state = FNV_OFFSET
        elif line_run or kind != SPACE:
            line_run += 1
            line_state = (line_state ^ np.uint64(code)) * FNV_PRIME
            if kind != SPACE:
                line_core, at_line_core = line_run, line_state
        if 0 < kind <= LAST_BORDER:
            if core:
                hashes[num_units], lengths[num_units], starts[num_units] = mix(at_core), core, run_starts
                num_units += 1
                core, run = 0, 0
                state = FNV_OFFSET
            after_core = False
            if kind == CJK:
                hashes[num_units], lengths[num_units] = mix((FNV_OFFSET ^ np.uint64(code)) * FNV_PRIME), 1
                starts[num_units] = new_sentence
                new_sentence, has_unit = False, True
                num_units += 1
            elif kind != SPACE and code < 0x10000 and marks[code] & IS_STOP:
                pending = True
                strong |= marks[code] & IS_WIDE_STOP != 0
            continue
        after_core = kind >= FIRST_CORE or (kind == MARK and after_core)
        if after_core and not run:
            run_starts, new_sentence = new_sentence, False
        has_unit |= kind >= FIRST_CORE
        if run or after_core:
            run += 1
            state = (state ^ np.uint64(code)) * FNV_PRIME
            if after_core:
                # The rest of an ASCII word, where most of the time is spent.
                first = position
                while position < stop and utf8[position] < 0x80 and classes[utf8[position]] >= FIRST_CORE:
                    state = (state ^ np.uint64(utf8[position])) * FNV_PRIME
                    line_state = (line_state ^ np.uint64(utf8[position])) * FNV_PRIME
                    position += 1
                run += position - first
                line_run += position - first
                core, at_core = run, state
                line_core, at_line_core = line_run, line_state
                continue
        if kind < FIRST_CORE and code < 0x10000 and marks[code] & IS_STOP:
            pending = True
            strong |= marks[code] & IS_WIDE_STOP != 0
    if core:
        hashes[num_units], lengths[num_units], starts[num_units] = mix(at_core), core, run_starts
        num_units += 1
    if line_core:
        line_hashes[num_lines], line_lengths[num_lines] = mix(at_line_core), line_core
        num_lines += 1
    return num_units, num_lines
