"""Files that are one document each: HTML, plain text, Markdown, reStructuredText, LaTeX; also compressed."""

from __future__ import annotations

from collections.abc import Iterator

from diglot.corpus.read.compression import read_all
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile


def read_file(file: SourceFile, limits: Limits) -> Iterator[Record | Refused]:
    """The one record of the file."""
    content, reason = read_all(file.path, limits.max_document_bytes)
    if reason:
        yield Refused(reason=reason, url=file.url)
    else:
        yield record_of_file(content, file.format, file.url)


def record_of_file(content: bytes, kind: str, url: str | None, offset: int = 0) -> Record | Refused:
    """The record of a whole file of a format that holds one document."""
    if not content.strip():
        return Refused(reason="empty", offset=offset, url=url)
    if kind == "latex":
        from diglot.corpus.read.latex import record_of_latex  # the other formats need none of it

        return record_of_latex(content, url, offset)
    return Record(content=content, is_html=kind == "html", length=len(content), url=url, offset=offset)
