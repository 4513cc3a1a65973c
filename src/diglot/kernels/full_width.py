"""Full-width letters, digits and spaces over UTF-8 bytes: the compiled form of `corpus.edits.full_width.full_width`."""

from __future__ import annotations

from typing import Any

import numpy as np

from diglot.kernels.jit import kernel

LINE_FEED, SPACE = 10, 32


def wide_characters(offsets: Any, utf8: Any, spaces: bool) -> Any:
    """int64 [C, 3]: document, byte from its beginning, and the half-width code point; of spaces on request."""
    room = 1024
    while True:
        found = np.zeros((room, 3), np.int64)
        count = _wide_characters(offsets, utf8, spaces, found)
        if count <= room:
            return found[:count]
        room = count


@kernel
def _wide_characters(offsets, utf8, spaces, found):
    """Fill `found` as far as it reaches; returns how many there are."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, end = offsets[document], offsets[document + 1]
        is_indent = True  # only ideographic spaces since the beginning of the line
        position = begin
        while position < end:
            first = utf8[position]
            if first != 0xEF and first != 0xE3:
                is_indent = first == LINE_FEED
                position += 1
                continue
            second, third = utf8[position + 1], utf8[position + 2]
            half = np.int64(0)
            if first == 0xE3:
                if second == 0x80 and third == 0x80:
                    if spaces and not is_indent:
                        half = np.int64(SPACE)
                else:
                    is_indent = False
            else:
                is_indent = False
                if second == 0xBC and (0x90 <= third <= 0x99 or 0xA1 <= third <= 0xBA):
                    half = np.int64(third) - 0x60
                elif second == 0xBD and 0x81 <= third <= 0x9A:
                    half = np.int64(third) - 0x20
            if half:
                if count < len(found):
                    found[count, 0], found[count, 1], found[count, 2] = document, position - begin, half
                count += 1
            position += 3
    return count
