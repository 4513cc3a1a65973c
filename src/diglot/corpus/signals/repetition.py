"""How much of a text says the same again: Gopher's n-gram signals (arXiv 2112.11446, table A1) on text units.

MAP-Neo's released code counts distinct characters of repeated character n-grams instead, and lets a paragraph repeated
ten times pass; these are the published definitions. In Chinese a unit is a character, so n units are a shorter stretch
of text than in English: the same value means less there, which policies account for in their limits.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

from diglot.text.lines import lines, sentence_units
from diglot.text.units import units


def unique_unit_share(text: str) -> float:
    """Distinct units / units; 0 without units. Falls with length (Heaps' law), so limits need a range of lengths.

    Catches: generated lists, word salad over few words. Wrongly catches: long texts on one topic.
    Source: MAP-Neo, P2 (0.1) and Z11 (0.1).
    """
    found = units(text)
    return len(set(found)) / max(len(found), 1)


def unit_entropy(text: str) -> float:
    """Entropy of the distribution of units, in nats; 0 without units.

    Catches: keyboard noise, one phrase again and again. Wrongly catches: very short texts (at most log of the length).
    Source: MAP-Neo, R1 and Z12 (3); natural text has 5 to 6.3.
    """
    found = units(text)
    return -sum(c / len(found) * math.log(c / len(found)) for c in Counter(found).values()) if found else 0.0


def duplicate_line_share(text: str) -> float:
    """Share of lines that repeat an earlier line of the text.

    Catches: navigation repeated at the foot, log files. Wrongly catches: refrains, code.
    Source: Gopher, 0.3.
    """
    found = lines(text)
    return (len(found) - len(set(found))) / max(len(found), 1)


def duplicate_line_char_share(text: str) -> float:
    """Share of the characters of all lines (ends stripped) that stand in lines repeating an earlier one.

    Source: Gopher, 0.2.
    """
    found = lines(text)
    total = sum(map(len, found))
    return (total - sum(map(len, set(found)))) / max(total, 1)


def duplicate_sentence_share(text: str) -> float:
    """Share of sentences whose units are those of an earlier sentence; white space and punctuation do not matter.

    Catches: pages that say one thing again and again, comments copied under each other. Wrongly catches: refrains.
    Source: MAP-Neo, 0.30, switched off in the released code, which compares by TF-IDF; here only copies.
    """
    found = sentence_units(text)
    return (len(found) - len(set(found))) / max(len(found), 1)


def duplicate_sentence_char_share(text: str) -> float:
    """Share of the characters of all units that stand in sentences repeating an earlier one.

    Catches and wrongly catches: as duplicate_sentence_share, and long sentences weigh more.
    Source: MAP-Neo, 0.20, switched off in the released code.
    """
    found = sentence_units(text)
    total = sum(len(unit) for sentence in found for unit in sentence)
    return (total - sum(len(unit) for sentence in set(found) for unit in sentence)) / max(total, 1)


def top_ngram_share(text: str, n: int) -> float:
    """Characters of the most frequent n-gram x its count / characters of all units; 0 when no n-gram occurs twice.

    Of several most frequent ones the longest counts. Overlapping occurrences all count, so the product is capped at 1.
    Catches: search spam, stuttering extractions. Wrongly catches: short texts about one term.
    Source: Gopher, 0.20, 0.18, 0.16 for n = 2, 3, 4.
    """
    found = units(text)
    counts = Counter(zip(*(found[i:] for i in range(n)), strict=False))
    best = max(((count, sum(map(len, gram))) for gram, count in counts.items()), default=(0, 0))
    return min(1.0, best[0] * best[1] / sum(map(len, found))) if best[0] > 1 else 0.0


def duplicate_ngram_share(text: str, n: int) -> float:
    """Share of the characters of all units that lie in an n-gram of units occurring more than once; each counts once.

    Catches: paragraphs and boilerplate given several times. Wrongly catches: legal formulas, reference manuals.
    Source: Gopher, 0.15 to 0.10 for n = 5 to 10.
    """
    found = units(text)
    grams = list(zip(*(found[i:] for i in range(n)), strict=False))
    counts = Counter(grams)
    covered = {i + k for i, gram in enumerate(grams) if counts[gram] > 1 for k in range(n)}
    return sum(len(found[i]) for i in covered) / max(sum(map(len, found)), 1)


top_2gram_share, top_3gram_share, top_4gram_share = (partial(top_ngram_share, n=n) for n in (2, 3, 4))
duplicate_5gram_share = partial(duplicate_ngram_share, n=5)
duplicate_6gram_share = partial(duplicate_ngram_share, n=6)
duplicate_7gram_share = partial(duplicate_ngram_share, n=7)
duplicate_8gram_share = partial(duplicate_ngram_share, n=8)
duplicate_9gram_share = partial(duplicate_ngram_share, n=9)
duplicate_10gram_share = partial(duplicate_ngram_share, n=10)
