"""What a classifier reads: the kernel equals the definition, and the definition does what it says."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts_to_try import texts

from diglot.core.errors import ConfigError
from diglot.corpus.classify.settings import TextSettings
from diglot.corpus.classify.text import lowered, training_lines, training_text
from diglot.kernels.classifier_text import LAST_CASED, lower_table


@settings(max_examples=400, deadline=None)
@given(
    batch=st.lists(texts, max_size=4),
    units=st.sampled_from(["characters", "white_space"]),
    max_chars=st.sampled_from([1, 5, 2000]),
)
def test_the_kernel_equals_its_definition(batch, units, max_chars):
    text = TextSettings(units=units, max_chars=max_chars)
    lines = training_lines(pa.array(batch, pa.large_string()), text)
    assert lines == [training_text(one, text) + "\n" for one in batch]


def test_a_slice_of_an_array_gives_the_lines_of_its_own_texts():
    array = pa.array(["数学", "law", "Ü"], pa.large_string()).slice(1)
    assert training_lines(array, TextSettings()) == ["law\n", "ü\n"]


@pytest.mark.parametrize(
    ("text", "units", "line"),
    [
        ("Let x=\\frac{1}{2}.", "characters", "let x = \\ frac { 1 } { 2 } ."),
        ("《民法典》第1条", "characters", "《 民 法 典 》 第 1 条"),
        ("\n\nThe End \n \n of\tIT\n", "characters", "the end \\n of it"),
        ("民法典 第一条\n总则", "white_space", "民法典 第一条 \\n 总则"),
        ("__label__spam SPAM", "characters", "_ _ label _ _ spam spam"),
        ("__label__spam SPAM", "white_space", "label__spam SPAM"),
        ("\u200b\x00 \n", "characters", ""),
    ],
)
def test_the_line_of_a_text(text, units, line):
    assert training_text(text, TextSettings(units=units)) == line


def test_the_table_of_lower_case_has_every_character_that_has_one():
    table = lower_table()
    assert all(chr(code) == lowered(chr(code)) for code in range(LAST_CASED, 0x110000))
    assert chr(table[ord("Ж")]) == "ж"
    assert table[ord("İ")] == ord("İ")  # its lower case is two characters


def test_a_misspelled_unit_is_named():
    with pytest.raises(ConfigError, match="did you mean 'characters'"):
        TextSettings(units="character")
