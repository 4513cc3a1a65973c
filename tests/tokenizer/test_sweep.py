"""The sweep's table says what its entries say."""

from __future__ import annotations

import pytest
from bilingual_texts import CHINESE, CODE, ENGLISH

from diglot.tokenizer.sampling import Stratum
from diglot.tokenizer.sweep import Workload, against, measured, parity, table
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.vocabulary import FIRST_BYTE

WORKLOAD = Workload(
    texts={Stratum("en", "manual"): [ENGLISH], Stratum("en", "code"): [CODE], Stratum("zh", "manual"): [CHINESE]},
    measured_on={"en": "heldout", "zh": "train"},
    sentences={"zh": [CHINESE], "en": [ENGLISH]},
)


def test_languages_are_the_sum_of_their_sources(tokenizer: Tokenizer) -> None:
    found = measured(WORKLOAD, tokenizer.encode_batch, tokenizer.decode)
    whole = found["languages"]["en"]
    assert whole["fit"]["num_tokens"] == sum(len(tokenizer.encode(text)) for text in (ENGLISH, CODE))
    assert whole["fit"]["num_bytes"] == sum(source["num_bytes"] for source in whole["sources"].values())
    assert found["languages"]["zh"]["measured_on"] == "train"
    assert found["round_trip"] == {"texts": 3, "changed": 0}
    assert measured(WORKLOAD, tokenizer.encode_batch, lambda ids: CODE)["round_trip"] == {"texts": 3, "changed": 2}


def test_a_vocabulary_against_one_of_bytes(tokenizer: Tokenizer) -> None:
    found, by_bytes = (measured(WORKLOAD, encode, tokenizer.decode) for encode in (tokenizer.encode_batch, as_bytes))
    multiples = against(found, by_bytes)
    assert multiples["zh"] == pytest.approx(len(CHINESE.encode()) / len(tokenizer.encode(CHINESE)), rel=1e-3)
    assert against(found, found) == {"en": 1.0, "zh": 1.0}


def test_parity_is_told_against_english_wherever_it_stands(tokenizer: Tokenizer) -> None:
    found = measured(WORKLOAD, tokenizer.encode_batch, tokenizer.decode)["parallel"]
    ((lang, reference, ratio),) = parity(found)
    assert (lang, reference) == ("zh", "en")
    assert ratio == pytest.approx(len(tokenizer.encode(CHINESE)) / len(tokenizer.encode(ENGLISH)), abs=1e-4)
    assert parity({}) == []


@pytest.mark.parametrize("baseline", [None, "en"])
def test_the_table_has_a_line_for_each_language_and_one_for_the_cost(
    tokenizer: Tokenizer, baseline: str | None
) -> None:
    found = measured(WORKLOAD, tokenizer.encode_batch, tokenizer.decode)
    entry = {
        "vocab_size": 12_345,
        **found,
        "vocabulary_by_script": {"Latin": 0.5, "Han": 0.4999, "Greek": 0.0001},
        "unused_share": 0.125,
        "d_model": 512,
        "embedding_parameters": 6_320_640,
        "against_baseline": {"en": 0.9, "zh": 2.5},
    }
    head, english, chinese, cost = table([entry], baseline)
    assert "12,345" in english
    assert f"{found['languages']['zh']['fit']['chars_per_token']:.2f}" in chinese
    assert ("2.50" in chinese) == ("en-only BPE" in head) == bool(baseline)
    assert "12.5% never used; Latin 50%, Han 50%; 6.3 M embedding parameters at d_model 512; zh/en" in cost
    assert len(head) == len(english) == len(chinese)


def as_bytes(texts: list[str]) -> list[list[int]]:
    return [[FIRST_BYTE + byte for byte in text.encode()] for text in texts]
