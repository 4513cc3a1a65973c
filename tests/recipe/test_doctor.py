"""What the doctor measures is kept where training finds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diglot.cli import main
from diglot.core.hardware import host
from diglot.core.peaks import Peak, product_peak
from diglot.train import peak_measurement


def test_peaks_are_told_kept_and_printed_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIGLOT_CACHE", str(tmp_path))
    measured = Peak(
        quantity="product", device="cpu", precision="fp32", num_threads=2, median=7e10, low=6e10, high=8e10,
        num_repeats=7,
    )  # fmt: skip
    monkeypatch.setattr(peak_measurement, "measure_peaks", lambda: [measured])
    monkeypatch.setattr("os.getloadavg", lambda: (4.0 * host().num_cores, 0.0, 0.0))
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--peak", "--json"])
    assert left.value.code == 0
    findings = {f["subject"]: f for f in json.loads(capsys.readouterr().out)}
    assert findings["peak fp32, 2 threads"]["text"] == "70 GFLOP/s (60 to 80, median of 7)"
    assert str(tmp_path) in findings["peaks kept in"]["text"]
    assert "measured while others were at work" in findings["peak"]["text"]
    assert product_peak("fp32", num_threads=2) == measured
