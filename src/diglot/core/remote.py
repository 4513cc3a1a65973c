"""A folder behind an fsspec address: an object store, or any other file system without an atomic rename.

Nothing is promised about a file that is being written; who needs "complete or absent" writes a manifest last. Errors
of the many file systems become sentences with a next action. Credentials stay out of them: they come from the
environment or fsspec's own configuration, and an address that carries some is refused.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from diglot.core.errors import ConfigError, DiglotError, InputError

Result = TypeVar("Result")

PACKAGES = {  # protocol -> the package that fsspec needs for it
    "hf": "huggingface_hub", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp",
    "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "oss": "ossfs", "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
# Their folders are only prefixes of names. Asked for a folder, some of them would make a bucket.
OBJECT_STORES = frozenset({"hf", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss"})
TRIES = 3  # of one transfer, beside what the file system tries by itself
WAIT_S = 2.0  # before the second; doubled before the third


def refuse_credentials(url: str) -> None:
    """Raises ConfigError, which does not repeat them, where an address carries credentials."""
    parts = urlsplit(url)
    if parts.password or parts.query:
        raise ConfigError(
            f"an address of {parts.scheme}:// carries a password or a query; it would be kept in logs and manifests. "
            "Put credentials into the environment (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, ...) or into fsspec's "
            "configuration (~/.config/fsspec)."
        )


class RemoteFolder:
    """Names below it have '/' between folders. It need not exist; writing makes it, but no bucket."""

    def __init__(self, url: str) -> None:
        refuse_credentials(url)
        import fsspec  # only who uses one pays for it

        self.url = url.rstrip("/")
        self.protocol = url.partition("://")[0]
        try:
            self._system, self._root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            package = PACKAGES.get(self.protocol)
            install = f"pip install {package}" if package else "Install the file system it needs, or correct it"
            raise ConfigError(f"{self.url} cannot be opened: {error}. {install}.") from error
        self._root = self._root.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Bytes of every file below it, by name; empty where there is none yet."""
        self._system.invalidate_cache()
        with self._explained("listing"):
            try:
                found = self._system.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
        return {path[len(self._root) + 1 :]: int(facts["size"] or 0) for path, facts in sorted(found.items())}

    def open(self, name: str) -> IO[bytes]:
        stream: IO[bytes] = self._system.open(self._path(name), "rb")
        return stream

    def read_bytes(self, name: str) -> bytes:
        def read() -> bytes:
            content: bytes = self._system.cat_file(self._path(name))
            return content

        return self._insist(read, "reading", name)

    def write_bytes(self, name: str, content: bytes) -> None:
        def write() -> None:
            self._make_parent(name)
            self._system.pipe_file(self._path(name), content)

        self._insist(write, "writing", name)

    def upload(self, path: Path, name: str) -> None:
        """Raises DiglotError where the copy, in the end, does not have the file's size."""

        def put() -> None:
            self._make_parent(name)
            self._system.put_file(str(path), self._path(name))

        self._insist(put, "writing", name)
        self._system.invalidate_cache()
        written = self._insist(lambda: self._system.info(self._path(name))["size"], "looking at", name)
        if written != path.stat().st_size:
            raise DiglotError(
                f"{self.url}/{name} has {written:,} bytes after {path.stat().st_size:,} were written to it. Look at "
                "the store; the same command goes on from the last complete checkpoint."
            )

    def delete(self, names: Sequence[str]) -> None:
        """In this order. A name may be a folder, which goes with all that is in it; one that is not there is no
        error."""
        for name in names:
            with self._explained("deleting", name), contextlib.suppress(FileNotFoundError):
                self._system.rm(self._path(name), recursive=True)

    def check_writable(self) -> None:
        """Raises DiglotError where it cannot be written to or deleted from: better at the start than after hours."""
        self.write_bytes(".written-to-test", b"\n")
        self.delete([".written-to-test"])

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _make_parent(self, name: str) -> None:
        if self.protocol not in OBJECT_STORES:
            self._system.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _insist(self, act: Callable[[], Result], doing: str, name: str) -> Result:
        """What `act` returns, which is tried again where that can help."""
        for attempt in range(TRIES - 1):
            try:
                return act()
            except (PermissionError, FileNotFoundError):
                break
            except Exception:  # each file system has its own errors for a lost connection
                time.sleep(WAIT_S * 2**attempt)
        with self._explained(doing, name):
            return act()
        raise AssertionError("either returns or raises")

    @contextlib.contextmanager
    def _explained(self, doing: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise explain(error, f"{self.url}/{name}" if name else self.url, doing) from error


def explain(error: Exception, url: str, doing: str) -> DiglotError:
    """Turn any file system's error into a sentence with a next action."""
    if isinstance(error, DiglotError):
        return error
    if isinstance(error, PermissionError):
        return DiglotError(
            f"no permission while {doing} {url}. Check which credentials this process has, and what they may do there."
        )
    if isinstance(error, FileNotFoundError):
        return InputError(f"{url} is not there while {doing} it. Create the bucket or folder, or correct the address.")
    return DiglotError(
        f"{doing} {url} failed: {type(error).__name__}: {_without_queries(error)}. Check the network and the store; "
        "what is complete stays valid, and the same command goes on from it."
    )


def _without_queries(error: Any) -> str:
    """An error's first line; signed addresses carry credentials behind their question mark."""
    lines = re.sub(r"\?\S+", "?[left out]", str(error)).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no reason given"
