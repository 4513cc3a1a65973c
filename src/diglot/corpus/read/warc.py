"""Web archives (WARC 1.0/1.1, also WET): the pages in them, whatever the state of the file.

fastwarc decodes; this module gives every response a fate, goes on behind damage at the next record that can be read,
and notices a file that ends in the middle, which fastwarc takes for its end.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import urlsplit

from fastwarc.warc import ArchiveIterator, WarcRecordType

from diglot.core.storage import open_read
from diglot.corpus.read.compression import CHUNK, GZIP_WINDOW
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
LOOKS_LIKE_HTML = re.compile(rb"\s*(?:<!--.{0,500}?-->\s*)*<(?:!doctype html|html|head|body|title)\b", re.I | re.S)
GZIP_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")
WARC_HEADER = re.compile(rb"(?<=\n)WARC/1\.[01]\r\n")
WITH_CONTENT = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion | WarcRecordType.revisit


def read_warc(file: SourceFile, limits: Limits) -> Iterator[Record | Refused]:
    """One record or refusal for each response, resource, conversion and revisit, and one for each damaged place.

    Offsets are positions in the file; records that share a compressed block share its offset.
    """
    with open_read(file.path) as stream:
        is_gzip = stream.read(2) == b"\x1f\x8b"
        start: int | None = 0
        last = -1
        damaged = cut_off = False
        while start is not None:
            stream.seek(start)
            try:
                for record in ArchiveIterator(stream, parse_http=True, auto_decode="none"):
                    last = record.stream_pos
                    damaged = False
                    if record.record_type & WITH_CONTENT:
                        outcome = _outcome(record, last, limits)
                        cut_off = isinstance(outcome, Refused) and outcome.reason == "truncated"
                        yield outcome
                break
            except OSError as error:
                if not damaged:  # one refusal for a damaged place, however many tries it takes to get past it
                    yield Refused(reason="corrupt", offset=max(last, start), detail=str(error)[:200])
                damaged = True
                last = max(last, start)
                start = _next_start(stream, last + 1, GZIP_MEMBER if is_gzip else WARC_HEADER)
        if not cut_off and not damaged and _ends_early(stream, max(last, 0), is_gzip):
            yield Refused(reason="truncated", offset=max(last, 0), detail="the file ends inside a record")


def _outcome(record: Any, offset: int, limits: Limits) -> Record | Refused:
    url = (record.headers.get("WARC-Target-URI") or "").strip("<>") or None

    def refused(reason: str, detail: str | None = None) -> Refused:
        return Refused(reason=reason, offset=offset, url=url, detail=detail)

    if record.record_type == WarcRecordType.revisit:
        return refused("revisit", "its content is in an earlier record")
    http = record.http_headers
    if http is not None and http.status_code != 200:
        return refused(f"http_{http.status_code}")
    kind = ((http if http is not None else record.headers).get("Content-Type") or "").split(";")[0].strip().lower()
    if url and urlsplit(url).path == "/robots.txt":
        return refused("robots")
    if kind not in HTML_TYPES and kind not in ("", "text/plain"):
        return refused(f"type_{kind}")
    expected = record.content_length
    if expected > limits.max_document_bytes:
        return refused("too_large", f"{expected} bytes")
    try:
        content = record.reader.read(expected) if expected else b""
    except OSError as error:
        return refused("corrupt", str(error)[:200])
    if len(content) < expected:
        return refused("truncated", f"{len(content)} of {expected} bytes")
    if http is not None:
        content = _decoded_body(content, http, limits.max_document_bytes)
        if len(content) > limits.max_document_bytes:
            return refused("too_large", "decompressed")
    if not content.strip():
        return refused("empty")
    if not kind and not LOOKS_LIKE_HTML.match(content):
        return refused("type_unknown")
    date = record.record_date
    return Record(
        content=content,
        is_html=kind != "text/plain",
        offset=offset,
        length=expected,
        url=url,
        label=record.http_charset if http else "utf-8",
        lang=http.get("Content-Language") if http else record.headers.get("WARC-Identified-Content-Language"),
        date=date.strftime("%Y-%m-%dT%H:%M:%SZ") if date else None,
    )


def _decoded_body(body: bytes, http: Any, limit: int) -> bytes:
    """The body without transfer and content encodings. Crawlers often store it decoded and keep the header, so a body
    that cannot be decoded is taken as it is. Stops shortly above `limit`."""
    if "chunked" in (http.get("Transfer-Encoding") or "").lower():
        body = _without_chunks(body)
    encoding = (http.get("Content-Encoding") or "").lower().strip()
    if encoding in ("gzip", "x-gzip", "deflate"):
        window = GZIP_WINDOW if body.startswith(b"\x1f\x8b") else zlib.MAX_WBITS
        for bits in (window, -zlib.MAX_WBITS):
            try:
                return zlib.decompressobj(bits).decompress(body, limit + 1)
            except zlib.error:
                continue
    return body


def _without_chunks(body: bytes) -> bytes:
    parts: list[bytes] = []
    position = 0
    while position < len(body):
        end = body.find(b"\r\n", position)
        try:
            size = int(body[position:end].split(b";")[0], 16) if end >= 0 else -1
        except ValueError:
            size = -1
        if size < 0 or (parts == [] and end + 2 + size > len(body)):
            return b"".join(parts) or body
        if size == 0:
            break
        parts.append(body[end + 2 : end + 2 + size])
        position = end + 2 + size + 2
    return b"".join(parts)


def _next_start(stream: IO[bytes], position: int, pattern: re.Pattern[bytes]) -> int | None:
    """Where the next record may begin, from `position` on."""
    overlap = 16
    stream.seek(max(position - 1, 0))  # WARC headers are found by the line end before them
    base = stream.tell()
    buffer = b""
    while chunk := stream.read(CHUNK):
        buffer += chunk
        for match in pattern.finditer(buffer):
            if base + match.start() >= position:
                return base + match.start()
        base += len(buffer) - min(overlap, len(buffer))
        buffer = buffer[-overlap:]
    return None


def _ends_early(stream: IO[bytes], last: int, is_gzip: bool) -> bool:
    """Whether the file breaks off behind the start of its last record; a whole one ends with two empty lines."""
    stream.seek(last)
    if not is_gzip:
        tail = b""
        while chunk := stream.read(CHUNK):
            tail = (tail + chunk)[-4:]
        return tail != b"\r\n\r\n"
    try:
        with gzip.GzipFile(fileobj=stream) as member:
            while member.read(CHUNK):
                pass
    except (EOFError, OSError, zlib.error):
        return True
    return False
