"""A run is read from its logs while another process writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_run

from diglot.core.storage import write_json, write_text
from diglot.train.run_state import Watcher


def line(train_step: int, **more: object) -> str:
    return json.dumps({"train_step": train_step, "num_tokens": 64 * (train_step + 1), "loss": 3.0, **more}) + "\n"


def test_lines_that_are_added_are_seen_and_half_lines_are_waited_for(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path)
    assert watcher.look().train == []
    log = tmp_path / "train.jsonl"
    with log.open("a") as stream:
        stream.write(line(0) + line(10)[:9])
        stream.flush()
        assert [x["train_step"] for x in watcher.look().train] == [0]
        stream.write(line(10)[9:] + line(20))
        stream.flush()
        assert [x["train_step"] for x in watcher.look().train] == [0, 10, 20]
    # A resumed run cuts the log at its checkpoint and writes the file anew.
    write_text(log, line(0) + line(10))
    assert [x["train_step"] for x in watcher.look().train] == [0, 10]
    write_text(log, line(0) + line(7) + line(8) + line(9))  # longer than what was read
    assert [x["train_step"] for x in watcher.look().train] == [0, 7, 8, 9]


def test_the_newest_line_of_any_log_tells_how_far_it_is_and_how_long_it_takes(tmp_path: Path) -> None:
    write_text(tmp_path / "train.jsonl", line(0) + line(10))
    write_text(tmp_path / "timing.jsonl", line(1, tokens_per_second=1.0) + line(12, tokens_per_second=32.0))
    write_json(
        tmp_path / "run.json",
        {"phases": [{"name": "a", "num_train_steps": 15}, {"name": "b", "num_train_steps": 5}], "num_tokens": 20 * 64},
    )
    state = Watcher(tmp_path).look()
    assert (state.train_steps_done, state.num_train_steps, state.num_tokens) == (13, 20, 13 * 64)
    assert state.seconds_left == 7 * 64 / 32.0
    assert not state.is_done
    write_text(tmp_path / "train.jsonl", line(0) + line(19))
    assert Watcher(tmp_path).look().is_done


def test_the_newest_checkpoint_is_found_in_another_local_folder(tmp_path: Path) -> None:
    write_json(tmp_path / "runs" / "3f9c" / "0000041.0K" / "manifest.json", {})
    write_json(tmp_path / "out" / "run.json", {"checkpoint_dir": str(tmp_path / "runs" / "3f9c")})
    assert Watcher(tmp_path / "out").look().checkpoint == "0000041.0K"
    write_json(tmp_path / "out" / "run.json", {"checkpoint_dir": "s3://bucket/runs/3f9c"})  # is not asked
    assert Watcher(tmp_path / "out").look().checkpoint is None


def test_a_finished_run(tmp_path: Path) -> None:
    tiny_run.run(tmp_path)
    state = Watcher(tmp_path).look()
    assert state.is_done
    assert state.seconds_left == pytest.approx(0.0)
    assert state.checkpoint == sorted(p.name for p in (tmp_path / "checkpoints").iterdir())[-1]
    assert state.to_dict()["train"]["phase"] == "decay"
    assert state.to_dict()["label"] == "train"
    assert state.seconds_since_written < 60
