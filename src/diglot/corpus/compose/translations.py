"""Aligned translations: the same page in two languages, found by its address, paired where their outlines agree.

Documentation sets keep one layout for all languages, so two addresses that differ only in their language part are the
same page. Only pages whose outlines agree are used: the same headings in the same order and, for sentences, the same
blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from diglot.corpus.compose.pages import Page, Section
from diglot.corpus.compose.questions import CODE_IN_HEADING
from diglot.corpus.compose.sentences import HAN, is_in, is_sound, num_units, split_sentences

# A language tag between separators: /en-US/, /zh_CN/, .zh-cn., -zh-cn/ ; the separator before it goes too.
LANGUAGE_PART = re.compile(
    r"[/._-](?:en(?:[-_](?:us|gb))?|zh(?:[-_](?:cn|sg|tw|hk|hans|hant))*)(?=[/._-]|$)", re.IGNORECASE
)
MIN_UNITS, MAX_UNITS = 1, 40
LENGTH_RATIO = (0.5, 4.0)  # Chinese characters and words to English words; a translated sentence has 1 to 2.5


class Aligned(NamedTuple):
    """Two texts that say the same, keyed by language."""

    texts: dict[str, str]
    part: str  # title, heading or sentence


def page_key(address: str) -> str:
    """An address without its language parts, equal for all translations of a page.

    >>> page_key("/help/zh-CN/a.html") == page_key("/help/en-US/a.html")
    True
    """
    return LANGUAGE_PART.sub("", address).lower()


def aligned_texts(first: Page, first_lang: str, second: Page, second_lang: str) -> Iterator[Aligned]:
    """Titles, headings and single sentences that stand at the same place of two pages."""

    def pair(a: str, b: str, part: str) -> Iterator[Aligned]:
        texts = {first_lang: a, second_lang: b}
        if all(is_in(lang, text) for lang, text in texts.items()) and _is_plausible(texts):
            yield Aligned(texts, part)

    for a, b, part in _places(first, second):
        if part == "sentence":
            if is_sound(a, first_lang) and is_sound(b, second_lang):
                yield from pair(a, b, part)
        elif not CODE_IN_HEADING.search(a) and not CODE_IN_HEADING.search(b):
            yield from pair(a, b, part)


def _places(first: Page, second: Page) -> Iterator[tuple[str, str, str]]:
    yield first.title, second.title, "title"
    if [s.level for s in first.sections] != [s.level for s in second.sections]:
        return
    for a, b in zip(first.sections, second.sections, strict=True):
        if a is not first.sections[0]:
            yield a.heading, b.heading, "heading"
        if _shape(a) == _shape(b):
            for block_a, block_b in zip(a.blocks, b.blocks, strict=True):
                sentences_a, sentences_b = split_sentences(block_a.text), split_sentences(block_b.text)
                if block_a.kind != "other" and len(sentences_a) == len(sentences_b) == 1:
                    yield sentences_a[0], sentences_b[0], "sentence"


def _shape(section: Section) -> list[str]:
    return [block.kind for block in section.blocks]


def _is_plausible(texts: dict[str, str]) -> bool:
    han = [text for text in texts.values() if HAN.search(text)]
    other = [text for text in texts.values() if not HAN.search(text)]
    if len(han) != 1 or len(other) != 1:
        return False
    num_han, num_words = num_units(han[0]), num_units(other[0])
    return (
        MIN_UNITS <= num_words <= MAX_UNITS
        and LENGTH_RATIO[0] <= num_han / num_words <= (LENGTH_RATIO[1] if num_words > 2 else 8)
        and "\n" not in han[0] + other[0]
    )
