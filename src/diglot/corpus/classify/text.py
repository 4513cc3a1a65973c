"""What a classifier reads of a text: one line of tokens separated by spaces.

In `characters` every CJK character, punctuation mark and symbol is a token, so that word 3-grams are character 3-grams
in Chinese and formulas are seen (`\\ frac { 1 }`); words are lower-cased. The released MAP-Neo pipeline leaves Chinese
unsegmented: a line is then one word, and no two documents share any.

A run of white space with a line feed in it becomes the token `\\n` (a backslash and an n), as in MAP-Neo. Controls,
format and private characters separate like white space. No token can be mistaken for fastText's `__label__`.

`training_text` is the definition; `diglot.kernels.classifier_text` does the same over UTF-8 bytes and is held equal.
"""

from __future__ import annotations

from typing import Any

from diglot.corpus.classify.settings import TextSettings
from diglot.text.units import FIRST_CORE, MARK, OTHER, SPACE, class_of

LINE_BREAK = "\\n"


def training_text(text: str, settings: TextSettings) -> str:
    """The line, without line feed; empty for a text without tokens."""
    split = settings.units == "characters"
    tokens: list[str] = []
    word, broke = "", False
    for character in text[: settings.max_chars]:
        kind = class_of(character)
        separates = kind in (OTHER, SPACE)
        alone = split and not separates and kind < FIRST_CORE and kind != MARK
        if separates or alone:
            if word:
                tokens.append(word)
            word = ""
            broke |= character == "\n"
        if separates or (not split and character == "_" and not word):
            continue
        if broke and not word:
            if tokens:
                tokens.append(LINE_BREAK)
            broke = False
        if alone:
            tokens.append(character)
        else:
            word += lowered(character) if split else character
    return " ".join([*tokens, word] if word else tokens)


def lowered(character: str) -> str:
    """Lower case where that is one character too: without context, so that a text can be cut anywhere."""
    low = character.lower()
    return low if len(low) == 1 else character


def training_lines(texts: Any, settings: TextSettings) -> list[str]:
    """`training_text` with a line feed behind it, for each of a pyarrow large_string array."""
    import pyarrow as pa

    from diglot.kernels.classifier_text import classifier_text, lower_table
    from diglot.kernels.jit import classes, text_buffers

    offsets, utf8 = text_buffers(texts)
    split = settings.units == "characters"
    starts, written = classifier_text(offsets, utf8, classes(), lower_table(), settings.max_chars, split)
    lines = pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(starts), pa.py_buffer(written))
    found: list[str] = lines.to_pylist()
    return found
