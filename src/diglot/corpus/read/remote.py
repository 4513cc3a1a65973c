"""Input files, local or remote, opened so that a broken connection is resumed at its byte and not read from the start.

Every reader opens its file here. A remote read that fails is tried again, from the position it had reached; when the
tries are used up, `UnreadableError` says so, and the file is refused from there on with its reason.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from diglot.core.errors import DiglotError
from diglot.core.storage import is_url

TRIES = 4  # of one read; a stream that goes on in between starts counting anew
WAIT_S = 0.5  # before the second try; doubled before each further one
BUFFER = 1 << 20


class UnreadableError(DiglotError):
    """A file that cannot be opened or read to its end. No OSError: readers take those for damage in the content."""


@contextlib.contextmanager
def open_input(path: str) -> Iterator[IO[bytes]]:
    """A seekable stream of the file's bytes. Raises UnreadableError, also from its `read`."""
    try:
        stream = io.BufferedReader(Resumed(lambda: _opened(path)), BUFFER) if is_url(path) else Path(path).open("rb")  # noqa: SIM115
    except OSError as error:
        raise UnreadableError(f"{error.strerror or error}") from error
    with stream:
        yield stream


class Resumed(io.RawIOBase):
    """A stream that opens its source again, at the byte it had reached, when a read fails.

    open: gives a fresh seekable stream. sleep: waits the given seconds; tests do not.
    """

    def __init__(self, open: Callable[[], Any], sleep: Callable[[float], object] = time.sleep) -> None:
        self._open, self._sleep = open, sleep
        self._stream: Any = None
        self._position = 0
        self._insist(lambda stream: None)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content: bytes = self._insist(lambda stream: stream.read(len(buffer)))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = self._insist(lambda stream: stream.seek(offset, whence))
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if self._stream is not None and not self.closed:
            with contextlib.suppress(Exception):
                self._stream.close()
        super().close()

    def _insist(self, act: Callable[[Any], Any]) -> Any:
        for attempt in range(TRIES):
            try:
                if self._stream is None:
                    self._stream = self._open()
                    if self._position:
                        self._stream.seek(self._position)
                return act(self._stream)
            except FileNotFoundError as error:
                raise UnreadableError(f"{error} is not there") from error
            except Exception as error:  # each file system has its own errors for a lost connection
                if attempt + 1 == TRIES:
                    raise UnreadableError(f"{TRIES} tries failed at byte {self._position}: {error}") from error
                with contextlib.suppress(Exception):
                    if self._stream is not None:
                        self._stream.close()
                self._stream = None
                self._sleep(WAIT_S * 2**attempt)
        raise AssertionError("the last try returns or raises")


def _opened(path: str) -> Any:
    import fsspec  # only remote inputs pay for it

    return fsspec.open(path, "rb").open()
