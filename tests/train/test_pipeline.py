"""A model in parts, one after the other on several ranks, is the model on one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import many_ranks
import pytest
import tiny_run
import torch
from safetensors.torch import load_file
from test_ranks import ODD_MUON, alone, same_bytes, same_gradients, same_losses, stopped, torchrun, trained

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.checkpoints import checkpoints
from diglot.train.parallel.config import GridShape, ParallelConfig
from diglot.train.parallel.grid import Grid
from diglot.train.parallel.stages import check_microbatches, divided, keep_stage, stage_of

MUP = replace(many_ranks.ODD, mup_base_d_model=15, sliding_window=4, sliding_layers=(True, False, True))


def grid(rank: int, pipeline: int, **others: int) -> Grid:
    shape = GridShape(**{"replicate": 1, "shard": 1, "context": 1, "tensor": 1, "pipeline": pipeline, **others})
    return Grid(shape, rank, "cpu")


def parts(config: DecoderConfig, count: int) -> list[Decoder]:
    models = [Decoder(config, seed=3) for _ in range(count)]
    for number, model in enumerate(models):
        keep_stage(model, grid(number, count))
    return models


@pytest.mark.parametrize(
    ("costs", "num_stages", "sizes"),
    [
        ([1, 1, 1, 1], 2, [2, 2]),
        ([1, 1, 1, 1, 1], 2, [2, 3]),  # the first stage keeps more activations, so it gets the shorter half
        ([1, 1, 1, 5], 2, [3, 1]),  # the output matrix on the last layer
        ([1, 1, 1, 5], 3, [1, 2, 1]),
        ([4, 1, 1, 1, 1], 2, [1, 4]),
        ([1, 2, 3], 3, [1, 1, 1]),
    ],
)
def test_the_dearest_stage_is_as_cheap_as_can_be(costs: list[float], num_stages: int, sizes: list[int]) -> None:
    stages = divided(costs, num_stages)
    assert [len(stage) for stage in stages] == sizes
    assert [layer for stage in stages for layer in stage] == list(range(len(costs)))


@pytest.mark.parametrize("config", [tiny_run.CONFIG, many_ranks.ODD], ids=["untied", "tied"])
def test_every_weight_is_on_one_stage_under_its_name_and_a_tied_one_is_copied(config: DecoderConfig) -> None:
    names = [[name for name, _ in part.named_parameters()] for part in parts(config, 2)]
    first, last = (stage_of(config, grid(number, 2)) for number in (0, 1))
    assert sorted(set(names[0]) & set(names[1])) == sorted(last.copies(config))
    assert first.copies(config) == set()
    assert set(names[0]) | set(names[1]) == {name for name, _ in Decoder(config, seed=None).named_parameters()}
    assert bool(last.copies(config)) is config.tie_embeddings


@pytest.mark.parametrize("config", [many_ranks.ODD, many_ranks.ROUTERS, MUP], ids=["odd", "experts", "muP, sliding"])
@pytest.mark.parametrize("count", [2, 3])
def test_one_part_after_the_other_finds_what_the_whole_model_finds(config: DecoderConfig, count: int) -> None:
    ids = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))
    document_ids = torch.arange(9).expand(2, 9) // 4
    expected = Decoder(config, seed=3).trunk(ids, document_ids_BT=document_ids)
    first, *others = parts(config, count)
    trunk = first.trunk(ids, document_ids_BT=document_ids)
    routers = trunk.routers
    for part in others:
        trunk = part.trunk(embeddings_BTD=trunk.hidden, document_ids_BT=document_ids)
        routers += trunk.routers
    assert torch.equal(trunk.hidden, expected.hidden)
    assert [router.balance for router in routers] == [router.balance for router in expected.routers]


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pipeline = 3 .* more stages than the model has layers \(2\)"):
        stage_of(tiny_run.CONFIG, grid(0, 3))


@pytest.mark.parametrize("axis", ["tensor", "context"])
def test_a_pipeline_of_ranks_that_share_sequences_is_refused(axis: str) -> None:
    with pytest.raises(ConfigError, match=f"pipeline = 2 goes with replicate and shard, not with {axis}"):
        ParallelConfig(pipeline=2, **{axis: 2})


def test_fewer_microbatches_than_stages_are_refused() -> None:
    check_microbatches(4, 4, "a training step")
    with pytest.raises(
        ConfigError, match=r"too few microbatches \(3\) for 4 stages .* at least 4 microbatches, better 16"
    ):
        check_microbatches(3, 4, "a training step")


@pytest.mark.slow
def test_two_stages_of_two_shards_find_the_same(tmp_path: Path) -> None:
    one, four = alone(tmp_path / "one", **ODD_MUON), trained(4, tmp_path / "four", pipeline=2, **ODD_MUON)
    same_gradients(one, four)
    same_losses(one, four)  # with the norm of all gradients


@pytest.mark.slow
def test_three_stages_have_the_same_gradients_and_refuse_two_microbatches(tmp_path: Path) -> None:
    one = alone(tmp_path / "one", only="gradients", **ODD_MUON)
    found = torchrun(3, tmp_path / "three", pipeline=3, **ODD_MUON)
    same_gradients(one, tmp_path / "three")  # of three microbatches, before training steps of two
    assert "phase 'fundamental' has too few microbatches (2) for 3 stages" in found.stderr


@pytest.mark.slow
def test_routers_of_all_stages_are_learned_from(tmp_path: Path) -> None:
    one = alone(tmp_path / "one", shape="routers")
    two = trained(2, tmp_path / "two", pipeline=2, shape="routers")
    same_gradients(one, two)
    same_losses(one, two)


@pytest.fixture(scope="module")
def in_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(2, tmp_path_factory.mktemp("in stages"), pipeline=2, **ODD_MUON)


@pytest.fixture(scope="module")
def stopped_in_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped(2, tmp_path_factory.mktemp("stopped in stages"), pipeline=2, **ODD_MUON)


@pytest.mark.slow
def test_a_run_resumed_in_the_same_stages_ends_in_the_same_bytes(
    in_stages: Path, stopped_in_stages: Path, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(stopped_in_stages, tmp_path / "again"))
    same_bytes(in_stages, trained(2, again, pipeline=2, **ODD_MUON))


@pytest.mark.slow
def test_a_run_in_stages_goes_on_in_one_process_and_the_other_way_round(
    in_stages: Path, stopped_in_stages: Path, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(stopped_in_stages, tmp_path / "again"))
    same_losses(in_stages, alone(again, **ODD_MUON))
    same_losses(in_stages, trained(2, stopped(1, tmp_path / "one", **ODD_MUON), pipeline=2, **ODD_MUON))


@pytest.mark.slow
def test_every_stage_writes_its_own_tensors_and_a_tied_matrix_is_written_once(in_stages: Path) -> None:
    newest = checkpoints(in_stages / "checkpoints")[-1]
    assert newest.damage() is None
    written = [set(load_file(file)) for file in sorted(newest.path.glob("shard-*.safetensors"))]
    assert len(written) == 2
    assert written[0] & written[1] == set()
    numbers = [{int(name.split(".")[2]) for name in names if name.startswith("model.layers.")} for names in written]
    assert numbers == [set(stage_of(many_ranks.ODD, grid(rank, 2)).layers) for rank in (0, 1)]
    assert "model.embed.weight" in written[0] | written[1]
