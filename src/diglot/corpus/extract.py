"""The main text of an HTML page, with its outline: headings as `#` lines, lists, terms with definitions, code.

resiliparse parses and flattens the page in C++; what is navigation is decided here, over the flattened blocks, by their
links. Its own main-content mode is not used: on the documentation pages of the quickstart it dropped short inline
text ("synaptic、aptitude" became "synapticaptitude"), headings with a name like `control`, and side boxes.

Output, one block a line, blocks parted by empty lines, items and table rows by line ends:

    # Heading            a paragraph that starts with "# " is escaped: "\\# "
    - item, 1. item      two spaces deeper for each level
    term                 from <dt>; from <dd> the definition as ": ..." on the next line
    a | b | c            a row of a table
        code             four spaces before every line, so that no line of code reads as a heading or an item
"""

from __future__ import annotations

import html as html_entities
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree, NodeType

# What never is main text: by HTML and ARIA semantics (`header` and `aside` only as page furniture: articles have their
# own), then by the class names of documentation generators (DocBook, Publican, Sphinx, MkDocs, Doxygen, MediaWiki) and
# of publishing systems.
SKIP = [
    "nav", "footer", "body > header", "body > aside", "button", "select", "textarea", "svg", "template", "iframe",
    "[role=navigation]", "[role=banner]", "[role=contentinfo]", "[role=search]", "[aria-hidden=true]", "[hidden]",
    ".navheader", ".navfooter", ".docnav", ".toc", ".breadcrumb", ".breadcrumbs", ".navbar", ".headerlink",
    ".sphinxsidebar", ".md-sidebar", ".md-header", ".mw-editsection", ".mw-jump-link", ".navbox",
    ".linenos", ".linenodiv", ".lineno", ".gutter", ".sr-only", ".visually-hidden", ".skip-link", ".cookie-banner",
    "#sidebar", "#comments", "#respond", ".widget", ".widget-area", ".widget-container", ".sharedaddy",
]  # fmt: skip

CODE = re.compile(r"<pre>(.*?)(?:</pre>|\Z)", re.S)
LINK = re.compile(r"</?a(?: [^>]*)?>")
TAG = re.compile(r"<(/?(?:h[1-6]|p|ul|ol|li|a))(?: [^>]*)?>")
# Private-use marks that are put into the page where resiliparse's reduced form tells nothing: before the text of <dt>,
# <dd> and cells, and behind tables.
TERM, DEFINITION, ROW, CELL, TABLE_END = "\ue000", "\ue001", "\ue002", "\ue003", "\ue004"
MARKS = re.compile(f"[{TERM}-{TABLE_END}]")
TABLE_MARKS = re.compile(f"([{ROW}-{TABLE_END}])")
LIST_TAG = re.compile(r"</?[uo]l\b[^>]*>", re.I)
CELL_TAG = re.compile(r"<t[dh](?:\s[^>]*)?>", re.I)
FIRST_CELL_TAG = re.compile(rf"(<tr(?:\s[^>]*)?>\s*<t[dh](?:\s[^>]*)?>){CELL}", re.I)
HIDDEN_SPAN = re.compile(r"<span[^>]* hidden\b", re.I)
DEFINITION_TAG = re.compile(r"<(dt|dd)\b[^>]*>", re.I)
HEADING_MARK = re.compile(r"#{1,6}\s")
SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’」』）)]*$")
CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
LINE_NUMBERS = re.compile(r"[\d\s]*")  # a gutter that was laid out as a block of its own
BLANK_LINES = re.compile(r"\A(?:[ \t]*\n)+|(?:\n[ \t]*)+\Z")
ORDINAL = re.compile(r"(?:[\dA-Z]+\.)+\d*\s*")
LINE_END = re.compile(" *\v *")
FOOTNOTE_OR_ANCHOR = re.compile(r"\[?\(?\d{1,3}\)?\]?|[^\w\s]{1,2}")

# Pages built to be slow: the reduced form indents lists, so its size is quadratic in their depth, and so is the time to
# look through nested hidden elements.
MAX_LIST_DEPTH = 100
MAX_HIDDEN = 300

LINK_SHARE = 0.75  # of a block's characters inside links, from which the block is a link and not a text
LINK_RUN = 3  # so many such blocks in a row are a menu or a table of contents
PROSE_CHARS = 40  # shorter blocks at the edges of a page are buttons and bylines; one CJK character counts as three
ROW_CHARS = 400  # at most, of the cells of one row of a table
LABEL_CHARS = 40  # at most, of the line above a menu ("Table of Contents", "相关主题")


@dataclass(frozen=True)
class Extracted:
    """lang: as the page declares it, not normalised; None when it does not. dropped_chars: text judged navigation."""

    text: str
    title: str | None
    lang: str | None
    dropped_chars: int


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


def extract(page: str) -> Extracted:
    """The main text of a page. Empty when there is none; never fails on malformed HTML."""
    tree = HTMLTree.parse(_marked(page))
    document = tree.document
    assert document is not None
    if 0 < page.count("hidden") <= MAX_HIDDEN and HIDDEN_SPAN.search(page):
        _show_default_alternatives(document)
    flat = extract_plain_text(
        tree, preserve_formatting="minimal_html", links=True, alt_texts=False, list_bullets=True, skip_elements=SKIP
    )
    blocks = _joined_rows(_Reader().read(flat))
    main = main_blocks(blocks)
    root = document.query_selector("html")
    declared = (root.getattr("lang") or root.getattr("xml:lang")) if root else None
    dropped = sum(len(block.text) for block in blocks) - sum(len(block.text) for block in main)
    return Extracted(render(main), " ".join((tree.title or "").split()) or None, declared or None, dropped)


def main_blocks(blocks: list[Block]) -> list[Block]:
    """The blocks without navigation.

    Dropped: everything short before the first heading or prose; links after the last; runs of links in between with the
    label above them; headings whose section is empty for that reason.
    Wrongly dropped: lists of references that are nothing but links.
    """
    num_blocks = len(blocks)
    body = [i for i, block in enumerate(blocks) if block.is_prose]
    heads = [i for i, block in enumerate(blocks) if block.kind == "heading"]
    first = min(body[:1] + heads[:1], default=num_blocks)
    last = body[-1] if body else -1
    keep = [i >= first for i in range(num_blocks)]
    for start, stop in _link_runs(blocks):
        if stop - start >= LINK_RUN or start > last:
            keep[start:stop] = [False] * (stop - start)
            label = start - 1
            if label >= 0 and _is_label(blocks[label]):
                keep[label] = False
    nearest = num_blocks  # the next block that stays
    next_heading = [num_blocks] * 7  # the next heading of each level
    for i in reversed(range(num_blocks)):
        block = blocks[i]
        if block.kind == "heading":
            end = min(next_heading[1 : block.level + 1])
            if i != heads[0] and end > i + 1 and nearest >= end:
                keep[i] = False
            next_heading[block.level] = i
        elif i > last and (block.linked or (i + 1 < num_blocks and nearest == num_blocks and _is_label(block))):
            keep[i] = False
        if keep[i]:
            nearest = i
    return [block for block, kept in zip(blocks, keep, strict=True) if kept]


def render(blocks: list[Block]) -> str:
    """The text of blocks in the format of the module's header."""
    parts: list[str] = []
    before = None
    for block in blocks:
        if before is not None:
            tight = block.kind == before.kind and (block.kind == "row" or (block.kind == "item" and block.marker != ""))
            parts.append("\n" if tight or block.kind == "definition" else "\n\n")
        parts.append(_rendered(block))
        before = block
    return "".join(parts)


def _rendered(block: Block) -> str:
    if block.kind == "heading":
        return "#" * block.level + " " + block.text.replace("\n", " ")
    if block.kind == "code":
        return "\n".join("    " + line if line.strip() else "" for line in block.text.split("\n"))
    if block.kind == "item":
        indent = "  " * block.level
        return indent + (f"{block.marker} " if block.marker else "  ") + block.text.replace("\n", f"\n{indent}  ")
    if block.kind == "definition":
        return ": " + block.text.replace("\n", "\n  ")
    return "\\" + block.text if HEADING_MARK.match(block.text) else block.text


def _is_label(block: Block) -> bool:
    return (
        block.kind in ("paragraph", "term", "item")
        and len(block.text) <= LABEL_CHARS
        and not (SENTENCE_END.search(block.text))
    )


def _link_runs(blocks: list[Block]) -> Iterator[tuple[int, int]]:
    start = None
    for i, block in enumerate(blocks):
        if block.is_link:
            start = i if start is None else start
        elif start is not None:
            yield start, i
            start = None
    if start is not None:
        yield start, len(blocks)


def _marked(page: str) -> str:
    page = MARKS.sub("", page)
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


def _joined_rows(blocks: list[Block]) -> list[Block]:
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


def _show_default_alternatives(document: Any) -> None:
    """Where all inline alternatives are hidden (a script shows the reader's system), show the last, the default."""
    for element in document.query_selector_all("span > span[hidden]:last-child"):
        siblings = element.parent.child_nodes
        if all(node.hasattr("hidden") if node.type == NodeType.ELEMENT else not node.text.strip() for node in siblings):
            del element["hidden"]


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
            text = text[1:].strip()
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
