"""What this machine can do, what is missing for which part of Diglot, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diglot.core.hardware import host
from diglot.core.peaks import save_peaks


@dataclass(frozen=True)
class Finding:
    """One line of the examination. `bad` breaks the main path, `note` costs something, `ok` is fine."""

    mark: Literal["ok", "note", "bad"]
    subject: str
    text: str


CORE = (
    "pyarrow",
    "numba",
    "fastwarc",
    "resiliparse",
    "fasttext",
    "sentencepiece",
    "tokenizers",
    "duckdb",
    "pydivsufsort",
)
TRAIN = ("torch", "safetensors", "tensorboard")
GIB = 2**30
BUSY_SHARE = 0.25  # of the cores at work for others in the last minute, above which a peak is doubtful


def examine(*, peak: bool = False) -> list[Finding]:
    """Look at hardware, packages, tools and disk. `peak` also measures products and copies (`core/peaks.py`)."""
    facts = host()
    findings = [
        Finding(
            "ok",
            "cpu",
            f"{facts.cpu}, {facts.num_cores} cores, {', '.join(facts.cpu_features) or 'no vector features seen'}",
        ),
        Finding("ok" if facts.memory_bytes >= 4 * GIB else "note", "memory", f"{facts.memory_bytes / GIB:.1f} GiB"),
        Finding("ok" if facts.gpu else "note", "gpu", facts.gpu or "none: training runs on the CPU"),
        Finding("ok", "bf16", "native, used for training")
        if facts.has_native_bf16
        else Finding("note", "bf16", "not native on this CPU: training runs in fp32"),
        Finding("ok", "C++ compiler", f"{facts.cxx_compiler}, torch.compile can be used")
        if facts.cxx_compiler
        else Finding("note", "C++ compiler", "none: training runs uncompiled; apt install g++"),
        _disk(Path.cwd()),
        Finding("ok", "apt", "found: debian: sources can be fetched")
        if shutil.which("apt-get") and shutil.which("dpkg-deb")
        else Finding("note", "apt", "none: point the recipe at a folder, --set steps.pages.source=FOLDER"),
    ]
    for names, extra, needed in ((CORE, "", "every recipe"), (TRAIN, "[train]", "training and evaluation")):
        missing = [name for name in names if importlib.util.find_spec(name) is None]
        if missing:
            findings.append(
                Finding("bad", f"packages for {needed}", f"missing {', '.join(missing)}: pip install 'diglot{extra}'")
            )
        else:
            findings.append(Finding("ok", f"packages for {needed}", ", ".join(names)))
    if peak:
        findings.extend(_peaks())
    return findings


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    return Finding(
        "ok" if free > 2 * GIB else "note", "disk", f"{free / GIB:.1f} GiB free in {folder}; the quickstart needs 0.5"
    )


def _peaks() -> list[Finding]:
    """Measure, and keep it for training."""
    from diglot.train.peak_measurement import measure_peaks

    load, cores = os.getloadavg()[0], host().num_cores
    busy = Finding(
        "note",
        "peak",
        f"measured while others were at work (load {load:.1f} on {cores} cores), so it may be too low: "
        "run `diglot doctor --peak` again when the machine is quiet",
    )
    peaks = measure_peaks()
    path = save_peaks(peaks)
    return [
        *(Finding("ok", f"peak {peak.subject}", peak.text) for peak in peaks),
        *([busy] if load > BUSY_SHARE * cores else []),
        Finding("ok", "peaks kept in", f"{path}; training tells its MFU against them"),
    ]
