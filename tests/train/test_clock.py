"""The wall clock saves now and then, and stops a run before its time is over, so that the same command goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from test_resume import same_result

from diglot.core.errors import ConfigError, DiglotError
from diglot.steps.finetune import FinetuneConfig
from diglot.steps.pretrain_config import PretrainConfig
from diglot.train import stopping
from diglot.train.checkpoints import checkpoints
from diglot.train.clock import NOTHING, SAVE, STOP, Clock
from diglot.train.saving import place_of_run


class Hand:
    """A clock's hand, moved by the test."""

    def __init__(self, at: float = 1_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def asked(clock: Clock, hand: Hand, seconds: list[float], checkpoint_seconds: float = 0.0) -> list[int]:
    """What the clock asks after training steps of so many seconds; a checkpoint is begun whenever it asks."""
    found = []
    for step in seconds:
        hand.at += step
        found.append(clock.asks(checkpoint_seconds))
        if found[-1] != NOTHING:
            clock.saved()
    return found


def test_it_asks_for_a_checkpoint_when_so_much_time_has_passed_since_the_last() -> None:
    hand = Hand()
    clock = Clock(1.0, None, {}, hand)
    assert asked(clock, hand, [25.0] * 4) == [NOTHING, NOTHING, SAVE, NOTHING]
    clock.saved()  # for another reason
    assert asked(clock, hand, [25.0] * 3) == [NOTHING, NOTHING, SAVE]


def test_without_settings_it_asks_for_nothing() -> None:
    hand = Hand()
    assert asked(Clock(None, None, {}, hand), hand, [1e6] * 3) == [NOTHING] * 3


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 300.0])
def test_it_stops_early_enough_for_a_checkpoint(checkpoint_seconds: float) -> None:
    hand = Hand()
    clock = Clock(None, 60.0, {}, hand)
    found = asked(clock, hand, [60.0] * 60, checkpoint_seconds)
    first = found.index(STOP)
    assert found[:first] == [NOTHING] * first
    left = 3600.0 - 60.0 * (first + 1)  # when it stops
    needed = 60.0 + max(60.0, 2 * checkpoint_seconds)
    assert needed - 60.0 < left <= needed


def test_one_slow_training_step_long_ago_is_forgotten() -> None:
    hand = Hand()
    found = asked(Clock(None, 60.0, {}, hand), hand, [10.0, 600.0] + [10.0] * 300)
    assert 3600.0 - 600.0 - 10.0 * found.index(STOP) <= 60.0 + 10.0


def test_the_first_training_step_foretells_the_second_alone() -> None:
    """It compiles: a tenth of a run on a GPU, where a hundred others take less than an hour."""
    hand = Hand()
    found = asked(Clock(None, 60.0, {}, hand), hand, [600.0] + [40.0] * 75)
    assert 3600.0 - 600.0 - 40.0 * found.index(STOP) <= 60.0 + 40.0
    assert asked(Clock(None, 15.0, {}, hand), hand, [600.0]) == [STOP]


def test_what_comes_before_the_first_training_step_counts_for_the_limit_alone() -> None:
    hand = Hand()
    clock = Clock(None, 60.0, {}, hand)
    hand.at += 2000.0
    clock.begin()
    found = asked(clock, hand, [10.0] * 200)
    assert 3600.0 - 2000.0 - 10.0 * (found.index(STOP) + 1) == 60.0 + 10.0


def test_the_end_of_the_job_is_a_limit_too_and_the_first_limit_counts() -> None:
    hand = Hand()
    environment = {"SLURM_JOB_END_TIME": str(int(hand.at) + 600)}
    job, own = Clock(None, None, environment, hand), Clock(None, 5.0, environment, hand)
    assert "SLURM_JOB_END_TIME" in job.limit
    assert own.limit == "time_limit_minutes = 5"
    hand.at += 300.0
    assert (job.asks(0.0), own.asks(0.0)) == (STOP, STOP)  # five minutes for the next training step
    late = Clock(None, None, {"SLURM_JOB_END_TIME": "12"}, hand)
    assert late.asks(0.0) == NOTHING  # that of a job long over


def test_a_run_saves_by_the_clock_and_keeps_as_many_as_it_was_told(tmp_path: Path) -> None:
    tiny_run.run(tmp_path / "usual", checkpoint_every_tokens=None)
    tiny_run.run(tmp_path / "timed", checkpoint_every_tokens=None, checkpoint_every_minutes=1e-9, keep_rolling=3)
    same_result(tmp_path / "usual", tmp_path / "timed")
    found = {c.counters.train_steps_done: c.retention for c in checkpoints(tmp_path / "timed" / "checkpoints")}
    assert found == {9: "release", 12: "rolling", 13: "rolling", 14: "rolling", 15: "release"}


def test_a_run_stops_before_its_limit_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """A limit that is over after each training step: fifteen commands for fifteen steps."""
    tiny_run.run(tmp_path / "whole")
    settings: dict[str, Any] = {"time_limit_minutes": 1e-9, "checkpoint_every_tokens": None, "keep_rolling": 2}
    for done in range(1, 15):
        with pytest.raises(
            DiglotError, match=rf"stopped before time_limit_minutes = 1e-09 after training step {done} "
        ):
            tiny_run.run(tmp_path / "out", **settings)
        newest = checkpoints(tmp_path / "out" / "checkpoints")[-1]
        assert newest.counters.train_steps_done == done
        assert newest.retention == ("release" if done == 9 else "emergency")
    tiny_run.run(tmp_path / "out", **settings)  # the last step is done: nothing to stop
    same_result(tmp_path / "whole", tmp_path / "out")
    # Emergency checkpoints stay until the next of any kind.
    assert [c.counters.train_steps_done for c in checkpoints(tmp_path / "out" / "checkpoints")] == [9, 15]


def test_the_end_of_a_slurm_job_stops_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        stopping, "Clock", lambda *settings: Clock(*settings, {"SLURM_JOB_END_TIME": str(int(time.time()) + 2)})
    )
    with pytest.raises(DiglotError, match="stopped before the end of the Slurm job, SLURM_JOB_END_TIME after"):
        tiny_run.run(tmp_path, run_phases=tiny_run.phases(pause=0.3))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"checkpoint_dir": "runs/mine"}, "neither an absolute path nor an address"),
        ({"checkpoint_dir": "s3://key:secret@bucket"}, "carries a password"),
        ({"checkpoint_every_minutes": 0}, "checkpoint_every_minutes = 0"),
        ({"time_limit_minutes": -1.0}, "time_limit_minutes = -1"),
        ({"time_limit_minutes": float("nan")}, "time_limit_minutes = nan"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], said: str) -> None:
    for make in (
        lambda: PretrainConfig(from_="tokens", tokenizer="tokenizer", **settings),
        lambda: FinetuneConfig(from_="base", conversations="composed", **settings),
        lambda: tiny_run.settings(**settings),
    ):
        with pytest.raises(ConfigError, match=said):
            make()


def test_each_artifact_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert place_of_run(None, "3f9c") is None
    assert place_of_run("s3://bucket/runs/", "3f9c") == "s3://bucket/runs/3f9c"
    assert place_of_run("~/runs", "3f9c") == "/home/me/runs/3f9c"
    assert place_of_run("/scratch", "3f9c") == "/scratch/3f9c"
