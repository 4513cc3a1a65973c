"""Deletes lines that are no prose, by tests that a recipe switches on one by one.

The tests are those of C4 (Raffel et al. 2020, arXiv 1910.10683) and of the line-wise filter that MAP-Neo describes and
its released code never calls (defect D2). Differs from both: a stop may be full-width, an ellipsis or stand before
closing quotes and brackets; a line is counted in text units, so Chinese lines are not one word long; program code and
blank lines are left alone; only the line goes, where C4 drops the whole page for lorem ipsum.
Wrongly deletes: headings, list entries, tables and verses, which end without a stop. So it is for pages of prose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from diglot.corpus.edits import LINES
from diglot.corpus.edits.code_blocks import code_ranges
from diglot.corpus.edits.settings import LinesEdit
from diglot.corpus.edits.spans import Span
from diglot.corpus.edits.texts import Texts
from diglot.corpus.ranges import inside
from diglot.text.lines import ends_with_stop
from diglot.text.units import units

TERMINAL, SHORT, JAVASCRIPT, POLICY, LOREM = "terminal_punctuation", "min_units", "javascript", "policy", "lorem_ipsum"
PHRASES = {  # in lower case; of POLICY the first six are C4's, the others what Chinese pages say
    JAVASCRIPT: ("javascript",),
    POLICY: (
        *("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"),
        *(
            "隐私政策",
            "隱私政策",
            "隐私权政策",
            "隱私權政策",
            "使用条款",
            "使用條款",
            "服务条款",
            "服務條款",
            "使用cookie",
        ),
    ),
    LOREM: ("lorem ipsum",),
}


def objection(line: str, edit: LinesEdit) -> str | None:
    """The first test that a line fails, None when it stays. The definition of `line_filter`."""
    if not line.strip():
        return None
    for name, wanted in ((JAVASCRIPT, edit.javascript), (POLICY, edit.policy), (LOREM, edit.lorem_ipsum)):
        if wanted and any(_occurrences(line.encode().lower(), name)):
            return name
    if edit.min_units is not None and len(units(line)) < edit.min_units:
        return SHORT
    if edit.terminal_punctuation and not ends_with_stop(line):
        return TERMINAL
    return None


def line_filter(texts: Texts, edit: LinesEdit) -> Iterator[tuple[int, list[Span]]]:
    """(row, spans) of every document that loses lines; a line goes with its line feed."""
    for row in range(len(texts)):
        text = texts.text(row)
        if not text:
            continue
        starts, num_units, has_stop = _facts(texts, row)
        ends = np.append(starts[1:], len(text))
        rule: dict[int, str] = {}
        if edit.terminal_punctuation:
            rule |= dict.fromkeys(np.flatnonzero(~has_stop).tolist(), TERMINAL)
        if edit.min_units is not None:
            rule |= dict.fromkeys(np.flatnonzero(num_units < edit.min_units).tolist(), SHORT)
        lowered = text.lower()
        for name, wanted in ((LOREM, edit.lorem_ipsum), (POLICY, edit.policy), (JAVASCRIPT, edit.javascript)):
            places = [place for place, _ in _occurrences(lowered, name)] if wanted else []
            rule |= dict.fromkeys((np.searchsorted(starts, places, side="right") - 1).tolist(), name)
        if not rule:
            continue
        kept = code_ranges(text, indented=True)
        spans = [
            Span(start, stop, f"{LINES}/{rule[line]}")
            for line in sorted(rule)
            for start, stop in [(int(starts[line]), int(ends[line]))]
            if text[start:stop].decode().strip() and not inside(kept, start, stop)
        ]
        if spans:
            yield row, spans


def _occurrences(text: bytes, name: str) -> Iterator[tuple[int, int]]:
    """Where a phrase of a test stands in a text in lower case; English ones as whole words, as far as letters go.

    C4 takes "in terms of user experience" for terms of use.
    """
    for phrase in PHRASES[name]:
        wanted = phrase.encode()
        start = text.find(wanted)
        while start >= 0:
            stop = start + len(wanted)
            whole = not (text[start - 1 : start].isalpha() or text[stop : stop + 1].isalpha())
            if whole or name != POLICY or not wanted.isascii():
                yield start, stop
            start = text.find(wanted, start + 1)


def _facts(texts: Texts, row: int) -> tuple[Any, Any, Any]:
    from diglot.kernels.jit import classes
    from diglot.kernels.sentences import MARKS, line_facts

    start, stop = int(texts.offsets[row]), int(texts.offsets[row + 1])
    room = 1 + int(np.count_nonzero(texts.utf8[start:stop] == 10))
    starts, num_units, has_stop = np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room, np.bool_)
    line_facts(texts.utf8, start, stop, classes(), MARKS, starts, num_units, has_stop)
    return starts, num_units, has_stop
