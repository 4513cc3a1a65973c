"""A file exists only when it is complete."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from diglot.core.errors import DiglotError
from diglot.core.storage import atomic_path, read_json, write_json


def test_a_failed_write_leaves_the_old_file_and_no_remains(tmp_path: Path):
    path = tmp_path / "facts.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError, match="in the middle"):
        _write_half(path)
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]


def _write_half(path: Path) -> None:
    with atomic_path(path) as partial:
        partial.write_text("half")
        raise RuntimeError("killed in the middle")


def test_a_full_disk_is_explained_with_a_next_action(tmp_path: Path):
    with pytest.raises(DiglotError, match=r"no space left.*free some space"), atomic_path(tmp_path / "big"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_two_writers_of_one_file_do_not_write_into_each_other(tmp_path: Path):
    """As two machines with the same process number on a shared file system might."""
    path = tmp_path / "shard"
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert path.read_bytes() == b"first"  # the one that ends last
    assert [p.name for p in tmp_path.iterdir()] == ["shard"]


def test_a_private_file_of_a_library_becomes_as_readable_as_any_other(tmp_path: Path):
    write_json(tmp_path / "usual.json", {})
    with atomic_path(tmp_path / "weights") as partial:
        partial.touch(mode=0o600)
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "usual.json").stat().st_mode
