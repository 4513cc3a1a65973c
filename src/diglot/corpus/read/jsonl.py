"""JSON lines, also compressed: one document a line, under the field names that public datasets use or a map of them."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from diglot.corpus.read.compression import CHUNK, decompressed
from diglot.corpus.read.record import Limits, Reached, Record, Refused, SourceFile
from diglot.corpus.read.remote import open_input

TEXT_FIELDS = ("text", "content", "raw_content", "body")
HTML_FIELDS = ("html", "html_b64", "raw_html")
LANGUAGE_FIELDS = ("lang", "language")
DATE_FIELDS = ("date", "timestamp", "created")
URL_FIELDS = ("url", "source_url", "uri")
ALIASES = {
    "text": TEXT_FIELDS + HTML_FIELDS,
    "html": TEXT_FIELDS + HTML_FIELDS,
    "html_b64": TEXT_FIELDS + HTML_FIELDS,
    "url": URL_FIELDS,
    "lang": LANGUAGE_FIELDS,
    "date": DATE_FIELDS,
}
UTF8_MARK = b"\xef\xbb\xbf"
MAX_META_CHARS = 300  # longer strings in other fields are content (gold texts, abstracts), not facts about a document


def read_jsonl(file: SourceFile, limits: Limits) -> Iterator[Record | Refused | Reached]:
    """One record a line. Offsets count decompressed bytes; a file with a span is not compressed."""
    if file.span is not None:
        yield from _read_span(file, file.span, limits)
        return
    end = 0
    with decompressed(file.path) as stream:
        for offset, line, whole in _lines(stream.chunks(), limits.max_document_bytes):
            if stream.damage and whole and not line.endswith(b"\n"):
                break  # the half line before the damage, which the refusal below stands for
            end = offset + max(len(line), 1)
            if not whole:
                yield Refused(reason="too_large", offset=offset)
            elif line.strip():
                yield read_line(line.removesuffix(b"\n"), offset, file.fields)
        if stream.damage:
            yield Refused(reason=stream.damage, offset=end, detail="lines from here on cannot be read")


def _read_span(file: SourceFile, span: tuple[int, int], limits: Limits) -> Iterator[Record | Refused | Reached]:
    """The lines that start in the span. A line starts behind a line end, so neighbours agree without asking."""
    first, stop = span
    with open_input(file.path) as stream:
        start = first
        if first:
            stream.seek(first - 1)
            while piece := stream.readline(CHUNK):
                start += len(piece)
                if piece.endswith(b"\n"):
                    break
            start -= 1
        if start >= stop:
            return
        stream.seek(start)
        for at, line, whole in _lines(iter(lambda: stream.read(CHUNK), b""), limits.max_document_bytes):
            if (offset := start + at) >= stop:
                return
            if not whole:
                yield Refused(reason="too_large", offset=offset)
            elif line.strip():
                yield read_line(line.removesuffix(b"\n"), offset, file.fields)


def read_line(line: bytes, offset: int, renames: tuple[tuple[str, str], ...] = ()) -> Record | Refused:
    line = line.removeprefix(UTF8_MARK) if offset == 0 else line
    try:
        fields = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return Refused(reason="invalid_json", offset=offset, detail=str(error)[:200])
    if not isinstance(fields, dict):
        return Refused(reason="invalid_json", offset=offset, detail=f"a {type(fields).__name__}, not an object")
    return record_of(renamed(fields, renames), offset, len(line))


def renamed(fields: Mapping[str, Any], renames: tuple[tuple[str, str], ...]) -> Mapping[str, Any]:
    """The fields under our names. A name with dots leads into nested objects.

    Where a name is given, no other is tried: a record without it has none.

    >>> renamed({"body": "one", "text": "two", "at": {"url": "u"}}, (("text", "body"), ("url", "at.url")))
    {'at': {'url': 'u'}, 'text': 'one', 'url': 'u'}
    """
    if not renames:
        return fields
    found = {ours: _inside(fields, theirs) for ours, theirs in renames}
    aside = {alias for ours, _ in renames for alias in ALIASES.get(ours, (ours,))} | {theirs for _, theirs in renames}
    rest = {name: value for name, value in fields.items() if name not in aside}
    return rest | {ours: value for ours, value in found.items() if value is not None}


def _inside(fields: Mapping[str, Any], path: str) -> Any:
    if path in fields:
        return fields[path]
    value: Any = fields
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def record_of(fields: Mapping[str, Any], offset: int, length: int) -> Record | Refused:
    """A record from the fields of a JSON object or of a Parquet row."""
    url = _text(fields, URL_FIELDS)
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


def _lines(chunks: Iterator[bytes], limit: int) -> Iterator[tuple[int, bytes, bool]]:
    """(offset, line with its end, whole): a line longer than `limit` comes empty and not whole."""
    rest, start = b"", 0
    skipping = False
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not skipping:
                whole = len(line) <= limit
                yield start, line + b"\n" if whole else b"", whole
            skipping = False
            start += len(line) + 1
        if len(rest) > limit:
            if not skipping:
                yield start, b"", False
            skipping = True
        if skipping:
            start += len(rest)
            rest = b""
    if rest:
        yield start, rest, True


def _text(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            return value
    return None


def _is_fact(value: Any) -> bool:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int) or (isinstance(value, str) and len(value) <= MAX_META_CHARS)
