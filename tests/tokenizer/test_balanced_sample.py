"""Languages and their sources share the tokenizer's sample as the recipe says, whatever the size of their texts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diglot.core.errors import ConfigError, InputError
from diglot.tokenizer.sampling import (
    Stratum,
    checked_shares,
    copies_per_document,
    even_budgets,
    language_shares,
    num_copies,
    source_weights,
)

SIZES = {"en": 8_000_000, "zh-Hans": 1_000_000}
ENGLISH, CHINESE = Stratum("en", "web"), Stratum("zh-Hans", "web")
STRATA = {ENGLISH: 8_000_000, CHINESE: 1_000_000}
CODE, NEWS, NOVELS = (Stratum("en", source) for source in ("code", "news", "novels"))
SOURCES = {CODE: 100_000, NEWS: 400_000, NOVELS: 1_600_000}
PLENTY = {"sample_bytes": 10**9, "max_copies": 100}


def test_alpha_0_gives_equal_bytes_and_alpha_1_changes_nothing() -> None:
    assert language_shares(SIZES, 0.0) == {"en": 0.5, "zh-Hans": 0.5}
    assert language_shares(SIZES, 1.0) == {"en": pytest.approx(8 / 9), "zh-Hans": pytest.approx(1 / 9)}


def test_shares_at_a_third_are_the_cube_roots() -> None:
    assert language_shares(SIZES, 1 / 3) == {"en": pytest.approx(2 / 3), "zh-Hans": pytest.approx(1 / 3)}


def test_copies_bring_each_language_to_its_share_of_as_many_bytes_as_there_are() -> None:
    copies = copies_per_document(STRATA, {"en": 0.5, "zh-Hans": 0.5}, **PLENTY)
    assert {one: copies[one] * STRATA[one] for one in STRATA} == {one: pytest.approx(4_500_000) for one in STRATA}


def test_a_large_corpus_is_sampled_down() -> None:
    copies = copies_per_document(STRATA, {"en": 0.75, "zh-Hans": 0.25}, sample_bytes=400_000, max_copies=8)
    assert copies == {ENGLISH: pytest.approx(0.0375), CHINESE: pytest.approx(0.1)}


def test_no_document_is_shown_more_often_than_allowed() -> None:
    sizes = {ENGLISH: 10**9, CHINESE: 10}
    shares = {"en": 0.5, "zh-Hans": 0.5}
    assert copies_per_document(sizes, shares, sample_bytes=10**9, max_copies=8)[CHINESE] == 8


@given(
    sizes=st.lists(st.integers(1, 10**12), min_size=1, max_size=6),
    share=st.floats(0.01, 1),
    sample_bytes=st.integers(1, 10**12),
)
def test_without_weights_every_source_of_a_language_is_shown_alike(
    sizes: list[int], share: float, sample_bytes: int
) -> None:
    strata = {Stratum("en", str(number)): size for number, size in enumerate(sizes)}
    copies = copies_per_document(strata, {"en": share}, sample_bytes=sample_bytes, max_copies=100)
    # Exactly, so that sources that nobody weighs change no lot of any document.
    assert set(copies.values()) == {min(100, min(sample_bytes, sum(sizes)) * share / sum(sizes))}


def test_a_weight_multiplies_how_often_a_source_is_shown_and_keeps_the_share_of_its_language() -> None:
    copies = copies_per_document(
        SOURCES | {CHINESE: 700_000}, {"en": 0.75, "zh-Hans": 0.25}, weights={"code": 3}, **PLENTY
    )
    assert copies[CODE] == pytest.approx(3 * copies[NEWS])
    assert copies[NEWS] == copies[NOVELS]
    assert sum(copies[one] * SOURCES[one] for one in SOURCES) == pytest.approx(0.75 * 2_800_000)


def test_source_alpha_0_gives_sources_their_weights_and_a_half_gives_roots() -> None:
    copies = copies_per_document(SOURCES, {"en": 1.0}, weights={"code": 2}, source_alpha=0.0, **PLENTY)
    assert [copies[one] * SOURCES[one] for one in (CODE, NEWS, NOVELS)] == pytest.approx([1_050_000, 525_000, 525_000])
    copies = copies_per_document(SOURCES, {"en": 1.0}, source_alpha=0.5, **PLENTY)
    assert [copies[one] * SOURCES[one] for one in (CODE, NEWS, NOVELS)] == pytest.approx([300_000, 600_000, 1_200_000])


def test_weight_0_leaves_a_source_out_but_not_a_whole_language() -> None:
    assert copies_per_document(SOURCES, {"en": 1.0}, weights={"news": 0}, **PLENTY)[NEWS] == 0
    with pytest.raises(ConfigError, match="all sources of en have weight 0"):
        copies_per_document(STRATA, {"en": 0.5, "zh-Hans": 0.5}, weights={"web": 0}, **PLENTY)


def test_the_most_specific_pattern_weighs_a_source_whatever_the_order() -> None:
    names = ["en-python_docs", "en-novels", "zh-laws"]
    for patterns in ({"*": 2, "en-*": 3, "*_docs": 4}, {"*_docs": 4, "en-*": 3, "*": 2}):
        assert source_weights(patterns, names) == {"en-python_docs": 4, "en-novels": 3, "zh-laws": 2}
    assert source_weights({"*_docs": 4}, names)["zh-laws"] == 1


def test_a_pattern_without_a_source_is_refused_with_the_sources_there_are() -> None:
    with pytest.raises(ConfigError, match=r"pattern '\*_code'.*en-novels, zh-laws"):
        source_weights({"*_code": 2}, ["zh-laws", "en-novels"])


def test_even_budgets_take_small_ones_whole_and_the_same_of_each_large_one() -> None:
    assert even_budgets({"a": 10, "b": 500, "c": 400}, 300) == {"a": 10, "b": 145, "c": 145}
    assert even_budgets({"a": 10, "b": 20}, 300) == {"a": 10, "b": 20}
    assert even_budgets({}, 300) == {}


@given(mean=st.floats(0, 8))
def test_whole_copies_have_the_mean_asked_for(mean: float) -> None:
    lots = [number / 1000 for number in range(1000)]
    drawn = [num_copies(mean, lot) for lot in lots]
    assert math.fsum(drawn) / 1000 == pytest.approx(mean, abs=0.0011)
    assert set(drawn) <= {math.floor(mean), math.floor(mean) + 1}


def test_given_shares_name_every_language_and_are_made_to_sum_to_1() -> None:
    assert checked_shares({"en": 3, "zh-Hans": 1}, SIZES) == {"en": 0.75, "zh-Hans": 0.25}
    for shares in ({"en": 1.0}, {"en": 1.0, "zh-Hans": 1.0, "de": 1.0}):
        with pytest.raises(ConfigError, match="documents are in en, zh-Hans"):
            checked_shares(shares, SIZES)


def test_a_language_without_text_or_without_a_share_is_named() -> None:
    with pytest.raises(ConfigError, match="de has no training text; zh-Hans has no share"):
        checked_shares({"en": 1.0, "de": 1.0}, SIZES | {"de": 0})


def test_a_corpus_without_text_is_refused() -> None:
    with pytest.raises(InputError, match="no text to train"):
        language_shares({"en": 0}, 0.3)
