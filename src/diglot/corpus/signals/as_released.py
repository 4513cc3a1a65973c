"""What MAP-Neo's released cleaning code measures, defects included; for ablation, not for use.

The paper describes one pipeline and the code is another (`D1` ... count the differences in our notes; each function
names its own). These signals reproduce the code's statistics, so that the policies `matrix-en-as-released` and
`matrix-zh-as-released` drop what it would have dropped. They are measured by the family `as_released` of the annotate
step, only when it is asked for, in plain Python at a few hundred kilobytes per second.

Text is NFKC-normalised first, as there. English words are cut by a regular expression after the Penn Treebank's
conventions (contractions split, every punctuation mark a word), in place of NLTK's tokenizer; English sentences end at
stops before white space and a capital, in place of NLTK's trained splitter. A share may exceed 1 where the code divides
one thing by another, so no name ends in `_share` here.
"""

from __future__ import annotations

import functools
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import partial

_WORD = re.compile(r"\.{2,}|\w+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w+(?:[.-]\w+)*|[^\w\s]", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")
_GREEDY_SENTENCE = re.compile(r"[^.!?]+[.!?]*")
_ELLIPSES = re.compile(r"…+|\.{2,}")
_HASHES = re.compile(r"#+")
_BULLETS = tuple("•‣▶◀◦●○■□▪▫※·➢–")
_ZH_SENTENCE_END = re.compile(r'[.!…?;"]')
_ZH_READ_MORE = ("readmore", "展开", "更多", "。。。")
_BRACKETED = re.compile(r"【[^】]*】")
_HALF_WIDTH = str.maketrans(
    {"。": ".", "“": '"', "”": '"', "‘": "'", "’": "'"}
    | {chr(ord(mark) + 0xFEE0): mark for mark in "!#$%&()*+,-/:;<=>?@[\\]^_`{|}~"}
)


def released_mean_word_chars(text: str) -> float:
    """G1: mean characters of Treebank words, punctuation marks among them, which pulls the mean down.

    Source: MAP-Neo's released code, 3 to 10.
    """
    words = _words(text)
    return sum(map(len, words)) / max(len(words), 1)


def released_ellipses_per_char(text: str) -> float:
    """G2, S4, Z5: runs of `…` and of two or more dots for each *character*, where the paper means lines or words.

    Source: MAP-Neo's released code, 0.2 (G2) and 0.1 (S4, Z5). A text of nothing but `a..` has one third.
    """
    text = _nfkc_keeping_ellipses(text)
    return len(_ELLIPSES.findall(text)) / max(len(text), 1)


def released_bullet_lines(text: str) -> float:
    """G3, Z9: lines that start with a bullet for each line; blank lines count, and no white space may come before.

    Source: MAP-Neo's released code, 0.9.
    """
    lines = _nfkc(text).split("\n")
    return sum(line.startswith(_BULLETS) for line in lines) / max(len(lines), 1)


def released_letterless_per_char(text: str) -> float:
    """G4: white-space words without a letter for each *character*, where the paper means words.

    Source: MAP-Neo's released code, 0.4. Only a text of single marks between single spaces comes near (0.5).
    """
    text = _nfkc(text)
    return sum(not any(c.isalpha() for c in word) for word in text.split()) / max(len(text), 1)


def released_symbols_per_word(text: str) -> float:
    """G7: occurrences of `#`, `...` and `…` for each Treebank word.

    Source: MAP-Neo's released code, 0.5; Gopher has 0.1.
    """
    text = _nfkc_keeping_ellipses(text)
    return (text.count("#") + text.count("...") + text.count("…")) / max(len(_words(text)), 1)


def released_num_words(text: str) -> float:
    """G8: Treebank words, punctuation marks among them.

    Source: MAP-Neo's released code, 50 to 10,000; Gopher has 100,000.
    """
    return float(len(_words(text)))


def released_lang_score(text: str) -> float:
    """C1, L1: the score of the likeliest language, whichever it is (D4), of the text with its line feeds *deleted*.

    Source: MAP-Neo's released code, 0.4.
    """
    from diglot.text.language import identify

    return identify(text.replace("\n", "")).score


def released_num_chars(text: str) -> float:
    """C2: characters without spaces, tabs and line feeds.

    Source: MAP-Neo's released code, 200.
    """
    return float(sum(c not in " \t\n" for c in text))


def released_num_lines(text: str) -> float:
    """C3: lines, blank ones counted; at least 1 for any text, so that the rule (fewer than 1) never fires.

    Source: MAP-Neo's released code, 1; its comment says more than 1.
    """
    return float(len(text.split("\n"))) if text else 0.0


def released_curly_per_char(text: str) -> float:
    """K1: `{` and `}` for each character, white space counted.

    Source: MAP-Neo's released code, 0.025.
    """
    return (text.count("{") + text.count("}")) / max(len(text), 1)


def released_lorem_ipsum_per_char(text: str) -> float:
    """K2: occurrences of `lorem ipsum` for each character; any one is too many below 33 million characters.

    Source: MAP-Neo's released code, 3e-8.
    """
    text = _nfkc(text).lower()
    return text.count("lorem ipsum") / max(len(text), 1)


def released_greedy_sentences(text: str) -> float:
    """K3: spans up to `.`, `!` or `?`, so that `v1.2.3` is three sentences.

    Source: MAP-Neo's released code, 7,500.
    """
    return float(len(_GREEDY_SENTENCE.findall(text)))


def released_all_caps(text: str) -> float:
    """P1: white-space words of capital letters alone for each white-space word; the single I and A count.

    Source: MAP-Neo's released code, 0.1.
    """
    words = _nfkc(text).split()
    return sum(word.isalpha() and word.isupper() for word in words) / max(len(words), 1)


def released_unique_words(text: str) -> float:
    """P2: distinct white-space words for each white-space word, punctuation and case as they are.

    Source: MAP-Neo's released code, 0.1; its upper limit of 0.8 is declared and not applied.
    """
    words = _nfkc(text).split()
    return len(set(words)) / max(len(words), 1)


def released_num_sentences(text: str) -> float:
    """S1: English sentences.

    Source: MAP-Neo's released code, more than 1.
    """
    return float(len(_sentences(text)))


def released_read_more(text: str) -> float:
    """S2: sentences that end with `read more` for each sentence; a full stop behind it hides it.

    Source: MAP-Neo's released code, 0.1.
    """
    sentences = _sentences(text)
    return sum(sentence.lower().endswith("read more") for sentence in sentences) / max(len(sentences), 1)


def released_hashes_per_char(text: str) -> float:
    """S3, Z4: runs of `#` for each *character*, where words are meant; `#one #two` has 0.2.

    Source: MAP-Neo's released code, 0.1.
    """
    text = _nfkc(text)
    return len(_HASHES.findall(text)) / max(len(text), 1)


def released_ascii_punctuation(text: str) -> float:
    """S5: ASCII punctuation characters. Z10 also counts `…`, and reads the text after the half-width table.

    Source: MAP-Neo's released code, none: reject.
    """
    return float(sum(c in string.punctuation for c in _nfkc(text)))


def released_nonalphabetic_per_char(text: str) -> float:
    """S6: Treebank words that are not letters alone for each *character* left after deleting punctuation.

    Source: MAP-Neo's released code, 0.2; the paper means words in both places.
    """
    return sum(not word.isalpha() for word in _words(text)) / max(_chars_without_punctuation(text), 1)


def released_digit_words_per_char(text: str) -> float:
    """S7: Treebank words that are digits alone for each *character* left after deleting punctuation.

    Source: MAP-Neo's released code, 0.3; single digits between spaces reach 0.5.
    """
    return sum(word.isdigit() for word in _words(text)) / max(_chars_without_punctuation(text), 1)


def released_word_entropy(text: str) -> float:
    """R1: entropy of white-space words, in nats.

    Source: MAP-Neo's released code, 3; its upper limit of 6 is declared and not applied.
    """
    return _entropy(_nfkc(text).split())


def released_top_gram(text: str, n: int) -> float:
    """D3: (occurrences of the most frequent *character* n-gram less one) x n / characters, where words are meant.

    Source: MAP-Neo's released code, 0.20, 0.18, 0.16 for n = 2, 3, 4. A paragraph given ten times has at most 0.06.
    """
    counts = Counter(text[i : i + n] for i in range(len(text) - n + 1))
    return (max(counts.values(), default=1) - 1) * n / max(len(text), 1)


def released_duplicate_gram(text: str, n: int) -> float:
    """D3: *distinct characters* in character n-grams that occur more than once / characters.

    Source: MAP-Neo's released code, 0.15 to 0.10 for n = 5 to 10. Only texts below about 300 characters can exceed it:
    a language has so few characters. The Chinese code computes it, and drops nothing (D1): it asks whether a pair
    (verdict, reason) is true, and a pair always is.
    """
    counts = Counter(text[i : i + n] for i in range(len(text) - n + 1))
    return len({c for gram, count in counts.items() if count > 1 for c in gram}) / max(len(text), 1)


def released_zh_brackets(text: str) -> float:
    """F1: characters from `【` to `】`, brackets counted, for each character.

    Source: MAP-Neo's released code, 0.1.
    """
    text = _nfkc(text)
    return sum(map(len, _BRACKETED.findall(text))) / max(len(text), 1)


def released_zh_num_sentences(text: str) -> float:
    """Z1: pieces between `.`, `!`, `…`, `?`, `;` and `"` that are not blank, after the half-width table.

    Source: MAP-Neo's released code, more than 1. An ASCII abbreviation or a decimal point is enough to pass.
    """
    return float(sum(bool(piece.strip()) for piece in _ZH_SENTENCE_END.split(_half_width(text))))


def released_zh_num_chars(text: str) -> float:
    """Z2: characters, white space counted.

    Source: MAP-Neo's released code, 50 to 10,000: every longer document is lost.
    """
    return float(len(_half_width(text)))


def released_zh_digits(text: str) -> float:
    """Z7: digits for each character that is not ASCII punctuation, white space counted.

    Source: MAP-Neo's released code, 0.3.
    """
    text = _half_width(text)
    return sum(c.isdigit() for c in text) / max(sum(c not in string.punctuation for c in text), 1)


def released_zh_read_more(text: str) -> float:
    """Z8: lines ending in `readmore`, `展开` or `更多`, for each line; `。。。` never is, its stops being dots by then.

    Source: MAP-Neo's released code, 0.3.
    """
    lines = _half_width(text).split("\n")
    return sum(line.strip().lower().endswith(_ZH_READ_MORE) for line in lines) / max(len(lines), 1)


def released_zh_punctuation(text: str) -> float:
    """Z10: ASCII punctuation characters and `…` after the half-width table; `、` and `《》` do not count.

    Source: MAP-Neo's released code, none: reject.
    """
    return float(sum(c in string.punctuation or c == "…" for c in _half_width(text)))


def released_zh_unique_chars(text: str) -> float:
    """Z11: distinct characters for each character; falls with the length of any text.

    Source: MAP-Neo's released code, 0.1.
    """
    text = _half_width(text)
    return len(set(text)) / max(len(text), 1)


def released_zh_char_entropy(text: str) -> float:
    """Z12: entropy of characters, in nats; natural text has 5 to 6.3.

    Source: MAP-Neo's released code, 3.
    """
    return _entropy(list(_half_width(text)))


released_top_2gram, released_top_3gram, released_top_4gram = (partial(released_top_gram, n=n) for n in (2, 3, 4))
released_duplicate_5gram = partial(released_duplicate_gram, n=5)
released_duplicate_6gram = partial(released_duplicate_gram, n=6)
released_duplicate_7gram = partial(released_duplicate_gram, n=7)
released_duplicate_8gram = partial(released_duplicate_gram, n=8)
released_duplicate_9gram = partial(released_duplicate_gram, n=9)
released_duplicate_10gram = partial(released_duplicate_gram, n=10)


@functools.lru_cache(maxsize=2)
def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


@functools.lru_cache(maxsize=2)
def _nfkc_keeping_ellipses(text: str) -> str:
    """NFKC turns `…` into three dots; the released code counts it before that."""
    return "…".join(unicodedata.normalize("NFKC", part) for part in text.split("…"))


@functools.lru_cache(maxsize=2)
def _half_width(text: str) -> str:
    """NFKC, then F2's table; the ideographic comma, title marks and corner quotes stay."""
    return _nfkc_keeping_ellipses(text).translate(_HALF_WIDTH)


@functools.lru_cache(maxsize=2)
def _words(text: str) -> list[str]:
    return _WORD.findall(_nfkc(text))


@functools.lru_cache(maxsize=2)
def _sentences(text: str) -> list[str]:
    return [sentence for piece in _SENTENCE_END.split(_nfkc(text)) if (sentence := piece.strip())]


def _chars_without_punctuation(text: str) -> int:
    return sum(c not in string.punctuation for c in _nfkc(text))


def _entropy(items: Sequence[str]) -> float:
    return -sum(count / len(items) * math.log(count / len(items)) for count in Counter(items).values()) + 0.0
