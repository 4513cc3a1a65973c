"""The report counts what it says it counts."""

from __future__ import annotations

import numpy as np
import pytest
from bilingual_texts import CHINESE, ENGLISH, TEXTS

from diglot.text.units import units
from diglot.tokenizer.measure import (
    count_units,
    fit,
    parallel_fit,
    script_of,
    token_counts,
    total,
    unused_pieces,
    vocabulary_by_script,
)
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.vocabulary import FIRST_BYTE, FIRST_PIECE


def test_a_fit_worked_out_by_hand() -> None:
    byte = FIRST_BYTE + 0xE4
    measured = fit(["ab 软件", ""], [[FIRST_PIECE, byte, byte + 1, 7], []]).to_dict()
    assert measured == {
        "num_documents": 2,
        "num_bytes": 9,
        "num_chars": 5,
        "num_units": 3,
        "num_tokens": 4,
        "num_byte_tokens": 2,
        "chars_per_token": 1.25,
        "bytes_per_token": 2.25,
        "tokens_per_unit": pytest.approx(4 / 3, abs=1e-4),
        "byte_fallback_share": 0.5,
    }


def test_ratios_of_nothing_are_none() -> None:
    assert fit([""], [[]]).to_dict()["chars_per_token"] is None
    assert fit([], []).to_dict()["chars_per_token"] is None


def test_the_fit_of_all_sources_is_that_of_all_their_texts(tokenizer: Tokenizer) -> None:
    apart = [fit([text], tokenizer.encode_batch([text])) for text in TEXTS]
    assert total(apart) == fit(TEXTS, tokenizer.encode_batch(TEXTS))


def test_parity_worked_out_by_hand() -> None:
    sentences = {"en": ["a b c", "d"], "zh": ["甲乙", "丙丁戊己"], "de": ["abc", "d"]}
    assert parallel_fit(sentences, lambda texts: [list(text.replace(" ", "")) for text in texts]) == {
        "en": {
            "num_sentences": 2,
            "num_tokens": 4,
            "tokens_per_sentence": 2.0,
            "tokens_against": {"zh": pytest.approx(4 / 6, abs=1e-4), "de": 1.0},
        },
        "zh": {
            "num_sentences": 2,
            "num_tokens": 6,
            "tokens_per_sentence": 3.0,
            "tokens_against": {"en": 1.5, "de": 1.5},
        },
        "de": {
            "num_sentences": 2,
            "num_tokens": 4,
            "tokens_per_sentence": 2.0,
            "tokens_against": {"en": 1.0, "zh": pytest.approx(4 / 6, abs=1e-4)},
        },
    }


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, "", "Don't 你好 (v1.2)"])
def test_units_are_counted_as_the_definition_does(text: str) -> None:
    assert count_units(text) == len(units(text))


@pytest.mark.parametrize(
    ("piece", "script"),
    [
        (" the", "Latin"),
        ("软件", "Han"),
        ("\n\n", "space"),
        (" ", "space"),
        ("7", "digit"),
        ("，", "punctuation"),
        ("д", "Cyrillic"),
    ],
)
def test_a_piece_belongs_to_the_script_of_its_first_letter(piece: str, script: str) -> None:
    assert script_of(piece) == script


def test_shares_of_the_vocabulary_sum_to_1(tokenizer: Tokenizer) -> None:
    shares = vocabulary_by_script(tokenizer.vocabulary)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["byte"] == 256 / tokenizer.vocab_size
    assert shares["Han"] > 0.1
    assert shares["Latin"] > 0.1


def test_unused_pieces_are_those_that_no_text_needs(tokenizer: Tokenizer) -> None:
    counts = token_counts(tokenizer.encode_batch(TEXTS), tokenizer.vocab_size)
    used = {token for text in TEXTS for token in tokenizer.encode(text)}
    assert set(np.flatnonzero(counts).tolist()) == used
    unused = unused_pieces(tokenizer.vocabulary, counts)
    assert unused == [p for number, p in enumerate(tokenizer.vocabulary.pieces) if FIRST_PIECE + number not in used]
