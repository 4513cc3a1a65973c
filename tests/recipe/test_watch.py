"""`diglot watch` shows a run from its logs, running or finished, and says what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from diglot.cli import main
from diglot.core.errors import InputError
from diglot.core.storage import write_json, write_text
from diglot.recipe.run import Places
from diglot.recipe.watch import find_training, follow, sparkline

RUN = {
    "label": "base",
    "phases": [{"name": "fundamental", "num_train_steps": 80}, {"name": "decay", "num_train_steps": 20}],
    "num_tokens": 100_000,
    "peak": "fp32, 2 threads: 120 GFLOP/s (115 to 122, median of 7)",
}


def train_line(train_step: int, **more: Any) -> dict[str, Any]:
    return {
        "train_step": train_step,
        "phase": "fundamental" if train_step < 80 else "decay",
        "num_tokens": 1000 * (train_step + 1),
        "num_items": 1000,
        "loss": 9.0 - train_step / 20,
        "learning_rate": 0.002,
        "grad_norm": 0.75,
        "stream_losses": {"docs.en": 4.0, "docs.zh-Hans": 5.5},
        "stream_items": {"docs.en": 700, "docs.zh-Hans": 300},
        "language_losses": {"en": 4.0, "zh-Hans": 5.5},
        **more,
    }


def text_of(*lines: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def write_logs(folder: Path, last: int) -> None:
    write_text(folder / "train.jsonl", text_of(*(train_line(n) for n in range(0, last + 1, 10))))
    timing = {"train_step": last, "num_tokens": 1000 * (last + 1), "tokens_per_second": 500.0, "seconds": 9.0}
    write_text(folder / "timing.jsonl", text_of({**timing, "mfu": 0.417, "resident_peak_bytes": 1_230_000_000}))
    measured = {"train_step": last, "phase": "fundamental", "num_tokens": 1000 * (last + 1)}
    write_text(folder / "eval.jsonl", text_of({**measured, "bits_per_byte": {"en": 2.345, "zh-Hans": 1.987}}))
    write_json(folder / "run.json", RUN)
    write_json(folder / "checkpoints" / "0000041.0K" / "manifest.json", {})


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A run whose pre-training writes its logs; nothing of it is finished, so there are no links yet."""
    steps = {
        "tokens": {"kind": "pack", "fingerprint": "aa"},
        "base": {"kind": "pretrain", "fingerprint": "bb"},
        "preferred": {"kind": "prefer", "fingerprint": "cc"},
    }
    write_json(tmp_path / "runs" / "mini" / "plan.json", {"steps": steps})
    write_logs(tmp_path / "store" / "pretrain" / "bb", 50)
    return Places(store=tmp_path / "store", runs=tmp_path / "runs")


def watch(places: Places, *arguments: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(["watch", *arguments, "--store", str(places.store), "--runs", str(places.runs)])
    assert left.value.code == 0


def test_once_shows_all_that_the_logs_hold(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    watch(places, "mini", "--once")
    rows = " ".join(capsys.readouterr().out.split())
    for text in (
        "mini / base fundamental, training step 51 of 100 (51%), 51,000 tokens, 98 s left",
        "loss 6.500 █▇▅▄▂▁ 6.500 to 9.000",
        "gradient norm 0.75",
        "learning rate 0.002",
        "tokens/s 500",
        "MFU 41.7% of fp32, 2 threads: 120 GFLOP/s",
        "memory, most 1.23 GB",
        "bits per byte en 2.345",
        "bits per byte zh-Hans 1.987",
        "loss en 4.000",
        "loss docs.zh-Hans 5.500",
        "checkpoint 0000041.0K",
        "logs",
    ):
        assert text in rows, text


def test_the_latest_run_is_the_default_and_json_has_the_newest_numbers(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    watch(places, "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["train_steps_done"], found["num_train_steps"]) == ("mini / base", 51, 100)
    assert found["evaluation"]["bits_per_byte"]["en"] == 2.345
    assert found["timing"]["mfu"] == 0.417


def test_what_wrote_last_is_shown_and_a_step_can_be_named(places: Places) -> None:
    time.sleep(0.02)
    write_logs(places.store / "prefer" / "cc" / "round-1", 10)
    assert find_training(places, "mini", None).name == "mini / preferred/round-1"
    assert find_training(places, "mini", "base").name == "mini / base"


def test_a_folder_with_logs_needs_no_run(places: Places) -> None:
    folder = places.store / "pretrain" / "bb"
    assert find_training(Places(store=Path("nowhere"), runs=Path("nowhere")), str(folder), None).folder == folder


def test_what_is_missing_is_named(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"no run called 'mimi' in .*Runs here: mini"):
        find_training(places, "mimi", None)
    with pytest.raises(InputError, match="step 'preferred' of run mini has not begun to train"):
        find_training(places, "mini", "preferred")
    write_json(places.runs / "early" / "plan.json", {"steps": {"tokens": {"kind": "pack", "fingerprint": "aa"}}})
    with pytest.raises(InputError, match=r"run early has not begun to train: no train\.jsonl lies in its folders"):
        find_training(places, "early", None)
    with pytest.raises(ValueError, match="unknown step 'bas' in run mini; did you mean 'base'"):
        find_training(places, "mini", "bas")
    with pytest.raises(SystemExit) as left:
        main(["watch", "--runs", str(places.runs / "none")])
    assert left.value.code == 1
    assert "no runs in" in capsys.readouterr().err


def test_a_running_process_is_followed_until_its_step_is_finished(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diglot.recipe.watch.SECONDS_BETWEEN_LOOKS", 0.02)
    folder = places.store / "pretrain" / "bb"
    writer = (
        "import json, sys, time, pathlib\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "line = json.loads((folder / 'train.jsonl').read_text().splitlines()[-1])\n"
        "with (folder / 'train.jsonl').open('a') as stream:\n"
        "    for n in range(60, 100, 10):\n"
        "        print(json.dumps({**line, 'train_step': n, 'loss': n / 100}), file=stream, flush=True)\n"
        "        time.sleep(0.1)\n"
        "(folder / 'manifest.json').write_text('{}')\n"
    )
    console = Console(record=True, width=120, force_terminal=True)
    process = subprocess.Popen([sys.executable, "-c", writer, str(folder)])
    following = threading.Thread(target=follow, args=(lambda: find_training(places, "mini", None), console))
    following.start()
    following.join(timeout=30)
    assert not following.is_alive()
    assert process.wait(timeout=10) == 0
    shown = console.export_text()
    assert "training step 91 of 100" in shown
    assert "finished" in shown
    assert "0.900" in shown


def test_a_silent_run_may_be_stopped(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    for log in (places.store / "pretrain" / "bb").glob("*.jsonl"):
        os.utime(log, (time.time() - 1000, time.time() - 1000))
    watch(places, "mini", "--once")
    assert "it may be stopped" in " ".join(capsys.readouterr().out.split())


def test_curves_fit_their_width_and_keep_their_shape() -> None:
    assert sparkline([1, 1, 1]) == "▁▁▁"
    assert sparkline([]) == ""
    assert sparkline(list(range(1000)), width=8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0] * 50 + [7.0] * 50, width=4) == "▁▁██"


def test_watching_loads_no_torch(places: Places) -> None:
    program = (
        "import sys\nfrom diglot.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    arguments = ["watch", "mini", "--once", "--store", str(places.store), "--runs", str(places.runs)]
    found = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    assert "training step" in found.stdout, found.stderr
