"""What this machine was measured to reach: products of matrices and copies of memory, kept in a cache file.

`diglot doctor --peak` measures (`train/peak_measurement.py`); training reads the file to tell its MFU. The file's name
carries a hash of the facts that decide speed, so a cache folder that several machines share, a container with fewer
cores or another torch never lends a run the peak of something else.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from diglot.core.cache import cache_root
from diglot.core.hardware import host
from diglot.core.storage import read_json, write_json

Quantity = Literal["product", "copy"]


@dataclass(frozen=True, kw_only=True)
class Peak:
    """One measurement: the median of several, with the lowest and the highest.

    quantity: `product` of two matrices, in floating-point operations a second; `copy` of memory, in bytes a second,
        what is read and what is written both counted.
    device: `cpu`, or the name of a CUDA device.
    num_threads: None on a CUDA device.
    """

    quantity: Quantity
    device: str
    precision: str
    num_threads: int | None
    median: float
    low: float
    high: float
    num_repeats: int

    @property
    def subject(self) -> str:
        """`fp32, 2 threads`."""
        threads = f"{self.num_threads} thread{'' if self.num_threads == 1 else 's'}"
        where = self.device if self.num_threads is None else threads
        return f"{self.precision}, {where}" if self.quantity == "product" else f"memory, {where}"

    @property
    def text(self) -> str:
        """`120 GFLOP/s (115 to 122, median of 7)`."""
        unit = "FLOP/s" if self.quantity == "product" else "B/s"
        scale, prefix = (1e12, "T") if self.median >= 1e12 else (1e9, "G")
        low, middle, high = (f"{value / scale:,.3g}" for value in (self.low, self.median, self.high))
        return f"{middle} {prefix}{unit} ({low} to {high}, median of {self.num_repeats})"


def peaks_path() -> Path:
    """The cache file of this machine as it is now."""
    facts = json.dumps(_facts(), sort_keys=True)
    return cache_root() / f"peaks-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"


def save_peaks(peaks: Sequence[Peak]) -> Path:
    """Keep measurements, with the facts they hold for."""
    path = peaks_path()
    write_json(path, {"facts": _facts(), "peaks": [asdict(peak) for peak in peaks]})
    return path


def load_peaks() -> list[Peak]:
    """What was measured on this machine; empty before the first `diglot doctor --peak`."""
    path = peaks_path()
    return [Peak(**record) for record in read_json(path)["peaks"]] if path.exists() else []


def product_peak(precision: str, *, num_threads: int | None, device: str = "cpu") -> Peak | None:
    """The measured peak of products in this precision, with exactly so many threads; None where none was measured."""
    asked = ("product", device, precision, num_threads)
    found = (p for p in load_peaks() if (p.quantity, p.device, p.precision, p.num_threads) == asked)
    return next(found, None)


def _facts() -> dict[str, Any]:
    machine = host()
    try:
        torch: str | None = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = None
    return {
        "cpu": machine.cpu,
        "num_cores": machine.num_cores,
        "cpu_features": list(machine.cpu_features),
        "gpu": machine.gpu,
        "torch": torch,
    }
