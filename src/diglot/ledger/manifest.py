"""The manifest: a record written last into an artifact's folder, so that a folder with a manifest is complete.

Feeds (see docs/ledger.md): PROV activities, OpenLineage runs, SLSA provenance, CycloneDX formulations.
"""

from __future__ import annotations

import functools
import importlib.metadata
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diglot import __version__
from diglot.core.errors import InputError
from diglot.core.hardware import host
from diglot.core.storage import read_json, sha256_file, write_json

NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file of an artifact. Path relative to the artifact's folder, size in bytes, SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a step did: everything needed to name it, check it and do it again.

    `inputs` maps an input slot to the fingerprint that filled it (or to a mapping or list of them); `input_kinds` maps
    each of those fingerprints to its step kind, so that lineage can be walked without searching the store.
    `counts` are the step's own numbers (documents, tokens, seconds by part ...).
    """

    kind: str
    version: int
    step: str
    fingerprint: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    input_kinds: Mapping[str, str]
    seed: int | None
    counts: Mapping[str, Any]
    started: str
    ended: str
    seconds: float
    code: Mapping[str, Any]
    environment: Mapping[str, str]
    host: Mapping[str, Any]
    files: tuple[FileRecord, ...] = field(default=())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache
def code_facts() -> dict[str, Any]:
    """Package version, and commit and dirty flag where the package runs from a git checkout."""
    root = Path(__file__).resolve().parents[3]
    facts: dict[str, Any] = {"diglot": __version__, "commit": None, "dirty": None}
    if (root / ".git").exists():
        git = functools.partial(subprocess.run, cwd=root, capture_output=True, text=True, check=False)
        commit = git(["git", "rev-parse", "HEAD"])
        if commit.returncode == 0:
            facts["commit"] = commit.stdout.strip()
            facts["dirty"] = bool(git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip())
    return facts


ENVIRONMENT_PACKAGES = (
    "numpy", "pyarrow", "numba", "torch", "sentencepiece", "tokenizers", "fastwarc", "resiliparse", "fasttext-predict",
)  # fmt: skip


@functools.cache
def environment_facts() -> dict[str, str]:
    """Versions of the packages that can change a result; a package that is not installed is left out."""
    facts = {}
    for name in ENVIRONMENT_PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def record_files(folder: Path) -> tuple[FileRecord, ...]:
    """Size and hash of every finished file below `folder`, in path order."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME and not p.name.startswith("."))
    return tuple(
        FileRecord(path=str(p.relative_to(folder)), bytes=p.stat().st_size, sha256=sha256_file(p)) for p in paths
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / NAME, asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Read a manifest. Raises InputError when the folder holds none or a damaged one."""
    try:
        fields = read_json(folder / NAME)
        fields["files"] = tuple(FileRecord(**record) for record in fields["files"])
        return Manifest(**fields)
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no finished artifact (no {NAME}). Run the recipe again to finish it."
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{folder / NAME} is damaged ({error}). Delete the folder and run the recipe again."
        ) from error


def host_facts() -> dict[str, Any]:
    return host().to_dict()
