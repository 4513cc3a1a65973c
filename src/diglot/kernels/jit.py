"""How kernels are compiled: without the interpreter lock, and kept on disk for the next process.

numba notices an edit to the file of a kernel but not to the files of what it calls, and would go on with machine code
of the old callee. So the cache lives in a folder named after the sources of all kernels together. That also keeps it
out of an installation that cannot be written to.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import xxhash

from diglot.text.units import class_table


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator: compile on first call, for each set of argument types, with nogil and the cache of this module."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())  # numba reads it while it decorates, and only then
    try:
        return numba.njit(nogil=True, cache=True)(function)
    finally:
        config.CACHE_DIR = before


@functools.cache
def cache_folder() -> Path:
    """Where compiled kernels are kept: `NUMBA_CACHE_DIR`, else the user's cache, else a private temporary folder."""
    name = f"kernels-{_fingerprint()}"
    given = os.environ.get("NUMBA_CACHE_DIR")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "diglot"
    for folder in (Path(given) if given else home, Path(tempfile.gettempdir()) / f"diglot-{os.getuid()}"):
        try:
            (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder / name, os.W_OK):
            return folder / name
    return Path(tempfile.mkdtemp(prefix="diglot-kernels-"))


def text_buffers(texts: Any) -> tuple[Any, Any]:
    """Offsets int64 [N + 1] and bytes uint8 of a pyarrow large_string array, without a copy. Nulls count as empty.

    Arrow keeps the text of an array that was cut from a larger one; the offsets then do not start at 0, and need not.
    """
    num_rows = len(texts)
    _, offsets, content = texts.buffers()
    starts = np.frombuffer(offsets, np.int64, num_rows + 1, texts.offset * 8) if offsets else np.zeros(1, np.int64)
    utf8 = np.frombuffer(content, np.uint8) if content is not None and content.size else np.zeros(1, np.uint8)
    return starts, utf8


@functools.cache
def classes() -> Any:
    """The class table that kernels take as an argument: uint8 [0x110000]."""
    return class_table()


def _fingerprint() -> str:
    here = Path(__file__).parent
    sources = sorted([*here.glob("*.py"), *(here.parent / "text").glob("*.py")])  # kernels freeze constants of both
    digest = xxhash.xxh3_64(numba.__version__.encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()
