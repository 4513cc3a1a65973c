"""The blocks of a page: headings, paragraphs, items, terms, rows and code, read from resiliparse's reduced HTML.

What that form does not tell (terms and definitions, cells with paragraphs in them, the ends of tables) is put into the
page before as characters of the private-use area, and found again here.
"""

from __future__ import annotations

import html as html_entities
import itertools
import re
from dataclasses import dataclass

CODE = re.compile(r"<pre>(.*?)(?:</pre>|\Z)", re.S)
LINK = re.compile(r"</?a(?: [^>]*)?>")
TAG = re.compile(r"<(/?(?:h[1-6]|p|ul|ol|li|a))(?: [^>]*)?>")
# Private-use marks that are put into the page where resiliparse's reduced form tells nothing: before the text of <dt>,
# <dd> and cells, and behind tables.
TERM, DEFINITION, ROW, CELL, TABLE_END = "\ue000", "\ue001", "\ue002", "\ue003", "\ue004"
MARKS = re.compile(f"[{TERM}-{TABLE_END}]")
TABLE_MARKS = re.compile(f"([{ROW}-{TABLE_END}])")
LIST_TAG = re.compile(r"</?[uo]l\b[^<>]*>", re.I)
CELL_TAG = re.compile(r"<t[dh](?:\s[^<>]*)?>", re.I)
FIRST_CELL_TAG = re.compile(rf"(<tr(?:\s[^<>]*)?>\s*<t[dh](?:\s[^<>]*)?>){CELL}", re.I)
DEFINITION_TAG = re.compile(r"<(dt|dd)\b[^<>]*>", re.I)
# resiliparse writes the start of an element without content and not its end.
EMPTY_LINK = re.compile(r"<a\s[^<>]*></a>", re.I)
EMPTY_CODE = re.compile(r"<pre(?:\s[^<>]*)?></pre>", re.I)
CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
LINE_NUMBERS = re.compile(r"[\d\s]*")  # a gutter that was laid out as a block of its own
BLANK_LINES = re.compile(r"\A(?:[ \t]*\n)+|(?:\n[ \t]*)+\Z")
ORDINAL = re.compile(r"(?:[\dA-Z]+\.)+\d*\s*")
LINE_END = re.compile(" *\v *")
FOOTNOTE_OR_ANCHOR = re.compile(r"\[?\(?\d{1,3}\)?\]?|[^\w\s]{1,2}")

MAX_LIST_DEPTH = 100  # resiliparse indents lists, so that its output is quadratic in their depth
LINK_SHARE = 0.75  # of a block's characters inside links, from which the block is a link and not a text
PROSE_CHARS = 40  # shorter blocks at the edges of a page are buttons and bylines; one CJK character counts as three
ROW_CHARS = 400  # at most, of the cells of one row of a table


@dataclass(slots=True)
class Block:
    """One block of a page. kind: `heading`, `paragraph`, `item`, `term`, `definition`, `row` or `code`."""

    kind: str
    text: str
    linked: int  # characters inside links
    level: int = 0  # of a heading 1-6, of an item its depth from 0
    marker: str = ""  # of an item; empty where an item goes on
    row: int = 0  # number of the table row it stands in, from 1
    cell: int = 0  # number of the cell

    @property
    def is_link(self) -> bool:
        if self.kind == "code" or not self.linked:
            return False
        ordinal = ORDINAL.match(self.text)  # "1.1. List of packages" in a table of contents
        return self.linked >= LINK_SHARE * (len(self.text) - (ordinal.end() if ordinal else 0))

    @property
    def is_prose(self) -> bool:
        if self.kind == "code":
            return True
        if self.is_link:
            return False
        return len(self.text) >= PROSE_CHARS or len(self.text) + 2 * len(CJK.findall(self.text)) >= PROSE_CHARS


def marked(page: str) -> str:
    """The page with marks before terms, definitions and cells and behind tables."""
    page = EMPTY_LINK.sub("<a></a>", MARKS.sub("", page))
    page = EMPTY_CODE.sub("<p></p>", page)
    page = DEFINITION_TAG.sub(lambda tag: tag[0] + (TERM if tag[1] in "dtDT" else DEFINITION), page)
    if sum(map(page.count, ("<ul", "<UL", "<ol", "<OL"))) > MAX_LIST_DEPTH and _list_depth(page) > MAX_LIST_DEPTH:
        page = LIST_TAG.sub("<p>", page)
    if "</table>" in page:
        page = CELL_TAG.sub(rf"\g<0>{CELL}", page)
        page = FIRST_CELL_TAG.sub(rf"\1{ROW}", page).replace("</table>", f"</table>{TABLE_END}")
    return page


def _list_depth(page: str) -> int:
    steps = (-1 if tag[0].startswith("</") else 1 for tag in LIST_TAG.finditer(page))
    return max(itertools.accumulate(steps))


def read_blocks(flat: str) -> list[Block]:
    """The blocks of a page that was marked by `marked` and flattened by resiliparse as `minimal_html` with links.

    Cells of tables are blocks of their own; see `joined_rows`.
    """
    return _Reader().read(flat)


def joined_rows(blocks: list[Block]) -> list[Block]:
    """Blocks with the cells of each table row joined to one, where the row holds nothing but short text.

    Rows of one cell and rows with lists, code or long text belong to tables that lay out a page.
    """
    if not any(block.row for block in blocks):
        return blocks
    joined: list[Block] = []
    for row, group in itertools.groupby(blocks, key=lambda block: block.row):
        members = list(group)
        cells = [
            " ".join(block.text for block in of_cell)
            for _, of_cell in itertools.groupby(members, key=lambda block: block.cell)
        ]
        is_row = row and len(cells) > 1 and all(block.kind == "paragraph" for block in members)
        if is_row and sum(map(len, cells)) <= ROW_CHARS:
            text = " | ".join(cell.replace("\n", " ") for cell in cells)
            joined.append(Block("row", text, sum(block.linked for block in members)))
        else:
            joined += members
    return joined


class _Reader:
    """Reads resiliparse's reduced HTML: blocks on lines of their own, no attributes but href, text escaped.

    Most lines hold one block and no link, and take the short way through `line`: a page has hundreds of them.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.level = 0  # of the open heading
        self.lists: list[int | None] = []  # number of the last item; None where bullets are used
        self.marker = ""  # of the item that has no text yet
        self.definition = ""  # kind that a mark gives to the next block
        self.in_link = False
        self.num_rows = self.row = self.cell = 0  # 0: outside of tables

    def read(self, flat: str) -> list[Block]:
        flat = flat.replace('<a href="">', "").replace("<br>\n", "\v").replace("<br>", "\v")
        for i, piece in enumerate(CODE.split(flat)):
            if i % 2:
                code = MARKS.sub("", html_entities.unescape(LINK.sub("", piece))).replace("\v", "\n")
                code = BLANK_LINES.sub("", code)
                if code.strip() and not LINE_NUMBERS.fullmatch(code):
                    self.blocks.append(Block("code", code, 0, row=self.row, cell=self.cell))
            else:
                for line in piece.split("\n"):
                    if line:
                        self.line(line)
        return self.blocks

    def line(self, line: str) -> None:
        if "<" not in line:
            self.block(line, len(line) if self.in_link else 0)
            return
        if line.startswith("<p>") and line.endswith("</p>") and line.count("<") == 2 and not self.in_link:
            self.block(line[3:-4], 0)
            return
        position = linked = 0
        parts: list[str] = []
        for match in TAG.finditer(line):
            before = line[position : match.start()]
            position = match.end()
            if self.in_link:
                linked += len(before)
            tag = match[1]
            if tag == "a":
                self.in_link = True
                parts.append(before)
            elif tag == "/a":
                drop = self.in_link and FOOTNOTE_OR_ANCHOR.fullmatch(before.strip()) is not None
                linked -= len(before) if drop else 0
                parts.append("" if drop else before)
                self.in_link = False
            else:
                if before or parts:
                    parts.append(before)
                    self.block("".join(parts), linked)
                    parts, linked = [], 0
                self.structure(tag)
        parts.append(line[position:])
        self.block("".join(parts), linked + (len(line) - position if self.in_link else 0))

    def structure(self, tag: str) -> None:
        if tag == "li":
            if self.lists:
                number = self.lists[-1]
                self.lists[-1] = None if number is None else number + 1
                self.marker = "-" if number is None else f"{number + 1}."
        elif tag in ("ul", "ol"):
            self.lists.append(0 if tag == "ol" else None)
        elif tag in ("/ul", "/ol"):
            if self.lists:
                self.lists.pop()
        elif tag[-1].isdigit():
            self.level = 0 if tag[0] == "/" else int(tag[1])

    def block(self, text: str, linked: int) -> None:
        if TABLE_MARKS.search(text):
            share = linked / len(text)
            for part in TABLE_MARKS.split(text):
                if part == TABLE_END:
                    self.row = self.cell = 0
                elif part == ROW or (part == CELL and not self.row):
                    self.num_rows += 1
                    self.row, self.cell = self.num_rows, 1
                elif part == CELL:
                    self.cell += 1
                else:
                    self.plain_block(part, round(share * len(part)))
        else:
            self.plain_block(text, linked)

    def plain_block(self, text: str, linked: int) -> None:
        text = text.strip(" \v\t\xa0")
        if not text:
            return
        if "&" in text:
            text = html_entities.unescape(text)
        if "\v" in text:
            text = LINE_END.sub("\n", text)
        if text[0] in (TERM, DEFINITION):
            self.definition = "term" if text[0] == TERM else "definition"
            text = MARKS.sub("", text[1:]).strip()
        if MARKS.search(text):  # spelled as an entity in the page, or moved there by the parser
            text = MARKS.sub("", text)
        if not text:
            return
        kind, level, marker = "paragraph", 0, ""
        if "\t" in text:
            text = " ".join(text.split("\t"))
        if self.level:
            kind, level = "heading", self.level
        elif self.definition and not self.lists:
            kind, self.definition = self.definition, ""
        elif self.lists:
            kind, level, marker, self.marker = "item", len(self.lists) - 1, self.marker, ""
        self.blocks.append(Block(kind, text, linked, level, marker, self.row, self.cell))
