"""Checkpoints behind an fsspec address: the same files and manifest as in `checkpoints.py`, and no rename.

Object stores cannot rename. So each rank writes its files to a local folder first (Python's folder for temporary files:
TMPDIR moves it), sends them, and rank 0 writes `manifest.json` when all have. What has no manifest is no checkpoint: it
is passed over with a warning, and the next save removes it. To resume, one rank of each machine fetches the files to
such a folder again and checks their hashes on the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from diglot.core.errors import ConfigError, DiglotError, explain_os_error
from diglot.core.remote import RemoteFolder
from diglot.core.storage import is_url
from diglot.corpus.read.remote import Resumed
from diglot.train.checkpoints import (
    FIELDS,
    MANIFEST,
    Checkpoint,
    Counters,
    check_order,
    files_of,
    free_name,
    manifest_of,
    newest_valid,
    oldest_first,
    remove_unfinished,
    stale,
)
from diglot.train.parallel.ranks import Ranks

CHUNK = 1 << 22

Folder = Path | RemoteFolder


def checkpoint_folder(place: str | None, out: Path, ranks: Ranks) -> Folder:
    """Where a run keeps its checkpoints: `place`, a path or an fsspec address, or `out/checkpoints`.

    Raises: ConfigError or DiglotError where an address cannot be opened or written to.
    """
    if place is None:
        return out / "checkpoints"
    if not is_url(place):
        return Path(place)
    folder = RemoteFolder(place)
    if folder.protocol == "memory" and ranks.count > 1:
        raise ConfigError(f"checkpoint_dir: {place} lies in the memory of one process, and {ranks.count} run.")
    ranks.from_main(folder.check_writable)
    return folder


@contextlib.contextmanager
def resumable(
    folder: Folder, order_fingerprint: str, warn: Callable[[str], None], ranks: Ranks
) -> Iterator[Checkpoint | None]:
    """The newest valid checkpoint, with its files where this rank can read them while the context is open; or None.

    Remains of killed saves in a local folder are removed. All ranks call it together. Raises as `newest_valid` does.
    """
    if isinstance(folder, RemoteFolder):
        with _fetched(folder, order_fingerprint, warn, ranks) as checkpoint:
            yield checkpoint
        return

    def find() -> Checkpoint | None:
        remove_unfinished(folder)
        return newest_valid(folder, order_fingerprint, warn)

    yield ranks.from_main(find)


def remote_checkpoints(folder: RemoteFolder) -> tuple[list[Checkpoint], list[str], list[str]]:
    """Checkpoints with a readable manifest, oldest first; names without one; and names with one that is unreadable."""
    found, without, unreadable = [], [], []
    names = list(folder.sizes())
    for name in dict.fromkeys(name.partition("/")[0] for name in names if "/" in name):
        if f"{name}/{MANIFEST}" not in names:
            without.append(name)
            continue
        checkpoint = _read(folder, name)
        if checkpoint is None:
            unreadable.append(name)
        else:
            found.append(checkpoint)
    return oldest_first(found), without, unreadable


def begin_remote(folder: RemoteFolder, name: str, counters: Counters) -> str:
    """The checkpoint's name. What lies under it, damaged or half-written, is deleted."""
    there = [_read(folder, name)] if f"{name}/{MANIFEST}" in folder.sizes() else []
    free = free_name(name, counters, filter(None, there))
    delete_remote(folder, free)
    return free


@contextlib.contextmanager
def staging(folder: RemoteFolder, ranks: Ranks) -> Iterator[Path]:
    """An empty local folder for this rank's files; removed at the end, or by the next run where this one is killed."""
    path = _scratch(folder, f"save-{ranks.launch.rank if ranks.launch else 0}")
    try:
        yield _emptied(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def send(folder: RemoteFolder, name: str, files: Path) -> dict[str, dict[str, Any]]:
    """Copy all files of a local folder into a checkpoint; their part of its manifest."""
    facts = files_of(files)
    for file in facts:
        folder.upload(files / file, f"{name}/{file}")
    return facts


def seal_remote(
    folder: RemoteFolder,
    name: str,
    files: Mapping[str, Mapping[str, Any]],
    keep_rolling: int | None,
    notes: Mapping[str, Any],
) -> Checkpoint:
    """Write the manifest, which makes the files a checkpoint, and delete what is not to be kept and what is none.

    notes: the other arguments of `manifest_of`.
    """
    manifest = manifest_of(files, **notes)
    content = json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    folder.write_bytes(f"{name}/{MANIFEST}", content.encode())
    everything, without, _ = remote_checkpoints(folder)
    for other in [checkpoint.name for checkpoint in stale(everything, keep_rolling)] + without:
        delete_remote(folder, other)
    return _checkpoint(folder, name, manifest)


def delete_remote(folder: RemoteFolder, name: str) -> None:
    """The manifest goes first, so that a half-deleted folder does not look like a checkpoint."""
    folder.delete([f"{name}/{MANIFEST}", name])


def _read(folder: RemoteFolder, name: str) -> Checkpoint | None:
    """None where its manifest is none."""
    with contextlib.suppress(ValueError):
        manifest = json.loads(folder.read_bytes(f"{name}/{MANIFEST}"))
        if isinstance(manifest, dict) and set(manifest) >= FIELDS:
            return _checkpoint(folder, name, manifest)
    return None


def _checkpoint(folder: RemoteFolder, name: str, manifest: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(_scratch(folder, "resume") / name, manifest, f"{folder.url}/{name}")


@contextlib.contextmanager
def _fetched(
    folder: RemoteFolder, order_fingerprint: str, warn: Callable[[str], None], ranks: Ranks
) -> Iterator[Checkpoint | None]:
    found, without, unreadable = ranks.from_main(lambda: remote_checkpoints(folder))
    fetches = ranks.launch is None or ranks.launch.local_rank == 0
    if ranks.is_main:
        for name in sorted(without + unreadable):
            warn(f"checkpoint {name} has no readable manifest and is passed over.")
    try:
        for one in reversed(found):
            checkpoint = _checkpoint(folder, one.name, one.manifest)  # this machine's copy has a place of its own
            check_order(checkpoint, order_fingerprint)
            damage: str | None = None
            error: DiglotError | None = None
            if fetches:
                try:
                    damage = _fetch(folder, checkpoint)
                except DiglotError as met:
                    error = met
            answers = ranks.of_each((damage, error))
            for _, other in answers:
                if other is not None:
                    raise other
            damage = next((text for text, _ in answers if text is not None), None)
            if damage is None:
                if not checkpoint.path.is_dir():
                    raise DiglotError(
                        f"{checkpoint.path}, where the first rank of this machine put its copy of {checkpoint.url}, is "
                        "not there. All ranks of a machine need the same TMPDIR."
                    )
                yield checkpoint
                ranks.of_each(None)  # nobody reads any more
                return
            if ranks.is_main:
                warn(f"checkpoint {checkpoint.name} is damaged ({damage}); going back to the one before it.")
        yield None
    finally:
        if fetches:
            shutil.rmtree(_scratch(folder, "resume"), ignore_errors=True)


def _fetch(folder: RemoteFolder, checkpoint: Checkpoint) -> str | None:
    """Copy its files to `checkpoint.path`. What is wrong with them, or None."""
    sizes = folder.sizes()
    _emptied(checkpoint.path.parent)
    checkpoint.path.mkdir()
    for name, facts in checkpoint.manifest["files"].items():
        size = sizes.get(f"{checkpoint.name}/{name}")
        if size is None:
            return f"{name} is missing"
        if size != facts["bytes"]:
            return f"{name} has {size:,} bytes instead of {facts['bytes']:,}"
        if _copy(folder, f"{checkpoint.name}/{name}", checkpoint.path / name) != facts["sha256"]:
            return f"{name} does not have the hash of its manifest"
    return None


def _copy(folder: RemoteFolder, name: str, path: Path) -> str:
    """The SHA-256 of a remote file, copied. A broken connection is taken up again at its byte."""
    digest = hashlib.sha256()
    try:
        with Resumed(lambda: folder.open(name)) as source, path.open("wb") as target:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                target.write(chunk)
    except OSError as error:
        raise explain_os_error(error, path, "copying the checkpoint here (TMPDIR names another folder) to") from error
    except DiglotError as error:
        raise DiglotError(f"reading {folder.url}/{name} failed: {error}. The same command tries again.") from error
    return digest.hexdigest()


def _scratch(folder: RemoteFolder, what: str) -> Path:
    """The same name in every attempt of a machine, so that the next one finds and removes what a killed one left.

    Another one on each machine: TMPDIR may be a folder that they share.
    """
    run = hashlib.sha256(f"{platform.node()} {folder.url}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"diglot-{os.getuid()}-{run}-{what}"


def _emptied(path: Path) -> Path:
    try:
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(mode=0o700)
    except OSError as error:
        raise explain_os_error(error, path, "making a folder for checkpoints (TMPDIR names another) at") from error
    return path
