"""The text unit: what filters count, what shingles are made of, what reports call a word.

A unit is one character in scripts written without spaces between words (Han, kana, bopomofo) and a white-space word
elsewhere, without the punctuation at its ends: `"Don't", she said: 你好，世界 (v1.2)` has the units Don't, she,
said, 你, 好, 世, 界, v1.2. No dictionary and no model is asked, so the same text has the same units for ever. This
differs from spaCy and jieba words: contractions, compounds and addresses stay whole, a Chinese word of two characters
is two units. Thai, Lao, Khmer and Burmese keep white-space words, which are phrases there.

`segments` is the definition; `diglot.kernels.units` does the same over UTF-8 bytes and is held equal to it by a test.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

# Classes of code points, numbered so that two comparisons tell what a scanner has to do.
OTHER, SPACE, CJK, WIDE, PUNCTUATION, SYMBOL, MARK, DIGIT, LETTER, UPPER = range(10)
# SPACE, CJK, WIDE end a run; DIGIT, LETTER, UPPER are what a unit starts and ends with.
LAST_BORDER = WIDE
FIRST_CORE = DIGIT

# By block, not by category: the unassigned points of these blocks will be ideographs too, whatever Python's Unicode is.
CJK_RANGES = (
    (0x2E80, 0x2FDF),  # radicals, which scanned and converted text uses in place of ideographs
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3031, 0x3035),
    (0x3038, 0x303C),
    (0x3041, 0x3096),  # hiragana
    (0x309D, 0x309F),
    (0x30A1, 0x30FA),  # katakana
    (0x30FC, 0x312F),  # ..., bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),  # half-width katakana
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFD),
)

# Surrogates and private use, and planes without assigned characters: OTHER, and not worth a look each.
UNCLASSED = ((0xD800, 0xF8FF), (0x3FFFE, 0xDFFFF), (0xE0200, 0x10FFFF))

WORD, NUMBER, IDEOGRAPH, SYMBOLS = "word", "number", "cjk", "symbols"


class Segment(NamedTuple):
    """`kind`: WORD has a letter, NUMBER digits and no letter, IDEOGRAPH is one CJK character, SYMBOLS is no unit."""

    text: str
    kind: str


def units(text: str) -> list[str]:
    """The units of `text` in order."""
    return [segment.text for segment in segments(text) if segment.kind != SYMBOLS]


def segments(text: str) -> Iterator[Segment]:
    """Units, and runs of punctuation and symbols that stand alone between white space (`|`, `->`, `***`).

    The text is cut at white space, at CJK characters and at wide punctuation. From each run in between, everything
    before its first and after its last letter or digit is trimmed. A combining mark belongs to the letter or digit
    right before it and is a symbol elsewhere, so that the variation selector of an emoji makes no word. A run without
    letter and digit is a SYMBOLS segment unless it touches a CJK character, as punctuation does in Chinese.
    """
    run_start, left_is_space = 0, True
    for position, character in enumerate(text):
        border = class_of(character)
        if 0 < border <= LAST_BORDER:
            yield from _run(text[run_start:position], left_is_space and border == SPACE)
            if border == CJK:
                yield Segment(character, IDEOGRAPH)
            run_start, left_is_space = position + 1, border == SPACE
    yield from _run(text[run_start:], left_is_space)


def class_of(character: str) -> int:
    """The class of one character, by Unicode category and block."""
    code = ord(character)
    if any(first <= code <= last for first, last in CJK_RANGES):
        return CJK
    return _class_by_category(character)


@functools.cache
def class_table() -> Any:
    """`class_of` for every code point: uint8 [0x110000]. Built on first use in about 0.1 s, then kept."""
    import numpy as np  # here, so that listing signals and policies stays light

    table = np.full(0x110000, OTHER, np.uint8)
    for first, last in CJK_RANGES:
        table[first : last + 1] = CJK
    skip = sorted((*CJK_RANGES, *UNCLASSED))
    starts, ends = [0, *(last + 1 for _, last in skip)], [*(first for first, _ in skip), 0x110000]
    for start, end in zip(starts, ends, strict=True):
        table[start:end] = [_class_by_category(chr(code)) for code in range(start, end)]
    return table


def unit_hash(unit: str) -> int:
    """64-bit hash of a unit: FNV-1a over its code points, then MurmurHash3's finaliser for the high bits."""
    state = 0xCBF29CE484222325
    for character in unit:
        state = ((state ^ ord(character)) * 0x100000001B3) & _MASK
    return mix(state)


def mix(state: int) -> int:
    """MurmurHash3's 64-bit finaliser: a bijection that spreads every input bit over all output bits."""
    state = ((state ^ (state >> 33)) * 0xFF51AFD7ED558CCD) & _MASK
    state = ((state ^ (state >> 33)) * 0xC4CEB9FE1A85EC53) & _MASK
    return state ^ (state >> 33)


_MASK = (1 << 64) - 1


def _class_by_category(character: str) -> int:
    if character.isspace():
        return SPACE
    category = unicodedata.category(character)
    if category[0] in "PS":
        width = unicodedata.east_asian_width(character)
        # Emoji are wide symbols too, but stand in Latin text as often: only full-width forms of symbols cut.
        if width == "F" or (width == "W" and category[0] == "P"):
            return WIDE
    if category in ("Lu", "Lt"):
        return UPPER
    return {"L": LETTER, "M": MARK, "N": DIGIT, "P": PUNCTUATION, "S": SYMBOL}.get(category[0], OTHER)


def _run(run: str, stands_alone: bool) -> Iterator[Segment]:
    first = last = None
    has_letter = after_core = False
    for position, character in enumerate(run):
        kind = class_of(character)
        after_core = kind >= FIRST_CORE or (kind == MARK and after_core)
        if after_core:
            first = position if first is None else first
            last = position
            has_letter |= kind >= LETTER
    if first is not None and last is not None:
        yield Segment(run[first : last + 1], WORD if has_letter else NUMBER)
    elif run and stands_alone:
        yield Segment(run, SYMBOLS)
