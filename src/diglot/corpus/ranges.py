"""Byte ranges [start, stop) of one text, sorted and apart from each other."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

Range = tuple[int, int]


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Ranges in order, those that touch or overlap made one.

    >>> joined([(4, 9), (0, 5), (12, 15)])
    [(0, 9), (12, 15)]
    """
    whole: list[Range] = []
    for start, stop in sorted(ranges):
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(whole[-1][1], stop))
        else:
            whole.append((start, stop))
    return whole


def inside(ranges: Sequence[Range], start: int, stop: int) -> bool:
    """Whether [start, stop) touches one of the sorted, disjoint ranges."""
    place = bisect.bisect_left(ranges, (stop,))
    return place > 0 and ranges[place - 1][1] > start
