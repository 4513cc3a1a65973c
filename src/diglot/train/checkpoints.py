"""Checkpoints: everything a run needs to go on as if it had never stopped.

    checkpoints/<tokens>/state.safetensors     weights and optimizer state, by name
    checkpoints/<tokens>/shard-*.safetensors   the same, a file of each rank where several wrote it
    checkpoints/<tokens>/manifest.json         counters, order fingerprint, sizes and hashes; written last

A checkpoint is made under a hidden name and renamed when it is whole, and it is valid only when its files have the
sizes and hashes of its manifest. Names carry the tokens read in units of K, M or B, with leading zeros so that they
sort: `0002457.6K` (and `0002457.6K.step600` where two would round to one name). Three classes: `release` is never
deleted, `rolling` only where the user names how many to keep, and `emergency` (written on a signal, or when the time is
over) is replaced by the next checkpoint of any class where rolling ones are deleted too.

Here they lie in a local folder; `remote_checkpoints.py` keeps the same files behind an fsspec address.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from torch import Tensor

from diglot.core.errors import ConfigError, explain_os_error
from diglot.core.storage import PARTIAL, read_json, sha256_file, write_json

STATE, MANIFEST = "state.safetensors", "manifest.json"
FIELDS = frozenset({"counters", "files", "retention", "order_fingerprint"})
Retention = Literal["release", "rolling", "emergency"]


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Where a run stands: training steps done, of all phases, and tokens read."""

    train_steps_done: int
    num_tokens: int


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint. Of one behind an address, `path` is where its local copy lies, or would."""

    path: Path
    manifest: Mapping[str, Any]
    url: str | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def place(self) -> str:
        """For messages."""
        return self.url or str(self.path)

    @property
    def counters(self) -> Counters:
        return Counters(**self.manifest["counters"])

    @property
    def retention(self) -> str:
        return str(self.manifest["retention"])

    def tensors(self) -> dict[str, Tensor]:
        """All of one that a single process wrote; `checkpoint_files.read_state` reads any."""
        return load_file(self.path / STATE)

    def damage(self) -> str | None:
        """What is wrong with its files, or None."""
        for name, facts in self.manifest["files"].items():
            path = self.path / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().st_size != facts["bytes"]:
                return f"{name} has {path.stat().st_size:,} bytes instead of {facts['bytes']:,}"
            if sha256_file(path) != facts["sha256"]:
                return f"{name} does not have the hash of its manifest"
        return None


def checkpoint_name(num_tokens: int, total_tokens: int) -> str:
    """Tokens read, in the largest unit of which the run reads at least 1,000: `0000033.5B`."""
    size, unit = next(((s, u) for s, u in ((10**9, "B"), (10**6, "M")) if total_tokens >= 1000 * s), (10**3, "K"))
    return f"{num_tokens / size:09.1f}{unit}"


def write_checkpoint(
    folder: Path,
    name: str,
    tensors: Mapping[str, Tensor],
    *,
    counters: Counters,
    retention: Retention,
    order_fingerprint: str,
    facts: Mapping[str, Any],
) -> Checkpoint:
    """Write `folder/name` whole or not at all. `facts` are noted for whoever resumes."""
    final, partial = begin(folder, name, counters)
    try:
        with write_errors_explained(final):
            save_state(tensors, partial / STATE)
            return seal(
                partial,
                final,
                counters=counters,
                retention=retention,
                order_fingerprint=order_fingerprint,
                facts=facts,
            )
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def write_errors_explained(place: object) -> Iterator[None]:
    """Turn an error met while writing a checkpoint into a sentence with a next action, where there is one.

    safetensors and DCP report what the operating system said as kinds of their own; it is in their text.
    """
    try:
        yield
    except BaseException as error:
        said = error if isinstance(error, OSError) else None
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if said is None and os.strerror(number) in str(error):
                said = OSError(number, os.strerror(number))
        if said is None:
            raise
        raise explain_os_error(said, place, "writing the checkpoint") from error


def save_state(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    _fsync(path)


def begin(folder: Path, name: str, counters: Counters) -> tuple[Path, Path]:
    """The checkpoint's path, and an empty folder under a hidden name to write its files in."""
    final = folder / free_name(name, counters, checkpoints(folder))
    partial = folder / f".{final.name}{PARTIAL}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise explain_os_error(error, final, "writing the checkpoint") from error
    return final, partial


def seal(
    partial: Path,
    final: Path,
    *,
    counters: Counters,
    retention: Retention,
    order_fingerprint: str,
    facts: Mapping[str, Any],
) -> Checkpoint:
    """Add the manifest to the files of `partial`, which are on disk, and rename it to `final`."""
    manifest = manifest_of(
        files_of(partial), counters=counters, retention=retention, order_fingerprint=order_fingerprint, facts=facts
    )
    write_json(partial / MANIFEST, manifest)
    if final.exists():  # the same training step, written before or damaged since
        delete_checkpoint(final)
    os.replace(partial, final)
    _fsync(final.parent)
    return Checkpoint(final, manifest)


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of every file in it, for the manifest."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in files}


def manifest_of(
    files: Mapping[str, Mapping[str, Any]],
    *,
    counters: Counters,
    retention: Retention,
    order_fingerprint: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "counters": asdict(counters),
        "retention": retention,
        "order_fingerprint": order_fingerprint,
        "facts": dict(facts),
        "files": files,
    }


def delete_checkpoint(path: Path) -> None:
    """The manifest goes first, so that a half-deleted folder does not look like a checkpoint."""
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Every checkpoint with a readable manifest, oldest first; their files are not checked."""
    found = []
    for path in folder.glob(f"*/{MANIFEST}"):
        if not path.parent.name.startswith("."):
            with contextlib.suppress(ValueError, OSError):
                checkpoint = Checkpoint(path.parent, read_json(path))
                if set(checkpoint.manifest) >= FIELDS:
                    found.append(checkpoint)
    return oldest_first(found)


def oldest_first(found: Iterable[Checkpoint]) -> list[Checkpoint]:
    return sorted(found, key=lambda c: (c.counters.train_steps_done, c.name))


def newest_valid(folder: Path, order_fingerprint: str, warn: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint to resume from, or None. Damaged ones are passed over with a warning, never silently.

    Raises: ConfigError when the newest was written for another order of the data.
    """
    if folder.exists():
        readable = {c.path for c in checkpoints(folder)}
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.name.startswith(".") and path not in readable:
                warn(f"checkpoint {path.name} has no readable manifest and is passed over.")
    for checkpoint in reversed(checkpoints(folder)):
        check_order(checkpoint, order_fingerprint)
        damage = checkpoint.damage()
        if damage is None:
            return checkpoint
        warn(f"checkpoint {checkpoint.name} is damaged ({damage}); going back to the one before it.")
    return None


def check_order(checkpoint: Checkpoint, order_fingerprint: str) -> None:
    """Raises ConfigError where it was written for another order of the data."""
    written_for = checkpoint.manifest["order_fingerprint"]
    if written_for != order_fingerprint:
        raise ConfigError(
            f"checkpoint {checkpoint.place} was written for data order {written_for}, this run has "
            f"{order_fingerprint}: the streams, mixture, seed or batch size changed. Restore them to resume, or "
            "move the folder away to start a new run."
        )


def remove_unfinished(folder: Path) -> None:
    """Delete what killed writers left under hidden names. Only for a folder that nobody else is writing to."""
    for path in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(path, ignore_errors=True)


def prune(folder: Path, keep_rolling: int | None) -> None:
    """Delete rolling checkpoints beyond the newest `keep_rolling`, and emergency ones that are not the newest."""
    for checkpoint in stale(checkpoints(folder), keep_rolling):
        delete_checkpoint(checkpoint.path)


def stale(everything: Sequence[Checkpoint], keep_rolling: int | None) -> list[Checkpoint]:
    """Those of a run's checkpoints, oldest first, that are not to be kept; none where `keep_rolling` is None."""
    if keep_rolling is None:
        return []
    rolling = [c for c in everything if c.retention == "rolling"]
    return rolling[:-keep_rolling] + [c for c in everything[:-1] if c.retention == "emergency"]


def free_name(name: str, counters: Counters, existing: Iterable[Checkpoint]) -> str:
    """`name`, with the number of training steps where another checkpoint's tokens round to the same name."""
    taken = {c.name: c.counters for c in existing}
    return name if taken.get(name, counters) == counters else f"{name}.step{counters.train_steps_done}"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
