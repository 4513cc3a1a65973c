"""The blocks of a page in one pass over its bytes, for the pages whose tags say without a tree what belongs where.

`diglot.kernels.html` reads; what it gives up on has no quick way, and `extract` asks the HTML5 parser instead. Both
give the same blocks, so nothing depends on which way was taken.
"""

from __future__ import annotations

import html as html_entities
from typing import Any, NamedTuple

from diglot.corpus.blocks import BLANK_LINES, LINE_NUMBERS, Block


class Page(NamedTuple):
    """What a page says: its blocks with the cells of tables apart, its title, and its language as declared."""

    blocks: list[Block]
    title: str
    lang: str | None


def read(page: str, skip: tuple[str, ...], show_alternatives: bool) -> Page | None:
    """The page without what the CSS selectors `skip` name, or None where only the tree tells.

    show_alternatives: whether of several hidden words in a span the last, the default, is text.
    """
    import numpy as np

    from diglot.kernels import html as kernel

    try:
        content = page.encode()
    except UnicodeEncodeError:  # half characters, which JSON can spell
        return None
    size = len(content)
    source = np.frombuffer(content, np.uint8)
    text = np.empty(2 * size + 64, np.uint8)
    columns = np.empty((size // 4 + 64, kernel.NUM_COLUMNS), np.int64)
    facts = np.empty(kernel.NUM_FACTS, np.int64)
    tables = kernel.tables(skip)
    num_blocks = kernel.read_page(source, tables, "</table>" in page, show_alternatives, text, columns, facts)
    if num_blocks < 0:
        return None
    rows = columns[:num_blocks].tolist()
    utf8 = text[: rows[-1][kernel.B_STOP]].tobytes() if rows else b""
    title, lang, xml_lang = (_value(content, facts[i], facts[i + 1]) for i in (0, 2, 4))
    return Page(_blocks(rows, utf8, kernel.KINDS), title, lang or xml_lang or None)


def _blocks(rows: list[list[int]], utf8: bytes, kinds: tuple[str, ...]) -> list[Block]:
    blocks = []
    markers = {-1: "", 0: "-"}
    for kind, start, stop, linked, level, marker, row, cell in rows:
        text = utf8[start:stop].decode()
        name = kinds[kind]
        if name == "code":
            text = BLANK_LINES.sub("", text)
            if not text.strip() or LINE_NUMBERS.fullmatch(text):
                continue
        blocks.append(Block(name, text, linked, level, markers[marker] if marker < 1 else f"{marker}.", row, cell))
    return blocks


def _value(content: bytes, start: Any, stop: Any) -> str:
    return html_entities.unescape(content[start:stop].decode()) if start >= 0 else ""
