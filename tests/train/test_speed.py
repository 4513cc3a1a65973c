"""Speeds leave out the first training step and what was paused; MFU is told against a measurement or not at all."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run

from diglot.core.peaks import Peak, save_peaks
from diglot.core.progress import Progress
from diglot.core.storage import read_json
from diglot.model.accounting import train_flops_per_token
from diglot.train.backend import choose_backend
from diglot.train.log import read_lines
from diglot.train.speed import Speedometer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def peak(median: float, **changes: object) -> Peak:
    fields = {"quantity": "product", "device": "cpu", "precision": "fp32", "num_threads": 1, **changes}
    return Peak(**fields, median=median, low=median, high=median, num_repeats=7)  # type: ignore[arg-type]


def test_by_hand() -> None:
    clock = Clock()
    speed = Speedometer(peak(1000.0), clock)
    clock.now += 30  # the compiler
    speed.tick(100, 100 * 6.0)
    assert speed.first_seconds == 30
    assert speed.line() is None, "a speed of the compiler is no speed"
    clock.now += 2
    speed.tick(100, 100 * 6.0)
    line = speed.line()
    assert line is not None
    assert line["tokens_per_second"] == 100 / 2
    assert line["mfu"] == pytest.approx(100 * 6.0 / 2 / 1000.0)
    with speed.paused():
        clock.now += 50
    clock.now += 3
    speed.tick(100, 100 * 6.0)
    assert speed.line() is not None, "five seconds went by, paused or not"
    assert speed.tokens_per_second == 200 / 5
    assert speed.mfu == pytest.approx(200 * 6.0 / 5 / 1000.0)
    assert speed.paused_seconds == 50
    clock.now += 1
    speed.tick(100, 100 * 6.0)
    assert speed.line() is None
    assert speed.line(last=True)["tokens_per_second"] == 100.0  # type: ignore[index]


def test_the_progress_bar_shows_speed_mfu_and_memory() -> None:
    clock = Clock()
    speed = Speedometer(peak(1000.0), clock)
    for _ in range(2):
        clock.now += 2
        speed.tick(100, 600.0)
    assert re.fullmatch(r"50/s, MFU 30%, \d+\.\d GB", speed.note())
    assert "MFU" not in Speedometer(None, clock).note()


@pytest.mark.parametrize("flops", [None, 600.0])
def test_no_mfu_without_a_peak_or_without_operations(flops: float | None) -> None:
    clock = Clock()
    speed = Speedometer(None if flops else peak(1.0), clock)
    for _ in range(3):
        clock.now += 2
        speed.tick(100, flops)
    line = speed.line(last=True)
    assert line is not None
    assert "mfu" not in line
    assert speed.mfu is None


def test_a_run_tells_its_mfu_in_timing_jsonl_and_in_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGLOT_CACHE", str(tmp_path / "cache"))
    precision = choose_backend(tiny_run.settings(), 0.0).precision
    cost = train_flops_per_token(tiny_run.CONFIG, 16)
    phases = [replace(phase, flops_per_token=cost) for phase in tiny_run.phases()]
    without = tiny_run.run(tmp_path / "without", run_phases=phases)
    assert without.mfu is None
    save_peaks([peak(1e9, precision=precision), peak(5e9, precision=precision, num_threads=64)])
    report = tiny_run.run(tmp_path / "with", run_phases=phases)
    lines = read_lines(tmp_path / "with" / "timing.jsonl")
    assert [line["train_step"] for line in lines] == [1, 14]
    for line in lines:
        assert line["mfu"] == pytest.approx(line["tokens_per_second"] * cost / 1e9, abs=1e-3)
        assert line["resident_peak_bytes"] > 50e6, "torch alone takes more"
    assert report.mfu is not None
    assert 0 < report.mfu < 1
    assert report.peak == f"{precision}, 1 thread: 1 GFLOP/s (1 to 1, median of 7)"
    assert read_json(tmp_path / "with" / "run.json")["peak"] == report.peak
    assert report.resident_peak_bytes > 50e6


def test_a_run_without_a_peak_says_how_to_measure_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIGLOT_CACHE", str(tmp_path / "cache"))
    phases = [replace(phase, flops_per_token=1.0) for phase in tiny_run.phases()]
    tiny_run.run(tmp_path, run_phases=phases, progress=Progress())
    assert "with 1 thread was measured on this machine; `diglot doctor --peak`" in capsys.readouterr().err
