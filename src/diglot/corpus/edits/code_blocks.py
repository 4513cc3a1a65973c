"""Program code inside prose, which an edit for prose would break: fences and backticks of Markdown, indented lines."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable

FENCE = re.compile(rb"^[ \t>]*(```+|~~~+)[^`\n]*\n(?:.*?^[ \t>]*\1[`~]*[ \t\r]*$|.*)", re.MULTILINE | re.DOTALL)
BACKTICKS = re.compile(rb"(?<!`)(`++)[^`\n]+\1(?![`_])")  # `name <address>`_ is a link of reStructuredText
INDENTED = re.compile(rb"^(?: {4}|\t)[^\n]*$", re.MULTILINE)

Range = tuple[int, int]


def code_ranges(text: bytes, *, backticks: bool = False, indented: bool = False) -> list[Range]:
    """Byte ranges of fenced code, and on request of code between backticks and of indented lines; sorted, disjoint."""
    found: list[Range] = []
    if b"```" in text or b"~~~" in text:
        found += (match.span() for match in FENCE.finditer(text))
    if backticks and b"`" in text:
        found += (match.span() for match in BACKTICKS.finditer(text))
    if indented and (b"\n    " in text or b"\t" in text or text.startswith(b"    ")):
        found += (match.span() for match in INDENTED.finditer(text))
    return _joined(found)


def inside(ranges: list[Range], start: int, stop: int) -> bool:
    """Whether [start, stop) touches one of the sorted, disjoint ranges."""
    place = bisect.bisect_left(ranges, (stop,))
    return place > 0 and ranges[place - 1][1] > start


def _joined(ranges: Iterable[Range]) -> list[Range]:
    joined: list[Range] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
