"""Internet Archive ARC files, version 1 and 2, also compressed: the pages of crawls before WARC.

A record is a line `URL IP-address Archive-date Content-type [...] Archive-length` and that many bytes, which for pages
start with the server's HTTP headers. URLs may hold spaces, so the line is read from its end. Format:
https://archive.org/web/researcher/ArcFileFormat.php
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from diglot.corpus.read.compression import decompressed
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile
from diglot.corpus.read.warc import Response, page_of

MAX_LINE = 1 << 16
MAX_HEADERS = 1 << 16
DATE = re.compile(rb"\d{12,18}")
STATUS = re.compile(rb"HTTP/\d(?:\.\d)?\s+(\d{3})")
HEADERS_END = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True)
class Head:
    """One header line. length: None where it is no number of bytes."""

    url: str
    date: str
    kind: str
    length: int | None


def read_arc(file: SourceFile, limits: Limits) -> Iterator[Record | Refused]:
    """One record or refusal an entry, none for the version block. Offsets count decompressed bytes."""
    offset = 0
    with decompressed(file.path) as stream:
        reader = stream.reader()
        lost = False  # behind something unreadable: one refusal, then lines are skipped up to the next header
        while line := reader.readline(MAX_LINE):
            start, offset = offset, offset + len(line)
            if not line.strip():
                continue
            head = header(line)
            if head is None:
                if not lost:
                    yield Refused(reason="corrupt", offset=start, detail="no ARC header where one should be")
                lost = True
                continue
            lost = head.length is None
            if head.length is None:
                yield Refused(reason="corrupt", offset=start, url=head.url, detail="a length that is no number")
                continue
            body = _read(reader, head.length, limits.max_document_bytes + MAX_HEADERS)
            offset += body[1]
            if head.url.startswith("filedesc:"):
                continue
            if body[1] < head.length:
                if not stream.damage:
                    yield Refused(
                        reason="truncated", offset=start, url=head.url, detail=f"{body[1]} of {head.length} bytes"
                    )
                break
            if head.length > limits.max_document_bytes + MAX_HEADERS:
                yield Refused(reason="too_large", offset=start, url=head.url, detail=f"{head.length} bytes")
            else:
                yield _outcome(head, body[0], start, limits)
        if stream.damage:
            yield Refused(reason=stream.damage, offset=offset, detail="records from here on cannot be read")


def header(line: bytes) -> Head | None:
    """The header line's fields; None for a line that is none.

    >>> header(b"http://a.org/x y 1.2.3.4 20140216050221 text/html 1591\\n")
    Head(url='http://a.org/x y', date='2014-02-16T05:02:21Z', kind='text/html', length=1591)
    """
    fields = line.rstrip(b"\r\n").split(b" ")
    if not re.match(rb"[A-Za-z][\w+.-]*:", fields[0]):
        return None
    at = next((at for at in range(len(fields) - 3, 1, -1) if DATE.fullmatch(fields[at])), None)
    if at is None or not line.endswith(b"\n"):
        return None
    date = fields[at].decode().ljust(14, "0")
    length = fields[-1]
    return Head(
        url=b" ".join(fields[: at - 1]).decode("utf-8", "replace"),
        date=f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:14]}Z",
        kind=fields[at + 1].decode("latin-1").split(";")[0].strip().lower(),
        length=int(length) if re.fullmatch(rb"\d{1,15}", length) else None,
    )


def _read(reader: io.BufferedReader, length: int, limit: int) -> tuple[bytes, int]:
    """(content, bytes read): the content of a body above the limit is passed over."""
    if length <= limit:
        content = reader.read(length)
        return content, len(content)
    passed = 0
    while passed < length and (piece := reader.read(min(1 << 20, length - passed))):
        passed += len(piece)
    return b"", passed


def _outcome(head: Head, body: bytes, offset: int, limits: Limits) -> Record | Refused:
    status = STATUS.match(body)
    response = Response(offset=offset, url=head.url, length=head.length or 0, date=head.date, kind=head.kind)
    if not status:  # archived without headers: ftp, dns, or an early crawler
        return page_of(response, body, limits)
    end = HEADERS_END.search(body, 0, MAX_HEADERS)
    names = _headers(body[: end.start()] if end else body)
    content = body[end.end() :] if end else b""
    charset = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", names.get("content-type", ""), re.I)
    kind = names.get("content-type", head.kind).split(";")[0].strip().lower()
    return page_of(
        Response(
            offset=offset,
            url=head.url,
            length=head.length or 0,
            date=head.date,
            kind=kind,
            status=int(status[1]),
            charset=charset[1] if charset else None,
            lang=names.get("content-language"),
            transfer=names.get("transfer-encoding", ""),
            encoding=names.get("content-encoding", ""),
        ),
        content,
        limits,
    )


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in head.decode("latin-1").splitlines()[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}
