"""Files that are either complete or absent: written under a temporary name, fsynced, renamed.

A path is local: artifacts live on a local or mounted file system, because the promise "a file that exists is complete"
rests on an atomic rename. Remote sources (`s3://`, `hf://`, ...) are opened by `corpus.read.remote`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diglot.core.errors import explain_os_error

PARTIAL = ".partial"  # suffix of a file that is being written; what a killed writer leaves goes with the next run


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success fsync it and rename it into place, on failure remove it.

    The file gets the permissions that any new file has here, also from writers that keep theirs private (safetensors).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Process numbers repeat from machine to machine, and two machines may write the same file on a shared file system.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        partial.unlink()
        yield partial
        os.chmod(partial, mode)
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, path)
    except OSError as error:
        raise explain_os_error(error, path, "writing") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_url(path: str) -> bool:
    return "://" in path
