"""Web archives (WARC 1.0/1.1, also WET): the pages in them, whatever the state of the file.

fastwarc decodes; this module gives every response a fate, goes on behind damage at the next record that can be read,
and notices a file that ends in the middle, which fastwarc takes for its end.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from fastwarc.warc import ArchiveIterator, WarcRecordType

from diglot.corpus.read.compression import CHUNK, GZIP_WINDOW
from diglot.corpus.read.record import Limits, Reached, Record, Refused, SourceFile
from diglot.corpus.read.remote import open_input

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
CONTENT_TYPE = re.compile(r"[\w.+*/-]{1,80}", re.ASCII)  # a reason is a word to count by
DESCRIBED = ("warcinfo", "request", "response", "metadata", "resource", "revisit", "conversion")
LOOKS_LIKE_HTML = re.compile(rb"\s*(?:<!--.{0,500}?-->\s*)*<(?:!doctype html|html|head|body|title)\b", re.I | re.S)
GZIP_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")
WARC_HEADER = re.compile(rb"(?<=\n)WARC/1\.[01]\r\n")
WITH_CONTENT = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion | WarcRecordType.revisit


@dataclass(frozen=True, kw_only=True)
class Response:
    """What an archive says of one record. status: None where no HTTP headers were kept; charset: as labelled."""

    offset: int
    url: str | None
    length: int
    date: str | None
    kind: str
    status: int | None = None
    charset: str | None = None
    lang: str | None = None
    transfer: str = ""
    encoding: str = ""

    def refused(self, reason: str, detail: str | None = None) -> Refused:
        return Refused(reason=reason, offset=self.offset, url=self.url, detail=detail)


def read_warc(file: SourceFile, limits: Limits) -> Iterator[Record | Refused | Reached]:
    """One record or refusal for each response, resource, conversion and revisit, and one for each damaged place.

    Offsets are positions in the file; records that share a compressed block share its offset. Of a WAT file, whose
    records describe pages and do not hold them, every metadata record is refused as `wat_response`, `wat_request` ...
    """
    first, stop = file.span or (0, None)
    kinds = WITH_CONTENT | WarcRecordType.metadata if file.format == "wat" else WITH_CONTENT
    with open_input(file.path) as stream:
        magic = stream.read(4)
        is_gzip, is_zstd = magic.startswith(b"\x1f\x8b"), magic == b"\x28\xb5\x2f\xfd"
        pattern = GZIP_MEMBER if is_gzip else WARC_HEADER
        start: int | None = first if file.exact is None else file.exact
        if first and file.exact is None:
            start = _record_start(stream, first, is_gzip)
        begun_at = start
        last = -1
        damaged = cut_off = False
        while start is not None and (stop is None or start < stop or damaged):  # a span ends where reading goes on
            place = start
            stream.seek(place)
            try:
                for record in ArchiveIterator(stream, parse_http=True, auto_decode="none"):
                    if stop is not None and record.stream_pos >= stop:
                        yield Reached(start=begun_at, end=record.stream_pos)
                        return
                    last = record.stream_pos
                    damaged = False
                    if record.record_type & kinds:
                        outcome = _outcome(record, last, limits)
                        cut_off = isinstance(outcome, Refused) and outcome.reason == "truncated"
                        yield outcome
                start = None
                break
            except OSError as error:
                if not damaged:  # one refusal for a damaged place, however many tries it takes to get past it
                    yield Refused(reason="corrupt", offset=max(last, place), detail=str(error)[:200])
                damaged = True
                last = max(last, place)
                start = _next_start(stream, last + 1, pattern)
        if stop is not None and start is not None:
            yield Reached(start=begun_at, end=start)
            return
        whole = cut_off or damaged or is_zstd  # of a zstd frame fastwarc itself notices that it breaks off
        if begun_at is not None and not whole and _ends_early(stream, max(last, 0), is_gzip):
            yield Refused(reason="truncated", offset=max(last, 0), detail="the file ends inside a record")
        if stop is not None:
            yield Reached(start=begun_at, end=None)


def _outcome(record: Any, offset: int, limits: Limits) -> Record | Refused:
    url = (record.headers.get("WARC-Target-URI") or "").strip("<>") or None
    http = record.http_headers
    date = record.record_date
    response = Response(
        offset=offset,
        url=url,
        length=record.content_length,
        date=date.strftime("%Y-%m-%dT%H:%M:%SZ") if date else None,
        kind=((http if http is not None else record.headers).get("Content-Type") or "").split(";")[0].strip().lower(),
        status=http.status_code if http is not None else None,
        charset=record.http_charset if http else "utf-8",
        lang=http.get("Content-Language") if http else record.headers.get("WARC-Identified-Content-Language"),
        transfer=(http.get("Transfer-Encoding") or "") if http is not None else "",
        encoding=(http.get("Content-Encoding") or "") if http is not None else "",
    )
    if record.record_type == WarcRecordType.revisit:
        return response.refused("revisit", "its content is in an earlier record")
    if record.record_type == WarcRecordType.metadata:
        return _described(record, response, limits)
    if reason := _no_page(response):
        return response.refused(reason)
    if response.length > limits.max_document_bytes:
        return response.refused("too_large", f"{response.length} bytes")
    try:
        content = record.reader.read(response.length) if response.length else b""
    except OSError as error:
        return response.refused("corrupt", str(error)[:200])
    if len(content) < response.length:
        return response.refused("truncated", f"{len(content)} of {response.length} bytes")
    return page_of(response, content, limits)


def page_of(response: Response, content: bytes, limits: Limits) -> Record | Refused:
    """The record of a response's body, or why it is none."""
    if reason := _no_page(response):
        return response.refused(reason)
    if response.status is not None:
        content = _decoded_body(content, response, limits.max_document_bytes)
    if len(content) > limits.max_document_bytes:
        return response.refused("too_large", "decompressed")
    if not content.strip():
        return response.refused("empty")
    if not response.kind and not LOOKS_LIKE_HTML.match(content):
        return response.refused("type_unknown")
    return Record(
        content=content,
        is_html=response.kind != "text/plain",
        offset=response.offset,
        length=response.length,
        url=response.url,
        label=response.charset,
        lang=response.lang,
        date=response.date,
    )


def _no_page(response: Response) -> str | None:
    if response.status is not None and response.status != 200:
        return f"http_{response.status}"
    if response.url and _path(response.url) == "/robots.txt":
        return "robots"
    if response.kind not in HTML_TYPES and response.kind not in ("", "text/plain"):
        return f"type_{response.kind}" if CONTENT_TYPE.fullmatch(response.kind) else "type_malformed"
    return None


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:  # http://[not an address/
        return ""


def _described(record: Any, response: Response, limits: Limits) -> Refused:
    """The fate of a WAT record: what it describes, with the page's title."""
    if response.kind != "application/json" or response.length > limits.max_document_bytes:
        return response.refused("wat_metadata")
    try:
        envelope = json.loads(record.reader.read(response.length))["Envelope"]
        payload = envelope["Payload-Metadata"]
        described = envelope["WARC-Header-Metadata"].get("WARC-Type")
        if described not in DESCRIBED:
            return response.refused("wat_metadata")
        html = payload.get("HTTP-Response-Metadata", {}).get("HTML-Metadata", {})
        title = html.get("Head", {}).get("Title")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
        return response.refused("wat_metadata", "not in the format of a WAT record")
    return response.refused(f"wat_{described}", str(title)[:200] if title else "the WARC or WET file holds its text")


def _decoded_body(body: bytes, response: Response, limit: int) -> bytes:
    """The body without transfer and content encodings. Crawlers often store it decoded and keep the header, so a body
    that cannot be decoded is taken as it is. Stops shortly above `limit`."""
    if "chunked" in response.transfer.lower():
        body = _without_chunks(body)
    encoding = response.encoding.lower().strip()
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


def _record_start(stream: IO[bytes], position: int, is_gzip: bool) -> int | None:
    """Where the first record at or behind `position` begins; of a gzip file, where a member unpacks to a WARC header.

    A page about WARC files can hold such a place as well. The reader of the part before then says another place, and
    this part is read again from there.
    """
    start: int | None = position - 1
    while start is not None and (start := _next_start(stream, start + 1, GZIP_MEMBER if is_gzip else WARC_HEADER)):
        if not is_gzip:
            return start
        stream.seek(start)
        with contextlib.suppress(zlib.error):
            if zlib.decompressobj(GZIP_WINDOW).decompress(stream.read(4096), 5) == b"WARC/":
                return start
    return start


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
