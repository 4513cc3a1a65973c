"""A run on several ranks is the run on one: same batches, same losses, same gradients, and it goes on on any number."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import many_ranks
import pytest
import torch
from safetensors.torch import load_file

from diglot.core.errors import ConfigError, DiglotError
from diglot.core.launch import Launch
from diglot.core.storage import read_json
from diglot.train.checkpoints import checkpoints
from diglot.train.log import read_lines
from diglot.train.parallel.config import GridShape, ParallelConfig
from diglot.train.parallel.grid import Grid
from diglot.train.parallel.ranks import ALONE, Ranks
from diglot.train.types import IGNORE

PROGRAM = Path(many_ranks.__file__)
ODD_MUON = {"shape": "odd", "optimizer": "muon"}


def torchrun(num_ranks: int, out: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    command += [*arguments, str(PROGRAM), str(out), *(f"{name}={value}" for name, value in options.items())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)


def trained(num_ranks: int, out: Path, **options: object) -> Path:
    found = torchrun(num_ranks, out, **options)
    assert found.returncode == 0, found.stderr[-3000:]
    return out


def alone(out: Path, **options: object) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    many_ranks.run(out, ALONE, {name: str(value) for name, value in options.items()})
    return out


def stopped(num_ranks: int, out: Path, **options: object) -> Path:
    """After training step 5, which is halfway through the first phase: a signal to one rank stops all."""
    if num_ranks == 1:
        with pytest.raises(DiglotError, match="SIGTERM after training step 5"):
            alone(out, stop=8, **options)
    else:
        found = torchrun(num_ranks, out, stop=8, **options)
        assert "SIGTERM after training step 5 of 15" in found.stderr
    assert checkpoints(out / "checkpoints")[-1].counters.train_steps_done == 5
    return out


def rows_read(out: Path) -> list[list[list[int]]]:
    """The rows of each microbatch, those of all ranks one after the other."""
    files = sorted(out.glob("rows.*.jsonl"))
    lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    return [[row for rows in parts for row in rows] for parts in zip(*lines, strict=True)]


def same_losses(one: Path, other: Path) -> None:
    for ours, theirs in zip(read_lines(one / "train.jsonl"), read_lines(other / "train.jsonl"), strict=True):
        assert ours.pop("phase") == theirs.pop("phase")
        assert ours == pytest.approx(theirs, rel=1e-5), ours["train_step"]


def same_gradients(one: Path, other: Path) -> None:
    gradients, gathered = (load_file(out / "gradients.safetensors") for out in (one, other))
    assert gradients.keys() == gathered.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gathered[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def same_bytes(one: Path, other: Path) -> None:
    for name in ("model/model.safetensors", "train.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_ranks", "options"),
    [
        (2, {}),
        (4, ODD_MUON),
        (4, {"replicate": 2, "optimizer": "muon"}),
        (2, {"replicate": 2}),
    ],
    ids=["2", "4, odd widths, Muon", "2 x 2, Muon", "2 replicas"],
)
def test_ranks_read_the_same_and_find_the_same(num_ranks: int, options: dict[str, object], tmp_path: Path) -> None:
    one, many = alone(tmp_path / "one", **options), trained(num_ranks, tmp_path / "many", **options)
    assert rows_read(one) == rows_read(many)
    same_losses(one, many)
    same_gradients(one, many)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_ranks", "options"),
    [
        (2, {"evaluate": 1}),
        (2, {"only": "gradients", "pipeline": 2}),
        (4, {"only": "gradients", "tensor": 2, "context": 2}),
    ],
    ids=["2", "2 stages", "tensor x context"],
)
def test_layers_gathered_as_bfloat16_have_the_gradients_of_autocast_summed_in_float32(
    num_ranks: int, options: dict[str, object], tmp_path: Path
) -> None:
    options = {**options, "bf16": 1}
    on_one = {name: value for name, value in options.items() if name in ("only", "bf16", "evaluate")}
    one, many = alone(tmp_path / "one", **on_one), trained(num_ranks, tmp_path / "many", **options)
    gradients, gathered = (load_file(out / "gradients.safetensors") for out in (one, many))
    assert gradients.keys() == gathered.keys()
    for name, gradient in gradients.items():
        assert gathered[name].dtype == torch.float32
        assert (gathered[name] - gradient).norm() < 0.01 * gradient.norm(), name
    if "evaluate" in options:  # in float32 by the one, under autocast by the many
        for ours, theirs in zip(*(read_lines(out / "eval.jsonl") for out in (one, many)), strict=True):
            assert ours["bits_per_byte"] == pytest.approx(theirs["bits_per_byte"], rel=0.02)


@pytest.mark.slow
def test_the_guard_skips_the_same_training_steps_on_every_rank(tmp_path: Path) -> None:
    one, two = alone(tmp_path / "one", spiky=1), trained(2, tmp_path / "two", spiky=1)
    skipped = [
        [line["train_step"] for line in read_lines(out / "train.jsonl") if "skipped" in line] for out in (one, two)
    ]
    assert skipped[0] == skipped[1] != []
    weights, gathered = (load_file(out / "model/model.safetensors") for out in (one, two))
    for name, weight in weights.items():
        torch.testing.assert_close(gathered[name], weight, rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(2, tmp_path_factory.mktemp("on two"), **ODD_MUON)


@pytest.fixture(scope="module")
def stopped_on_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped(2, tmp_path_factory.mktemp("stopped on two"), **ODD_MUON)


@pytest.mark.slow
def test_a_run_resumed_on_as_many_ranks_ends_in_the_same_bytes(
    on_two: Path, stopped_on_two: Path, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(stopped_on_two, tmp_path / "again"))
    same_bytes(on_two, trained(2, again, **ODD_MUON))


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 4])
def test_a_run_of_two_ranks_goes_on_on_another_number(
    num_ranks: int, on_two: Path, stopped_on_two: Path, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(stopped_on_two, tmp_path / "again"))
    for file in again.glob("rows.*.jsonl"):
        file.unlink()
    if num_ranks == 1:
        alone(again, **ODD_MUON)
    else:
        trained(num_ranks, again, **ODD_MUON)
    assert rows_read(again) == rows_read(on_two)[10:]  # two microbatches a training step
    same_losses(on_two, again)


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_on_two(on_two: Path, tmp_path: Path) -> None:
    same_losses(on_two, trained(2, stopped(1, tmp_path, **ODD_MUON), **ODD_MUON))


@pytest.mark.slow
def test_a_rank_that_dies_is_started_again_with_the_others_and_nothing_is_lost(on_two: Path, tmp_path: Path) -> None:
    found = torchrun(2, tmp_path, "--max-restarts=1", die=13, **ODD_MUON)
    assert found.returncode == 0, found.stderr[-3000:]
    assert (tmp_path / "died").exists()
    same_bytes(on_two, tmp_path)


@pytest.mark.slow
def test_checkpoints_behind_an_address_and_evaluation_change_nothing(on_two: Path, tmp_path: Path) -> None:
    """Stopped and gone on; the loop, its logs and its weights are those of a run without either."""
    address = f"file://{tmp_path}/store/run"
    options = {**ODD_MUON, "place": address, "evaluate": 1}
    found = torchrun(2, tmp_path / "two", clock=10, **options)
    said = "stopped before time_limit_minutes = 600 after training step 5 of 15"
    assert found.stderr.count(f"DiglotError: {said}") == 2, found.stderr[-3000:]  # both ranks, by the clock of one
    one = shutil.copytree(tmp_path, tmp_path / "copy") / "two"
    trained(2, tmp_path / "two", **options)
    same_bytes(on_two, tmp_path / "two")
    newest = checkpoints(tmp_path / "store" / "run")[-1]
    assert newest.damage() is None
    assert sorted(newest.manifest["files"]) == [f"shard-0000{i}-model-00001-of-00001.safetensors" for i in (1, 2)]
    # One process goes on from what two wrote there, and measures the same.
    alone(one, **{**options, "place": f"file://{one.parent}/store/run"})
    same_losses(on_two, one)
    lines = [read_lines(out / "eval.jsonl") for out in (tmp_path / "two", one)]
    assert [line["train_step"] for line in lines[0]] == [3, 7, 8, 11, 14]
    for ours, theirs in zip(*lines, strict=True):
        assert set(ours["bits_per_byte"]) == {"en", "zh-Hans"}
        assert ours["bits_per_byte"] == pytest.approx(theirs["bits_per_byte"], rel=1e-5)


@pytest.mark.slow
def test_a_rank_that_cannot_send_its_part_stops_all_with_the_reason(tmp_path: Path) -> None:
    found = torchrun(2, tmp_path / "out", place=f"faulty://{tmp_path}/store", breaks="shard-00002")
    assert found.returncode != 0
    said = "shard-00002-model-00001-of-00001.safetensors failed: ConnectionResetError: Connection reset by peer"
    assert found.stderr.count(f"DiglotError: writing faulty://{tmp_path}/store/0000000.1K/{said}") == 2  # both ranks
    assert not list((tmp_path / "store").glob("*/manifest.json"))


@pytest.mark.slow
def test_every_rank_writes_its_part_and_the_manifest_lists_them(on_two: Path) -> None:
    newest = checkpoints(on_two / "checkpoints")[-1]
    assert newest.damage() is None
    assert sorted(newest.manifest["files"]) == [f"shard-0000{i}-model-00001-of-00001.safetensors" for i in (1, 2)]
    assert newest.manifest["facts"]["num_ranks"] == 2
    assert not list((on_two / "checkpoints").glob(".*"))
    assert read_json(newest.path / "manifest.json")["counters"]["train_steps_done"] == 15


def ranks_of(count: int) -> list[Ranks]:
    places = {"local_world_size": count, "address": "127.0.0.1", "port": 1}
    return [
        Ranks(Launch(rank=rank, world_size=count, local_rank=rank, **places)).arranged(ParallelConfig())
        for rank in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_shares_of_a_microbatch_are_its_rows_in_order(count: int) -> None:
    batch = {"input_ids": torch.arange(12).view(6, 2), "targets": torch.arange(12).view(6, 2) + 1}
    shares = [ranks.rows([batch])[0] for ranks in ranks_of(count)]
    with_targets = [share for share in shares if bool((share["targets"] != IGNORE).any())]
    for key in batch:
        torch.testing.assert_close(torch.cat([share[key] for share in with_targets]), batch[key])
    assert all(len(share["input_ids"]) >= 1 for share in shares)  # everybody takes part in every forward pass
    assert len(with_targets) == min(count, 6)


@pytest.mark.parametrize(
    ("config", "num_ranks", "shape"),
    [
        (ParallelConfig(), 6, (1, 1, 6, 1, 1)),
        (ParallelConfig(replicate=2), 6, (1, 2, 3, 1, 1)),
        (ParallelConfig(replicate=6), 6, (1, 6, 1, 1, 1)),
        (ParallelConfig(replicate=2, shard=4, expert=2), 8, (1, 2, 4, 1, 1)),
        (ParallelConfig(tensor=2, context=2), 16, (1, 1, 4, 2, 2)),
        (ParallelConfig(pipeline=2, replicate=2), 8, (2, 2, 2, 1, 1)),
    ],
)
def test_the_grid_of_ranks(config: ParallelConfig, num_ranks: int, shape: tuple[int, ...]) -> None:
    assert config.grid(num_ranks) == shape


def test_every_rank_has_a_place_of_its_own() -> None:
    shape = GridShape(pipeline=2, replicate=1, shard=3, context=1, tensor=2)
    grids = [Grid(shape, rank, "cpu") for rank in range(12)]
    assert len({grid.place for grid in grids}) == 12
    assert [grid.place.tensor for grid in grids] == [0, 1] * 6  # neighbours on the last axis
    assert [grid.reader for grid in grids] == [0, 0, 1, 1, 2, 2] * 2
    assert {grid.num_readers for grid in grids} == {3}


@pytest.mark.parametrize(
    "config",
    [ParallelConfig(replicate=4), ParallelConfig(shard=4), ParallelConfig(replicate=8), ParallelConfig(tensor=4)],
)
def test_a_grid_that_the_ranks_do_not_fill_is_refused(config: ParallelConfig) -> None:
    with pytest.raises(ConfigError, match=r"but 6 ranks were started\. Start"):
        config.grid(6)


def test_experts_that_do_not_divide_the_ranks_are_refused() -> None:
    with pytest.raises(ConfigError, match="expert = 4 does not divide the 6 ranks"):
        ParallelConfig(expert=4).grid(6)


def test_a_grid_without_ranks_is_refused() -> None:
    with pytest.raises(ConfigError, match="count from 1"):
        ParallelConfig(replicate=0)
