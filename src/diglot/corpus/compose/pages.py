"""A page as its outline: title, sections, and the blocks of each section told apart by what they are.

Reads the text format of `corpus/extract.py`: headings are `#` lines, items start with `-` or a number, a definition
with `: `, code with four spaces, table rows hold ` | `. A text without headings is one section under its title.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEADING = re.compile(r"(#{1,6}) (\S.*)")
STEP = re.compile(r"\d{1,2}\. (\S.*)")
BULLET = re.compile(r"- (\S.*)")
DEFINITION = re.compile(r": (\S.*)")
CODE = re.compile(r" {4}")
NESTED = re.compile(r" {2}\S")  # an item's second paragraph, or an item of an inner list

# A number in front of a heading: "2.1.3. ", "Chapter 4. ", "Appendix A. ", "第 3 章 ", "附录 B. "
ORDINAL = re.compile(
    r"(?:(?:chapter|section|appendix|part)\s+[\dA-Z]+(?:\.\d+)*[.:]?\s+|第\s*\d+\s*[章节部]分?\.?\s*|附录\s*[A-Z]\.?\s*"
    r"|(?:\d+|[A-Z])(?:\.\d+)+\.?\s+|\d+\.\s+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Block:
    """One block of content. kind: `prose`, `step`, `bullet`, `term`, `definition` or `other`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands between it and the next heading of any level."""

    heading: str
    level: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """`sections[0]` is what stands under the title; its heading is the title."""

    title: str
    sections: tuple[Section, ...]


def parse_page(text: str, title: str = "") -> Page | None:
    """The outline of a text, or None when it has neither a heading nor a title."""
    sections: list[tuple[str, int, list[Block]]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        if match := HEADING.fullmatch(line):
            heading = clean_heading(match[2])
            if not sections or sections[-1][0] != heading or sections[-1][2]:  # a title repeated as the first heading
                sections.append((heading, len(match[1]), []))
            continue
        if not sections:
            if not title:
                continue
            sections.append((clean_heading(title), 1, []))
        blocks = sections[-1][2]
        block = _block(line)
        if block.kind == "definition" and blocks and blocks[-1].kind == "prose":
            blocks[-1] = Block("term", blocks[-1].text)
        blocks.append(block)
    if not sections:
        return None
    return Page(sections[0][0], tuple(Section(h, level, tuple(blocks)) for h, level, blocks in sections))


def clean_heading(heading: str) -> str:
    """A heading without its number and final colon.

    >>> clean_heading("6.2.1. Initialization:")
    'Initialization'
    """
    heading = " ".join(heading.split())
    return ORDINAL.sub("", heading, count=1).strip(" :：")


def _block(line: str) -> Block:
    text = " ".join(line.split())
    if CODE.match(line) or NESTED.match(line) or " | " in line:
        return Block("other", text)
    for kind, pattern in (("step", STEP), ("bullet", BULLET), ("definition", DEFINITION)):
        if match := pattern.fullmatch(text):
            return Block(kind, match[1])
    return Block("prose", text.removeprefix("\\"))
