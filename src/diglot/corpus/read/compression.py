"""Decompressed bytes of .gz and .zst files as a stream that says how it ended.

A truncated or damaged file gives what stands before the damage; the reader then asks `damage` and records it.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import IO, Protocol

import zstandard

from diglot.core.storage import open_read

CHUNK = 1 << 20
GZIP_WINDOW = 31  # zlib's code for a gzip header with the largest window
ZSTD_WINDOW = 1 << 31  # accept `zstd --long=31`


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class Decompressed:
    """Chunks of decompressed bytes. `damage` is None, `truncated` or `corrupt` once they are exhausted."""

    def __init__(self, stream: IO[bytes], path: str) -> None:
        self.damage: str | None = None
        self._stream = stream
        self._suffix = path.rpartition(".")[2].lower()

    def chunks(self) -> Iterator[bytes]:
        if self._suffix not in ("gz", "zst"):
            yield from iter(lambda: self._stream.read(CHUNK), b"")
            return
        decompressor: _Decompressor | None = None
        data = b""
        while data or (data := self._stream.read(CHUNK)):
            if decompressor is None:
                if self._suffix == "gz" and not data.strip(b"\0"):  # tape padding after the last member
                    data = b""
                    continue
                decompressor = self._decompressor()
            try:
                output = decompressor.decompress(data)
            except (zlib.error, zstandard.ZstdError):
                self.damage = "corrupt"
                return
            data = b""
            if decompressor.eof:  # the next member or frame follows
                data, decompressor = decompressor.unused_data, None
            if output:
                yield output
        if decompressor is not None:
            self.damage = "truncated"

    def _decompressor(self) -> _Decompressor:
        if self._suffix == "gz":
            return zlib.decompressobj(GZIP_WINDOW)
        return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()


@contextlib.contextmanager
def decompressed(path: str) -> Iterator[Decompressed]:
    """Open a local or remote file for decompressed reading; other files are read as they are."""
    with open_read(path) as stream:
        yield Decompressed(stream, path)


def read_all(path: str, limit: int) -> tuple[bytes, str | None]:
    """(content, reason): all bytes of a small file; the reason is set when they are damaged or more than `limit`."""
    parts: list[bytes] = []
    size = 0
    with decompressed(path) as stream:
        for chunk in stream.chunks():
            size += len(chunk)
            if size > limit:
                return b"", "too_large"
            parts.append(chunk)
        return b"".join(parts), stream.damage
