"""The language of a text as a signal."""

from __future__ import annotations

from diglot.text.language import identify


def lang_score(text: str) -> float:
    """Probability of the identified language, in [0, 1]; 0 for a text without a letter.

    Catches: mixtures of languages, word salad, code. Wrongly catches: short texts, names, terms of another language.
    Source: MAP-Neo, C1 and L1 (0.4). Differs from its code, which never looks at the label: see `select`.
    """
    return identify(text).score
