"""Peaks are kept for the machine that they were measured on, and for no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diglot.core import peaks as module
from diglot.core.hardware import host, resident_peak_bytes
from diglot.core.peaks import Peak, load_peaks, peaks_path, product_peak, save_peaks


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIGLOT_CACHE", str(tmp_path))
    return tmp_path


def peak(num_threads: int | None = 2, median: float = 5e9, **changes: object) -> Peak:
    fields = {"quantity": "product", "device": "cpu", "precision": "fp32", **changes}
    return Peak(**fields, num_threads=num_threads, median=median, low=median, high=median, num_repeats=7)  # type: ignore[arg-type]


def test_what_was_measured_is_found_by_precision_device_and_threads() -> None:
    assert load_peaks() == []
    assert product_peak("fp32", num_threads=2) is None
    save_peaks([peak(1, 3e9), peak(2, 5e9), peak(2, 9e9, quantity="copy"), peak(None, 7e14, device="H")])
    found = product_peak("fp32", num_threads=2)
    assert found is not None
    assert found.median == 5e9
    assert product_peak("bf16", num_threads=2) is None
    assert product_peak("fp32", num_threads=3) is None, "no peak is guessed from another number of threads"
    assert product_peak("fp32", num_threads=None, device="H") == peak(None, 7e14, device="H")


def test_a_machine_with_fewer_cores_does_not_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    path, machine = save_peaks([peak()]), host()
    monkeypatch.setattr(module, "host", lambda: replace(machine, num_cores=machine.num_cores + 1))
    assert peaks_path() != path
    assert load_peaks() == []


def test_a_peak_says_its_unit_and_spread() -> None:
    assert peak(1, 35e9).subject == "fp32, 1 thread"
    assert peak(1, 35e9).text == "35 GFLOP/s (35 to 35, median of 7)"
    assert peak(None, 7.9e14, device="H", precision="bf16").subject == "bf16, H"
    assert peak(None, 7.9e14, device="H").text == "790 TFLOP/s (790 to 790, median of 7)"
    assert peak(2, 7.1e9, quantity="copy").subject == "memory, 2 threads"
    assert peak(2, 7.1e9, quantity="copy").text == "7.1 GB/s (7.1 to 7.1, median of 7)"


def test_the_most_memory_held_grows_with_what_is_held() -> None:
    before = resident_peak_bytes()
    held = bytearray(b"x") * (before + 64 * 2**20)
    assert resident_peak_bytes() >= len(held)
