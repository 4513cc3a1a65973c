"""The hash of the normalised text: the kernel against its plain definition, and which characters it may not settle."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts_to_try import texts

from diglot.kernels.jit import text_buffers
from diglot.kernels.normalize import COMPOSING, SPACE, character_kinds, content_hashes
from diglot.text.normalize import content_hash, normalized


def hashes(texts: list[str]) -> list[int]:
    high, low = content_hashes(*text_buffers(pa.array(texts, pa.large_string())))
    return [(a << 64) | b for a, b in zip(high.tolist(), low.tolist(), strict=True)]


around_composition = st.text(
    st.sampled_from(
        " \t\n\u3000\u00a0\u2028\x1cabAe\u0301\u0308\u0327\u00e9\u1161\u11a8\u1100\uac00\u212b\u0344中文\U0001f600"
    )
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(around_composition, texts), max_size=5))
def test_hashes_equal_the_plain_definition(batch):
    batch = [text.encode("utf-8", "ignore").decode() for text in batch]
    assert hashes(batch) == [content_hash(text) for text in batch]


def test_hashes_of_a_slice_of_a_larger_array():
    pages = pa.array(["first page", " second\n page ", "第三 页", "e\u0301"], pa.large_string())
    high, low = content_hashes(*text_buffers(pages[1:]))
    assert [(a << 64) | b for a, b in zip(high.tolist(), low.tolist(), strict=True)] == [
        content_hash(text) for text in pages[1:].to_pylist()
    ]


def test_a_character_that_is_no_composing_one_is_composed_already_after_any_starter():
    kinds = character_kinds()
    for code in [*range(0xD800), *range(0xE000, 0x32000), *range(0xE0000, 0xE0200)]:
        character = chr(code)
        if kinds[code] != COMPOSING:  # of white space U+2000 and U+2001 are, and become another space
            assert (kinds[code] == SPACE) == character.isspace()
            for starter in "aᄀ가":
                assert unicodedata.is_normalized("NFC", starter + character), hex(code)
            assert not unicodedata.combining(character)


@pytest.mark.parametrize("text", ["", "  ", "a", " a ", "a \n b", "\u3000你好\u3000世界\r\n"])
def test_white_space_is_collapsed_by_hand(text):
    assert hashes([text]) == [content_hash(normalized(text))]
