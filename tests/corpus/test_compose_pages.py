"""Outlines of pages, and which sentences are fit for an answer."""

from __future__ import annotations

import pytest

from compose_pages import GLOSSARY_EN, SORTING_EN
from diglot.corpus.compose.pages import clean_heading, parse_page
from diglot.corpus.compose.sentences import is_in, is_sound, leading_sentences, split_sentences


def test_a_page_is_its_title_and_its_sections_in_order():
    page = parse_page(SORTING_EN)
    assert page.title == "Sorting a List"
    assert [s.heading for s in page.sections][:3] == ["Sorting a List", "To sort by one column", "Case sensitive"]
    assert [b.kind for b in page.sections[1].blocks] == ["step", "step"]
    assert [b.kind for b in page.sections[4].blocks] == ["other", "prose"]


def test_a_term_is_what_stands_before_its_definition():
    blocks = parse_page(GLOSSARY_EN).sections[0].blocks
    assert [(b.kind, b.text.split()[0]) for b in blocks[2:4]] == [("term", "kernel"), ("definition", "The")]


def test_a_text_without_headings_is_one_section_under_its_title_and_nothing_without_one():
    assert parse_page("Just text.", "3.1. Title").sections[0].heading == "Title"
    assert parse_page("Just text.") is None


@pytest.mark.parametrize(
    ("heading", "cleaned"),
    [
        ("6.2.1. Initialization:", "Initialization"),
        ("Chapter 4. Networks", "Networks"),
        ("Appendix B. Manuals", "Manuals"),
        ("第 3 章 安装", "安装"),
        ("附录 A. 历史", "历史"),
        ("3D View", "3D View"),
        ("A Note", "A Note"),
        ("2. Steps", "Steps"),
    ],
)
def test_numbers_of_headings_are_left_out(heading, cleaned):
    assert clean_heading(heading) == cleaned


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It is 2.5 MB. See e.g. the list. Done!", ["It is 2.5 MB.", "See e.g. the list.", "Done!"]),
        ("它很小。真的吗？是！", ["它很小。", "真的吗？", "是！"]),
        ("他说：“好。”然后走了。", ["他说：“好。”", "然后走了。"]),
        ("No full stop", ["No full stop"]),
        ("", []),
    ],
)
def test_sentences_are_cut_where_they_end(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("sentence", "lang"),
    [
        ("A package is a file.", "en"),
        ("Press Ctrl+F6 (or click the icon) to enter the document.", "en"),
        ("选择「工具 - 自动更正」，然后点击「确定」。", "zh-Hans"),
        ("在 LibreOffice Writer 中创建新的文本文档。", "zh-Hans"),
    ],
)
def test_a_clean_sentence_is_sound(sentence, lang):
    assert is_sound(sentence, lang)


@pytest.mark.parametrize(
    ("sentence", "lang", "why"),
    [
        ("Choose one of these:", "en", "not complete"),
        ("See the page on filters.", "en", "points elsewhere"),
        ("In - General you can set the year.", "en", "lost words"),
        ("软件包是一个文件。", "en", "another language"),
        ("This is not translated yet.", "zh-Hans", "another language"),
        ("选择「工具 - 自动更正，然后点击确定。", "zh-Hans", "open bracket"),
        ("选择 - 语言设置。", "zh-Hans", "lost words"),
        ("请参阅下一章。", "zh-Hans", "points elsewhere"),
        ("Read the notes [62] first.", "en", "footnote"),
    ],
)
def test_an_unfit_sentence_is_not_sound(sentence, lang, why):
    assert not is_sound(sentence, lang), why


def test_an_answer_ends_before_the_first_unfit_sentence_and_within_its_bound():
    text = ["One is here. Two is here. Choose one of these:", "Three is here."]
    assert leading_sentences(text, "en", max_units=50) == ["One is here.", "Two is here."]
    assert leading_sentences(text, "en", max_units=5) == ["One is here."]


def test_languages_are_told_by_script():
    assert is_in("en", "Choose the file.")
    assert is_in("zh-Hans", "打开 apt 文件")
    assert not is_in("zh-Hans", "open the 文件 in apt")
    assert not is_in("de", "Das Paket")
    assert not is_in("en", "123")
