"""Marks, digits and fixed phrases that give away what a page is."""

from __future__ import annotations

import re

from diglot.text.units import CJK, DIGIT, FIRST_CORE, LETTER, PUNCTUATION, SPACE, UPPER, WIDE, class_of, units

_ELLIPSIS = re.compile(r"…+|\.{3,}|。{3,}")
_HASHES = re.compile(r"#+(?=[^\s#])")
_BRACKETED = re.compile(r"【([^】]*)】")


def hash_ratio(text: str) -> float:
    """Runs of `#` for each unit; a run before white space (a Markdown heading, a root prompt) does not count.

    Catches: lists of hashtags. Wrongly catches: C# and numbered issues in very short texts.
    Source: Gopher, symbol-to-word ratio 0.1; also MAP-Neo, S3 and Z4, which divide by characters.
    """
    return len(_HASHES.findall(text)) / max(len(units(text)), 1)


def ellipsis_ratio(text: str) -> float:
    """Ellipses (U+2026, or three or more dots or ideographic stops in a row; one run counts once) for each unit.

    Catches: pages of teasers, tables of contents with dot leaders. Wrongly catches: dialogue, menus of a program.
    Source: Gopher, symbol-to-word ratio 0.1. The released MAP-Neo code has 0.5.
    """
    return len(_ELLIPSIS.findall(text)) / max(len(units(text)), 1)


def symbol_ratio(text: str) -> float:
    """Runs of `#` and ellipses for each unit: the sum of `hash_ratio` and `ellipsis_ratio`.

    Catches and wrongly catches: as these two.
    Source: Gopher, symbol-to-word ratio 0.1; RedPajama-V2 publishes the sum; MAP-Neo, rule G7 (0.5).
    """
    return hash_ratio(text) + ellipsis_ratio(text)


def alphanumeric_share(text: str) -> float:
    """Share of all characters, white space too, that are letters, digits or CJK characters; 0 for an empty text.

    Catches: ASCII art, tables of marks, binary data read as text. Wrongly catches: dense formulas.
    Source: Codex (Chen et al. 2021) and StarCoder (arXiv 2305.06161), at least 0.25.
    """
    return sum((kind := class_of(character)) >= FIRST_CORE or kind == CJK for character in text) / max(len(text), 1)


def alphabetic_share(text: str) -> float:
    """Share of all characters, white space too, that are letters or CJK characters; 0 for an empty text.

    Catches: tables of numbers, hex dumps, embedded data. Wrongly catches: numeric test data that belongs to a program.
    Source: StarCoder (arXiv 2305.06161), at least 0.25.
    """
    return sum((kind := class_of(c)) in (LETTER, UPPER) or kind == CJK for c in text) / max(len(text), 1)


def curly_share(text: str) -> float:
    """Share of the characters (without white space) that are curly braces.

    Catches: scripts and style sheets left in a page. Wrongly catches: programming tutorials, LaTeX.
    Source: C4 drops any page with one; MAP-Neo, rule K1 (0.025).
    """
    return (text.count("{") + text.count("}")) / max(_num_chars(text), 1)


def bracket_share(text: str) -> float:
    """Share of the characters (without white space) that stand between the brackets 【 and 】.

    Catches: shop listings, headline spam. Wrongly catches: dictionaries that mark their parts so.
    Source: MAP-Neo, Chinese rule F1 (0.1).
    """
    return sum(_num_chars(inner) for inner in _BRACKETED.findall(text)) / max(_num_chars(text), 1)


def digit_share(text: str) -> float:
    """Share of digits among letters, digits and CJK characters.

    Catches: phone lists, prices, tables. Wrongly catches: statistics, release notes.
    Source: MAP-Neo, Chinese rule Z7 (0.3).
    """
    kinds = [kind for character in text if (kind := class_of(character)) >= FIRST_CORE or kind == CJK]
    return sum(kind == DIGIT for kind in kinds) / max(len(kinds), 1)


def num_punctuation(text: str) -> float:
    """Punctuation characters, ASCII and full-width alike.

    Catches: at 0, word lists and menus. Wrongly catches: verse without punctuation.
    Source: MAP-Neo, S5 and Z10 (none: reject).
    """
    return float(sum(class_of(character) in (PUNCTUATION, WIDE) for character in text))


def lorem_ipsum(text: str) -> float:
    """Occurrences of the placeholder `lorem ipsum`, in any ASCII case.

    Catches: unfinished templates. Wrongly catches: texts about placeholders, such as a typesetting manual.
    Source: C4; MAP-Neo, rule K2, whose share of 3e-8 means any occurrence in a text below 33 million characters.
    """
    return float(text.encode().lower().count(b"lorem ipsum"))


def _num_chars(text: str) -> int:
    return sum(class_of(character) != SPACE for character in text)
