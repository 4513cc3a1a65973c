"""A run that was stopped, in whatever way, ends in the bytes of one that was not."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_run

from diglot.core.errors import ConfigError, DiglotError
from diglot.core.progress import Progress
from diglot.train.checkpoints import checkpoints
from diglot.train.objectives.next_token import next_token
from diglot.train.types import ItemLosses, Objective

PROGRAM = Path(tiny_run.__file__)
WIDE = replace(tiny_run.CONFIG, ffn_dim=128)  # two matrices of a layer have enough numbers for moments of 8 bits


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    tiny_run.run(out)
    return out


def same_result(one: Path, two: Path) -> None:
    for name in ("model/model.safetensors", "train.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def stop_after(out: Path, train_steps: int, inner: Objective | None = None, **settings: Any) -> None:
    """Run and break off without a word after so many training steps, as a power cut would."""

    class PowerCut(BaseException):
        pass

    microbatches = iter(range(2 * train_steps))  # two make a training step

    def objective(model: tiny_run.Decoder, batch: tiny_run.Batch) -> ItemLosses:
        if next(microbatches, None) is None:
            raise PowerCut
        return (inner or next_token())(model, batch)

    with pytest.raises(PowerCut):
        tiny_run.run(out, objective=objective, **settings)


@pytest.mark.parametrize("train_steps", [1, 5, 8, 9, 10, 14])
def test_a_run_broken_off_anywhere_ends_in_the_same_bytes(train_steps: int, undisturbed: Path, tmp_path: Path) -> None:
    # 9 is the end of the first phase, where the optimizer starts afresh; checkpoints lie at every second step.
    stop_after(tmp_path, train_steps)
    report = tiny_run.run(tmp_path)
    assert (report.resumed_from is not None) == (train_steps > 1)
    same_result(undisturbed, tmp_path)


def test_a_run_whose_optimizer_goes_on_through_phases_resumes_at_the_border_too(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tiny_run.run(whole, run_phases=tiny_run.phases(reset=False))
    tiny_run.run(broken, run_phases=tiny_run.phases(reset=False))
    for checkpoint in checkpoints(broken / "checkpoints"):
        if checkpoint.counters.train_steps_done > 9:
            shutil.rmtree(checkpoint.path)
    tiny_run.run(broken, run_phases=tiny_run.phases(reset=False))
    same_result(whole, broken)


def test_8_bit_moments_are_part_of_a_checkpoint(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    wide: dict[str, Any] = {"config": WIDE, "run_phases": tiny_run.phases(kind="adamw8bit", reset=False)}
    tiny_run.run(whole, **wide)
    stop_after(broken, 12, **wide)
    assert tiny_run.run(broken, **wide).resumed_from is not None
    same_result(whole, broken)
    codes = [name for name in checkpoints(whole / "checkpoints")[-1].tensors() if name.endswith(".codes")]
    assert len(codes) == 2 * 2 * len(WIDE.heads), "of both moments of two matrices in each layer"


def test_a_phase_that_goes_on_with_the_state_takes_its_own_settings(tmp_path: Path) -> None:
    first, second = tiny_run.phases(reset=False)
    gentle = [first, replace(second, optimizer=replace(second.optimizer, weight_decay=0.0, beta2=0.5))]
    whole, same, broken = tmp_path / "whole", tmp_path / "same", tmp_path / "broken"
    tiny_run.run(whole, run_phases=gentle)
    tiny_run.run(same, run_phases=[first, second])
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, same)]
    assert weights[0] != weights[1]
    stop_after(broken, 12, run_phases=gentle)
    assert tiny_run.run(broken, run_phases=gentle).resumed_from is not None
    same_result(whole, broken)


@pytest.mark.parametrize("train_steps", [3, 6, 7, 9, 13, 14])
def test_a_run_that_skips_spikes_skips_the_same_ones_when_it_is_resumed(train_steps: int, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    spiky: dict[str, Any] = {"run_phases": tiny_run.spiky_phases(), "spike_guard": tiny_run.GUARD}
    report = tiny_run.run(whole, objective=tiny_run.spiky_objective, **spiky)
    assert report.num_skipped == len(tiny_run.SPIKES)
    stop_after(broken, train_steps, tiny_run.spiky_objective, **spiky)
    again = tiny_run.run(broken, objective=tiny_run.spiky_objective, **spiky)
    assert again.resumed_from is not None
    assert again.num_skipped == len(tiny_run.SPIKES)
    same_result(whole, broken)


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_not_a_byte(tmp_path: Path) -> None:
    def command(out: Path, pause: str) -> list[str]:
        return [sys.executable, str(PROGRAM), str(out), "never", pause, "spiky"]

    whole = tmp_path / "whole"
    subprocess.run(command(whole, "0"), check=True)
    chance, kills, runs = random.Random(0), 0, 0
    while kills < 20:
        out = tmp_path / f"run-{runs}"
        process = subprocess.Popen(command(out, "0.3"))
        if chance.random() < 0.75:  # else in the middle of starting
            log, before = out / "train.jsonl", time.time()
            while process.poll() is None and not (log.exists() and log.stat().st_mtime > before):
                time.sleep(0.01)
        try:
            process.wait(timeout=chance.uniform(0, 1.5))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        same_result(whole, out)
        runs += 1
    subprocess.run(command(tmp_path / f"run-{runs}", "0"), check=True)
    same_result(whole, tmp_path / f"run-{runs}")


def kill_and_run_again(out: Path, compile: str, pause: float, kills: int) -> None:
    command = [sys.executable, str(PROGRAM), str(out), compile, str(pause)]
    seen = 0
    for _ in range(kills):
        process = subprocess.Popen(command)
        limit = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < limit:
            if len(list((out / "checkpoints").glob("0*"))) > seen:
                break
            time.sleep(0.02)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = len(list((out / "checkpoints").glob("0*")))
    subprocess.run(command, check=True)


def test_kill_nine_and_the_same_command_again(undisturbed: Path, tmp_path: Path) -> None:
    kill_and_run_again(tmp_path, "never", pause=0.05, kills=2)
    same_result(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
def test_kill_nine_and_the_same_command_again_compiled(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(PROGRAM), str(tmp_path / "whole"), "always", "0"], check=True)
    kill_and_run_again(tmp_path / "killed", "always", pause=0.3, kills=1)
    same_result(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(which: signal.Signals, undisturbed: Path, tmp_path: Path) -> None:
    microbatches = itertools.count()  # two make a training step

    def objective(model: tiny_run.Decoder, batch: tiny_run.Batch) -> ItemLosses:
        if next(microbatches) == 2 * 5:
            os.kill(os.getpid(), which)
        return next_token()(model, batch)

    before = signal.getsignal(which)
    with pytest.raises(DiglotError, match=rf"{which.name} after training step 6 of 15.*same command"):
        tiny_run.run(tmp_path, objective=objective)
    assert signal.getsignal(which) is before
    newest = checkpoints(tmp_path / "checkpoints")[-1]
    assert newest.counters.train_steps_done == 6
    assert tiny_run.run(tmp_path).resumed_from == newest.name
    same_result(undisturbed, tmp_path)


def test_a_signal_at_the_end_of_a_phase_leaves_a_checkpoint_that_stays(tmp_path: Path) -> None:
    microbatches = itertools.count()

    def objective(model: tiny_run.Decoder, batch: tiny_run.Batch) -> ItemLosses:
        if next(microbatches) == 2 * tiny_run.STEPS[0] - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return next_token()(model, batch)

    with pytest.raises(DiglotError, match="after training step 9"):
        tiny_run.run(tmp_path, objective=objective, keep_rolling=1)
    tiny_run.run(tmp_path, keep_rolling=1)
    found = {c.counters.train_steps_done: c.retention for c in checkpoints(tmp_path / "checkpoints")}
    assert found == {9: "release", 14: "rolling", 15: "release"}


def test_a_signal_in_the_last_training_step_stops_the_command_too(undisturbed: Path, tmp_path: Path) -> None:
    microbatches = itertools.count()

    def objective(model: tiny_run.Decoder, batch: tiny_run.Batch) -> ItemLosses:
        if next(microbatches) == 2 * sum(tiny_run.STEPS) - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return next_token()(model, batch)

    with pytest.raises(DiglotError, match=r"SIGTERM after training step 15 of 15.*same command"):
        tiny_run.run(tmp_path, objective=objective)
    tiny_run.run(tmp_path)
    same_result(undisturbed, tmp_path)


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_after(tmp_path, 7)
    newest = checkpoints(tmp_path / "checkpoints")[-1]
    state = newest.path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-10])
    report = tiny_run.run(tmp_path, progress=Progress())
    assert f"checkpoint {newest.name} is damaged" in capsys.readouterr().err
    assert report.resumed_from is not None
    assert report.resumed_from < newest.name
    same_result(undisturbed, tmp_path)


def test_a_disk_without_room_for_a_checkpoint_stops_the_run_and_the_last_one_stands(
    undisturbed: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the full disk: the logs fit, the weights do not."""
    stop_after(tmp_path, 7)
    program = (
        "import pathlib, resource, sys, tiny_run\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "tiny_run.run(pathlib.Path(sys.argv[1]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=PROGRAM.parent, capture_output=True, text=True
    )
    newest = tmp_path / "checkpoints" / "0000000.5K"
    assert f"DiglotError: File too large while writing the checkpoint {newest}." in found.stderr, found.stderr[-2000:]
    assert [c.counters.train_steps_done for c in checkpoints(tmp_path / "checkpoints")] == [2, 4, 6]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3, "nothing half-written is left"
    assert tiny_run.run(tmp_path).resumed_from == "0000000.4K"
    same_result(undisturbed, tmp_path)


def test_what_a_killed_save_left_goes_when_the_run_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    stop_after(tmp_path, 7)
    partial = tmp_path / "checkpoints" / ".0000000.4K.step7.partial"
    partial.mkdir()
    (partial / "state.safetensors").write_bytes(b"half")
    tiny_run.run(tmp_path)
    assert not partial.exists()
    same_result(undisturbed, tmp_path)


def test_a_checkpoint_of_another_data_order_is_refused(tmp_path: Path) -> None:
    stop_after(tmp_path, 5)
    with pytest.raises(ConfigError, match="written for data order tiny, this run has other"):
        tiny_run.run(tmp_path, order_fingerprint="other")


def test_a_finished_run_does_nothing_when_it_is_run_again(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "again")
    report = tiny_run.run(tmp_path / "again")
    assert report.tokens_per_second == 0.0
    same_result(undisturbed, tmp_path / "again")


def test_a_line_cut_short_by_a_kill_is_written_again(undisturbed: Path, tmp_path: Path) -> None:
    stop_after(tmp_path, 7)
    with (tmp_path / "train.jsonl").open("a") as stream:
        stream.write('{"train_step": 7, "lo')
    tiny_run.run(tmp_path)
    same_result(undisturbed, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line["train_step"] for line in lines] == list(range(15))
