"""Deletes lines or paragraphs that a document with a smaller id has too, over the whole corpus.

MAP-Neo's released code (defect D17) also hashes the empty line, so that blank lines vanish from the whole corpus except
one; here only texts of at least `min_chars` characters take part. The first copy stays, wherever its shard is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xxhash

from diglot.corpus.edits import PARAGRAPHS
from diglot.corpus.edits.code_blocks import code_ranges
from diglot.corpus.edits.exchange import KEY
from diglot.corpus.edits.settings import ParagraphsEdit
from diglot.corpus.edits.spans import Span
from diglot.corpus.edits.texts import Texts
from diglot.corpus.ranges import inside

BLANK_LINES = re.compile(rb"\n(?:[ \t\r]*\n)+")
_MASK = (1 << 64) - 1


def pieces(text: bytes, unit: str) -> Iterator[tuple[int, int]]:
    """Byte ranges of the lines or paragraphs of a text, each with the line feeds behind it."""
    start = 0
    if unit == "line":
        while start < len(text):
            stop = text.find(b"\n", start) + 1 or len(text)
            yield start, stop
            start = stop
        return
    for match in BLANK_LINES.finditer(text):
        yield start, match.end()
        start = match.end()
    if start < len(text):
        yield start, len(text)


def keys(texts: Texts, ranks: Any, edit: ParagraphsEdit) -> Any:
    """KEY of every piece that is long enough. ranks: int64 [N], places of the documents in the order of their ids."""
    found = []
    for text, rank in zip(texts, ranks.tolist(), strict=True):
        kept = code_ranges(text) if edit.keep_code else []
        for start, stop in pieces(text, edit.unit):
            if stop - start < edit.min_chars or inside(kept, start, stop):
                continue
            core = text[start:stop].strip()
            if len(core) < edit.min_chars or (not core.isascii() and len(core.decode().strip()) < edit.min_chars):
                continue
            digest = xxhash.xxh3_128_intdigest(core)
            found.append((digest & _MASK, digest >> 64, rank, start, stop))
    return np.array(found, KEY)


def spans(copies: Any, id_of: Callable[[int], str]) -> list[Span]:
    """The spans of one document from its COPY records. id_of: rank -> id."""
    return [
        Span(start, stop, PARAGRAPHS, first_in=id_of(first))
        for start, stop, first in zip(
            copies["start"].tolist(), copies["stop"].tolist(), copies["first"].tolist(), strict=True
        )
    ]
