"""Languages share the tokenizer's sample as the recipe says, whatever the size of their texts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diglot.core.errors import ConfigError, InputError
from diglot.tokenizer.sampling import checked_shares, copies_per_document, language_shares, num_copies

SIZES = {"en": 8_000_000, "zh-Hans": 1_000_000}


def test_alpha_0_gives_equal_bytes_and_alpha_1_changes_nothing() -> None:
    assert language_shares(SIZES, 0.0) == {"en": 0.5, "zh-Hans": 0.5}
    assert language_shares(SIZES, 1.0) == {"en": pytest.approx(8 / 9), "zh-Hans": pytest.approx(1 / 9)}


def test_shares_at_a_third_are_the_cube_roots() -> None:
    assert language_shares(SIZES, 1 / 3) == {"en": pytest.approx(2 / 3), "zh-Hans": pytest.approx(1 / 3)}


def test_copies_bring_each_language_to_its_share_of_as_many_bytes_as_there_are() -> None:
    copies = copies_per_document(SIZES, {"en": 0.5, "zh-Hans": 0.5}, sample_bytes=10**9, max_copies=100)
    assert {lang: copies[lang] * SIZES[lang] for lang in SIZES} == {lang: pytest.approx(4_500_000) for lang in SIZES}


def test_a_large_corpus_is_sampled_down() -> None:
    copies = copies_per_document(SIZES, {"en": 0.75, "zh-Hans": 0.25}, sample_bytes=400_000, max_copies=8)
    assert copies == {"en": pytest.approx(0.0375), "zh-Hans": pytest.approx(0.1)}


def test_no_document_is_shown_more_often_than_allowed() -> None:
    sizes = {"en": 10**9, "zh-Hans": 10}
    assert copies_per_document(sizes, language_shares(sizes, 0.0), sample_bytes=10**9, max_copies=8)["zh-Hans"] == 8


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


def test_a_corpus_without_text_is_refused() -> None:
    with pytest.raises(InputError, match="no text to train"):
        language_shares({"en": 0}, 0.3)
