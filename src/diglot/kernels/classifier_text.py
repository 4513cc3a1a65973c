"""The line that a classifier reads of a text, over UTF-8 bytes: `diglot.corpus.classify.text.training_text`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from diglot.kernels.jit import kernel
from diglot.kernels.units import decode
from diglot.text.units import FIRST_CORE, MARK, OTHER, SPACE

LAST_CASED = 0x1F000  # no character from here on has a lower-case form of its own; a test looks


@functools.cache
def lower_table() -> Any:
    """Lower-case form of each code point, itself where that is not one character: int32 [0x110000]."""
    table = np.arange(0x110000, dtype=np.int32)
    for code in range(LAST_CASED):
        low = chr(code).lower()
        if len(low) == 1:
            table[code] = ord(low)
    return table


@kernel
def encode(code, out, position):
    """Write a code point as UTF-8 at out[position:]; the position after it."""
    if code < 0x80:
        out[position] = code
        return position + 1
    if code < 0x800:
        out[position] = 0xC0 | code >> 6
        out[position + 1] = 0x80 | code & 0x3F
        return position + 2
    if code < 0x10000:
        out[position] = 0xE0 | code >> 12
        out[position + 1] = 0x80 | code >> 6 & 0x3F
        out[position + 2] = 0x80 | code & 0x3F
        return position + 3
    out[position] = 0xF0 | code >> 18
    out[position + 1] = 0x80 | code >> 12 & 0x3F
    out[position + 2] = 0x80 | code >> 6 & 0x3F
    out[position + 3] = 0x80 | code & 0x3F
    return position + 4


@kernel
def classifier_text(offsets, utf8, classes, lower, max_chars, split):
    """The lines of N documents, each with a line feed behind it.

    Args:
        offsets: int64 [N + 1], where each document starts in utf8, uint8.
        classes: uint8 [0x110000], `diglot.kernels.jit.classes()`.
        lower: int32 [0x110000], `lower_table()`.
        max_chars: characters of each document that are read.
        split: the units `characters`; else `white_space`.
    Returns: offsets int64 [N + 1] and bytes uint8 of the lines.
    """
    num_documents = len(offsets) - 1
    room = 0
    for document in range(num_documents):
        # A mark takes its byte and a space, a line break three bytes, and lower case at most one byte more.
        room += 3 * min(offsets[document + 1] - offsets[document], 4 * max_chars) + 1
    out = np.empty(room, np.uint8)
    starts = np.zeros(num_documents + 1, np.int64)
    end = 0
    for document in range(num_documents):
        position, stop = offsets[document], offsets[document + 1]
        num_chars, first = 0, end
        in_word = broke = False
        while position < stop and num_chars < max_chars:
            code, width = decode(utf8, position)
            position += width
            num_chars += 1
            kind = classes[code]
            separates = kind in (OTHER, SPACE)
            alone = split and not separates and kind < FIRST_CORE and kind != MARK
            if separates or alone:
                in_word = False
                broke |= code == 10
            if separates or (not split and code == 95 and not in_word):
                continue
            if not in_word:
                if end > first:
                    out[end] = 32
                    end += 1
                    if broke:
                        out[end], out[end + 1], out[end + 2] = 92, 110, 32
                        end += 3
                broke = False
            in_word = not alone
            end = encode(np.int64(lower[code]) if split else code, out, end)
        out[end] = 10
        end += 1
        starts[document + 1] = end
    return starts, out[:end].copy()
