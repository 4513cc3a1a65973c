"""JSON lines, also compressed: one document a line, under the field names that public datasets use."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any

from diglot.corpus.read.compression import Decompressed, decompressed
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile

TEXT_FIELDS = ("text", "content", "raw_content", "body")
HTML_FIELDS = ("html", "html_b64", "raw_html")
LANGUAGE_FIELDS = ("lang", "language")
DATE_FIELDS = ("date", "timestamp", "created")
MAX_META_CHARS = 300  # longer strings in other fields are content (gold texts, abstracts), not facts about a document


def read_jsonl(file: SourceFile, limits: Limits) -> Iterator[Record | Refused]:
    """One record a line. Offsets count decompressed bytes."""
    end = 0
    with decompressed(file.path) as stream:
        for offset, line, whole in _lines(stream, limits.max_document_bytes):
            end = offset + len(line) + 1
            if not whole:
                yield Refused(reason="too_large", offset=offset)
            elif line.strip():
                yield read_line(line, offset)
        if stream.damage:
            yield Refused(reason=stream.damage, offset=end, detail="lines from here on cannot be read")


def read_line(line: bytes, offset: int) -> Record | Refused:
    try:
        fields = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return Refused(reason="invalid_json", offset=offset, detail=str(error)[:200])
    if not isinstance(fields, dict):
        return Refused(reason="invalid_json", offset=offset, detail=f"a {type(fields).__name__}, not an object")
    return record_of(fields, offset, len(line))


def record_of(fields: Mapping[str, Any], offset: int, length: int) -> Record | Refused:
    """A record from the fields of a JSON object or of a Parquet row."""
    url = _text(fields, ("url", "source_url", "uri"))
    content: bytes | str | None = _text(fields, TEXT_FIELDS)
    is_html = content is None
    if is_html:
        content = _text(fields, HTML_FIELDS)
        if content is not None and "html_b64" in fields and "html" not in fields:
            try:
                content = base64.b64decode(content, validate=True)
            except binascii.Error as error:
                return Refused(reason="invalid_base64", offset=offset, url=url, detail=str(error))
    if content is None:
        return Refused(
            reason="no_text", offset=offset, url=url, detail=f"fields: {', '.join(sorted(map(str, fields)))}"
        )
    if not content.strip():
        return Refused(reason="empty", offset=offset, url=url)
    known = {"url", "license", *TEXT_FIELDS, *HTML_FIELDS, *LANGUAGE_FIELDS, *DATE_FIELDS}
    return Record(
        content=content,
        is_html=is_html,
        offset=offset,
        length=length,
        url=url,
        lang=_text(fields, LANGUAGE_FIELDS),
        date=_text(fields, DATE_FIELDS),
        license=_text(fields, ("license",)),
        meta={key: value for key, value in fields.items() if key not in known and _is_fact(value)},
    )


def _lines(stream: Decompressed, limit: int) -> Iterator[tuple[int, bytes, bool]]:
    """(offset, line, whole): a line longer than `limit` comes as its start, not whole."""
    rest, start = b"", 0
    skipping = False
    for chunk in stream.chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not skipping:
                yield start, line, len(line) <= limit
            skipping = False
            start += len(line) + 1
        if len(rest) > limit:
            if not skipping:
                yield start, b"", False
            start += len(rest)
            rest, skipping = b"", True
    if rest and not skipping and not stream.damage:
        yield start, rest, True


def _text(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            return value
    return None


def _is_fact(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= MAX_META_CHARS)
