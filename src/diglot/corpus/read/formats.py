"""Which reader reads a file, by its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

from diglot.corpus.read.compression import COMPRESSED
from diglot.corpus.read.record import Limits, Reached, Record, Refused, SourceFile
from diglot.corpus.read.remote import UnreadableError

SUFFIXES = {
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".txt": "text", ".text": "text", ".md": "text", ".markdown": "text", ".rst": "text",
    ".tex": "latex", ".latex": "latex",
    ".warc": "warc", ".wet": "warc", ".wat": "wat", ".arc": "arc",
    ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet",
    ".xml": "mediawiki",
    ".tar": "tar",
}  # fmt: skip
WHOLE_NAMES = {".tgz": ".tar.gz", ".tbz2": ".tar.bz2", ".txz": ".tar.xz"}

READERS = {
    "html": "diglot.corpus.read.files:read_file",
    "text": "diglot.corpus.read.files:read_file",
    "latex": "diglot.corpus.read.files:read_file",
    "warc": "diglot.corpus.read.warc:read_warc",
    "wat": "diglot.corpus.read.warc:read_warc",
    "arc": "diglot.corpus.read.arc:read_arc",
    "jsonl": "diglot.corpus.read.jsonl:read_jsonl",
    "csv": "diglot.corpus.read.csv:read_csv",
    "parquet": "diglot.corpus.read.parquet:read_parquet",
    "mediawiki": "diglot.corpus.read.mediawiki:read_mediawiki",
    "tar": "diglot.corpus.read.tar:read_tar",
}
SINGLE = frozenset({"html", "text", "latex"})  # one document a file
CONTAINERS = frozenset(READERS) - SINGLE
# Their readers seek in the file, or know its compression themselves: a gzip or zstd member for each record.
OWN_COMPRESSION = {"warc": (".gz", ".zst"), "wat": (".gz", ".zst"), "parquet": ()}


def format_of(name: str) -> str | None:
    """The format that a file's name says, without regard to case; None when no reader knows it.

    >>> format_of("a/B.HTML.gz"), format_of("part-0.jsonl.zst"), format_of("pages.tgz"), format_of("logo.png")
    ('html', 'jsonl', 'tar', None)
    """
    name = uncompressed(name)
    return SUFFIXES.get("." + name.rpartition(".")[2]) if "." in name else None


def uncompressed(name: str) -> str:
    """The name, in lower case, without what says how it is compressed."""
    name = name.lower()
    for short, long in WHOLE_NAMES.items():
        if name.endswith(short):
            name = name.removesuffix(short) + long
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return name


def read(file: SourceFile, limits: Limits) -> Iterator[Record | Refused | Reached]:
    """Everything in a file, in its order; `Reached` only where the file has a span.

    A file that cannot be opened or read on is refused as `unreadable` from there on.
    """
    if file.format not in READERS:
        yield Refused(reason=file.format, url=file.url)
        return
    packed = file.container.lower().endswith(COMPRESSED)
    if packed and not file.container.lower().endswith(OWN_COMPRESSION.get(file.format, COMPRESSED)):
        yield Refused(reason="unsupported_compression", url=file.url, detail="unpack it once")
        return
    module, _, function = READERS[file.format].partition(":")
    reader: Callable[[SourceFile, Limits], Iterator[Record | Refused | Reached]]
    reader = getattr(importlib.import_module(module), function)
    offset = file.span[0] if file.span else 0
    try:
        for content in reader(file, limits):
            if not isinstance(content, Reached):
                offset = content.offset
            yield content
    except (UnreadableError, OSError) as error:
        detail = (error.strerror if isinstance(error, OSError) else None) or str(error)
        yield Refused(reason="unreadable", offset=offset, url=file.url, detail=detail[:200])
