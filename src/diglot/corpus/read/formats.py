"""Which reader reads a file, by its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

from diglot.corpus.read.record import Limits, Record, Refused, SourceFile

SUFFIXES = {
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".txt": "text", ".text": "text", ".md": "text", ".markdown": "text", ".rst": "text",
    ".warc": "warc", ".wet": "warc",
    ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet",
}  # fmt: skip
COMPRESSED = (".gz", ".zst")

READERS = {
    "html": "diglot.corpus.read.files:read_file",
    "text": "diglot.corpus.read.files:read_file",
    "warc": "diglot.corpus.read.warc:read_warc",
    "jsonl": "diglot.corpus.read.jsonl:read_jsonl",
    "parquet": "diglot.corpus.read.parquet:read_parquet",
}


def format_of(name: str) -> str | None:
    """The format that a file's name says, without regard to case; None when no reader knows it.

    >>> format_of("a/B.HTML.gz"), format_of("part-0.jsonl.zst"), format_of("logo.png")
    ('html', 'jsonl', None)
    """
    name = name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return SUFFIXES.get("." + name.rpartition(".")[2]) if "." in name else None


def read(file: SourceFile, limits: Limits) -> Iterator[Record | Refused]:
    """Everything in a file, in its order."""
    if file.format not in READERS:
        return iter([Refused(reason=file.format, url=file.url)])
    module, _, function = READERS[file.format].partition(":")
    reader: Callable[[SourceFile, Limits], Iterator[Record | Refused]]
    reader = getattr(importlib.import_module(module), function)
    return reader(file, limits)
