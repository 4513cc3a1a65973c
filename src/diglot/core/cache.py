"""The folder for what can be fetched or measured again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$DIGLOT_CACHE`, else `$XDG_CACHE_HOME/diglot` (usually ~/.cache/diglot)."""
    own = os.environ.get("DIGLOT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diglot"
