"""Of several globs the most specific speaks for a name, in whatever order they are written."""

from __future__ import annotations

import itertools

import pytest

from diglot.core.patterns import most_specific


@pytest.mark.parametrize(
    ("name", "patterns", "found"),
    [
        ("wiki.en", ("*", "*.en", "wiki.*"), "wiki.*"),
        ("news.en", ("*", "*.en", "wiki.*"), "*.en"),
        ("a.zh", ("*.en", "wiki.*"), None),
        ("ab", ("a*", "*b"), "*b"),  # as specific: the first in alphabetical order
        ("news-1", ("news-?", "news*"), "news-?"),
        ("A", ("a*",), None),
    ],
)
def test_the_most_specific_pattern_is_found_in_any_order(name, patterns, found):
    for order in itertools.permutations(patterns):
        assert most_specific(name, order) == found
