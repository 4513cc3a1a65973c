"""Lines, sentences and what lines begin and end with."""

from __future__ import annotations

import pytest

from diglot.text.lines import (
    ends_with_ellipsis,
    ends_with_read_more,
    ends_with_stop,
    lines,
    num_sentences,
    starts_with_bullet,
)


def test_blank_lines_and_carriage_returns_disappear():
    assert lines("  one \r\n\r\n \t \n二\u3000") == ["one", "二"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("...", 0),
        ("no stop at all", 1),
        ("One. Two! Three?", 3),
        ('He said "go." Then he went', 2),
        ("Version v1.2 of node.js", 1),
        ("你好。世界！吗？", 3),
        ("你好。」他说", 2),
        ("Wait... what", 2),
        ("安装.然后重启", 2),
        ("3.14", 1),
        ("先进先出．后进先出．复杂度为 O(n)．", 3),
    ],
)
def test_sentences_of(text, expected):
    assert num_sentences(text) == expected


def test_line_ends():
    ellipses = {"more...": True, "更多…": True, "省略。。。": True, "two..": False, "end.": False}
    assert {line: ends_with_ellipsis(line) for line in ellipses} == ellipses
    stops = {"End.": True, "“End.”": True, "（完。）": True, "Note:": False, "": False}
    assert {line: ends_with_stop(line) for line in stops} == stops
    teasers = {
        "Read more »": True,
        "查看更多 >>": True,
        "READMORE": True,
        "bread more": False,
        "Read more of it": False,
    }
    assert {line: ends_with_read_more(line) for line in teasers} == teasers


def test_line_starts():
    cases = {"• a": True, "- a": True, "-a": False, "*": True, "*bold*": False, "2 a": False, "– a": True, "": False}
    assert {line: starts_with_bullet(line) for line in cases} == cases
