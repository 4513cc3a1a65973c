"""What the units of a text look like: long or short, letters or digits, capitals, function words."""

from __future__ import annotations

from diglot.text.stop_words import STOP_WORDS_EN
from diglot.text.units import (
    IDEOGRAPH,
    LETTER,
    MARK,
    NUMBER,
    SYMBOLS,
    UPPER,
    WORD,
    class_of,
    segments,
    units,
)

JOINERS = "'’-‐‑"  # a word with these inside is still made of letters


def mean_unit_chars(text: str) -> float:
    """Mean number of characters of a unit; 0 without units. Chinese alone gives 1, since a unit is a character there.

    Catches: at the high end strings without spaces (base64, hashes, addresses); at the low end spaced-out letters.
    Wrongly catches: lists of long identifiers.
    Source: Gopher, 3 to 10 for English words.
    """
    lengths = [len(unit) for unit in units(text)]
    return sum(lengths) / max(len(lengths), 1)


def letterless_share(text: str) -> float:
    """Share of white-space words and CJK characters without any letter: numbers, and marks that stand alone.

    Catches: tables of numbers, ASCII art, menus separated by bars. Wrongly catches: ledgers, sheet music, arithmetic.
    Source: Gopher (at least 80 % of words with a letter); MAP-Neo rejects at 0.4.
    Differs from MAP-Neo: its code divides by characters, so that its rule cannot fire on normal text.
    """
    kinds = [segment.kind for segment in segments(text)]
    return sum(kind in (NUMBER, SYMBOLS) for kind in kinds) / max(len(kinds), 1)


def mixed_unit_share(text: str) -> float:
    """Share of units that are not made of letters alone, where inner apostrophes and hyphens are allowed.

    Catches: code, logs, addresses, part lists. Wrongly catches: technical manuals, which name files and commands.
    Source: MAP-Neo, rule S6 (0.2), which divides tokens by characters; here by units.
    """
    found = units(text)
    return sum(not _only_letters(unit) for unit in found) / max(len(found), 1)


def number_unit_share(text: str) -> float:
    """Share of units that are numbers: digits, with or without marks between them, and no letter.

    Catches: tables, indexes, scores. Wrongly catches: statistics, timetables.
    Source: MAP-Neo, rule S7 (0.3).
    """
    kinds = [segment.kind for segment in segments(text) if segment.kind != SYMBOLS]
    return sum(kind == NUMBER for kind in kinds) / max(len(kinds), 1)


def all_caps_share(text: str) -> float:
    """Share of units of two or more characters that are all capital letters.

    Catches: shouting, stock tickers, legal boilerplate. Wrongly catches: pages on acronyms and key names.
    Source: MAP-Neo, rule P1 (0.1). Differs: the single capitals I and A do not count.
    """
    found = units(text)
    return sum(len(unit) > 1 and all(class_of(c) == UPPER for c in unit) for unit in found) / max(len(found), 1)


def stop_words_en(text: str) -> float:
    """How many of Gopher's eight English function words occur, 0 to 8; ASCII case is ignored.

    Catches: keyword spam, lists, other languages. Wrongly catches: very short texts.
    Source: Gopher, at least two. Differs from MAP-Neo, whose list of 570 words contains content words.
    """
    return float(len({unit.lower() for unit in units(text) if unit.isascii()} & set(STOP_WORDS_EN)))


def stop_word_share(text: str) -> float:
    """Share of units that are one of Gopher's eight English function words; ASCII case is ignored.

    Catches, at low values: keyword spam, lists, other languages. Wrongly catches: tables, headlines.
    Source: RedPajama-V2; MAP-Neo, rule G5 (0.06 over a longer list; switched off in the released code).
    """
    found = units(text)
    return sum(unit.isascii() and unit.lower() in STOP_WORDS_EN for unit in found) / max(len(found), 1)


def max_unit_chars(text: str) -> float:
    """Characters of the longest unit; 0 without units.

    Catches: encoded data, text without spaces. Wrongly catches: pages that show one long address.
    Source: C4's released filter, which deletes lines with a word of more than 1,000 characters.
    """
    return float(max(map(len, units(text)), default=0))


def cjk_share(text: str) -> float:
    """Share of units that are CJK characters.

    Catches: pages in two languages, half-translated ones. Wrongly catches: textbooks of Chinese or Japanese.
    Source: ours.
    """
    kinds = [segment.kind for segment in segments(text) if segment.kind != SYMBOLS]
    assert all(kind in (WORD, NUMBER, IDEOGRAPH) for kind in kinds)
    return sum(kind == IDEOGRAPH for kind in kinds) / max(len(kinds), 1)


def _only_letters(unit: str) -> bool:
    if len(unit) == 1 and class_of(unit) not in (LETTER, UPPER):
        return next(segments(unit)).kind == IDEOGRAPH
    return all(class_of(c) in (LETTER, UPPER, MARK) or c in JOINERS for c in unit)
