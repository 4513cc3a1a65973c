"""MediaWiki XML dumps (`pages-articles.xml`, also .bz2): one document a page of the main namespace, as readable text.

The stream is cut at `<page>` and `</page>`, which cannot stand in a page's escaped text, and each page is parsed alone:
memory holds one page, and damage costs the page that it is in.
"""

from __future__ import annotations

import re
import xml.parsers.expat
from collections.abc import Iterator
from urllib.parse import quote

from diglot.corpus.read.compression import decompressed
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile
from diglot.corpus.read.wikitext import wiki_text

START, END = b"<page>", b"</page>"
HEAD = 1 << 16  # bytes before the first page in which the site describes itself
XML_FACTOR = 2  # a page's markup may be this much larger than the limit of its text
NUMBER = re.compile(r"-?\d{1,5}", re.ASCII)
MODEL = re.compile(r"[\w.-]{1,40}", re.ASCII)
MODELS = frozenset({"", "wikitext"})
BASE = re.compile(rb"<base>\s*([^<\s]{1,500})\s*</base>")
LANGUAGE = re.compile(rb"<mediawiki\b[^>]*\bxml:lang=\"([\w-]{1,20})\"")


def read_mediawiki(file: SourceFile, limits: Limits) -> Iterator[Record | Refused]:
    """One record or refusal a page. Offsets count bytes of the decompressed dump.

    Refused: redirects, other namespaces (`namespace_10` is a template), pages whose content model is not wikitext.
    """
    head = b""
    offset = 0
    with decompressed(file.path) as stream:
        for offset, page, problem in _pages(stream.chunks(), limits.max_document_bytes * XML_FACTOR):
            if problem == "head":
                head = page
                if b"<mediawiki" not in head and not stream.damage:
                    yield Refused(reason="not_mediawiki", detail="an XML file without <mediawiki>")
                    return
            elif problem == "truncated" and stream.damage:
                break  # the refusal below stands for it
            elif problem:
                yield Refused(reason=problem, offset=offset)
            else:
                yield _outcome(page, offset, head, limits)
        if stream.damage:
            yield Refused(reason=stream.damage, offset=offset, detail="pages from here on cannot be read")


def _pages(chunks: Iterator[bytes], limit: int) -> Iterator[tuple[int, bytes, str | None]]:
    """(offset, XML, problem): first what stands before the first page, as `head`, then every page."""
    buffer = bytearray()
    base = page_start = looked = 0  # offsets of the buffer and of the open page; bytes of the buffer looked through
    begun = inside = skipping = False
    for chunk in chunks:
        buffer += chunk
        while True:
            at = buffer.find(END, looked) if inside else buffer.find(START)
            if at < 0:
                break
            if not inside:
                if not begun:
                    yield 0, bytes(buffer[: min(at, HEAD)]), "head"
                page_start = base = base + at
                del buffer[:at]
                begun, inside, looked = True, True, len(START)
                continue
            while (again := buffer.find(START, 0 if skipping else len(START), at)) >= 0:  # this page has lost its end
                yield page_start, b"", "too_large" if skipping else "corrupt"
                page_start = base = base + again
                del buffer[:again]
                at -= again
                skipping = False
            too_large = skipping or at > limit
            yield page_start, b"" if too_large else bytes(buffer[: at + len(END)]), "too_large" if too_large else None
            base += at + len(END)
            del buffer[: at + len(END)]
            inside = skipping = False
        if inside:
            skipping = skipping or len(buffer) > limit
            looked = max(len(buffer) - len(END) + 1, len(START))
        if not begun and len(buffer) > 2 * HEAD:
            yield 0, bytes(buffer[:HEAD]), "head"
            begun = True
        if skipping or (begun and not inside):
            drop = max(len(buffer) - len(END) + 1, 0)
            base += drop
            del buffer[:drop]
            looked = 0
    if not begun:
        yield 0, bytes(buffer[:HEAD]), "head"
    elif inside:
        yield page_start, b"", "truncated"


def _outcome(page: bytes, offset: int, head: bytes, limits: Limits) -> Record | Refused:
    fields = _fields(page)
    if isinstance(fields, str):
        return Refused(reason="invalid_xml", offset=offset, detail=fields)
    title = fields.get("page/title", "").strip()
    base = BASE.search(head)
    url = None
    if base and title:
        url = base[1].decode("utf-8", "replace").rpartition("/")[0] + "/" + quote(title.replace(" ", "_"), safe="/:(),")

    def refused(reason: str, detail: str | None = None) -> Refused:
        return Refused(reason=reason, offset=offset, url=url, detail=detail or title or None)

    namespace = fields.get("page/ns", "0").strip()
    if namespace != "0":
        return refused(f"namespace_{namespace}" if NUMBER.fullmatch(namespace) else "namespace_malformed")
    if "page/redirect" in fields:
        return refused("redirect")
    model = fields.get("page/revision/model", "").strip()
    if model not in MODELS:
        return refused(f"model_{model}" if MODEL.fullmatch(model) else "model_malformed")
    source = fields.get("page/revision/text", "")
    if not source.strip():
        return refused("empty")
    if len(source.encode("utf-8", "replace")) > limits.max_document_bytes:
        return refused("too_large")
    wiki = wiki_text(source)
    if not wiki.text:
        return refused("empty", "nothing but templates")
    language = LANGUAGE.search(head)
    meta = {
        "title": title or None,
        "page_id": fields.get("page/id"),
        "revision_id": fields.get("page/revision/id"),
        "categories": "; ".join(wiki.categories)[:300] or None,
        **{f"wiki_{kind}": number for kind, number in wiki.left_out.items()},
    }
    return Record(
        content=wiki.text,
        is_html=False,
        offset=offset,
        length=len(page),
        url=url,
        lang=language[1].decode() if language else None,
        date=fields.get("page/revision/timestamp"),
        meta=meta,
    )


def _fields(page: bytes) -> dict[str, str] | str:
    """Text of the page's elements by path, or what is wrong with its XML.

    A document type, which could declare entities that grow, is an error behind `<page>`.
    """
    parser = xml.parsers.expat.ParserCreate("utf-8")
    path: list[str] = []
    parts: dict[str, list[str]] = {}

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        parts.setdefault("/".join(path[:6]), [])

    def end(name: str) -> None:
        path.pop()

    def text(content: str) -> None:
        if path:
            parts["/".join(path[:6])].append(content)

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.buffer_text = True
    try:
        parser.Parse(page.decode("utf-8", "replace").encode(), True)
    except xml.parsers.expat.ExpatError as error:
        return str(error)[:200]
    return {name: "".join(pieces) for name, pieces in parts.items()}
