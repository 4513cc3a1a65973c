"""Decompressed bytes of .gz, .bz2, .xz and .zst files as a stream that says how it ended.

A truncated or damaged file gives what stands before the damage; the reader then asks `damage` and records it.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import IO, Any, Protocol

import zstandard

from diglot.corpus.read.remote import open_input

CHUNK = 1 << 20
GZIP_WINDOW = 31  # zlib's code for a gzip header with the largest window
ZSTD_WINDOW = 1 << 31  # accept `zstd --long=31`
ZSTD_PIECE = 1 << 10  # zstd has no output limit: four bytes may unpack to 128 kB, so this much to 32 MB
XZ_MEMORY = 1 << 30  # of the dictionary; `xz -9` needs 65 MB
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")


class _Decompressor(Protocol):
    """feed: at most about CHUNK bytes of output for more input; then also for b"" as long as `pending`."""

    @property
    def ended(self) -> bool: ...
    @property
    def pending(self) -> bool: ...
    @property
    def unused(self) -> bytes: ...
    def feed(self, content: bytes) -> bytes: ...


class Decompressed:
    """Chunks of decompressed bytes. `damage` is None, `truncated` or `corrupt` once they are exhausted."""

    def __init__(self, stream: IO[bytes], path: str) -> None:
        self.damage: str | None = None
        self._stream = stream
        suffix = path.rpartition(".")[2].lower()
        self._suffix = {"tgz": "gz", "tbz2": "bz2", "txz": "xz"}.get(suffix, suffix)

    def chunks(self) -> Iterator[bytes]:
        if f".{self._suffix}" not in COMPRESSED:
            yield from iter(lambda: self._stream.read(CHUNK), b"")
            return
        decompressor: _Decompressor | None = None
        waiting = b""
        while waiting or (decompressor and decompressor.pending) or (waiting := self._stream.read(CHUNK)):
            if decompressor is None:
                if self._suffix in ("gz", "xz") and not waiting.strip(b"\0"):  # padding after the last member
                    waiting = b""
                    continue
                decompressor = self._decompressor()
            try:
                output = decompressor.feed(waiting)
            except (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError, MemoryError):
                self.damage = "corrupt"
                return
            waiting = b""
            if decompressor.ended:  # the next member or frame follows
                waiting, decompressor = decompressor.unused, None
            if output:
                yield output
        if decompressor is not None:
            self.damage = "truncated"

    def reader(self) -> io.BufferedReader:
        """The chunks as a file to read from; `damage` counts once it has given its end."""
        return io.BufferedReader(_Chunks(self.chunks()), CHUNK)

    def _decompressor(self) -> _Decompressor:
        if self._suffix == "gz":
            return _Gzip()
        if self._suffix == "zst":
            return _Zstd()
        return _Limited(bz2.BZ2Decompressor() if self._suffix == "bz2" else lzma.LZMADecompressor(memlimit=XZ_MEMORY))


@contextlib.contextmanager
def decompressed(path: str) -> Iterator[Decompressed]:
    """Open a local or remote file for decompressed reading; other files are read as they are."""
    with open_input(path) as stream:
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


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(GZIP_WINDOW)
        self._full = False

    def feed(self, content: bytes) -> bytes:
        output = self._inner.decompress(self._inner.unconsumed_tail + content, CHUNK)
        self._full = len(output) == CHUNK  # more may wait inside zlib, although all input is consumed
        return output

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def pending(self) -> bool:
        return self._full and not self._inner.eof

    @property
    def unused(self) -> bytes:
        return self._inner.unused_data


class _Zstd:
    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
        self._rest = b""
        self._at = 0

    def feed(self, content: bytes) -> bytes:
        if content:
            self._rest, self._at = self._rest[self._at :] + content, 0
        output: list[bytes] = []
        size = 0
        while self.pending and size < CHUNK and not self._inner.eof:
            output.append(self._inner.decompress(self._rest[self._at : self._at + ZSTD_PIECE]))
            self._at += ZSTD_PIECE
            size += len(output[-1])
        return b"".join(output)

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def pending(self) -> bool:
        return self._at < len(self._rest)

    @property
    def unused(self) -> bytes:
        return self._inner.unused_data + self._rest[self._at :]


class _Limited:
    """bz2 and xz, whose decompressors keep their own rest."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def feed(self, content: bytes) -> bytes:
        output: bytes = self._inner.decompress(content, CHUNK)
        return output

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

    @property
    def pending(self) -> bool:
        return not self._inner.eof and not self._inner.needs_input

    @property
    def unused(self) -> bytes:
        unused: bytes = self._inner.unused_data
        return unused


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
