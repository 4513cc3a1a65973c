"""The main text of an HTML page, with its outline: headings as `#` lines, lists, terms with definitions, code.

resiliparse parses and flattens the page in C++; what is navigation is decided here, over the flattened blocks, by their
links. Its own main-content mode is not used: on the documentation pages of the quickstart it dropped short inline
text ("synaptic、aptitude" became "synapticaptitude"), headings with a name like `control`, and side boxes
(docs/decisions/004-own-main-text-extraction.md).

Output, one block a line, blocks parted by empty lines, items and table rows by line ends:

    # Heading            a paragraph that starts with "# " is escaped: "\\# "
    - item, 1. item      two spaces deeper for each level
    term                 from <dt>; from <dd> the definition as ": ..." on the next line
    a | b | c            a row of a table
        code             four spaces before every line, so that no line of code reads as a heading or an item
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree, NodeType

from diglot.corpus.blocks import Block, joined_rows, marked, read_blocks

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

HIDDEN_SPAN = re.compile(r"<span[^<>]* hidden\b", re.I)
HEADING_MARK = re.compile(r"#{1,6}\s")
SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’」』）)]*$")

HUGE_TAG = re.compile(r"<([a-z][^\s/<>]*)[^<>]{8192,}>", re.I)  # the parser's time is quadratic in a tag's attributes

MAX_HIDDEN = 300  # the time to look through nested hidden elements is more than quadratic in their number
LINK_RUN = 3  # so many such blocks in a row are a menu or a table of contents
LABEL_CHARS = 40  # at most, of the line above a menu ("Table of Contents", "相关主题")


@dataclass(frozen=True)
class Extracted:
    """lang: as the page declares it, not normalised; None when it does not. dropped_chars: text judged navigation.

    note: why there is no text although there may be one, e.g. `timeout`.
    """

    text: str
    title: str | None
    lang: str | None
    dropped_chars: int
    note: str | None = None


def extract(page: str) -> Extracted:
    """The main text of a page. Empty when there is none; never fails on malformed HTML."""
    show_alternatives = 0 < page.count("hidden") <= MAX_HIDDEN and HIDDEN_SPAN.search(page) is not None
    tree = parse(marked(page))
    document = tree.document
    assert document is not None
    if show_alternatives:
        _show_default_alternatives(document)
    flat = extract_plain_text(
        tree, preserve_formatting="minimal_html", links=True, alt_texts=False, list_bullets=True, skip_elements=SKIP
    )
    blocks = joined_rows(read_blocks(flat))
    main = main_blocks(blocks)
    title, lang = head(tree)
    dropped = sum(len(block.text) for block in blocks) - sum(len(block.text) for block in main)
    return Extracted(render(main), title, lang, dropped)


def parse(page: str) -> HTMLTree:
    """The tree of a page, in bounded time: tags of more than eight thousand characters lose their attributes."""
    return HTMLTree.parse(HUGE_TAG.sub(r"<\1>", page))


def head(tree: HTMLTree) -> tuple[str | None, str | None]:
    """Title, and language as the page declares it."""
    root = tree.document.query_selector("html") if tree.document else None
    lang = (root.getattr("lang") or root.getattr("xml:lang")) if root else None
    return " ".join((tree.title or "").split()) or None, lang or None


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


def _show_default_alternatives(document: Any) -> None:
    """Where all inline alternatives are hidden (a script shows the reader's system), show the last, the default."""
    for element in document.query_selector_all("span > span[hidden]:last-child"):
        siblings = element.parent.child_nodes
        if all(node.hasattr("hidden") if node.type == NodeType.ELEMENT else not node.text.strip() for node in siblings):
            del element["hidden"]
