"""A fingerprint names a result before it exists: a hash of what determines it and of nothing else.

Determining: the step kind, its declared version, its result-bearing settings, its inputs' fingerprints, its seed
where it draws random numbers. Not determining: paths, worker counts, devices, dates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

LENGTH = 16  # hex digits; 64 bits are enough for a store of millions of artifacts


def canonical(value: Any) -> str:
    """One spelling for one value: JSON with sorted keys, no spaces, shortest float form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(kind: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, Any], seed: int | None) -> str:
    """The name of the artifact that this step will write, `LENGTH` hex digits."""
    content = {"kind": kind, "version": version, "config": config, "inputs": inputs, "seed": seed}
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:LENGTH]
