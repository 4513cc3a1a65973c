"""Matching units: the text units of a text with case, width and punctuation folded away, to find quotations.

A benchmark question that a page repeats rarely stands there letter by letter: quotes become curly, full-width digits
become plain ones, `2 + 2=4` loses its spaces. So a matching unit is one CJK character or a longest run of letters and
digits with their marks; everything else separates. That cuts the units of `diglot.text.units` once more, at punctuation
inside them: `don't` is `don`, `t` and `v1.2` is `v1`, `2`. Zero-width and control characters are passed over, because
they are invisible where a text is copied from.

`match_units` is the definition; `diglot.kernels.ngrams` does the same over UTF-8 bytes.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

from diglot.text.units import CJK, FIRST_CORE, MARK, OTHER, class_of, unit_hash


class MatchUnit(NamedTuple):
    """`folded` stands in bytes [start, stop) of the text's UTF-8 form."""

    folded: str
    start: int
    stop: int

    @property
    def is_cjk(self) -> bool:
        return class_of(self.folded[0]) == CJK

    @property
    def hash(self) -> int:
        return unit_hash(self.folded)


def match_units(text: str) -> Iterator[MatchUnit]:
    """The matching units of `text` in order."""
    run, start, stop, position = "", 0, 0, 0
    for character in text:
        kind, begin = class_of(character), position
        position += len(character.encode("utf-8", "surrogatepass"))
        if kind >= FIRST_CORE or (kind == MARK and run):
            start, stop = (start if run else begin), position
            run += fold(character)
        elif kind != OTHER:
            if run:
                yield MatchUnit(run, start, stop)
                run = ""
            if kind == CJK:
                yield MatchUnit(fold(character), begin, position)
    if run:
        yield MatchUnit(run, start, stop)


def fold(character: str) -> str:
    """Lower case, and the plain form of full-width and other compatibility characters, where that is one character."""
    plain = unicodedata.normalize("NFKC", character)
    folded = (plain if len(plain) == 1 else character).lower()
    return folded if len(folded) == 1 else character


@functools.cache
def fold_table() -> Any:
    """`fold` for every code point: int32 [0x110000]. Built on first use in about 0.3 s, then kept."""
    import numpy as np

    table = np.arange(0x110000, dtype=np.int32)
    for code in range(0x41, 0x30000):
        if not 0x3400 <= code < 0xA000 and not 0xAC00 <= code < 0xF900:  # ideographs, hangul, private use
            table[code] = ord(fold(chr(code)))
    return table
