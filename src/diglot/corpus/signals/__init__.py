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

# Measured only when asked for: for policies that do what MAP-Neo's code does, with its defects.
AS_RELEASED = {
    "released_mean_word_chars": f"{_HERE}.as_released:released_mean_word_chars",
    "released_ellipses_per_char": f"{_HERE}.as_released:released_ellipses_per_char",
    "released_bullet_lines": f"{_HERE}.as_released:released_bullet_lines",
    "released_letterless_per_char": f"{_HERE}.as_released:released_letterless_per_char",
    "released_symbols_per_word": f"{_HERE}.as_released:released_symbols_per_word",
    "released_num_words": f"{_HERE}.as_released:released_num_words",
    "released_lang_score": f"{_HERE}.as_released:released_lang_score",
    "released_num_chars": f"{_HERE}.as_released:released_num_chars",
    "released_num_lines": f"{_HERE}.as_released:released_num_lines",
    "released_curly_per_char": f"{_HERE}.as_released:released_curly_per_char",
    "released_lorem_ipsum_per_char": f"{_HERE}.as_released:released_lorem_ipsum_per_char",
    "released_greedy_sentences": f"{_HERE}.as_released:released_greedy_sentences",
    "released_all_caps": f"{_HERE}.as_released:released_all_caps",
    "released_unique_words": f"{_HERE}.as_released:released_unique_words",
    "released_num_sentences": f"{_HERE}.as_released:released_num_sentences",
    "released_read_more": f"{_HERE}.as_released:released_read_more",
    "released_hashes_per_char": f"{_HERE}.as_released:released_hashes_per_char",
    "released_ascii_punctuation": f"{_HERE}.as_released:released_ascii_punctuation",
    "released_nonalphabetic_per_char": f"{_HERE}.as_released:released_nonalphabetic_per_char",
    "released_digit_words_per_char": f"{_HERE}.as_released:released_digit_words_per_char",
    "released_word_entropy": f"{_HERE}.as_released:released_word_entropy",
    "released_top_2gram": f"{_HERE}.as_released:released_top_2gram",
    "released_top_3gram": f"{_HERE}.as_released:released_top_3gram",
    "released_top_4gram": f"{_HERE}.as_released:released_top_4gram",
    "released_duplicate_5gram": f"{_HERE}.as_released:released_duplicate_5gram",
    "released_duplicate_6gram": f"{_HERE}.as_released:released_duplicate_6gram",
    "released_duplicate_7gram": f"{_HERE}.as_released:released_duplicate_7gram",
    "released_duplicate_8gram": f"{_HERE}.as_released:released_duplicate_8gram",
    "released_duplicate_9gram": f"{_HERE}.as_released:released_duplicate_9gram",
    "released_duplicate_10gram": f"{_HERE}.as_released:released_duplicate_10gram",
    "released_zh_brackets": f"{_HERE}.as_released:released_zh_brackets",
    "released_zh_num_sentences": f"{_HERE}.as_released:released_zh_num_sentences",
    "released_zh_num_chars": f"{_HERE}.as_released:released_zh_num_chars",
    "released_zh_digits": f"{_HERE}.as_released:released_zh_digits",
    "released_zh_read_more": f"{_HERE}.as_released:released_zh_read_more",
    "released_zh_punctuation": f"{_HERE}.as_released:released_zh_punctuation",
    "released_zh_unique_chars": f"{_HERE}.as_released:released_zh_unique_chars",
    "released_zh_char_entropy": f"{_HERE}.as_released:released_zh_char_entropy",
}

FAMILIES = {"quality": QUALITY, "repetition": REPETITION, "language": LANGUAGE, "as_released": AS_RELEASED}
SIGNALS = {name: place for signals in FAMILIES.values() for name, place in signals.items()}

# Names of RedPajama-V2's published signals (Together 2023), which policies may use for ours. Ours count text units and
# not words, and `rps_lines_*` are shares of lines here where RedPajama lists a value for each line.
RPS_NAMES = {
    "ccnet_length": "num_chars",
    "ccnet_nlines": "num_lines",
    "ccnet_language_score": "lang_score",
    "rps_doc_word_count": "num_units",
    "rps_doc_num_sentences": "num_sentences",
    "rps_doc_mean_word_length": "mean_unit_chars",
    "rps_doc_curly_bracket": "curly_share",
    "rps_doc_frac_all_caps_words": "all_caps_share",
    "rps_doc_frac_lines_end_with_ellipsis": "ellipsis_line_share",
    "rps_doc_frac_no_alph_words": "letterless_share",
    "rps_doc_frac_unique_words": "unique_unit_share",
    "rps_doc_lorem_ipsum": "lorem_ipsum",
    "rps_doc_stop_word_fraction": "stop_word_share",
    "rps_doc_symbol_to_word_ratio": "symbol_ratio",
    "rps_doc_unigram_entropy": "unit_entropy",
    "rps_lines_start_with_bulletpoint": "bullet_line_share",
    "rps_lines_ending_with_terminal_punctution_mark": "stop_line_share",  # spelled so there
    "rps_lines_javascript_counts": "javascript_line_share",
    "rps_doc_frac_chars_top_2gram": "top_2gram_share",
    "rps_doc_frac_chars_top_3gram": "top_3gram_share",
    "rps_doc_frac_chars_top_4gram": "top_4gram_share",
    "rps_doc_frac_chars_dupe_5grams": "duplicate_5gram_share",
    "rps_doc_frac_chars_dupe_6grams": "duplicate_6gram_share",
    "rps_doc_frac_chars_dupe_7grams": "duplicate_7gram_share",
    "rps_doc_frac_chars_dupe_8grams": "duplicate_8gram_share",
    "rps_doc_frac_chars_dupe_9grams": "duplicate_9gram_share",
    "rps_doc_frac_chars_dupe_10grams": "duplicate_10gram_share",
    "rps_doc_ldnoobw_words": "words.ldnoobw",
    "rps_doc_ut1_blacklist": "url.ut1",
    "ccnet_perplexity": "meta.ccnet_perplexity",
    "rps_doc_books_importance": "meta.rps_doc_books_importance",
    "rps_doc_openwebtext_importance": "meta.rps_doc_openwebtext_importance",
    "rps_doc_wikipedia_importance": "meta.rps_doc_wikipedia_importance",
    "rps_doc_ml_wikiref_score": "meta.rps_doc_ml_wikiref_score",
    "rps_doc_ml_palm_score": "meta.rps_doc_ml_palm_score",
    "rps_doc_ml_wikipedia_score": "meta.rps_doc_ml_wikipedia_score",
}


# Signals that a recipe brings with it, named `<family>.<name>`: a float32 column of that name in the attribute table.
BROUGHT = {
    "score": "probability that the classifier <name> gives the document; a table of its own for each classifier",
    "words": "how often a word of the list <name> occurs",
    "url": "1 where the address is on the block-list category <name>, else 0; NaN without an address",
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
