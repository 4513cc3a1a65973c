"""Language identification: label, score, and the script of Chinese."""

from __future__ import annotations

import json

import pytest

from diglot.text.language import SAMPLE_CHARS, chinese_script, identify, script_characters


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("The package manager reads the list of packages and installs what is missing.", "en"),
        ("软件包管理器读取软件包列表，并安装缺少的软件包。", "zh-Hans"),
        ("套件管理程式會讀取套件清單，並安裝缺少的套件。", "zh-Hant"),
        ("Der Paketverwalter liest die Liste der Pakete und installiert, was fehlt.", "de"),
        ("パッケージ管理システムは一覧を読み、足りないものをインストールします。", "ja"),
    ],
)
def test_a_sentence_is_identified_with_a_high_score(text, tag):
    found = identify(text)
    assert found.tag == tag
    assert 0.6 < found.score <= 1


@pytest.mark.parametrize("text", ["", "  \n", "123 456", "-- ** ❤️", "\u0301"])
def test_a_text_without_letters_has_no_language(text):
    assert identify(text) == (None, 0.0)


def test_a_line_feed_does_not_end_the_text():
    text = "Bonjour\nThis page explains how to install the system on a new machine, step by step, in plain English."
    assert identify(text).tag == "en"


def test_only_the_first_characters_count():
    english = "This page explains how to install the system on a new machine. "
    start = (english * 40)[:SAMPLE_CHARS]
    assert identify(start + "这一页说明如何安装系统。" * 500) == identify(start)


def test_script_sets_are_disjoint_and_hold_the_well_known_pairs():
    simplified, traditional = script_characters()
    assert not simplified & traditional
    assert set("国语说书马门") <= simplified
    assert set("國語說書馬門") <= traditional
    assert not set("人大中山水的") & (simplified | traditional)  # shared by both
    assert chinese_script("人大中山") == "zh-Hans"


def test_real_chinese_pages_get_their_script(shared):
    zstandard = pytest.importorskip("zstandard")
    path = shared / "pretrain" / "zh" / "zh_wikipedia_paragraphs.jsonl.zst"
    with path.open("rb") as stream:
        content = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(stream).read()
    records = [json.loads(line) for line in content.decode().splitlines()]
    expected = {"zh": "zh-Hans", "zh-Hant": "zh-Hant"}
    right = [chinese_script(record["text"]) == expected[record["lang"]] for record in records]
    assert sum(right) / len(right) > 0.99
