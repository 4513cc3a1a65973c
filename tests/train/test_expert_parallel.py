"""Experts divided among ranks find what one rank finds, router losses and all, and go on on any number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import many_ranks
import pytest
from test_ranks import alone, rows_read, same_gradients, same_losses, stopped, trained

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.parallel.config import GridShape, ParallelConfig
from diglot.train.parallel.grid import Grid

EXPERTS = {"shape": "experts"}


@pytest.fixture(scope="module")
def on_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alone(tmp_path_factory.mktemp("on one"), **EXPERTS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_ranks", "expert"),
    [(2, 1), (2, 2), (4, 2)],
    ids=["2, experts whole", "2, three experts each", "4, half of three each; some have no row"],
)
def test_ranks_find_the_same_with_router_losses(num_ranks: int, expert: int, on_one: Path, tmp_path: Path) -> None:
    many = trained(num_ranks, tmp_path, expert=expert, **EXPERTS)
    assert rows_read(on_one) == rows_read(many)
    same_losses(on_one, many)
    same_gradients(on_one, many)


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_with_experts_divided(on_one: Path, tmp_path: Path) -> None:
    same_losses(on_one, trained(2, stopped(1, tmp_path, **EXPERTS), expert=2, **EXPERTS))


@pytest.mark.slow
def test_a_run_with_experts_divided_goes_on_in_one_process(on_one: Path, tmp_path: Path) -> None:
    same_losses(on_one, alone(stopped(2, tmp_path, expert=2, **EXPERTS), **EXPERTS))


@pytest.mark.parametrize("axis", ["tensor", "context", "pipeline"])
def test_other_axes_beside_expert_are_refused(axis: str) -> None:
    with pytest.raises(ConfigError, match=f"goes with replicate and shard, not with {axis}"):
        ParallelConfig(expert=2, **{axis: 2})


@pytest.mark.parametrize(
    ("config", "shard", "expert", "why"),
    [
        (many_ranks.ODD, 2, 2, "the model has no experts"),
        (many_ranks.EXPERTS, 4, 4, "expert = 4 does not divide the 6 experts"),
        (replace(many_ranks.EXPERTS, d_model=33), 4, 2, "ranks, which do not divide d_model = 33"),
    ],
)
def test_experts_that_do_not_divide_are_refused(config: DecoderConfig, shard: int, expert: int, why: str) -> None:
    from diglot.train.parallel.experts import divide_experts

    grid = Grid(GridShape(pipeline=1, replicate=1, shard=shard, context=1, tensor=1), 0, "cpu", expert)
    with pytest.raises(ConfigError, match=why):
        divide_experts(Decoder(config, seed=None), grid)
