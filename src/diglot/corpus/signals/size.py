"""How much text there is: characters, units, lines, sentences."""

from __future__ import annotations

from diglot.text import lines as text_lines
from diglot.text.units import SPACE, class_of, units


def num_chars(text: str) -> float:
    """Characters that are not white space.

    Catches: empty extractions, stubs. Wrongly catches: short definitions and poems.
    Source: MAP-Neo, English rule C2 (at least 200) and Chinese rule Z2.
    """
    return float(sum(class_of(character) != SPACE for character in text))


def num_units(text: str) -> float:
    """Text units (`diglot.text.units`): words, and single characters in Chinese and Japanese.

    Catches: pages without content; at the high end, dumps and concatenations. Wrongly catches: short help pages, books.
    Source: Gopher (Rae et al. 2021, arXiv 2112.11446), 50 to 100,000 words.
    """
    return float(len(units(text)))


def num_lines(text: str) -> float:
    """Lines that are not blank. No rule of ours uses it; reports and later line rules do."""
    return float(len(text_lines.lines(text)))


def num_sentences(text: str) -> float:
    """Sentences, as `diglot.text.lines.num_sentences` counts them: stops, and an unfinished rest.

    Catches: at 1, lists of names and navigation without a single finished sentence; above thousands, dumps.
    Wrongly catches: tables, code listings, text of a style without stops.
    Source: MAP-Neo, S1 and Z1 (at most one: reject), K3 (7,500 or more: reject).
    """
    return float(text_lines.num_sentences(text))


def lines_per_unit(text: str) -> float:
    """Lines that are not blank for each unit (or for one, without units).

    Catches: lists of single words, broken extractions with a line for every word. Wrongly catches: verse, vocabularies.
    Source: FineWeb's released filter (datatrove), 0.3 line feeds for each word; blank lines do not count here.
    """
    return len(text_lines.lines(text)) / max(len(units(text)), 1)
