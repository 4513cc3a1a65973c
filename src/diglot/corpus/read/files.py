"""Files that are one document each: HTML, plain text, Markdown, reStructuredText; also compressed with gzip or zstd."""

from __future__ import annotations

from collections.abc import Iterator

from diglot.corpus.read.compression import read_all
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile


def read_file(file: SourceFile, limits: Limits) -> Iterator[Record | Refused]:
    """The one record of the file."""
    content, reason = read_all(file.path, limits.max_document_bytes)
    if reason:
        yield Refused(reason=reason, url=file.url)
    elif not content.strip():
        yield Refused(reason="empty", url=file.url)
    else:
        yield Record(content=content, is_html=file.format == "html", length=len(content), url=file.url)
