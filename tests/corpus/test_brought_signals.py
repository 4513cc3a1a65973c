"""Signals that a recipe brings: word lists, block-lists of addresses, metadata; from the file to the verdict."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.core.errors import ConfigError, InputError
from diglot.corpus.policy import Rule
from diglot.corpus.signals.brought import Brought, meta_number, named_lists
from diglot.corpus.signals.url_lists import listed, load_url_list
from diglot.corpus.signals.word_lists import load_word_list, occurrences, parse_word_list
from diglot.kernels import word_lists as kernel
from diglot.kernels.jit import classes, text_buffers
from diglot.steps.annotate import AnnotateConfig, observe

WORDS = parse_word_list(
    "bad",
    "\ufeff# a comment\n\nShell\ntwo words\n毒品\n卡拉OK\nG 点\na$$\n🖕\nÉtat\nx y z\n# another\nx y\n",
)


def counted(texts, words):
    array = pa.array(texts, pa.large_string())
    tables = kernel.word_tables(words.loose, words.tight)
    return kernel.occurrences(*text_buffers(array), classes(), tables).tolist()


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("", 0),
        ("A shell, the SHELL; shells, seashell, she-ll, shell-script.", 2),
        ("Two  words. two, WORDS! two\nwords; two other words", 3),
        ("买毒品。毒，品 毒 品 毒品毒品", 3),
        ("卡拉OK 卡拉ok！ 卡拉OKs 卡拉 OK 我卡拉OK好", 3),
        ("G点，G 点 g，点", 3),
        ("a a$$ 🖕", 0),
        ("état ÉTAT etat", 2),
        ("x y z x y", 3),
    ],
)
def test_the_number_of_occurrences_worked_by_hand(text, times):
    assert occurrences(text, WORDS) == times
    assert counted([text], WORDS) == [times]


def test_entries_that_are_more_than_their_units_are_told_and_not_matched():
    assert WORDS.unusable == ("a$$", "🖕")
    assert len(WORDS) == 8


PIECES = ("x", "y", "z", "shell", "Shell", "two", "words", "毒", "品", "卡拉", "OK", "état", "É", "tat", "İ", "s")
pieces = st.sampled_from((*PIECES, " ", "\n", "，", ".", "-", "'", "\u0301"))
entries = st.lists(st.lists(pieces, min_size=1, max_size=4).map("".join), min_size=1, max_size=6)


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(st.lists(pieces, max_size=30).map("".join), max_size=3), lines=entries)
def test_the_kernel_equals_the_definition_for_any_list(texts, lines):
    words = parse_word_list("any", "\n".join(lines))
    if len(words):
        assert counted(texts, words) == [occurrences(text, words) for text in texts]


def test_the_fold_covers_every_character_with_a_lower_case():
    folds = kernel.folds()
    for code in range(sys.maxunicode + 1):
        lower = chr(code).lower()
        assert folds[code] == (ord(lower) if len(lower) == 1 else code)


@pytest.fixture
def category(tmp_path):
    folder = tmp_path / "adult"
    folder.mkdir()
    (folder / "domains").write_text("# hosts\nbad.example\n10.0.0.1\nco.uk.example\n", encoding="utf-8")
    (folder / "urls").write_text("site.example/~bad\nshop.example/a/b/\nshop.example/q?id=3\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("http://bad.example/", 1),
        ("https://user:pw@WWW.Bad.Example.:8080/x?y#z", 1),
        ("//bad.example", 1),
        ("bad.example/page", 1),
        ("http://notbad.example/", 0),
        ("http://bad.example.org/", 0),
        ("http://example/", 0),
        ("http://10.0.0.1/x", 1),
        ("http://site.example/~bad", 1),
        ("http://www.site.example/~bad/x.html", 1),
        ("http://site.example/~bad?page=2", 1),
        ("http://site.example/~badminton", 0),
        ("http://other.site.example/~bad", 0),
        ("http://site.example/", 0),
        ("https://shop.example/a/b/c", 1),
        ("https://shop.example/a/bc", 0),
        ("https://shop.example/q?id=3", 1),
        ("https://shop.example/q?id=4", 0),
        ("http://x.example/?to=http://bad.example/", 0),
        ("bad.example?to=http://x.example/", 1),
    ],
)
def test_an_address_is_listed_by_domain_or_by_whole_path_segments(category, url, value):
    assert listed(url, load_url_list("adult", category)) == value


def test_a_single_file_may_hold_hosts_and_addresses(tmp_path):
    (tmp_path / "mine.txt").write_text("bad.example\nsite.example/~bad\n", encoding="utf-8")
    mine = load_url_list("mine", tmp_path / "mine.txt")
    assert [listed(url, mine) for url in ("http://a.bad.example", "http://site.example/", "site.example/~bad")] == [
        1,
        0,
        1,
    ]


def test_a_document_without_address_or_number_is_not_a_number_and_no_rule_objects(category):
    assert math.isnan(listed(None, load_url_list("adult", category)))
    assert meta_number('{"perplexity": 3, "title": "x", "ok": true}', "perplexity") == 3
    digits = "9" * 400  # JSON has numbers that no float holds
    for meta in (None, "{}", '{"perplexity": "high"}', '{"perplexity": null}', "[1]", f'{{"perplexity": {digits}}}'):
        assert math.isnan(meta_number(meta, "perplexity"))
    rule = Rule(signal="meta.perplexity", drop_below=1, drop_above=2, why="x", source="y")
    values = np.array([np.nan, 0, 1, 2, 3], np.float32)
    assert rule.objects({"meta.perplexity": values}).tolist() == [False, True, False, False, True]


def test_columns_of_a_batch_bear_the_names_that_policies_use(category, tmp_path):
    (tmp_path / "strict.txt").write_text("shell\n毒品\n", encoding="utf-8")
    brought = Brought(
        word_lists=named_lists({"strict": "strict.txt"}, tmp_path, "word_lists"),
        url_lists=named_lists({"adult": "adult"}, tmp_path, "url_lists"),
        meta_fields=("score",),
    )
    rows = {
        "text": pa.array(["a shell", "毒品 shell"], pa.large_string()),
        "url": pa.array([None, "http://bad.example"]),
        "meta": pa.array([json.dumps({"score": 0.5}), "{}"]),
    }
    assert brought.families() == ("words", "url", "meta")
    found = {
        name: column.to_pylist()
        for family in brought.families()
        for name, column in brought.columns(family, pa.table(rows)).items()
    }
    assert found["words.strict"] == [1, 2]
    assert found["url.adult"][1] == 1
    assert found["meta.score"][0] == 0.5
    assert math.isnan(found["url.adult"][0])
    assert math.isnan(found["meta.score"][1])
    assert brought.entries()["words.strict"] == {"entries": 2, "unusable": []}
    with pytest.raises(InputError, match="not JSON"):
        brought.columns("meta", pa.table({**rows, "meta": pa.array(["{", "{}"])}))


def test_the_content_of_a_list_counts_for_the_fingerprint_and_not_its_place(tmp_path):
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("shell\n", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.txt").write_text("shell\n", encoding="utf-8")

    def seen(path):
        return observe(AnnotateConfig(from_="pages", word_lists={"strict": path}), tmp_path, tmp_path)

    before = seen("one.txt")
    assert before == seen("sub/one.txt") == seen("two.txt")
    (tmp_path / "one.txt").write_text("shell\nother\n", encoding="utf-8")
    assert before != seen("one.txt")
    assert len(load_word_list("strict", *_place_and_digest(tmp_path))) == 2  # the edited one, not one kept from before


def _place_and_digest(folder: Path):
    (named,) = named_lists({"strict": "one.txt"}, folder, "word_lists")
    return named.path, named.digest


@pytest.mark.parametrize(
    ("files", "setting", "message"),
    [
        ({}, {"word_lists": {"strict": "no.txt"}}, "does not exist.*ships no list"),
        ({"no.txt": b"a$$\n# x\n"}, {"word_lists": {"strict": "no.txt"}}, "no entry that can match"),
        ({"no.txt": b"\xff\xfe"}, {"word_lists": {"strict": "no.txt"}}, "not UTF-8"),
        ({}, {"url_lists": {"adult": "no"}}, "neither a file nor a folder"),
        ({}, {"url_lists": {"adult": "."}}, "folder with domains or urls"),
        ({}, {"url_lists": {"a/b": "no"}}, "name 'a/b'"),
        ({}, {"meta_fields": ("a b",)}, "name 'a b'"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_the_remedy(tmp_path, files, setting, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ConfigError, InputError), match=message):
        observe(AnnotateConfig(from_="pages", **setting), tmp_path, tmp_path)


def test_an_address_list_without_entries_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no entries"):
        load_url_list("adult", tmp_path / "empty.txt")


def test_settings_are_frozen_and_comparable():
    config = AnnotateConfig(from_="pages", meta_fields=("a",))
    assert dataclasses.replace(config, meta_fields=()) == AnnotateConfig(from_="pages")
