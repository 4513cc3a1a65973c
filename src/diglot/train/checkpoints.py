"""Checkpoints: everything a run needs to go on as if it had never stopped.

    checkpoints/<tokens>/state.safetensors     weights and optimizer state, by name
    checkpoints/<tokens>/shard-*.safetensors   the same, a file of each rank where several wrote it
    checkpoints/<tokens>/manifest.json         counters, order fingerprint, sizes and hashes; written last

A checkpoint is made under a hidden name and renamed when it is whole, and it is valid only when its files have the
sizes and hashes of its manifest. Names carry the tokens read in units of K, M or B, with leading zeros so that they
sort: `0002457.6K` (and `0002457.6K.step600` where two would round to one name). Three classes: `release` is never
deleted, `rolling` only where the user names how many to keep, and `emergency` (written on a signal) is replaced by the
next checkpoint of any class where rolling ones are deleted too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from torch import Tensor

from diglot.core.errors import ConfigError, explain_os_error
from diglot.core.storage import PARTIAL, read_json, sha256_file, write_json

STATE, MANIFEST = "state.safetensors", "manifest.json"
Retention = Literal["release", "rolling", "emergency"]


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Where a run stands: training steps done, of all phases, and tokens read."""

    train_steps_done: int
    num_tokens: int


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint on disk."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

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
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, partial / STATE)
        _fsync(partial / STATE)
        return seal(
            partial,
            final,
            counters=counters,
            retention=retention,
            order_fingerprint=order_fingerprint,
            facts=facts,
        )
    except OSError as error:
        raise explain_os_error(error, final, "writing the checkpoint") from error
    except Exception as error:  # safetensors reports a full disk as its own kind of error
        with contextlib.suppress(OSError):
            shutil.rmtree(partial, ignore_errors=True)
        if "No space left" in str(error):
            raise explain_os_error(OSError(28, "No space left on device"), final, "writing the checkpoint") from error
        raise


def begin(folder: Path, name: str, counters: Counters) -> tuple[Path, Path]:
    """The checkpoint's path, and an empty folder under a hidden name to write its files in."""
    final = _free_name(folder / name, counters)
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
    files = sorted(path for path in partial.iterdir() if path.is_file())
    manifest = {
        "counters": asdict(counters),
        "retention": retention,
        "order_fingerprint": order_fingerprint,
        "facts": dict(facts),
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in files},
    }
    write_json(partial / MANIFEST, manifest)
    if final.exists():  # the same training step, written before or damaged since
        delete_checkpoint(final)
    os.replace(partial, final)
    _fsync(final.parent)
    return Checkpoint(final, manifest)


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
                if {"counters", "files", "retention", "order_fingerprint"} <= set(checkpoint.manifest):
                    found.append(checkpoint)
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
        written_for = checkpoint.manifest["order_fingerprint"]
        if written_for != order_fingerprint:
            raise ConfigError(
                f"checkpoint {checkpoint.path} was written for data order {written_for}, this run has "
                f"{order_fingerprint}: the streams, mixture, seed or batch size changed. Restore them to resume, or "
                "move the folder away to start a new run."
            )
        damage = checkpoint.damage()
        if damage is None:
            return checkpoint
        warn(f"checkpoint {checkpoint.name} is damaged ({damage}); going back to the one before it.")
    return None


def prune(folder: Path, keep_rolling: int | None) -> None:
    """Delete rolling checkpoints beyond the newest `keep_rolling`, and emergency ones that are not the newest."""
    if keep_rolling is None:
        return
    everything = checkpoints(folder)
    rolling = [c for c in everything if c.retention == "rolling"]
    stale = [c for c in everything[:-1] if c.retention == "emergency"]
    for checkpoint in rolling[:-keep_rolling] + stale:
        delete_checkpoint(checkpoint.path)


def _free_name(path: Path, counters: Counters) -> Path:
    """`path`, with the number of training steps where another checkpoint's tokens round to the same name."""
    taken = {c.path: c.counters for c in checkpoints(path.parent)}
    if taken.get(path, counters) == counters:
        return path
    return path.with_name(f"{path.name}.step{counters.train_steps_done}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
