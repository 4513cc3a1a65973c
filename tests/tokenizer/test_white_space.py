"""Layout comes back exactly: the test whose absence cost MAP-Neo its code ability for 3.7 T tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bilingual_texts import CHINESE, CODE, ENGLISH, TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.tokenizer.encoder import VocabularyEncoder
from diglot.tokenizer.export import write_tokenizer
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.training import TrainingSettings, train_vocabulary
from diglot.tokenizer.vocabulary import encode_oracle

SAMPLES = {
    "tiny, prose only": ([ENGLISH], TrainingSettings(vocab_size=330)),
    "tiny, both languages and code": (TEXTS, TrainingSettings(vocab_size=560)),
    "MAP-Neo's settings": (
        [*TEXTS * 3, CODE * 20],
        TrainingSettings(vocab_size=650, character_coverage=0.9999, max_piece_chars=16, max_sentence_bytes=64_000),
    ),
    "long pieces of many spaces": (
        [f"{' ' * n}x = {n}\n" * 9 for n in range(40)] + [CHINESE],
        TrainingSettings(vocab_size=420, max_piece_chars=64),
    ),
}
INDENTED = st.lists(
    st.tuples(
        st.sampled_from(["", "    ", "        ", "\t", "\t\t", "  ", "   ", " \t", "\u3000", "\u00a0"]),
        st.sampled_from(["if x:", "return", "}", "", "# 注释", "else:", "x = 1  # one", "package", "列表"]),
        st.sampled_from(["", " ", "   ", "\t"]),
        st.sampled_from(["\n", "\r\n", "\n\n", "\r", "\n\n\n", "\r\n\r\n", "\u2028", "\f", "\v", "\x85"]),
    ),
    max_size=8,
).map(lambda lines: "".join(map("".join, lines)))
RUNS = st.lists(
    st.tuples(st.sampled_from([" ", "\t", "\n", "\r\n", "\r", "a", "字", "\u2581"]), st.integers(1, 70))
).map(lambda runs: "".join(character * length for character, length in runs))
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module", params=SAMPLES)
def trained_here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("own")
    texts, training = SAMPLES[request.param]
    write_tokenizer(folder, *train_vocabulary(texts, training))
    return Tokenizer.load(folder)


def by_kernel(tokenizer: Tokenizer, text: str) -> list[int]:
    content = text.encode()
    encoder = VocabularyEncoder(tokenizer.vocabulary)
    tokens: list[int] = encoder.encode_utf8(
        np.array([0, len(content)]), np.frombuffer(content, np.uint8)
    ).tokens.tolist()
    return tokens


@settings(max_examples=150, deadline=None)
@given(text=INDENTED | RUNS | UNICODE)
def test_layout_comes_back_exactly(trained_here: Tokenizer, text: str) -> None:
    ids = trained_here.encode(text)
    assert trained_here.decode(ids) == text
    assert by_kernel(trained_here, text) == ids


@settings(max_examples=40, deadline=None)
@given(text=INDENTED | RUNS)
def test_layout_is_encoded_as_the_definition_says(trained_here: Tokenizer, text: str) -> None:
    assert by_kernel(trained_here, text[:200]) == encode_oracle(text[:200], trained_here.vocabulary.ids)


@pytest.mark.parametrize("unit", [" ", "\t", "\n", "\r\n", "    ", "\t ", "\u3000"])
def test_long_runs_come_back_and_take_few_tokens(trained_here: Tokenizer, unit: str) -> None:
    for length in (1, 2, 3, 5, 17, 100, 10_001):
        ids = trained_here.encode(unit * length)
        assert trained_here.decode(ids) == unit * length
    if unit in (" ", "    "):
        assert len(ids) <= len(unit) * length / 8


def test_an_indented_line_costs_one_token_for_its_indentation(trained_here: Tokenizer) -> None:
    for indentation in ("\t", "\t\t", "  "):
        assert len(trained_here.encode(indentation)) == 1
    assert len(trained_here.encode(" " * 8)) <= 2
