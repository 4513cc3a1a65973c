"""Sentences fit for an answer: complete, in one language, without the scars that extraction leaves."""

from __future__ import annotations

import re
from collections.abc import Iterable

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")
LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f'’-]*")
WORD_OR_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]|\w(?:[\w'’.-]*\w)?")

_END = re.compile(r"[。！？!?][”」』）)\"]*|\.[”\")]*(?=\s+[“\"(A-Z0-9]|\s*$)")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|resp|approx|Fig|Sect|Ch|No|Mr|Dr|Inc|St)|\b[A-Z])\.[”\")]*$")
_COMPLETE = re.compile(r".*[.!?。！？][”」』）)\"]*", re.S)

# What stands at the start of a sentence that only points elsewhere, or at text that is not in the answer.
_POINTER = re.compile(
    r"(?:see|please (?:see|refer|note|read|use)|refer to|for (?:more|further|details)|click here|note:|tip:|warning:"
    r"|to access|this (?:section|chapter|document|tutorial|page)|the following|as (?:shown|mentioned|described)"
    r"|(?:but|however|so|also|then|thus|therefore|otherwise|and|or|in this case|instead|again|moreover|unfortunately)\b"
    r"|请?参[见看阅考照]|请[查参]|详[见情细]|更多|有关.{0,20}(?:参见|请参)|点击此处|要访问|本[章节文手页]|以下|如下|如[上前]"
    r"|但是?|然而|不过|因此|所以|此外|另外|而且|并且|否则|同样|那么|在这种情况)",
    re.I,
)
# Words that the extractor lost leave operators and quotation marks without their neighbours.
_SCAR = re.compile(
    r"\b(?:in|choose|press|select|the|on|a|an|and|or|with|of|to|by|use|using|using the)\s+(?:[-+,.;:)]|and |or )"
    r"|[（(]\s*[)）]|[「“]\s*[」”]|[选择按在和或与]\s+[-+]|[，、]\s*[，。、]|^\W|\s[,;.]|\(s\b|  |\ufffd|\[\d+\]|https?://|：。",
    re.I,
)
_ASCII_BRACKET = re.compile(r"[()\[\]\"]")
_BRACKETS = {"（": "）", "(": ")", "「": "」", "『": "』", "“": "”", "[": "]", "《": "》", "【": "】"}


def num_units(text: str) -> int:
    """Words plus Chinese characters. Near `len(text.units.units(text))` and fifty times as fast; only bounds are set
    on it."""
    return len(WORD_OR_HAN.findall(text))


def is_in(lang: str, text: str) -> bool:
    """Whether a text is written in a language, by script. Latin names inside Chinese are fine; no Chinese inside
    English.

    Knows `en` and the Chinese tags; other languages are refused.
    """
    num_han, num_words = len(HAN.findall(text)), len(LATIN_WORD.findall(text))
    if lang.partition("-")[0] == "zh":
        return num_han > 0 and num_han >= 1.5 * num_words
    return lang == "en" and num_han == 0 and num_words > 0


def split_sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph; a last piece without a full stop is one too.

    >>> split_sentences("It is small, e.g. 2 MB. Really? 它很小。好")
    ['It is small, e.g. 2 MB.', 'Really?', '它很小。', '好']
    """
    sentences, start = [], 0
    for match in _END.finditer(paragraph):
        piece = paragraph[start : match.end()]
        if match[0].startswith(".") and _ABBREVIATION.search(piece) and match.end() < len(paragraph.rstrip()):
            continue
        sentences.append(piece.strip())
        start = match.end()
    rest = paragraph[start:].strip()
    return [s for s in [*sentences, rest] if s]


def is_sound(sentence: str, lang: str) -> bool:
    """Complete, in its language, with matching brackets, and not a mere pointer to another place."""
    return (
        _COMPLETE.fullmatch(sentence) is not None
        and is_in(lang, sentence)
        and not _POINTER.match(sentence)
        and not _SCAR.search(sentence)
        and _is_balanced(sentence)
    )


def leading_sentences(paragraphs: Iterable[str], lang: str, *, max_units: int) -> list[str]:
    """Sentences from the start of a text, up to the first unsound one or the length bound."""
    taken: list[str] = []
    used = 0
    for paragraph in paragraphs:
        for sentence in split_sentences(paragraph):
            used += num_units(sentence)
            if used > max_units or not is_sound(sentence, lang):
                return taken
            taken.append(sentence)
    return taken


def join_sentences(sentences: list[str], lang: str) -> str:
    return ("" if lang.startswith("zh") else " ").join(sentences)


def _is_balanced(text: str) -> bool:
    if text.isascii() and not _ASCII_BRACKET.search(text):
        return True
    expected: list[str] = []
    for char in text:
        if char in _BRACKETS:
            expected.append(_BRACKETS[char])
        elif char in _BRACKETS.values() and (not expected or expected.pop() != char):
            return False
    return not expected and text.count('"') % 2 == 0
