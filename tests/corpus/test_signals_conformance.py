"""Every signal has a worked example, answers on an empty text and stays in its range. A new one needs a line here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from diglot.core.errors import ConfigError
from diglot.corpus.policy import Rule
from diglot.corpus.signals import BROUGHT, FAMILIES, RPS_NAMES, SIGNALS, definition, family

SHARES = [name for name in SIGNALS if name.endswith("_share")]

# signal -> texts with the value worked by hand
EXAMPLES = {
    "num_chars": [("a b\n字 。", 4)],
    "num_units": [("One, two 三四 -- 5.", 5)],
    "num_lines": [("a\n\n b\r\n \n", 2)],
    "num_sentences": [("One. Two? 三。rest", 4)],
    "mean_unit_chars": [("ab abcd 字", 7 / 3)],
    "letterless_share": [("one 2 | three", 2 / 4), ("一二三", 0)],
    "mixed_unit_share": [("well-known don't a_b v2 7 字", 3 / 6)],
    "number_unit_share": [("1 2.5 three 4th", 2 / 4)],
    "all_caps_share": [("I AM NOT here X1", 2 / 5)],
    "stop_words_en": [("The cat and THE dog, to be", 4), ("thee there band", 0)],
    "cjk_share": [("abc 你好", 2 / 3)],
    "hash_ratio": [("# one ##two #", 1 / 2)],
    "ellipsis_ratio": [("a... b…… c.. 。。。", 3 / 3)],
    "curly_share": [("{a} b", 2 / 4)],
    "bracket_share": [("【热卖】好货【x y】", 4 / 10)],
    "digit_share": [("ab 12 字。", 2 / 5)],
    "num_punctuation": [("a, b。“c”", 4)],
    "lorem_ipsum": [("Lorem ipsum dolor. LOREM IPSUM", 2)],
    "ellipsis_line_share": [("a...\nb\n\nc…\nd..", 2 / 4)],
    "bullet_line_share": [("• a\n  - b\n-c\n* d", 3 / 4)],
    "read_more_share": [("News\nRead more...\n查看更多 >>\nend", 2 / 4)],
    "stop_line_share": [("Done.\nHead\n“完。”\nNote:", 2 / 4)],
    "stop_word_share": [("The cat and THE dog", 3 / 5), ("thee there", 0)],
    "symbol_ratio": [("#one two... three… # four", 3 / 4)],
    "alphanumeric_share": [("ab 1! 字", 4 / 7)],
    "alphabetic_share": [("ab 1! 字", 3 / 7)],
    "max_unit_chars": [("(a) word-word 字字", 9), ("...", 0)],
    "lines_per_unit": [("a b\n\nc\n", 2 / 3)],
    "short_line_share": [("a" * 29 + "  \n" + "a" * 30 + "\n\n  b c", 2 / 3)],
    "mean_line_chars": [("  a b \n\ncc\n", 5 / 2)],
    "max_line_chars": [("  a  b \n\ncc\n", 4)],
    "javascript_line_share": [("Turn on JavaScript.\njavascripts\ntext/javascript\nNo (javascript)", 2 / 4)],
    "policy_line_share": [
        ("Our Privacy Policy\nTerms of, Use!\nWe use\ncookies\nreuse of cookies\nuses cookies use", 3 / 6)
    ],
    "unique_unit_share": [("a b a a", 2 / 4)],
    "unit_entropy": [("a b a b", math.log(2)), ("a a", 0)],
    "duplicate_line_share": [("a\nb\na\na", 2 / 4)],
    "duplicate_line_char_share": [("aa\nbbbb\naa", 2 / 8)],
    "top_2gram_share": [
        ("a b c a b d", 4 / 6),
        ("a a a a", 1),
        ("a b c", 0),
        ("x y x y long1 long2 long1 long2", 20 / 24),
    ],
    "top_3gram_share": [("a b c x a b c y", 6 / 8)],
    "top_4gram_share": [("春眠不觉晓春眠不觉", 8 / 9)],
    "duplicate_5gram_share": [("a b c d e x a b c d e y", 10 / 12), ("a b c d e a b c d", 0)],
    "duplicate_6gram_share": [("a b c d e f x a b c d e f y", 12 / 14)],
    "duplicate_7gram_share": [("a b c d e f g x a b c d e f g y", 14 / 16)],
    "duplicate_8gram_share": [("a b c d e f g h x a b c d e f g h y", 16 / 18)],
    "duplicate_9gram_share": [("a b c d e f g h i x a b c d e f g h i y", 18 / 20)],
    "duplicate_10gram_share": [("a b c d e f g h i j x a b c d e f g h i j y", 20 / 22)],
    "duplicate_sentence_share": [("Go on! Stop. Go on. 走吧。走吧！", 2 / 5), ("Go. go.", 0), ("v1.2 v1.2", 0)],
    "duplicate_sentence_char_share": [("Go on! Stop. Go on. 走吧。走吧！", 6 / 16)],
    "released_mean_word_chars": [("Don't go, ab.", 11 / 6)],
    "released_ellipses_per_char": [("a.. b… c...", 3 / 11)],
    "released_bullet_lines": [("• a\n • b\n- c\n", 1 / 4)],
    "released_letterless_per_char": [("a 1 | b", 2 / 7)],
    "released_symbols_per_word": [("#one two... three…", 3 / 6)],
    "released_num_words": [("It's e-mail: v1.2, can't!", 9)],
    "released_lang_score": [("12345", 0)],
    "released_num_chars": [("a b\n字\t\u3000", 4)],
    "released_num_lines": [("a\n\nb\n", 4)],
    "released_curly_per_char": [("{a} b", 2 / 5)],
    "released_lorem_ipsum_per_char": [("Lorem ipsum dolor.", 1 / 18)],
    "released_greedy_sentences": [("v1.2.3 is out! Go", 4)],
    "released_all_caps": [("I AM not USA.", 2 / 4)],
    "released_unique_words": [("a b a a.", 3 / 4)],
    "released_num_sentences": [("One is v1.2. Two? and three. Four", 3)],
    "released_read_more": [("News today. Read more\n! See", 0), ("News. Go and read more", 1 / 2)],
    "released_hashes_per_char": [("#one ##two", 2 / 10)],
    "released_ascii_punctuation": [("a, b。“c”！", 2)],
    "released_nonalphabetic_per_char": [("ab 1, v2.", 4 / 7)],
    "released_digit_words_per_char": [("1 2 ab!", 2 / 6)],
    "released_word_entropy": [("a b a b", math.log(2))],
    "released_top_2gram": [("abcabd", 2 / 6)],
    "released_top_3gram": [("abcabc", 3 / 6)],
    "released_top_4gram": [("abcdabcd", 4 / 8)],
    "released_duplicate_5gram": [("abcdeabcde", 5 / 10)],
    "released_duplicate_6gram": [("abcdefabcdef", 6 / 12)],
    "released_duplicate_7gram": [("aaaaaaaa", 1 / 8)],
    "released_duplicate_8gram": [("aaaaaaaab", 0)],
    "released_duplicate_9gram": [("aaaaaaaaaa", 1 / 10)],
    "released_duplicate_10gram": [("aaaaaaaaaaa", 1 / 11)],
    "released_zh_brackets": [("【热卖】好货", 4 / 6)],
    "released_zh_num_sentences": [("一。二，3.5", 3), ("……。", 0)],
    "released_zh_num_chars": [("一 二\n", 4)],
    "released_zh_digits": [("一１2。", 2 / 3)],
    "released_zh_read_more": [("新闻 更多\n点击展开\n更多。\n。。。", 2 / 4)],
    "released_zh_punctuation": [("一，二、《三》……。", 4)],
    "released_zh_unique_chars": [("一二一一", 2 / 4)],
    "released_zh_char_entropy": [("一二一二", math.log(2))],
    "lang_score": [("12345", 0)],
}


def test_every_signal_has_an_example_and_every_example_a_signal():
    assert set(EXAMPLES) == set(SIGNALS)


@pytest.mark.parametrize(("name", "text", "value"), [(n, t, v) for n, cases in EXAMPLES.items() for t, v in cases])
def test_the_value_worked_by_hand(name, text, value):
    assert definition(name)(text) == pytest.approx(value)


@pytest.mark.parametrize("name", SIGNALS)
def test_an_empty_and_a_blank_text_have_the_value_zero(name):
    assert definition(name)("") == 0
    if name not in FAMILIES["as_released"]:  # there white space counts as text
        assert definition(name)(" \r\n\t\u3000") == 0


@pytest.mark.parametrize("name", SHARES)
def test_a_share_lies_between_zero_and_one(name):
    for text in ("a", "字", "...", "#{}【】", "- read more...", "a a a a a a a a a a a a", "1\n1\n1", "THE THE"):
        assert 0 <= definition(name)(text) <= 1


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_says_what_it_measures_and_where_it_comes_from(name):
    function = definition(name)
    text = getattr(function, "func", function).__doc__
    assert text.strip()
    assert any(word in text for word in ("Source:", "No rule of ours uses it"))


def test_names_of_redpajama_lead_to_signals_of_ours():
    for name, ours in RPS_NAMES.items():
        assert ours in SIGNALS or ours.partition(".")[0] in BROUGHT
        assert name not in SIGNALS
    rule = Rule(signal="rps_doc_word_count", when={"ccnet_length": (5, None)}, drop_below=50, why="x", source="y")
    assert (rule.name, rule.signal, list(rule.when)) == ("num_units", "num_units", ["num_chars"])


def test_families_do_not_share_a_signal_and_an_unknown_one_gets_a_suggestion():
    assert sum(map(len, FAMILIES.values())) == len(SIGNALS)
    assert family("unit_entropy") == "repetition"
    with pytest.raises(ConfigError, match="did you mean 'num_units'"):
        definition("num_unit")


def test_a_paragraph_given_ten_times_is_found_by_every_ngram_signal():
    paragraph = Path(__file__).read_text()[:300].replace("\n", " ")
    for n in range(5, 11):
        assert definition(f"duplicate_{n}gram_share")("\n".join([paragraph] * 10)) > 0.99
