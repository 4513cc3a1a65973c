"""Texts for property tests: random characters, and pieces that exercise every rule of the signals."""

from __future__ import annotations

from hypothesis import strategies as st

PIECES = (
    *("the", "The", "and", "be", "with", "that", "a", "I", "THE", "NASA", "don't", "don’t", "e-mail"),
    *("word", "word word", "bread more", "read more", "Read More »", "readmore", "查看更多", "展開", "更多>>"),
    *("lorem ipsum", "Lorem Ipsum", "xlorem ipsum", "lorem  ipsum", "m i", "loremipsum"),
    *("javascript", "JavaScript", "xjavascript", "éjavascript", "javascript:x", "a-javascript"),
    *("use of cookies", "Use, Cookies", "uses", "terms of use", "privacy\npolicy", "of use", "Cookie Policy", "use"),
    *("a。b。a。b", "Go on. Go on! go"),
    *("x" * 29, "x" * 15 + " " + "x" * 14, "a b " * 8),
    *(".", "..", "...", "....", "…", "……", "。", "。。。", "！", "!", "?!", '."', ".)", "。」", "｡", ".中", "3.14"),
    *(" ", "  ", "\n", "\r\n", "\n\n", "\t", "\u3000", "\u00a0", "\u2028", "\x0b", "\x1c", "\x85", "\u200b", "\ufeff"),
    *("•", "• ", "- ", "-", "* ", "*", "+", "\n- ", "\n-x", "–", "※", "·"),
    *("#", "##", "# ", "{", "}", "{}", "【", "】", "【字 a】", "【【x】】", "|", "->", "(", ")", "，", "“", "”"),
    *("中", "文字", "字字字", "𠮷", "\U0003fff0", "ひ", "カー", "한국", "〇", "⼀", "ﾊ", "㍿"),
    *("é", "e\u0301", "\u0301", "字\u0301", "字\ufe00", "❤️", "👩‍👩‍👧", "1\ufe0f\u20e3", "🇨🇳", "Ａ"),
    *("１２", "²", "Ⅳ", "ǅ", "ß"),
    *("v1.2", "node.js", "12", "1,2", "1 2 3", "x1", "1x", "\x00", "\x7f", "\u00ad", "ا", "ก", "क्ष"),
)  # fmt: skip

texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    st.lists(st.sampled_from(("a", "bb", "字", "c d", "\n", " ")), max_size=80).map(" ".join),
)
batches = st.lists(texts, max_size=4)
