"""Runs of bytes from a set that hold enough of another set: where a telephone number or an address may stand.

One pass at memory speed leaves little for the regular expressions of `corpus.edits.pii`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diglot.kernels.jit import kernel

MEMBER, COUNTS = 1, 2


def byte_table(members: bytes, counting: bytes) -> Any:
    """uint8 [256]: MEMBER for bytes of the set, COUNTS too for those that are counted."""
    table = np.zeros(256, np.uint8)
    table[np.frombuffer(members + counting, np.uint8)] = MEMBER
    table[np.frombuffer(counting, np.uint8)] |= COUNTS
    return table


def runs(offsets: Any, utf8: Any, table: Any, at_least: int) -> Any:
    """Longest runs of members with at least so many that count: int64 [R, 3], document and byte range inside it."""
    room = 1024
    while True:
        found = np.zeros((room, 3), np.int64)
        count = _runs(offsets, utf8, table, at_least, found)
        if count <= room:
            return found[:count]
        room = count


@kernel
def _runs(offsets, utf8, table, at_least, found):
    """Fill `found` as far as it reaches; returns how many there are."""
    count = 0
    for document in range(len(offsets) - 1):
        begin, end = offsets[document], offsets[document + 1]
        start, counted = begin, 0
        for position in range(begin, end + 1):
            kind = table[utf8[position]] if position < end else 0
            if kind:
                counted += kind >> 1
                continue
            if counted >= at_least:
                if count < len(found):
                    found[count, 0], found[count, 1], found[count, 2] = document, start - begin, position - begin
                count += 1
            start, counted = position + 1, 0
    return count
