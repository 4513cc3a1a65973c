"""What readers yield: records, and refusals for what cannot become one. One of the two for everything that is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One input file.

    source: the name under which its documents are counted.
    path: where it is, a local path or a URL; never part of a result.
    container: its name within the source, part of its documents' ids.
    format: `html`, `text`, `warc`, `jsonl`, `parquet`, or a refusal's reason where it cannot be read.
    url: the address of a page in its own right; containers of many documents have none.
    size: bytes on disk, 0 where a remote store does not say.
    """

    source: str
    path: str
    container: str
    format: str
    url: str | None = None
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Record:
    """One page or text before decoding and extraction.

    content: bytes to be decoded (`label`: the encoding its container names), or text.
    is_html: whether the content is HTML to be extracted.
    offset, length: where it stands in its container: bytes for WARC and JSONL, rows for Parquet, 0 for a file.
    lang: as declared by the container, in any spelling.
    """

    content: bytes | str
    is_html: bool
    offset: int = 0
    length: int = 0
    url: str | None = None
    label: str | None = None
    lang: str | None = None
    date: str | None = None
    license: str | None = None
    meta: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Something that was read and is no document. `reason` is a word to count by, `detail` says more."""

    reason: str
    offset: int = 0
    url: str | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """max_document_bytes: of one record, decompressed; more is refused as `too_large`."""

    max_document_bytes: int
