"""A reward that a program can give: the language asked for, good form, and agreement with the source passage.

No model judges. Each part is in [0, 1] and can be read from the answer and the passage that the question was made
from, so a high reward means exactly these things and no more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from diglot.core.errors import ConfigError
from diglot.corpus.compose.sentences import is_in
from diglot.text.language import identify
from diglot.text.units import units

IDENTIFY_FROM_CHARS = 40  # fastText guesses below that; the script alone decides there
STRAY = re.compile(r"<\|?/?\w*\|?>|[\x00-\x08\x0b-\x1f\x7f\ufffd]")
SENTENCE_END = re.compile(r"[.!?。！？:：][”」』）)\"]*\s*$")


@dataclass(frozen=True, kw_only=True)
class RewardWeights:
    """Shares of the parts in the total; they sum to 1."""

    language: float = 0.25
    form: float = 0.25
    overlap: float = 0.5

    def __post_init__(self) -> None:
        parts = (self.language, self.form, self.overlap)
        if min(parts) < 0 or abs(sum(parts) - 1) > 1e-9:
            raise ConfigError(f"reward weights {parts} must be >= 0 and sum to 1, so that the reward is in [0, 1].")


class Reward(NamedTuple):
    """All in [0, 1]."""

    language: float
    form: float
    overlap: float
    total: float


def reward(answer: str, *, lang: str, passage: str, finished: bool, weights: RewardWeights) -> Reward:
    """What an answer is worth.

    Args:
        lang: the language asked for.
        passage: what the source says; for a translation, its counterpart.
        finished: whether the model ended the answer itself.
    """
    language = float(answers_in(lang, answer))
    form = form_score(answer, passage, finished)
    overlap = unit_f1(answer, passage)
    return Reward(
        language, form, overlap, weights.language * language + weights.form * form + weights.overlap * overlap
    )


def answers_in(lang: str, answer: str) -> bool:
    """Whether an answer is in a language: by script, and by the language identifier where it is long enough to
    judge."""
    if not is_in(lang, answer):
        return False
    if len(answer) < IDENTIFY_FROM_CHARS:
        return True
    found = identify(answer).tag
    return found is not None and found.partition("-")[0] == lang.partition("-")[0]


def form_score(answer: str, passage: str, finished: bool) -> float:
    """The mean of four: ended by itself, ends like its passage, few repeated n-grams, about as long. 0 for an empty
    answer and for stray control tokens or broken characters.
    """
    found = units(answer)
    if not found or STRAY.search(answer):
        return 0.0
    sentence = bool(SENTENCE_END.search(answer)) or not SENTENCE_END.search(passage)  # a title needs no full stop
    longer, shorter = max(len(found), len(units(passage))), min(len(found), len(units(passage)))
    return (float(finished) + float(sentence) + distinct_share(found) + min(1.0, 2 * shorter / longer)) / 4


def distinct_share(found: Sequence[str], n: int = 3) -> float:
    """Distinct n-grams / n-grams; 1 for a text shorter than n.

    >>> distinct_share("a b c a b c a b c".split())
    0.42857142857142855
    """
    ngrams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


def unit_f1(answer: str, passage: str) -> float:
    """Mean of the F1 of unit unigrams and bigrams, as multisets, without case: 1 for equal texts, 0 for nothing
    shared."""
    scores = [_f1(_ngrams(answer, n), _ngrams(passage, n)) for n in (1, 2)]
    return sum(scores) / 2 if _ngrams(passage, 2) else scores[0]


def _ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    found = [unit.casefold() for unit in units(text)]
    return Counter(tuple(found[i : i + n]) for i in range(len(found) - n + 1))


def _f1(answer: Counter[tuple[str, ...]], passage: Counter[tuple[str, ...]]) -> float:
    shared = (answer & passage).total()
    return 2 * shared / (answer.total() + passage.total()) if shared else 0.0
