"""Sentence starts over bytes, the compiled form of `diglot.text.sentences`, and what a line filter asks of lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from diglot.kernels.jit import kernel
from diglot.kernels.units import decode, scan_units
from diglot.text.lines import CLOSERS, STOPS, WIDE_STOPS
from diglot.text.units import CJK, LETTER, SPACE

IS_STOP, IS_WIDE_STOP, IS_CLOSER = 1, 2, 4
LINE_FEED, OPENING, CLOSING = 10, ord("("), ord("]")


def _marks() -> np.ndarray:
    table = np.zeros(0x10000, np.uint8)
    for characters, bit in ((STOPS, IS_STOP), (WIDE_STOPS, IS_WIDE_STOP), (CLOSERS, IS_CLOSER)):
        for character in characters:
            table[ord(character)] |= bit
    return table


MARKS = _marks()


def sentence_starts(offsets: Any, utf8: Any, classes: Any) -> tuple[Any, Any]:
    """Starts of all documents.

    Args:
        offsets: int64 [N + 1]; utf8: uint8; classes: uint8 [0x110000], `diglot.kernels.jit.classes()`.
    Returns: starts int64, bytes from the beginning of their document; first int64 [N + 1], where each document's begin.
    """
    first = np.zeros(len(offsets), np.int64)
    _sentence_starts(offsets, utf8, classes, MARKS, first, np.zeros(0, np.int64), False)
    first = np.concatenate([[0], np.cumsum(first[1:])]).astype(np.int64)
    starts = np.zeros(int(first[-1]), np.int64)
    _sentence_starts(offsets, utf8, classes, MARKS, first, starts, True)
    return starts, first


@kernel
def _sentence_starts(offsets, utf8, classes, marks, first, starts, fill):
    """Fill `starts` from first[n] on, or without `fill` set first[n + 1] to the number of starts of document n."""
    for document in range(len(offsets) - 1):
        begin, end = offsets[document], offsets[document + 1]
        count = 0
        if end > begin:
            if fill:
                starts[first[document]] = 0
            count = 1
        pending, strong, has_word = False, False, False
        before = 0
        position = begin
        while position < end:
            code, width = decode(utf8, position)
            mark = marks[code] if code < 0x10000 else 0
            if pending and mark & (IS_STOP | IS_CLOSER) == 0:
                is_link = code == OPENING and before == CLOSING
                ends = strong or classes[code] == SPACE or classes[code] == CJK
                if code != LINE_FEED and not is_link and has_word and ends:
                    if fill:
                        starts[first[document] + count] = position - begin
                    count += 1
                    has_word = False
                pending, strong = False, False
            has_word |= classes[code] >= LETTER or classes[code] == CJK
            if mark & IS_STOP:
                pending = True
                strong |= mark & IS_WIDE_STOP != 0
            elif code == LINE_FEED:
                if position + 1 < end:
                    if fill:
                        starts[first[document] + count] = position + 1 - begin
                    count += 1
                has_word = False
            before = code
            position += width
        if not fill:
            first[document + 1] = count


@kernel
def line_facts(utf8, start, stop, classes, marks, starts, num_units, has_stop):
    """What every line of utf8[start:stop] has, as `text.units.units` and `text.lines.ends_with_stop` define it.

    Args:
        marks: uint8 [0x10000], MARKS.
        starts, num_units, has_stop: int64, int64 and bool, a place for every line; filled. Starts count from `start`.
    Returns: the number of lines, one more than the line feeds.
    """
    hashes, lengths = np.zeros(stop - start + 1, np.uint64), np.zeros(stop - start + 1, np.int32)
    num_lines, begin = 0, start
    is_stop = False
    position = start
    while position <= stop:
        code, width = decode(utf8, position) if position < stop else (LINE_FEED, 1)
        if code == LINE_FEED:
            starts[num_lines] = begin - start
            num_units[num_lines] = scan_units(utf8, begin, position, classes, hashes, lengths)
            has_stop[num_lines] = is_stop
            num_lines += 1
            begin = position + 1
            is_stop = False
        else:
            mark = marks[code] if code < 0x10000 else 0
            if mark & IS_STOP:
                is_stop = True
            elif mark & IS_CLOSER == 0 and classes[code] != SPACE:
                is_stop = False
        position += width
    return num_lines
