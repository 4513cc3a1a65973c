"""Main text from HTML: outline, lists, definitions, tables and code are kept; navigation is not."""

from __future__ import annotations

import io
import json
import re
from collections import Counter

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.corpus.extract import extract

PROSE = "This paragraph is long enough to be taken for the text of the page and not for a button."
CHINESE = "这一段文字足够长，所以会被当作正文而不是按钮或者导航条目来处理。"


def text_of(body: str) -> str:
    return extract(f"<html><head><title>T</title></head><body>{body}</body></html>").text


def test_headings_become_hash_lines_of_their_level():
    assert text_of(f"<h1>One</h1><p>{PROSE}</p><h3>Three <a href='#x'>¶</a></h3><p>{CHINESE}</p>") == (
        f"# One\n\n{PROSE}\n\n### Three\n\n{CHINESE}"
    )


def test_lists_keep_their_kind_and_depth():
    assert text_of(
        f"<p>{PROSE}</p><ol><li>first<ul><li>inner</li></ul></li><li><p>second</p><p>more</p></li></ol>"
    ) == (f"{PROSE}\n\n1. first\n  - inner\n2. second\n\n  more")


def test_terms_and_definitions_are_told_apart():
    body = f"<p>{PROSE}</p><dl><dt>kernel</dt><dd><p>The core.</p></dd><dt><b>shell</b></dt><dd>The rest.</dd></dl>"
    assert text_of(body) == f"{PROSE}\n\nkernel\n: The core.\n\nshell\n: The rest."


def test_code_keeps_its_spaces_and_cannot_be_taken_for_headings():
    body = f"<p>{PROSE}</p><pre><code># apt install x\nif a &lt; b:\n    <b>run</b>()\n\n\treturn\n</code></pre>"
    assert text_of(body) == f"{PROSE}\n\n    # apt install x\n    if a < b:\n        run()\n\n    \treturn"


def test_a_paragraph_that_starts_like_a_heading_is_escaped():
    assert text_of(f"<h1>T</h1><p># {PROSE}</p>") == f"# T\n\n\\# {PROSE}"


def test_rows_of_a_table_stay_together_also_when_cells_hold_paragraphs():
    table = "<table><tr><th>A</th><th>B</th></tr><tr><td><p>1</p></td><td><p>2</p><p>3</p></td></tr></table>"
    assert text_of(f"<p>{PROSE}</p>{table}<p>{CHINESE}</p>") == f"{PROSE}\n\nA | B\n1 | 2 3\n\n{CHINESE}"


def test_a_table_that_lays_out_a_page_is_not_made_one_line():
    table = f"<table><tr><td><ul><li>a</li></ul></td><td><h2>H</h2><p>{PROSE}</p></td></tr></table>"
    assert text_of(table) == f"## H\n\n{PROSE}"


def test_inline_text_is_neither_glued_nor_lost():
    assert text_of(
        f"<p>{PROSE} <code>synaptic</code>、<code>aptitude</code> and <a href='u'>a link</a>, <i>too</i>.</p>"
    ) == (f"{PROSE} synaptic、aptitude and a link, too.")


def test_footnote_numbers_are_dropped_and_other_links_are_not():
    assert text_of(f"<p>{PROSE}<a href='#fn1'>[27]</a> See <a href='x'>it</a>.</p>") == f"{PROSE} See it."


@pytest.mark.parametrize(
    "navigation",
    [
        "<nav><p>Home of the whole collection of documents about everything there is to know</p></nav>",
        "<div class='navheader'><table><tr><td><a href='p'>Prev</a></td><th>Chapter</th></tr></table></div>",
        "<div role='navigation'>Here you are: everything that was ever written about anything</div>",
        "<ul><li><a href='1'>One</a></li><li><a href='2'>Two</a></li><li><a href='3'>Three</a></li></ul>",
        "<p>Table of Contents</p><dl><dt>1.1. <a href='1'>One</a></dt><dt>1.2. <a href='2'>Two and</a></dt>"
        "<dt>1.3. <a href='3'>Three</a></dt></dl>",
        "<p hidden>This text is hidden from every reader of the page and it is rather long as well</p>",
        "<button>Press this button now to see the whole of the text that you wanted to read</button>",
    ],
)
def test_navigation_is_dropped_wherever_it_stands(navigation):
    page = f"<h1>Title</h1><p>{PROSE}</p>{navigation}<p>{CHINESE}</p>"
    assert text_of(page) == f"# Title\n\n{PROSE}\n\n{CHINESE}"
    assert text_of(f"{navigation}<h1>Title</h1><p>{PROSE}</p>") == f"# Title\n\n{PROSE}"


def test_links_and_their_label_after_the_text_are_dropped_with_the_heading_above_them():
    end = "<h2>See also</h2><p>Related Topics</p><p><a href='a'>Another page</a></p>"
    assert text_of(f"<h1>Title</h1><p>{PROSE}</p>{end}") == f"# Title\n\n{PROSE}"


def test_a_page_of_links_has_no_main_text_but_its_title():
    links = "".join(f"<li><a href='{n}'>Page number {n} of the book</a></li>" for n in range(9))
    extracted = extract(f"<html><body><h1>Index</h1><ul>{links}</ul></body></html>")
    assert extracted.text == "# Index"
    assert extracted.dropped_chars > 100


def test_where_a_script_would_choose_among_hidden_words_the_last_is_shown():
    choice = "<span><span hidden='true'>Preferences</span> <span hidden='true'>Options</span></span>"
    assert text_of(f"<p>{PROSE} Choose {choice} - View.</p>") == f"{PROSE} Choose Options - View."


def test_title_and_declared_language_are_reported():
    extracted = extract(f"<html lang='zh-CN'><head><title> A \n page </title></head><body>{PROSE}</body></html>")
    assert (extracted.title, extracted.lang, extracted.text) == ("A page", "zh-CN", PROSE)


def test_a_gutter_of_line_numbers_is_no_code():
    assert text_of(f"<p>{PROSE}</p><pre>1\n2\n3</pre><pre>x = 1</pre>") == f"{PROSE}\n\n    x = 1"


TAGS = [
    "p",
    "div",
    "a href='x'",
    "a",
    "h2",
    "ul",
    "ol",
    "li",
    "dl",
    "dt",
    "dd",
    "pre",
    "table",
    "tr",
    "td",
    "br",
    "span",
]
PIECES = st.one_of(
    st.sampled_from([f"<{tag}>" for tag in TAGS]),
    st.sampled_from([f"</{tag.split()[0]}>" for tag in TAGS]),
    st.text(alphabet="ab 中&<>#\n\t\ue000\ue003\x0b", max_size=8),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_broken_html_never_fails_and_leaves_no_marks(page):
    text = extract(page).text
    assert not re.search("[\ue000-\ue004\x0b]", text)
    assert text == text.strip("\n")


@pytest.mark.parametrize(
    "page", ["", "   ", "plain", "\0", "<", "<!--", "<p>a&#xe000;&#xe002;b", "<div>" * 5000, "<table><tr><td>" * 300]
)
def test_odd_pages_are_no_error(page):
    extract(page)


def units(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"[\u3400-\u9fff]|\w+", text.lower())
    return Counter(tuple(words[i : i + 4]) for i in range(len(words) - 3))


@pytest.mark.parametrize(
    ("name", "gold", "precision", "recall"),
    [
        ("inspect_site_html_md", "gold_markdown", 0.92, 0.72),
        ("oi_wiki_html_md", "gold_markdown", 0.70, 0.75),
    ],
)
def test_real_pages_are_extracted_close_to_the_markdown_that_their_site_publishes(
    shared, name, gold, precision, recall
):
    """Word 4-grams of 25 pages. Formulas differ, and a long list of one site is put in by a script."""
    with (shared / "pretrain" / "html" / f"{name}.jsonl.zst").open("rb") as stream:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream))
        rows = [json.loads(next(lines)) for _ in range(40)]
    rows = [row for row in rows if len(row["html"]) > 5000][:25]  # shorter ones only forward to another page
    right = ours = theirs = 0
    for row in rows:
        extracted, expected = units(extract(row["html"]).text), units(row[gold])
        right += (extracted & expected).total()
        ours += extracted.total()
        theirs += expected.total()
    assert right / ours > precision, (right / ours, right / theirs)
    assert right / theirs > recall, (right / ours, right / theirs)


def test_labelled_segments_of_web_pages_are_kept_and_dropped(shared):
    with (shared / "pretrain" / "html" / "cc_licensed_pages.jsonl.zst").open("rb") as stream:
        rows = [json.loads(line) for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream))]
    wanted = kept = unwanted = left = 0
    for row in rows:
        text = " ".join(extract(row["html"]).text.split())
        wanted += len(row["must_contain"])
        kept += sum(" ".join(segment.split()) in text for segment in row["must_contain"])
        unwanted += len(row["must_not_contain"])
        left += sum(" ".join(segment.split()) in text for segment in row["must_not_contain"])
    assert kept / wanted > 0.95
    assert left / unwanted < 0.3
