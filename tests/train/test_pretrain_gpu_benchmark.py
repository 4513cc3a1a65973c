"""The benchmark for GPUs runs from end to end where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import pretrain_gpu

from diglot.core.storage import read_json


@pytest.mark.slow
def test_a_dry_run_measures_what_a_cpu_can_and_says_why_not_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain_gpu.main(["--dry-run", "--out", str(tmp_path / "found.json")])
    rows = read_json(tmp_path / "found.json")["rows"]
    assert [row["name"] for row in rows] == [case.name for case in pretrain_gpu.CASES]
    for row in rows:
        if row["engine"] == "diglot" and row["precision"] == "bf16":
            assert row["outcome"] == "measured"
            assert row["low"] <= row["tokens_per_second"] <= row["high"]
            assert row["predicted_bytes"] > 0
        elif row["precision"] == "fp8":
            assert "fp8 needs an NVIDIA GPU" in row["outcome"]
        assert "mfu" not in row, "a CPU's share of a GPU's peak says nothing"
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 4 + len(rows)


def test_what_fits_is_chosen_by_the_memory_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def memory_of(gigabytes: float) -> pretrain_gpu.Fit:
        properties = type("Properties", (), {"total_memory": int(gigabytes * 1e9)})
        monkeypatch.setattr(pretrain_gpu.torch.cuda, "get_device_properties", lambda device: properties)
        shape = pretrain_gpu.ladder_config("map-neo-2b")
        return pretrain_gpu.fitting(shape, 4096, pretrain_gpu.torch.device("cuda"))

    large, small = memory_of(150), memory_of(60)
    assert large.recompute_every == 0
    assert small.recompute_every > 0
    for fit, gigabytes in ((large, 150), (small, 60)):
        assert fit.predicted_bytes < 0.9 * gigabytes * 1e9


def test_a_case_whose_process_breaks_or_takes_too_long_is_a_row_that_says_so() -> None:
    missing = pretrain_gpu.Case("no such case", "map-neo-2b", 4096)
    assert "invalid choice: 'no such case'" in pretrain_gpu.in_a_process(missing, 120)["outcome"]
    assert pretrain_gpu.in_a_process(missing, 0.01)["outcome"] == "not finished in 0 s"


def test_memory_that_is_not_there_is_a_row_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: object) -> list[float]:
        raise pretrain_gpu.torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pretrain_gpu, "ours", too_large)
    row = pretrain_gpu.measured(replace(pretrain_gpu.CASES[0], compiled=False), pretrain_gpu.TINY)
    assert row["outcome"] == "out of memory"
    assert row["too_large"] == ["128, 0"], "ours is not tried again: it should have fitted"
    assert row["predicted_bytes"] > 0
    assert "out of memory" in pretrain_gpu.table_row({"name": "x", **row})


def test_transformers_gets_a_smaller_microbatch_where_ours_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    def fits_with_recomputation(case: object, shape: object, length: int, fit: pretrain_gpu.Fit, device: object) -> Any:
        if not fit.recompute_every:
            raise pretrain_gpu.torch.OutOfMemoryError("CUDA out of memory")
        return [1.0] * pretrain_gpu.TIMED

    chosen = pretrain_gpu.Fit(65_536, 16_384, 0, 1)
    monkeypatch.setattr(pretrain_gpu, "hugging_face", fits_with_recomputation)
    monkeypatch.setattr(pretrain_gpu, "fitting", lambda *_: chosen)
    case = next(case for case in pretrain_gpu.CASES if case.engine == "hugging face")
    row = pretrain_gpu.measured(case, pretrain_gpu.TINY)
    assert (row["microbatch_tokens"], row["recompute_every"]) == (8192, 1)
    assert row["too_large"] == ["16,384, 0", "8,192, 0"]
    assert pretrain_gpu.table_row({"name": "x", **row}).endswith("8,192, 1; out of memory with 16,384, 0; 8,192, 0 |")
    small = replace(chosen, microbatch_tokens=8192, recompute_every=3)
    assert pretrain_gpu.smaller(small, pretrain_gpu.TINY) == [], "it recomputes every layer already"
