"""MediaWiki markup to readable text: headings, lists, paragraphs and formulas; templates and tables are counted.

Templates need the wiki that defines them, so their text is not known here. Chinese conversion marks give one variant:
`-{zh-hans:计算机;zh-hant:電腦}-` is 计算机. One pass over the brackets; linear, no recursion.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

BRACKETS = re.compile(r"\{\{|\}\}|\{\||\|\}|\[\[|\]\]")
OPENING = {"{{": "}}", "{|": "|}", "[[": "]]"}
LEFT_OUT = {"{{": "templates", "{|": "tables"}
COMMENT = re.compile(r"<!--.*?-->", re.S)
DROPPED_ELEMENT = re.compile(
    r"<(ref|gallery|timeline|imagemap|score|templatestyles|mapframe|graph|indicator|noinclude)\b"
    r"(?:[^<>]*/>|[^<>]*>.*?</\1\s*>)",
    re.S | re.I,
)
KEPT_ELEMENT = re.compile(r"<(math|nowiki|pre|syntaxhighlight|source|code)\b[^<>]*>(.*?)</\1\s*>", re.S | re.I)
BREAK = re.compile(r"<(?:br|hr|p|/p|/div|/li|/tr)\b[^<>]{0,200}>", re.I)
TAG = re.compile(r"</?[A-Za-z][^<>]{0,1000}>")
MAGIC_WORD = re.compile(r"__[A-Z]{3,30}__")
EXTERNAL = re.compile(
    # possessive, because an address that no bracket closes would be tried at each of its characters
    r"\[(?:https?:|ftp:|mailto:)?//[^\s\[\]]*+[ \t]*+([^\[\]\n]*+)\]|\[mailto:[^\s\[\]]++[ \t]*+([^\[\]\n]*+)\]"
)
CONVERSION = re.compile(r"-\{([^{}]{0,500})\}-")
VARIANT = re.compile(r"\s*(zh(?:-[a-z]+)?|sr(?:-[a-z]+)?)\s*:\s*(.*)", re.S | re.I)
HEADING = re.compile(r"^(={1,6})\s*(.+?)\s*\1\s*$")
LIST_ITEM = re.compile(r"^([*#:;]+)\s*(.*)$")
QUOTES = re.compile(r"'{2,5}")
EMPTY_PARENTHESES = re.compile(r"[ \t]?(?:\([\s,;:，；、：]*\)|（[\s,;:，；、：]*）)")  # what a dropped template leaves
FILES = re.compile(r"\s*:?(?:file|image|media|datei|fichier|文件|檔案|档案|图像|圖像|媒体文件)\s*:", re.I)
CATEGORIES = re.compile(r"\s*(?:category|kategorie|catégorie|分类|分類)\s*:\s*([^|\]]+)", re.I)
INTERLANGUAGE = re.compile(r"\s*[a-z]{2,3}(?:-[a-z]{2,8})?:[^|\]]*$")
MAX_UNCLOSED = 2000  # starts of elements without an end in one page
KEEP_SPACE, KEEP_LINE = "\x01", "\x02"


@dataclass(frozen=True)
class WikiText:
    """left_out: templates, tables, files and references that were left out."""

    text: str
    left_out: dict[str, int]
    categories: tuple[str, ...]


def wiki_text(source: str) -> WikiText:
    """The readable text of wikitext.

    >>> wiki_text("== One ==\\nA '''[[page|link]]''' {{cite|x}}.").text
    '## One\\n\\nA link.'
    """
    left_out: Counter[str] = Counter()
    categories: list[str] = []
    text = source.replace("\r", "").replace("\x00", "").replace(KEEP_SPACE, "").replace(KEEP_LINE, "")
    text = _without(COMMENT, text, "-->")
    text, kept = _set_aside(text)
    text, number = _without_elements(text)
    left_out["references"] += number
    text = CONVERSION.sub(_variant, text)
    text = _without_brackets(text, left_out, categories)
    text = EXTERNAL.sub(lambda match: match[1] or match[2] or "", text)
    text = MAGIC_WORD.sub("", QUOTES.sub("", TAG.sub("", BREAK.sub("\n", text))))
    text = EMPTY_PARENTHESES.sub("", html.unescape(text))
    text = re.sub(r"\x00(\d+)\x00", lambda match: kept[int(match[1])], text)
    found = {kind: count for kind, count in sorted(left_out.items()) if count}
    return WikiText(_lines(text), found, tuple(dict.fromkeys(categories)))


def _without(pattern: re.Pattern[str], text: str, end: str) -> str:
    """Without matches up to the last `end`: behind it none can be, and looking for one again would be quadratic."""
    last = text.rfind(end)
    return text if last < 0 else pattern.sub("", text[: last + len(end)]) + text[last + len(end) :]


def _set_aside(text: str) -> tuple[str, list[str]]:
    """Formulas and code, replaced by numbers until the markup around them is read."""
    kept: list[str] = []

    def store(match: re.Match[str]) -> str:
        kind, content = match[1].lower(), match[2]
        if kind == "math":
            content = f"${' '.join(content.split())}$"
        elif kind in ("pre", "syntaxhighlight", "source") and "\n" in content:
            lines = content.strip("\n").split("\n")
            content = "\n" + KEEP_LINE.join(KEEP_SPACE * 4 + line.replace(" ", KEEP_SPACE) for line in lines) + "\n"
        kept.append(html.unescape(content).replace("\x00", ""))
        return f"\x00{len(kept) - 1}\x00"

    return _paired(KEPT_ELEMENT, text, store), kept


def _without_elements(text: str) -> tuple[str, int]:
    counted = [0]

    def drop(match: re.Match[str]) -> str:
        counted[0] += 1
        return ""

    return _paired(DROPPED_ELEMENT, text, drop), counted[0]


def _paired(pattern: re.Pattern[str], text: str, replace: Callable[[re.Match[str]], str]) -> str:
    """`pattern.sub` for elements with an end tag, left alone where there are many more starts than ends.

    A start without its end makes the pattern look through the whole rest; a page of those would take hours.
    """
    names = pattern.pattern[pattern.pattern.index("(") + 1 : pattern.pattern.index(")")]
    starts = len(re.findall(rf"<(?:{names})\b", text, re.I))
    if starts - len(re.findall(rf"</(?:{names})\b", text, re.I)) > MAX_UNCLOSED:
        return text
    return pattern.sub(replace, text)


def _variant(match: re.Match[str]) -> str:
    """What a conversion mark shows to a reader of simplified Chinese (or the first variant there is)."""
    content = match[1]
    flag, bar, rest = content.partition("|")
    if bar and flag.strip().upper() in ("H", "T", "-", "D", "N", "A", "R"):
        if flag.strip().upper() not in ("A", "R", "D"):
            return ""
        content = rest
    variants = [VARIANT.match(part) for part in content.split(";") if part.strip()]
    named = {variant[1].lower(): variant[2].strip() for variant in variants if variant}
    if not named:
        return content
    return next((named[name] for name in ("zh-hans", "zh-cn") if name in named), next(iter(named.values())))


def _without_brackets(text: str, left_out: Counter[str], categories: list[str]) -> str:
    """Templates and tables go, links become their text. A stack of what is open, each with its text so far."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    position = 0
    for match in BRACKETS.finditer(text):
        mark = match[0]
        stack[-1][1].append(text[position : match.start()])
        position = match.end()
        if mark in OPENING:
            stack.append((mark, []))
        elif OPENING.get(stack[-1][0]) == mark:
            opened, parts = stack.pop()
            if opened in LEFT_OUT:
                left_out[LEFT_OUT[opened]] += 1
            else:
                stack[-1][1].append(_link("".join(parts), left_out, categories))
        elif mark == "|}" and stack[-1][0] == "{{":  # `{{x|}}` reads as `|}` and `}`
            if text.startswith("}", position):
                position += 1
                stack.pop()
                left_out["templates"] += 1
        elif mark != "]]":
            continue
    stack[-1][1].append(text[position:])
    # What was never closed is text after all.
    return "".join(piece for _, parts in stack for piece in (*parts, " "))


def _link(content: str, left_out: Counter[str], categories: list[str]) -> str:
    if FILES.match(content):
        left_out["files"] += 1
        return ""
    if category := CATEGORIES.match(content):
        categories.append(category[1].strip())
        return ""
    target, bar, label = content.partition("|")
    if not bar and INTERLANGUAGE.match(target):
        return ""
    shown = label.rpartition("|")[2] if bar else target.strip().removeprefix(":")
    return shown if shown.strip() else re.sub(r"\s*\([^()]*\)$|^[^:]*:", "", target)


def _lines(text: str) -> str:
    blocks: list[str] = []
    tight = False  # whether the block before is a list, which the next item continues
    for raw in text.split("\n"):
        line = " ".join(raw.split())
        if not line:
            tight = False
            continue
        heading, item = HEADING.match(line), LIST_ITEM.match(line)
        if heading:
            blocks.append("\n\n" + "#" * len(heading[1]) + " " + heading[2])
            tight = False
        elif item:
            marks, content = item.groups()
            if not content:
                continue
            blocks.append(("\n" if tight else "\n\n") + _item(marks, content))
            tight = True
        else:
            blocks.append("\n\n" + line)
            tight = False
    text = re.sub(r" +([,.;:!?])", r"\1", "".join(blocks).strip())
    return text.replace(KEEP_LINE, "\n").replace(KEEP_SPACE, " ")


def _item(marks: str, content: str) -> str:
    indent = "  " * (min(len(marks), 8) - 1)
    if marks[-1] == ";":
        term, colon, definition = content.partition(" : ")
        return indent + term + (f"\n{indent}: {definition}" if colon else "")
    return indent + {"*": "- ", "#": "1. ", ":": ": " if ";" in marks else ""}[marks[-1]] + content
