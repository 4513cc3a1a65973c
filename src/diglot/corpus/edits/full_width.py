"""Full-width letters and digits (Ａ, １) become half-width ones; punctuation stays what it is.

MAP-Neo's released code (rule F2) also turns 。 into a full stop and other full-width marks and curly quotes into ASCII.
That destroys text: a Chinese sentence then ends in a dot without a space, `，` and `,` become one although they part
different things, and no later step can tell them apart. Letters and digits lose nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from diglot.corpus.edits import FULL_WIDTH
from diglot.corpus.edits.settings import FullWidthEdit
from diglot.corpus.edits.spans import Span
from diglot.corpus.edits.texts import Texts

# U+FF10-FF19, FF21-FF3A, FF41-FF5A as bytes; U+3000 is E3 80 80.
ALPHANUMERIC = rb"(?:\xef\xbc[\x90-\x99\xa1-\xba]|\xef\xbd[\x81-\x9a])+"
WIDE = re.compile(ALPHANUMERIC)
WIDE_OR_SPACE = re.compile(rb"(?:" + ALPHANUMERIC + rb"|(?:\xe3\x80\x80)+)")
IDEOGRAPHIC_SPACE = "　".encode()
TO_HALF_WIDTH = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}


def full_width(text: bytes, spaces: bool = True) -> list[Span]:
    """Spans of full-width letters and digits, and of ideographic spaces inside a line: the definition."""
    found = []
    for match in (WIDE_OR_SPACE if spaces else WIDE).finditer(text):
        start, stop = match.span()
        if match[0].startswith(IDEOGRAPHIC_SPACE) and (start == 0 or text[start - 1] == 10):
            continue  # the indent of a paragraph
        # A span for each character, so that a deletion may end between two; `spans.merge` joins them.
        for place in range(start, stop, 3):
            half = text[place : place + 3].decode().translate(TO_HALF_WIDTH)
            found.append(Span(place, place + 3, FULL_WIDTH, half))
    return found


def full_width_spans(texts: Texts, edit: FullWidthEdit) -> Iterator[tuple[int, list[Span]]]:
    """(row, spans) of every document with full-width characters, found by a kernel."""
    from diglot.kernels.full_width import wide_characters

    found = wide_characters(texts.offsets, texts.utf8, edit.spaces)
    for part in np.split(found, np.flatnonzero(np.diff(found[:, 0])) + 1):
        if len(part):
            yield int(part[0, 0]), [Span(start, start + 3, FULL_WIDTH, chr(half)) for _, start, half in part.tolist()]
