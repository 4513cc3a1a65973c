"""What counts as the same text."""

from __future__ import annotations

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from diglot.text.normalize import content_hash, normalized


def test_white_space_and_composition_make_no_difference_but_case_and_marks_do():
    assert content_hash("Ü  b\r\n\u3000c ") == content_hash("U\u0308 b c")
    assert len({content_hash(text) for text in ("a b", "A b", "a b.", "a  b c")}) == 4
    assert content_hash("") == xxhash.xxh3_128_intdigest(b"")


@given(st.text())
def test_normalizing_twice_changes_nothing_more(text):
    assert normalized(normalized(text)) == normalized(text)
