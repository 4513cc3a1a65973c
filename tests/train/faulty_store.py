"""A file system for tests, `faulty:///folder`, that breaks off where it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class FaultyStore(LocalFileSystem):  # type: ignore[misc]
    """fails_at: in the name of the files that break off when they are written, after half of their bytes.

    times: so often; None always. error: what is raised then. lost: what reading the file `fails_at` raises.
    """

    protocol = "faulty"
    cachable = False
    fails_at: str | None = None
    times: int | None = None
    error: Exception = ConnectionResetError("Connection reset by peer")
    lost: Exception | None = None

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("faulty://"))

    def put_file(self, lpath: str, rpath: str, *arguments: Any, **options: Any) -> None:
        self._break_off(rpath, Path(lpath).read_bytes())
        super().put_file(lpath, rpath, *arguments, **options)

    def pipe_file(self, path: str, value: bytes, *arguments: Any, **options: Any) -> None:
        self._break_off(path, value)
        super().pipe_file(path, value, *arguments, **options)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if self.lost is not None and self.fails_at is not None and self.fails_at in path:
            raise self.lost
        return super().open(path, mode, **options)

    def _break_off(self, path: str, content: bytes) -> None:
        kind = type(self)
        if self.fails_at is None or self.fails_at not in path or kind.times == 0:
            return
        if kind.times is not None:
            kind.times -= 1
        Path(self._strip_protocol(path)).write_bytes(content[: len(content) // 2])
        raise self.error


fsspec.register_implementation("faulty", FaultyStore, clobber=True)
