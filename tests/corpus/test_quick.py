"""The kernel that reads pages without a tree gives what the HTML5 parser gives, or gives up."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diglot.corpus import quick
from diglot.corpus.extract import SELECTORS, extract, parse
from diglot.kernels import html as kernel

PROSE = "This paragraph is long enough to be taken for the text of the page and not for a button."

OPENING = [
    *kernel.TAGS, "o:p", "x-y", "mglyph", "a href=x", "a href='x>y'", "a name=n", "div class='toc x'", "p hidden", "span hidden",
    "div role=navigation", "span class=lineno", "div id=comments", "div aria-hidden=true", "td class=gutter", "mspace /",
    # more often what pages are made of
    "p", "div", "li", "ul", "td", "tr", "table", "a href=x", "dd", "dt", "b", "span", "br", "pre", "h2",
]  # fmt: skip
VOID = ("area base basefont bgsound br col embed hr img input keygen link meta param source track wbr").split()
PIECES = st.one_of(
    st.sampled_from([f"<{tag}>" for tag in OPENING]),
    st.sampled_from([f"</{tag.split()[0]}>" for tag in OPENING]),
    st.sampled_from(["text", " ", "\n", " two words ", "&amp;", "&lt;b", "&nbsp;", "&#20013;", "&copy", "中文", "<!-- c -->"]),
    st.sampled_from(["[1]", "¶", "<br/>", "<a></a>", "<a href=x></a>", "<p/>", "x</a>", "</p>", "<", "& ", "<3", "</>"]),
)


def element(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def closed(tag: str, content: list[str]) -> str:
        return f"<{tag}>{''.join(content)}</{tag.split()[0]}>"

    return st.builds(closed, st.sampled_from([tag for tag in OPENING if tag not in VOID]), st.lists(inner, max_size=4))


WELL_BUILT = st.recursive(st.sampled_from(["text", " ", "\n", "more text here", "&amp;", "中", "<br>", "[2]"]), element, max_leaves=25)
TABLE = st.lists(st.lists(WELL_BUILT, min_size=1, max_size=3), min_size=1, max_size=3).map(
    lambda rows: "<table>" + "\n".join("<tr>" + " ".join(f"<td>{c}</td>" for c in r) + "</tr>" for r in rows) + "</table>"
)


def agree(body: str, head: str = "<!doctype html><html lang=en><title>T &amp; t</title><body>") -> bool:
    page = head + body
    for show in (False, True):
        found = quick.read(page, SELECTORS, show)
        if found is not None:
            expected = parse(page, show)
            assert found.blocks == expected.blocks
            assert " ".join(found.title.split()) == " ".join(expected.title.split())
            assert found.lang == expected.lang
    return found is not None


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join))
@example("<ul><li>a<br></li></ul><div>b")
def test_tag_soup_is_read_as_the_parser_reads_it_or_not_at_all(body):
    agree(body)


@settings(max_examples=800, deadline=None)
@given(st.lists(st.one_of(WELL_BUILT, TABLE), max_size=4).map("".join))
def test_well_built_pages_are_read_as_the_parser_reads_them(body):
    agree(body)
