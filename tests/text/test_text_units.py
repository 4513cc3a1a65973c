"""The text unit: one definition for words and ideographs, and the class table that kernels read."""

from __future__ import annotations

import pytest

from diglot.text.units import CJK, LETTER, WIDE, class_of, class_table, mix, segments, unit_hash, units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"Don\'t", she said: 你好，世界 (v1.2)', ["Don't", "she", "said", "你", "好", "世", "界", "v1.2"]),
        ("", []),
        (" \r\n\t\u3000\u00a0", []),
        ("-- | *** ❤️ 👩‍👩‍👧", []),
        ("e\u0301te\u0301 na\u00efve", ["e\u0301te\u0301", "na\u00efve"]),
        ("Writer，Calc。Impress", ["Writer", "Calc", "Impress"]),  # wide punctuation cuts without a space
        ("e.g. 3.14% 2024-01-02", ["e.g", "3.14", "2024-01-02"]),
        ("ひらがなカタ", list("ひらがなカタ")),
        ("한국어 문장", ["한국어", "문장"]),  # Korean puts spaces between words
        ("𠮷野家 \U0003fff0", ["𠮷", "野", "家", "\U0003fff0"]),  # extension planes, assigned or not yet
        ("中文abc中文", ["中", "文", "abc", "中", "文"]),
        ("Ｆｕｌｌ１２", ["Ｆｕｌｌ１２"]),
    ],
)
def test_units_of(text, expected):
    assert units(text) == expected


def test_segments_tell_words_numbers_ideographs_and_bare_symbols_apart():
    assert [(s.text, s.kind) for s in segments("a1 | 42, 字 ->")] == [
        ("a1", "word"),
        ("|", "symbols"),
        ("42", "number"),
        ("字", "cjk"),
        ("->", "symbols"),
    ]


def test_punctuation_beside_an_ideograph_is_no_segment_of_its_own():
    assert [s.text for s in segments("你好，世界。")] == list("你好世界")


def test_a_variation_selector_after_an_emoji_makes_no_word():
    assert [s.kind for s in segments("⚠️ ok")] == ["symbols", "word"]


def test_the_table_equals_the_definition():
    table = class_table()
    assert table.shape == (0x110000,)
    assigned = [*range(0x20000), *range(0xE0000, 0xE0300)]
    sampled = range(0x20000, 0x110000, 61)  # ideographs, private use, unassigned planes
    assert all(table[code] == class_of(chr(code)) for code in (*assigned, *sampled))


def test_classes_of_some_characters():
    assert [class_of(c) for c in "字ぁー。，"] == [CJK, CJK, CJK, WIDE, WIDE]
    assert class_of("한") == LETTER


def test_unit_hashes_are_fixed_and_mix_is_a_bijection_on_what_we_can_try():
    # FNV-1a of "a" over code points, worked by hand from its two constants, then MurmurHash3's finaliser
    state = ((0xCBF29CE484222325 ^ 0x61) * 0x100000001B3) % 2**64
    assert unit_hash("a") == mix(state)
    assert mix(0) == 0
    assert len({mix(n) for n in range(10_000)}) == 10_000
