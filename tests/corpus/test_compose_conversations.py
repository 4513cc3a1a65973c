"""Composed conversations: what is asked about a page, what is paired, what is dropped, and where it came from."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from compose_pages import GLOSSARY_EN, QUESTIONS_ZH, SORTING_EN, SORTING_ZH
from diglot.core.errors import ConfigError, InputError
from diglot.corpus.compose.assemble import Limits, SourcePage, compose_conversations
from diglot.corpus.compose.conversation import Conversation, ask, read_conversations, write_conversations
from diglot.corpus.compose.pages import parse_page
from diglot.corpus.compose.phrasing import QUESTIONS
from diglot.corpus.compose.questions import AnswerBounds, page_questions
from diglot.corpus.compose.sentences import is_in
from diglot.corpus.compose.translations import aligned_texts, page_key


def asked(text: str, lang: str) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for q in page_questions(parse_page(text), lang, AnswerBounds(), seed=1):
        found.setdefault(q.kind, []).append((q.question, q.answer))
    return found


def source(id: str, text: str, lang: str, split: str = "train", key: str = "") -> SourcePage:
    return SourcePage(id=id, key=key or id, lang=lang, split=split, page=parse_page(text))


def pair(split_en: str = "train", split_zh: str = "train") -> list[SourcePage]:
    return [
        source("e", SORTING_EN, "en", split_en, "sort"),
        source("z", SORTING_ZH, "zh-Hans", split_zh, "sort"),
    ]


def test_every_kind_of_question_is_asked_in_english():
    found = asked(SORTING_EN, "en")
    assert found["steps"] == [
        (found["steps"][0][0], "1. Click a cell of the column.\n2. Choose Data - Sort Ascending.")
    ]
    assert "sort by one column" in found["steps"][0][0]
    purposes = {answer: question for question, answer in found["purpose"]}
    question = purposes["Specifies whether upper and lower case letters are told apart."]
    assert all(word in question for word in ("“Case sensitive”", "“Sorting a List”"))
    (definition,) = found["definition"]
    assert "a natural sort" in definition[0]
    assert definition[1].startswith("A natural sort is an order")


def test_every_kind_of_question_is_asked_in_chinese():
    found = asked(SORTING_ZH, "zh-Hans")
    assert found["steps"][0][1] == "1. 点击该列中的一个单元格。\n2. 选择「数据 - 升序排序」。"
    assert "按一列排序" in found["steps"][0][0]
    purposes = {answer: question for question, answer in found["purpose"]}
    assert "“区分大小写”" in purposes["指定是否区分大写字母和小写字母。"]
    assert "自然排序" in found["definition"][0][0]
    assert found["title"][0][1] == "对列表排序"
    assert found["title"][0][0].endswith("它适用于文本、数字和日期。")


def test_a_term_with_its_definition_is_asked_about_and_a_mere_pointer_is_not():
    (definition,) = asked(GLOSSARY_EN, "en")["definition"]
    assert "“kernel”" in definition[0]
    assert "“Words of the Installer”" in definition[0]
    assert definition[1].startswith("The part of the system")


def test_a_heading_that_is_a_question_is_asked_as_it_stands_and_an_untranslated_one_not_at_all():
    found = asked(QUESTIONS_ZH, "zh-Hans")
    assert [q for q, _ in found["heading"]] == ["什么是软件包？"]


def test_question_and_answer_are_in_the_language_of_the_page():
    for text, lang in ((SORTING_EN, "en"), (GLOSSARY_EN, "en"), (SORTING_ZH, "zh-Hans"), (QUESTIONS_ZH, "zh-Hans")):
        for pairs in asked(text, lang).values():
            for question, answer in pairs:
                assert is_in(lang, question)
                assert is_in(lang, answer)


def test_every_phrasing_has_the_same_kinds_in_both_languages_and_names_its_subject():
    assert set(QUESTIONS["en"]) - {"how_doing"} == set(QUESTIONS["zh"])
    for kinds in QUESTIONS.values():
        for kind, choices in kinds.items():
            assert len(set(choices)) >= 2, kind
            assert all("{x}" in choice for choice in choices)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/help/en-US/text/a.html", "/help/zh-CN/text/a.html"),
        ("/doc/FAQ/basic.en.html", "/doc/FAQ/zh-cn/basic.zh-cn.html"),
        ("/doc/guide/html/b.en.html", "/doc/guide-zh-cn/html/b.zh-cn.html"),
        ("/doc/guide/en/c.html", "/doc/guide/zh_CN/c.html"),
        ("https://example.org/en/d", "https://example.org/zh-Hant/d"),
    ],
)
def test_addresses_of_translations_have_one_key(one, other):
    assert page_key(one) == page_key(other)


def test_words_that_only_look_like_a_language_part_stay_in_the_key():
    assert page_key("/doc/english/open.html") != page_key("/doc/glish/op.html")
    assert page_key("/doc/centre.html") != page_key("/doc/ctre.html")


def test_headings_and_single_sentences_at_the_same_place_are_translations():
    aligned = list(aligned_texts(parse_page(SORTING_EN), "en", parse_page(SORTING_ZH), "zh-Hans"))
    texts = {a.texts["en"]: (a.texts["zh-Hans"], a.part) for a in aligned}
    assert texts["Sorting a List"] == ("对列表排序", "title")
    assert texts["Case sensitive"] == ("区分大小写", "heading")
    assert texts["Choose Data - Sort Ascending."] == ("选择「数据 - 升序排序」。", "sentence")
    assert "See also the page on filters." not in texts


def test_when_the_outlines_disagree_only_the_titles_are_paired():
    shorter = SORTING_ZH.replace("## 语法", "")
    aligned = aligned_texts(parse_page(SORTING_EN), "en", parse_page(shorter), "zh-Hans")
    assert [a.part for a in aligned] == ["title"]


def test_translations_go_both_ways_and_name_both_documents():
    found, _ = compose_conversations(pair(), Limits(kinds=("translation",)), seed=1)
    answers = {c.answer: c for c in found}
    assert answers["区分大小写"].lang == "zh-Hans"
    assert answers["区分大小写"].documents == ("e", "z")
    assert answers["Case sensitive"].lang == "en"
    assert answers["Case sensitive"].documents == ("z", "e")


def test_held_out_documents_give_held_out_conversations_only():
    found, _ = compose_conversations(pair("heldout", "heldout"), Limits(), seed=1)
    assert {c.split for c in found} == {"heldout"}


def test_a_translation_is_held_out_when_its_answer_is_and_dropped_when_only_its_question_is():
    found, dropped = compose_conversations(pair("train", "heldout"), Limits(kinds=("translation",)), seed=1)
    assert {(c.split, c.lang, c.documents) for c in found} == {("heldout", "zh-Hans", ("e", "z"))}
    assert dropped["split_disagrees"] == len(found)


def test_subjects_with_different_answers_are_dropped_and_repeated_ones_are_asked_once():
    copies = [source("a", SORTING_EN, "en"), source("b", SORTING_EN, "en")]
    once, dropped = compose_conversations(copies, Limits(), seed=1)
    assert {c.documents for c in once} == {("a",)}
    assert dropped["repeated"] == len(once)
    changed = SORTING_EN.replace("upper and lower case letters are", "capital letters are")
    found, dropped = compose_conversations([copies[0], source("b", changed, "en")], Limits(), seed=1)
    assert dropped["ambiguous"] >= 1
    assert not [c for c in found if "letters" in c.answer]


def test_a_question_of_a_training_page_is_not_held_out():
    found, _ = compose_conversations(
        [source("a", SORTING_EN, "en", "heldout"), source("b", SORTING_EN, "en", "train")], Limits(), seed=1
    )
    assert {(c.split, c.documents) for c in found} == {("train", ("b",))}


def test_the_order_of_pages_changes_nothing_and_the_limit_takes_a_seeded_sample():
    pages = [*pair(), source("g", GLOSSARY_EN, "en"), source("q", QUESTIONS_ZH, "zh-Hans")]
    whole, _ = compose_conversations(pages, Limits(), seed=1)
    random.Random(3).shuffle(pages)
    assert compose_conversations(pages, Limits(), seed=1)[0] == whole
    few, dropped = compose_conversations(pages, Limits(max_per_kind=1), seed=1)
    assert all(c in whole for c in few)
    assert len(few) + dropped["over_limit"] == len(whole)


def test_conversations_are_read_back_as_written_and_their_ids_are_their_content(tmp_path):
    one = Conversation(lang="en", kind="heading", messages=ask("A?", "B."), documents=("d",), split="train")
    two = replace(one, messages=ask("A?", "C."))
    assert one.id != two.id
    write_conversations(tmp_path, [one, two])
    assert sorted(read_conversations(tmp_path, "train"), key=lambda c: c.answer) == [one, two]
    with pytest.raises(InputError, match="no heldout conversations"):
        read_conversations(tmp_path, "heldout")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="riddle"):
        Limits(kinds=("riddle",))
