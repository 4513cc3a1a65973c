"""Signals: what can be measured of a text, each written as the plain function that defines it.

A signal measures and a policy judges (`diglot.corpus.policy`). All signals of a family are computed together, in one
pass of a kernel; `SIGNALS` names the definitions and `FAMILIES` the columns of the attribute tables. Adding a signal
touches its module, its line here, the kernel's column and the conformance table of the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from diglot.core.errors import unknown

_HERE = "diglot.corpus.signals"

QUALITY = {
    "num_chars": f"{_HERE}.size:num_chars",
    "num_units": f"{_HERE}.size:num_units",
    "num_lines": f"{_HERE}.size:num_lines",
    "num_sentences": f"{_HERE}.size:num_sentences",
    "mean_unit_chars": f"{_HERE}.words:mean_unit_chars",
    "letterless_share": f"{_HERE}.words:letterless_share",
    "mixed_unit_share": f"{_HERE}.words:mixed_unit_share",
    "number_unit_share": f"{_HERE}.words:number_unit_share",
    "all_caps_share": f"{_HERE}.words:all_caps_share",
    "stop_words_en": f"{_HERE}.words:stop_words_en",
    "cjk_share": f"{_HERE}.words:cjk_share",
    "hash_ratio": f"{_HERE}.symbols:hash_ratio",
    "ellipsis_ratio": f"{_HERE}.symbols:ellipsis_ratio",
    "curly_share": f"{_HERE}.symbols:curly_share",
    "bracket_share": f"{_HERE}.symbols:bracket_share",
    "digit_share": f"{_HERE}.symbols:digit_share",
    "num_punctuation": f"{_HERE}.symbols:num_punctuation",
    "lorem_ipsum": f"{_HERE}.symbols:lorem_ipsum",
    "ellipsis_line_share": f"{_HERE}.lines:ellipsis_line_share",
    "bullet_line_share": f"{_HERE}.lines:bullet_line_share",
    "read_more_share": f"{_HERE}.lines:read_more_share",
    "stop_line_share": f"{_HERE}.lines:stop_line_share",
    "stop_word_share": f"{_HERE}.words:stop_word_share",
    "symbol_ratio": f"{_HERE}.symbols:symbol_ratio",
    "alphanumeric_share": f"{_HERE}.symbols:alphanumeric_share",
    "alphabetic_share": f"{_HERE}.symbols:alphabetic_share",
    "max_unit_chars": f"{_HERE}.words:max_unit_chars",
    "lines_per_unit": f"{_HERE}.size:lines_per_unit",
    "short_line_share": f"{_HERE}.lines:short_line_share",
    "mean_line_chars": f"{_HERE}.lines:mean_line_chars",
    "max_line_chars": f"{_HERE}.lines:max_line_chars",
    "javascript_line_share": f"{_HERE}.lines:javascript_line_share",
    "policy_line_share": f"{_HERE}.lines:policy_line_share",
}

REPETITION = {
    "unique_unit_share": f"{_HERE}.repetition:unique_unit_share",
    "unit_entropy": f"{_HERE}.repetition:unit_entropy",
    "duplicate_line_share": f"{_HERE}.repetition:duplicate_line_share",
    "duplicate_line_char_share": f"{_HERE}.repetition:duplicate_line_char_share",
    "top_2gram_share": f"{_HERE}.repetition:top_2gram_share",
    "top_3gram_share": f"{_HERE}.repetition:top_3gram_share",
    "top_4gram_share": f"{_HERE}.repetition:top_4gram_share",
    "duplicate_5gram_share": f"{_HERE}.repetition:duplicate_5gram_share",
    "duplicate_6gram_share": f"{_HERE}.repetition:duplicate_6gram_share",
    "duplicate_7gram_share": f"{_HERE}.repetition:duplicate_7gram_share",
    "duplicate_8gram_share": f"{_HERE}.repetition:duplicate_8gram_share",
    "duplicate_9gram_share": f"{_HERE}.repetition:duplicate_9gram_share",
    "duplicate_10gram_share": f"{_HERE}.repetition:duplicate_10gram_share",
    "duplicate_sentence_share": f"{_HERE}.repetition:duplicate_sentence_share",
    "duplicate_sentence_char_share": f"{_HERE}.repetition:duplicate_sentence_char_share",
}

LANGUAGE = {"lang_score": f"{_HERE}.language:lang_score"}

FAMILIES = {"quality": QUALITY, "repetition": REPETITION, "language": LANGUAGE}
SIGNALS = {**QUALITY, **REPETITION, **LANGUAGE}


# Signals that a recipe brings with it, named `<family>.<name>`: a float32 column of that name in the attribute table.
BROUGHT = {
    "score": "probability that the classifier <name> gives the document; a table of its own for each classifier",
    "words": "how often a word of the list <name> occurs",
    "url": "1 where the address is on the block-list category <name>, else 0",
    "meta": "the number that the document's metadata hold under <name>; NaN where there is none",
}


def definition(name: str) -> Callable[[str], float]:
    """The function that defines the signal `name`. Raises ConfigError with the nearest name for an unknown one."""
    if name not in SIGNALS:
        raise unknown("signal", name, SIGNALS)
    module, _, function = SIGNALS[name].partition(":")
    found: Any = getattr(import_module(module), function)
    return found  # type: ignore[no-any-return]


def family(name: str, where: str = "") -> str:
    """The attribute table that holds the signal `name`. Raises ConfigError with the nearest name for an unknown one."""
    for table, signals in FAMILIES.items():
        if name in signals:
            return table
    brought, _, own_name = name.partition(".")
    if brought in BROUGHT and own_name:
        return name if brought == "score" else brought
    raise unknown("signal", name, [*SIGNALS, *(f"{prefix}.NAME" for prefix in BROUGHT)], where)
