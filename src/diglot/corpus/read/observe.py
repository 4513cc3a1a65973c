"""What an ingest step would read, boiled down to a digest: part of its fingerprint, so that changed pages are noticed.

Names within their source, sizes and contents count; where the files lie does not. Files above `CONTENT_LIMIT` count by
size and time of change instead, since hashing terabytes would take as long as ingesting them.
"""

from __future__ import annotations

from pathlib import Path

import xxhash

from diglot.core.storage import is_url
from diglot.corpus.read.record import SourceFile
from diglot.corpus.read.sources import Found

CONTENT_LIMIT = 64 << 20  # bytes


def observe_files(found: Found) -> dict[str, object]:
    """Versions of the sources, number and bytes of their files, and a digest over all of them."""
    digest = xxhash.xxh3_128()
    for file in found.files:
        digest.update(f"{file.source}\0{file.container}\0{file.size}\0{_content(file)}\n".encode())
    return {
        "sources": {name: source.version for name, source in sorted(found.sources.items())},
        "num_files": len(found.files),
        "num_bytes": sum(file.size for file in found.files),
        "digest": digest.hexdigest(),
    }


def _content(file: SourceFile) -> str:
    if is_url(file.path):
        return file.path  # a remote store's content is not fetched to be hashed
    path = Path(file.path)
    try:
        if file.size > CONTENT_LIMIT:
            return f"changed at {path.stat().st_mtime_ns}"
        return xxhash.xxh3_64_hexdigest(path.read_bytes())
    except OSError as error:
        return f"unreadable: {error.strerror}"  # ingest refuses it with its reason
