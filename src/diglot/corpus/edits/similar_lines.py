"""Deletes sentences that repeat an earlier one of the same document, exactly or up to a tenth of their characters.

MAP-Neo's similar-line rule for Chinese (arXiv 2405.19327): similar(a, b) <=> edit distance <= 0.1 * max(|a|, |b|).
Differs from its released code: sentences of few characters and what is no prose stay, so that "!!!" and ellipses keep
their marks and dialogues their short lines (`takes_part`); sentences with other numbers differ (`is_similar`); program
code is left alone; a sentence is compared only with those that stay; and not every pair is compared
(`diglot.kernels.similar_sentences` says why none is lost, except in texts that repeat one run of characters thousands
of times).
Wrongly deletes: refrains of songs and poems, formulas that a law or a contract repeats on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diglot.corpus.edits import SIMILAR_LINES
from diglot.corpus.edits.code_blocks import code_ranges
from diglot.corpus.edits.settings import SimilarLinesEdit
from diglot.corpus.edits.spans import Span, within_line
from diglot.corpus.edits.texts import Texts
from diglot.corpus.ranges import inside
from diglot.text.lines import ends_with_stop
from diglot.text.units import CJK, DIGIT, LETTER, class_of

NUMERALS = "〇零一二三四五六七八九十百千万億亿"
EXACT_ABOVE = 1000  # characters; a longer sentence is a table or a list, and must be equal


def is_similar(a: str, b: str, edit: SimilarLinesEdit) -> bool:
    """Whether one of two sentences repeats the other; white space at their ends is stripped before.

    With other numbers it says something else: entries of a list, paragraphs of a law, years of a chronicle.
    """
    if numbers(a) != numbers(b):
        return False
    longer, shorter = max(len(a), len(b)), min(len(a), len(b))
    exact = shorter < edit.exact_below or longer > EXACT_ABOVE
    return edit_distance(a, b) <= (0 if exact else int(edit.max_share * longer))


def numbers(sentence: str) -> list[str]:
    """The digits and Chinese numerals of a sentence, in order."""
    return [c for c in sentence if class_of(c) == DIGIT or c in NUMERALS]


def takes_part(sentence: str, edit: SimilarLinesEdit) -> bool:
    """Whether a sentence is compared at all: it is long enough and prose.

    Prose has a letter, and ends with a stop or is CJK for one half: tags, headings, rows of tables and the directives
    of markup repeat because the page needs them.
    """
    kinds = [class_of(character) for character in sentence]
    has_word = any(kind >= LETTER or kind == CJK for kind in kinds)
    is_prose = has_word and (ends_with_stop(sentence) or 2 * kinds.count(CJK) >= len(kinds))
    return is_prose and len(sentence) >= edit.min_chars


def repeated_sentences(sentences: list[str], edit: SimilarLinesEdit) -> list[bool]:
    """Which sentences repeat an earlier one that stays: the definition, by comparing all pairs."""
    kept: list[str] = []
    removed = []
    for sentence in map(str.strip, sentences):
        taking_part = takes_part(sentence, edit)
        repeats = taking_part and any(is_similar(sentence, earlier, edit) for earlier in kept)
        removed.append(repeats)
        if taking_part and not repeats:
            kept.append(sentence)
    return removed


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's distance: insertions, deletions and replacements of one character."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def similar_lines(texts: Texts, edit: SimilarLinesEdit) -> Iterator[tuple[int, list[Span]]]:
    """(row, spans) of every document that repeats itself; `first_in` stays empty, since it is the same document."""
    from diglot.kernels.jit import classes
    from diglot.kernels.sentences import MARKS, sentence_starts
    from diglot.kernels.similar_sentences import number_marks, repeated, run_chars

    starts, first = sentence_starts(texts.offsets, texts.utf8, classes())
    run = run_chars(edit.max_share, edit.min_chars, edit.exact_below)
    limits = (edit.max_share, edit.min_chars, edit.exact_below, EXACT_ABOVE, run)
    for row in range(len(texts)):
        begins = starts[first[row] : first[row + 1]]
        if len(begins) < 2:
            continue
        text = texts.text(row)
        ends = np.append(begins[1:], len(text))
        skip = np.zeros(len(begins), np.bool_)
        if kept := code_ranges(text, indented=True):
            skip[:] = [inside(kept, start, stop) for start, stop in zip(begins.tolist(), ends.tolist(), strict=True)]
        removed = repeated(
            texts.utf8,
            texts.offsets[row],
            texts.offsets[row + 1],
            begins,
            skip,
            classes(),
            MARKS,
            number_marks(NUMERALS),
            *limits,
        )
        chosen = np.flatnonzero(removed)
        if len(chosen):
            yield row, [Span(*within_line(text, int(begins[one]), int(ends[one])), SIMILAR_LINES) for one in chosen]
