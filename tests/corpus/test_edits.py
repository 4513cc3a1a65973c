"""What each edit takes out of a text and what it leaves, how proposals are merged, and that nothing else changes."""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.core.errors import ConfigError
from diglot.corpus.edits.code_blocks import code_ranges
from diglot.corpus.edits.exchange import (
    COPY,
    FINGERPRINT,
    KEY,
    PartWriter,
    later_copies,
    read_part,
    shared_keys,
    write_parts,
)
from diglot.corpus.edits.full_width import full_width, full_width_spans
from diglot.corpus.edits.line_filter import line_filter, objection
from diglot.corpus.edits.links import links
from diglot.corpus.edits.paragraphs import keys as paragraph_keys
from diglot.corpus.edits.paragraphs import pieces
from diglot.corpus.edits.pii import is_cn_id, luhn, pii
from diglot.corpus.edits.settings import (
    Edits,
    FullWidthEdit,
    LinesEdit,
    LinksEdit,
    ParagraphsEdit,
    PiiEdit,
    SimilarLinesEdit,
    SubstringsEdit,
)
from diglot.corpus.edits.similar_lines import similar_lines
from diglot.corpus.edits.spans import EDITED, Span, apply, apply_to_column, edited_table, merge
from diglot.corpus.edits.substrings import cuts, fingerprints, passages, window_keys
from diglot.corpus.edits.texts import Texts
from diglot.corpus.ranges import inside
from diglot.text.sentences import sentence_starts
from few_files import few_files

texts = st.lists(
    st.sampled_from(
        ("a", "The end.", "字", "很长的一句话在这里。", " ", "\n", "\n\n", "\r\n", "\t", "```", "`", "[", "](", ")",
         "http://", "www.a.b", "https://a.org/字", "@", "a@b.cd", "+86 138 0013 8000", "13800138000", "8.8.8.8",
         "2001:4860::1", ":", "Ａ", "　", "９", "javascript", "lorem ipsum", "use cookies", "é", "𠮷",
         "\u2028", "❤️", "!!!", "…", "(")
    ),
    max_size=30,
).map("".join)  # fmt: skip


def edited(text: str, spans) -> str:
    return apply(text, merge(list(spans), len(text.encode())))


def by_rows(text: str, found) -> str:
    return edited(text, [span for _, spans in found for span in spans])


# --- spans


@st.composite
def proposals(draw):
    text = draw(st.text("ab字é", min_size=1, max_size=20))
    borders = np.cumsum([0, *(len(c.encode()) for c in text)]).tolist()
    spans = []
    for _ in range(draw(st.integers(0, 6))):
        start, stop = sorted(draw(st.lists(st.sampled_from(borders), min_size=2, max_size=2, unique=True)))
        spans.append(Span(start, stop, draw(st.sampled_from("rst")), draw(st.sampled_from(("", "<x>", "<y>")))))
    return text, spans


@settings(max_examples=400, deadline=None)
@given(case=proposals())
def test_merged_spans_are_disjoint_and_cover_what_was_proposed_with_deletions_first(case):
    text, spans = case
    size = len(text.encode())
    merged = merge(spans, size)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(merged))
    expected = [None] * size
    for span in sorted(spans, key=lambda span: span.replacement != ""):
        for at in range(span.start, span.stop):
            expected[at] = expected[at] or span.rule
    found = [None] * size
    for span in merged:
        found[span.start : span.stop] = [span.rule] * (span.stop - span.start)
    assert found == expected
    deleted = {at for span in spans if not span.replacement for at in range(span.start, span.stop)}
    put = "".join(span.replacement for span in merged)
    for span in merged:
        if span.replacement:
            assert not set(range(span.start, span.stop)) <= deleted
    assert len(put) <= sum(len(span.replacement) for span in spans)  # no placeholder stands twice


def test_a_placeholder_does_not_outlive_its_paragraph_and_half_a_number_is_not_left():
    text = "abcdefgh"
    number = Span(2, 6, "pii/phone", "<phone>")
    assert edited(text, [Span(0, 8, "paragraphs"), number]) == ""
    assert edited(text, [Span(0, 4, "substrings"), number]) == "<phone>gh"
    assert edited(text, [Span(3, 4, "substrings"), number]) == "ab<phone>gh"
    assert merge([Span(0, 4, "lines"), Span(2, 6, "links")], 8) == [Span(0, 4, "lines"), Span(4, 6, "links")]


@settings(max_examples=200, deadline=None)
@given(cases=st.lists(proposals(), max_size=4), before=st.integers(0, 2))
def test_a_column_is_edited_as_its_documents_are(cases, before):
    merged = [merge(spans, len(text.encode())) for text, spans in cases]
    column = pa.array(["left out"] * before + [text for text, _ in cases], pa.large_string()).slice(before)
    table = edited_table(pa.array([str(i) for i in range(len(cases))], pa.string()), merged)
    assert table.schema == EDITED
    result = apply_to_column(column, table["spans"].combine_chunks())
    assert result.to_pylist() == [apply(text, spans) for (text, _), spans in zip(cases, merged, strict=True)]


# --- links


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("See https://a.org/b?c=1#d for more.", "See for more."),
        ("See (http://a.org/b_(c)), then www.a.org.", "See, then."),
        ("See http://en.wikipedia.org/wiki/A_(b), or not", "See, or not"),
        ("请访问http://a.cn/b，谢谢。", "请访问，谢谢。"),
        ("参见（https://a.cn/）。", "参见。"),
        ("Read [the *guide* [1]](https://a.org/x \"Title\").", "Read the *guide* [1]."),
        ("![a picture](https://a.org/x.png)", "a picture"),
        ("[![badge](https://a.org/b.svg)](https://a.org/c) x", "badge x"),
        ("http://a.org/http://b.org/c d", "d"),
        ("[here](guide.md) and [there](#top)", "[here](guide.md) and [there](#top)"),
        ("text\n[1]: https://a.org/b\nmore", "text\nmore"),
        (".. _docs: https://a.org/\nSee docs_.", "See docs_."),
        ("`name <https://a.org>`_ there", "`name`_ there"),
        ("<https://a.org/> begins", "begins"),
        ("HTTPS://A.ORG/X is loud", "is loud"),
        ("href=\"https://a.org/x\">word", "href=\"\">word"),
    ],
)  # fmt: skip
def test_links_go_and_their_words_stay(text, left):
    assert edited(text, links(text.encode())) == left


@pytest.mark.parametrize(
    "text",
    [
        "Open readme.txt with node.js or foo.bar, version 1.2.3.4.",
        "This is the end.start of the next; awww.so nice, e.g. this",
        "```\ncurl https://a.org/x\n```\nand `wget http://a.org`",
        "http:// is a scheme, https too, www. a prefix",
        "mail me@www.org or ftp.a.org",
        "",
    ],
)
def test_what_only_looks_like_a_link_stays(text):
    assert links(text.encode()) == []


@pytest.mark.parametrize(
    ("part", "num_links"),
    [
        ("x](http://a.b/c y", 20_000),
        ("http://a.b/c,", 32),  # addresses joined by commas are cut at the longest address
        ("x]`http://a.b/c ", 10_000),  # every second one stands between backticks
    ],
)
def test_a_page_on_one_line_takes_linear_time(part, num_links):
    text = part.encode() * 20_000
    started = time.process_time()
    assert len(links(text)) == num_links
    assert time.process_time() - started < 10  # comparing each with all before takes minutes


def test_code_between_many_backticks_takes_linear_time():
    for text in (b"`" * 100_000, b"``` " * 50_000, b"`a" * 50_000, b"`a\n" * 50_000):
        started = time.process_time()
        code_ranges(text, backticks=True)
        assert time.process_time() - started < 5, text[:8]


def test_links_in_code_go_when_asked():
    text = "```\ncurl https://a.org/x -o y\n```\n"
    assert edited(text, links(text.encode(), keep_code=False)) == "```\ncurl -o y\n```\n"


def test_code_is_found_in_fences_backticks_and_indents():
    text = b"a `b` c\n~~~py\nx\n~~~\n    d\n\te\n```\nopen to the end\n"
    whole = [text[a:b] for a, b in code_ranges(text, backticks=True, indented=True)]
    assert whole == [b"`b`", b"~~~py\nx\n~~~", b"    d", b"\te", b"```\nopen to the end\n"]
    assert code_ranges(b"plain text") == []
    assert inside([(2, 4)], 3, 5)
    assert not inside([(2, 4)], 4, 5)
    assert not inside([(2, 4)], 0, 2)


# --- personal data


def redacted(text: str, *kinds: str) -> str:
    edit = PiiEdit(kinds=kinds) if kinds else PiiEdit()
    return by_rows(text, pii(Texts.of([text]), edit))


def cn_id(body: str) -> str:
    weights = [pow(2, 17 - i, 11) for i in range(17)]  # ISO 7064, mod 11-2, by its definition
    return body + "10X98765432"[sum(w * int(d) for w, d in zip(weights, body, strict=True)) % 11]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Write to jane.doe+x@mail.a-b.co.uk, please.", "Write to <email>, please."),
        ("邮箱:li.wei@163.com。", "邮箱:<email>。"),
        ("[us](mailto:team@vuejs.org)", "[us](mailto:<email>)"),
        ("Call +1 (212) 555-0142 or +86 138 0013 8000.", "Call <phone> or <phone>."),
        ("Call (212) 555-0142, 212-555-0142 or 212.555.0142.", "Call <phone>, <phone> or <phone>."),
        ("电话13800138000，或138-0013-8000", "电话<phone>，或<phone>"),
        ("电话：010-62345678、（0755-12345678）", "电话：<phone>、（<phone>）"),
        ("from 123.231.7.9 and [2001:4860:4860::8888]", "from <ip> and [<ip>]"),
        (f"身份证{cn_id('11010519491231002')}。", "身份证<cn_id>。"),
        ("card 4111 1111 1111 1111, 5555-5555-5555-4444, 378282246310005", "card <card>, <card>, <card>"),
        ("SSN 536-90-4399.", "SSN <ssn>."),
        ("The server 91.198.174.192 is down", "The server <ip> is down"),
        ("jovan@uns.ac.rs", "<email>"),
        ("主页http://www.abc.cn，邮箱zhang@abc.cn", "主页http://www.abc.cn，邮箱<email>"),
        ("13800138000/13900139000", "<phone>/<phone>"),
    ],
)
def test_personal_data_is_replaced(text, left):
    assert redacted(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "me@example.com, logo@2x.png, git@github.com:a/b.git, git@github.com:$user/x, @app.route, vue@3.2",
        "ssh://git@host.org/x and https://user@host.org",
        "version 123.45.6.7, v123.45.6.7, 版本 123.45.6.7, pkg-123.45.6.7.tar, 1.2.123.4.5",
        "see 4.1.12.3 and 10.0.0.1, 127.0.0.1, 192.168.1.1, 192.0.2.1, 256.1.1.1, 255.255.255.0",
        "std::vector, a::b, 12:30:45, dead::beef, 2001:db8::1",
        "in 2019-2020, ISBN 978-7-111-54742-6, 3.14159265358979, 12345678901, 1234567890123456",
        "timestamp 1613800138000, id 138001380001, x13800138000, 0.13800138000, 13800138000.5",
        f"{cn_id('11010519491231002')[:-1]}{'0' if cn_id('11010519491231002')[-1] != '0' else '1'}",
        cn_id("11010519491331002"),  # no month 13
        cn_id("99010519491231002"),  # no province 99
        "4111 1111 1111 1112 and 9111111111111111 and 41 11 11 11 11 11 11 11",
        "000-12-3456, 666-12-3456, 900-12-3456, 123-00-4567, 123-45-0000",
        "400-820-8820 and 1-2-3 and 01-02-2003 10:20:30 and +3 (4) 5 and +2024-12-06",
    ],
)
def test_other_numbers_stay(text):
    assert redacted(text) == text


def test_only_the_kinds_that_were_chosen_are_replaced():
    text = "jane@mail.org 13800138000 123.231.7.9"
    assert redacted(text, "phone") == "jane@mail.org <phone> 123.231.7.9"


def test_check_digits():
    assert luhn(b"79927398713")
    assert not any(luhn(b"7992739871" + str(d).encode()) for d in (0, 1, 2, 4, 5, 6, 7, 8, 9))
    number = cn_id("11010519491231002")
    assert number == "11010519491231002X"  # the example of the standard
    assert [is_cn_id(number[:-1].encode() + c.encode()) for c in "0123456789X"] == [False] * 10 + [True]


# --- full width


def test_full_width_letters_digits_and_spaces_become_half_width_and_punctuation_stays():
    text = "　　第１章　ＡＢＣｘｙｚ，“你好”。！（１２）：；～￥"
    assert edited(text, full_width(text.encode())) == "　　第1章 ABCxyz，“你好”。！（12）：；～￥"
    assert edited(text, full_width(text.encode(), spaces=False)) == "　　第1章　ABCxyz，“你好”。！（12）：；～￥"
    assert len(merge(full_width("ＡＢＣ".encode()), 9)) == 1


@settings(max_examples=200, deadline=None)
@given(text=st.text("Ａｚ９０　，。a\n／：＠［｀｛", max_size=20))
def test_full_width_equals_the_definition(text):
    wide = {**{0xFF10 + i: 0x30 + i for i in range(10)}, **{0xFF21 + i: 0x41 + i for i in range(26)}}
    wide |= {0xFF41 + i: 0x61 + i for i in range(26)}
    lines = [line[: len(line) - len(rest)] + rest.translate({**wide, 0x3000: 0x20})
             for line in text.split("\n") for rest in [line.lstrip("　")]]  # fmt: skip
    assert edited(text, full_width(text.encode())) == "\n".join(lines)
    for spaces in (True, False):
        found = full_width_spans(Texts.of(["", text]), FullWidthEdit(spaces=spaces))
        assert [(1, full_width(text.encode(), spaces))] * bool(full_width(text.encode(), spaces)) == list(found)


# --- lines


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(st.sampled_from(
        ("One whole line.", "short", "他说：“好。”", "没有句号的一行", "JavaScript is off.", "Lorem Ipsum dolor.", "",
         "We use cookies.", "in terms of user experience.", " ", "so it goes...", "然后……", "a b", "wait (no!)",
         "本站使用Cookie。")
    ), max_size=8).map("\n".join),
    edit=st.builds(
        LinesEdit, terminal_punctuation=st.booleans(), min_units=st.sampled_from((None, 3)), javascript=st.just(True),
        policy=st.booleans(), lorem_ipsum=st.booleans(),
    ),
)  # fmt: skip
def test_the_line_filter_equals_its_definition(text, edit):
    ends = np.cumsum([len(line.encode()) + 1 for line in text.split("\n")]).tolist()
    expected = [
        (end - len(line.encode()) - 1, f"lines/{name}")
        for line, end in zip(text.split("\n"), ends, strict=True)
        if (name := objection(line, edit))
    ]
    found = [(span.start, span.rule) for _, spans in line_filter(Texts.of([text]), edit) for span in spans]
    assert found == expected


def test_lines_of_prose_stay_and_code_and_blank_lines_too():
    text = "Menu\n\nThis is prose.\n    x = 1\n```\ny\n```\n“这是一句话。”\n首页\n"
    edit = LinesEdit(terminal_punctuation=True)
    assert (
        by_rows(text, line_filter(Texts.of([text]), edit))
        == "\nThis is prose.\n    x = 1\n```\ny\n```\n“这是一句话。”\n"
    )


def test_policy_phrases_are_whole_words():
    assert objection("in terms of user experience", LinesEdit(policy=True)) is None
    assert objection("See our Terms of Use here", LinesEdit(policy=True)) == "policy"


# --- similar lines


def test_repeated_sentences_go_and_the_first_stays():
    text = "安装程序首先检测计算机的硬件设备。你好！\n然后重新启动！！！安装程序首先检测计算机里硬件设备。\n你好！……\n再见。"  # noqa: E501
    left = "安装程序首先检测计算机的硬件设备。你好！\n然后重新启动！！！\n你好！……\n再见。"
    assert by_rows(text, similar_lines(Texts.of([text]), SimilarLinesEdit())) == left


def test_code_markup_and_short_lines_may_repeat():
    lines = [
        "    返回一个新的张量对象并且保留梯度。",
        '<div class="composition-api">',
        "| 名称 | type | value |",
        "说：“好。”",
        "!!!",
    ]
    fenced = "这一行代码里的注释也会重复出现。\n"
    lines += ["违反第二十四条规定的，处一千元以上的罚款。", "违反第二十五条规定的，处一千元以上的罚款。"]
    text = "\n".join([*lines, *lines[:-2]]) + f"\n```\n{fenced}{fenced}```\n"
    assert list(similar_lines(Texts.of([text]), SimilarLinesEdit())) == []


# --- paragraphs


@settings(max_examples=200, deadline=None)
@given(text=texts, unit=st.sampled_from(("line", "paragraph")))
def test_pieces_cover_a_text_and_are_cut_at_line_feeds(text, unit):
    content = text.encode()
    ranges = list(pieces(content, unit))
    assert b"".join(content[a:b] for a, b in ranges) == content
    assert all(content[:a].endswith(b"\n") for a, _ in ranges[1:])
    if unit == "line":
        assert all(b"\n" not in content[a : b - 1] for a, b in ranges)


def test_blank_and_short_paragraphs_have_no_key():
    text = "\n\n  \n" + "short\n" + "x" * 80 + "\n" + "字" * 79 + "\n" + "字" * 80
    found = paragraph_keys(Texts.of([text]), np.array([7]), ParagraphsEdit())
    assert [text.encode()[k["start"] : k["stop"]].decode() for k in found] == ["x" * 80 + "\n", "字" * 80]
    assert set(found["rank"]) == {7}
    fenced = f"```\n{'y' * 90}\n```\n"
    assert len(paragraph_keys(Texts.of([fenced]), np.array([0]), ParagraphsEdit())) == 0
    assert len(paragraph_keys(Texts.of([fenced]), np.array([0]), ParagraphsEdit(keep_code=False))) == 1


# --- exchange


def test_of_equal_keys_the_smallest_rank_is_first_whatever_the_order(tmp_path):
    rng = random.Random(0)
    rows = [(rng.randrange(20), rng.randrange(2), rng.randrange(9), i, i + 1) for i in range(300)]
    expected = sorted(
        (rank, start, min(r for low2, high2, r, *_ in rows if (low2, high2) == (low, high)))
        for low, high, rank, start, _ in rows
        if any(r < rank for low2, high2, r, *_ in rows if (low2, high2) == (low, high))
    )
    for order in (rows, rows[::-1]):
        copies = later_copies(np.array(order, KEY))
        assert [(c["rank"], c["start"], c["first"]) for c in copies] == expected
        with PartWriter(tmp_path / "keys", "one", 3) as writer:
            for part in np.split(np.array(order, KEY), 4):
                writer.write(part, part["low"] % np.uint64(3))
        parts = [read_part(tmp_path / "keys", number, KEY) for number in range(3)]
        assert sorted(map(tuple, np.concatenate(parts).tolist())) == sorted(rows)
        assert all(set(part["low"] % 3) <= {number} for number, part in enumerate(parts))


def test_records_of_many_shards_are_written_with_few_files_open(tmp_path):
    rng = np.random.default_rng(0)
    records = np.zeros(2_000, COPY)
    records["rank"], parts = np.arange(2_000), rng.integers(0, 200, 2_000)
    with few_files(50):
        paths = write_parts(tmp_path, "7", records, parts)
    assert sorted(paths) == sorted(tmp_path.rglob("*.bin"))
    assert len(paths) == len(set(parts.tolist()))
    for part in range(200):
        assert read_part(tmp_path, part, COPY)["rank"].tolist() == np.flatnonzero(parts == part).tolist()


def test_no_records_leave_no_file(tmp_path):
    assert write_parts(tmp_path, "0", np.zeros(0, COPY), np.zeros(0, np.int32)) == []


def test_shared_keys_stand_in_two_documents_not_twice_in_one():
    records = np.array([(5, 1), (3, 0), (5, 1), (9, 2), (3, 4)], FINGERPRINT)
    assert shared_keys(records).tolist() == [3]
    assert shared_keys(records[:0]).tolist() == []


# --- substrings


def copied_bytes(documents: list[bytes], min_bytes: int) -> list[set[int]]:
    """Brute force: the bytes of each document inside a window that a document before it has."""
    found = []
    for number, document in enumerate(documents):
        covered: set[int] = set()
        for start in range(len(document) - min_bytes + 1):
            window = document[start : start + min_bytes]
            if any(window in earlier for earlier in documents[:number]):
                covered.update(range(start, start + min_bytes))
        found.append(covered)
    return found


@st.composite
def copied_texts(draw):
    rng = random.Random(draw(st.integers(0, 10**6)))
    alphabet = draw(st.sampled_from(("ab", "abcdefgh. ", "天地玄黄。")))

    def some(n):
        return "".join(rng.choice(alphabet) for _ in range(n))

    shared = [some(rng.randint(5, 60)) for _ in range(3)]
    return [
        "".join(rng.choice((rng.choice(shared), some(rng.randint(0, 30)))) for _ in range(rng.randint(0, 6)))
        for _ in range(rng.randint(1, 6))
    ]


@settings(max_examples=200, deadline=None)
@given(documents=copied_texts(), min_bytes=st.sampled_from((16, 24, 40)), seed=st.integers(0, 99))
def test_passages_are_those_of_brute_force(documents, min_bytes, seed):
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)  # rank of the document at each row
    found, ranks = Texts.of(documents), np.array(order, np.int64)
    rows, _, hashes = fingerprints(found, min_bytes)
    records = np.zeros(len(rows), FINGERPRINT)
    records["low"], records["rank"] = hashes, ranks[rows]
    copies = later_copies(window_keys(found, ranks, shared_keys(records), min_bytes))
    half = len(copies) // 2
    result = passages(lambda: iter((copies[half:], copies[:half])), found, ranks, min_bytes)
    by_rank = [documents[order.index(rank)].encode() for rank in range(len(documents))]
    expected = copied_bytes(by_rank, min_bytes)
    covered: list[set[int]] = [set() for _ in documents]
    for row, start, stop, first in result:
        covered[order[row]].update(range(start, stop))
        assert documents[row].encode()[start : start + min_bytes] in by_rank[first]
        assert first < order[row]
    assert covered == expected


def test_passages_are_cut_at_sentences_and_code_stays():
    text = "One is short. Two is copied. Three is copied too.\nFour is half copied.\n```\ncode\n```\nFive."
    content = text.encode()
    begins = np.array([len(text[:s].encode()) for s in sentence_starts(text)])
    start, stop = text.index("short"), text.index("copied.\n```")
    assert cuts(content, [(start, stop, 3)], begins, 20) == [(text.index(" Two"), text.index("\nFour"), 3)]
    assert cuts(content, [(start, start + 20, 3)], begins, 20) == []  # no whole sentence inside
    whole = cuts(content, [(0, len(text), 3)], begins, 8, code_ranges(content))
    assert [text[a:b] for a, b, _ in whole] == [text[: text.index("```")], "Five."]


# --- settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Edits, "edits names none"),
        (LinesEdit, "no test switched on"),
        (lambda: LinesEdit(min_units=0), "Set 3, or null"),
        (lambda: PiiEdit(kinds=("e-mail",)), "email"),
        (lambda: PiiEdit(kinds=()), "kinds is empty"),
        (lambda: ParagraphsEdit(unit="page"), "unit"),
        (lambda: ParagraphsEdit(min_chars=0), "blank lines"),
        (lambda: SubstringsEdit(min_bytes=5), "by chance"),
        (lambda: SimilarLinesEdit(max_share=0.9), "0.5"),
        (lambda: Edits(links=LinksEdit(languages=("en", "zh"))), "languages of links.*'zh'. Write 'zh-Hans'"),
        (lambda: Edits(pii=PiiEdit(languages=("zh_TW",))), "Write 'zh-Hant'"),
        (lambda: Edits(lines=LinesEdit(policy=True, languages=("English",))), "such as en or zh-Hans"),
        (lambda: Edits(similar_lines=SimilarLinesEdit(languages=())), "languages of similar_lines is empty"),
    ],
)
def test_settings_that_make_no_sense_say_what_to_write(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_every_language_that_is_identified_may_be_edited():
    for language in ("en", "zh-Hans", "zh-Hant", "ceb", "gsw", "und"):
        assert Edits(links=LinksEdit(languages=(language,))).chosen()


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_no_edit_leaves_broken_characters_or_touches_an_empty_text(text):
    found = Texts.of([text])
    lines = LinesEdit(terminal_punctuation=True, min_units=2, javascript=True, policy=True, lorem_ipsum=True)
    for spans in (
        links(text.encode()),
        full_width(text.encode()),
        [s for _, some in pii(found, PiiEdit()) for s in some],
        [s for _, some in line_filter(found, lines) for s in some],
        [s for _, some in similar_lines(found, SimilarLinesEdit()) for s in some],
    ):
        merged = merge(spans, len(text.encode()))
        apply(text, merged)  # would raise inside a character
        assert all(0 <= span.start < span.stop <= len(text.encode()) for span in spans)
