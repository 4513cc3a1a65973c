"""Program code inside prose, which an edit for prose would break: fences and backticks of Markdown, indented lines."""

from __future__ import annotations

import re

from diglot.corpus.ranges import Range, joined

FENCE = re.compile(rb"^[ \t>]*(```+|~~~+)[^`\n]*\n(?:.*?^[ \t>]*\1[`~]*[ \t\r]*$|.*)", re.MULTILINE | re.DOTALL)
BACKTICKS = re.compile(rb"(?<!`)(`++)[^`\n]+\1(?![`_])")  # `name <address>`_ is a link of reStructuredText
INDENTED = re.compile(rb"^(?: {4}|\t)[^\n]*$", re.MULTILINE)


def code_ranges(text: bytes, *, backticks: bool = False, indented: bool = False) -> list[Range]:
    """Byte ranges of fenced code, and on request of code between backticks and of indented lines; sorted, disjoint."""
    found: list[Range] = []
    if b"```" in text or b"~~~" in text:
        found += (match.span() for match in FENCE.finditer(text))
    if backticks and b"`" in text:
        found += (match.span() for match in BACKTICKS.finditer(text))
    if indented and (b"\n    " in text or b"\t" in text or text.startswith(b"    ")):
        found += (match.span() for match in INDENTED.finditer(text))
    return joined(found)
