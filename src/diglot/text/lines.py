"""Lines and sentences: cheap cuts that need no model and are the same in every language we read.

Kernels do the same over bytes; these are the definitions.
"""

from __future__ import annotations

from collections.abc import Iterator

from diglot.text.units import CJK, FIRST_CORE, SPACE, class_of, units

ASCII_STOPS = ".!?"
WIDE_STOPS = "。！？｡．"  # no white space follows these; the last ends sentences in Chinese texts full of formulas
STOPS = ASCII_STOPS + WIDE_STOPS + "…"
CLOSERS = "\"'’”»)]}」』】）》〉"  # may stand between a stop and the end of its sentence

BULLETS = tuple("•‣▶◀◦●○■□▪▫※·➢–")  # as in MAP-Neo's code
READ_MORE = tuple(
    phrase.encode()
    for phrase in (
        "read more",
        "readmore",
        "continue reading",
        "更多",
        "展开",
        "展開",
        "阅读全文",
        "閱讀全文",
        "查看全文",
    )
)
SHORT_LINE_CHARS = 30  # FineWeb's short line (arXiv 2406.17557, section 3.5)
JAVASCRIPT = "javascript"
POLICY_PHRASES = (  # C4's signs of a page's small print, as units
    ("terms", "of", "use"),
    ("privacy", "policy"),
    ("cookie", "policy"),
    ("uses", "cookies"),
    ("use", "of", "cookies"),
    ("use", "cookies"),
)


def lines(text: str) -> list[str]:
    """Lines that are not blank, without the white space at their ends. Only line feeds end a line (CR LF counts)."""
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def num_sentences(text: str) -> int:
    """How many sentences: a unit, then anything up to a stop that ends it; the rest counts when it has a unit.

    A wide stop always ends a sentence. `.`, `!`, `?` and the ellipsis do when, after further stops and closing marks,
    white space, a CJK character or the end of the text follows; so `v1.2` and `node.js` do not. Abbreviations do:
    nothing here knows a language.
    """
    return sum(1 for _ in sentence_ends(text))


def sentence_ends(text: str) -> Iterator[int]:
    """Where the sentences that `num_sentences` counts end: the place of the first character that is no part of them."""
    has_unit, pending, strong = False, False, False
    for position, character in enumerate(text):
        kind = class_of(character)
        if pending and character not in STOPS and character not in CLOSERS:
            if has_unit and (strong or kind in (SPACE, CJK)):
                yield position
                has_unit = False
            pending = strong = False
        if character in STOPS:
            pending, strong = True, strong or character in WIDE_STOPS
        has_unit |= kind >= FIRST_CORE or kind == CJK
    if has_unit:
        yield len(text)


def sentence_units(text: str) -> list[tuple[str, ...]]:
    """The units of each sentence; a unit belongs to the sentence that it starts in, one without units is left out."""
    ends = [*sentence_ends(text), len(text)]
    found: list[list[str]] = [[] for _ in ends]
    position = sentence = 0
    for unit in units(text):
        position = text.index(unit, position)  # only characters that start no unit lie in between
        while position >= ends[sentence] and sentence + 1 < len(ends):
            sentence += 1
        found[sentence].append(unit)
        position += len(unit)
    return [tuple(sentence) for sentence in found if sentence]


def ends_with_ellipsis(line: str) -> bool:
    """The ellipsis character, or three or more dots or ideographic stops."""
    return line.endswith(("…", "...", "。。。"))


def ends_with_stop(line: str) -> bool:
    """A stop, perhaps with closing marks behind it. A colon is none: it announces a list or a table."""
    return next((c for c in reversed(line) if c not in CLOSERS and not c.isspace()), " ") in STOPS


def starts_with_bullet(line: str) -> bool:
    """A bullet character, or `-`, `*` or `+` before white space: `-x` is an option and `*x*` an emphasis."""
    return line[:1] in BULLETS or (line[:1] in ("-", "*", "+") and (len(line) == 1 or line[1].isspace()))


def ends_with_read_more(line: str) -> bool:
    """A teaser's link, whatever marks follow it (`Read more...`, `查看更多 >>`)."""
    end = max((i + 1 for i, c in enumerate(line) if (kind := class_of(c)) >= FIRST_CORE or kind == CJK), default=0)
    content = line[:end].encode().lower()  # bytes: only ASCII letters have another case here
    return any(content.endswith(phrase) and not content[: -len(phrase)][-1:].isalnum() for phrase in READ_MORE)


def names_javascript(line: str) -> bool:
    """One of its units is `javascript`, in any ASCII case."""
    return any(unit.isascii() and unit.lower() == JAVASCRIPT for unit in units(line))


def names_policy(line: str) -> bool:
    """It holds one of the POLICY_PHRASES as consecutive units, in any ASCII case."""
    found = [unit.lower() if unit.isascii() else unit for unit in units(line)]
    return any(tuple(found[i : i + len(phrase)]) == phrase for phrase in POLICY_PHRASES for i in range(len(found)))
