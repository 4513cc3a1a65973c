"""Which shards are finished: a small record beside a shard's files, written last, that names them with size and hash.

A run that was killed finds these records and redoes only the shards that have none, or whose files do not match it: a
file truncated by a full disk or a crash of the machine is noticed and written again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from diglot.core.storage import PARTIAL, write_bytes

CHUNK = 1 << 20


def once(record: Path, key: str, work: Callable[[], tuple[Sequence[Path], Any]]) -> Any:
    """The result of `work`, done now or found done.

    Args:
        record: where the finished shard is recorded; `record_path(file)` is the usual place.
        key: names the inputs of the work; a record with another key does not count.
        work: writes files and returns (their paths, a JSON-able result).
    """
    result = finished(record, key)
    if result is None:
        files, result = work()
        mark_finished(record, key, files, result)
    return result


def record_path(shard_file: Path) -> Path:
    """`documents/s/0000.parquet` -> `documents/s/.0000.done.json`; hidden, so it is not a file of the artifact."""
    return shard_file.with_name(f".{shard_file.stem}.done.json")


def finished(record: Path, key: str = "") -> Any | None:
    """The result that was recorded, or None when the shard has to be done (again)."""
    try:
        content = json.loads(record.read_bytes())
        if content["key"] != key:
            return None
        for name, size, digest in content["files"]:
            path = record.parent / name
            if path.stat().st_size != size or xxh3_file(path) != digest:
                return None
        return content["result"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def mark_finished(record: Path, key: str, files: Sequence[Path], result: Any) -> None:
    """Record that `files` are complete. `result` must not be None and must be JSON-able."""
    if result is None:
        raise ValueError(f"{record} needs a result that is not None, since None means unfinished.")
    entries = [(os.path.relpath(path, record.parent), path.stat().st_size, xxh3_file(path)) for path in sorted(files)]
    content = {"key": key, "files": entries, "result": result}
    write_bytes(record, json.dumps(content, ensure_ascii=False, sort_keys=True).encode())


def remove_partial_files(folder: Path) -> None:
    """Delete what writers that were killed left behind. Only for a folder that nobody else is writing to."""
    for path in list(folder.rglob(f".*{PARTIAL}")):
        if path.is_dir():  # a checkpoint
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def xxh3_file(path: Path) -> str:
    """xxh3-128 of a file's bytes, 32 hex digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
