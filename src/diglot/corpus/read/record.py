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
    format: `html`, `text`, `warc`, `jsonl`, `parquet` ... (formats.READERS), or a refusal's reason where it cannot be
        read.
    url: the address of a page in its own right; containers of many documents have none.
    size: bytes on disk, 0 where a remote store does not say.
    fields: (our name, the file's name) where a dataset's fields are not called as ours, see `jsonl.renamed`.
    span: the part of a large container to read, (first byte, end): the records that start in it. None reads all.
    exact: where the first record of the span starts, if that is known and need not be searched for.
    """

    source: str
    path: str
    container: str
    format: str
    url: str | None = None
    size: int = 0
    fields: tuple[tuple[str, str], ...] = ()
    span: tuple[int, int] | None = None
    exact: int | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One page or text before decoding and extraction.

    content: bytes to be decoded (`label`: the encoding its container names), or text.
    is_html: whether the content is HTML to be extracted.
    offset, length: where it stands in its container: bytes of the file for WARC, of the decompressed content for JSONL,
        CSV, ARC, MediaWiki and tar, rows for Parquet, 0 for a file.
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


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Said once by the reader of a span: the first record at or behind its start, and at or behind its end.

    None stands for the end of the file. Two neighbouring spans fit when one's `end` is the other's `start`.
    """

    start: int | None
    end: int | None
