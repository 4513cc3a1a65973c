"""A context and its continuation are split by characters, without changing a token of the whole."""

from __future__ import annotations

import pytest
from bilingual_texts import CHINESE, ENGLISH
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.core.errors import InputError
from diglot.tokenizer.tokenizer import Tokenizer

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.lists(
    st.sampled_from(["package", " package", "s", " ", "  ", "\n", "软件包", "列表", "𠮷", "e\u0301", "7"]), max_size=6
).map("".join)


@settings(max_examples=300, deadline=None)
@given(context=TEXT, continuation=TEXT.filter(bool))
def test_the_split_is_where_the_characters_say(tokenizer: Tokenizer, context: str, continuation: str) -> None:
    before, after = tokenizer.encode_pair(context, continuation)
    assert before + after == tokenizer.encode(context + continuation)
    written = tokenizer.decode_bytes(before)
    assert context.encode().startswith(written), "no token of the context writes a character of the continuation"
    assert len(written + tokenizer.token_bytes(after[0])) > len(context.encode()), "and the next one does"


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(ENGLISH + CHINESE) - 1))
def test_every_place_of_a_text_can_be_the_border(tokenizer: Tokenizer, at: int) -> None:
    text = ENGLISH + CHINESE
    before, after = tokenizer.encode_pair(text[:at], text[at:])
    assert before + after == tokenizer.encode(text)
    assert after


def test_a_token_across_the_border_belongs_to_the_continuation(tokenizer: Tokenizer) -> None:
    whole = tokenizer.encode("a package")
    assert tokenizer.decode(whole[-1:]) == " package"
    for context, continuation in (("a", " package"), ("a ", "package"), ("a pack", "age")):
        assert tokenizer.encode_pair(context, continuation) == (whole[:-1], whole[-1:])
    assert len(tokenizer.encode("a ")) >= len(whole), "counting the context's tokens would leave none to score"


def test_an_empty_context_leaves_all_to_the_continuation(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_pair("", "软件包") == ([], tokenizer.encode("软件包"))


def test_an_empty_continuation_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="continuation is empty"):
        tokenizer.encode_pair("a", "")
