"""Are an artifact's files still the ones that its manifest names?

Sizes are compared always. A file is hashed when it is small enough for that to take no time, and when it was written to
after the manifest, which is written last: so a copy of the store is read once, and an untouched terabyte never.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from diglot.core.errors import InputError
from diglot.core.storage import sha256_file
from diglot.ledger.artifact import Artifact
from diglot.ledger.manifest import NAME

ALWAYS_HASHED_BYTES = 2**28  # 256 MB: a fifth of a second with SHA instructions


def check_unchanged(artifact: Artifact, files: Iterable[Path]) -> None:
    """Raises InputError for a file that is gone, or differs from the manifest in size or content."""
    records = {artifact.path / record.path: record for record in artifact.manifest.files}
    written = (artifact.path / NAME).stat().st_mtime_ns
    for path in files:
        record = records.get(path)
        if record is None:
            raise InputError(f"{path} is not in the manifest of its {artifact.kind} step. {_again(artifact)}")
        if not path.is_file():
            raise InputError(f"{path} is gone. {_again(artifact)}")
        facts = path.stat()
        if facts.st_size != record.bytes:
            raise InputError(
                f"{path} has {facts.st_size:,} bytes, its manifest says {record.bytes:,}. {_again(artifact)}"
            )
        if (facts.st_size <= ALWAYS_HASHED_BYTES or facts.st_mtime_ns > written) and sha256_file(path) != record.sha256:
            raise InputError(f"{path} changed since its manifest was written: it has another hash. {_again(artifact)}")


def _again(artifact: Artifact) -> str:
    return f"Delete {artifact.path} and run the recipe again."
