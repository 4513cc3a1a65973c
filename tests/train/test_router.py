"""Router losses keep experts in use, and are divided like every other loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diglot.model.config import DecoderConfig, MoEConfig
from diglot.model.decoder import Decoder
from diglot.model.experts import Experts
from diglot.train.objectives.next_token import next_token
from diglot.train.objectives.router import with_router_losses
from diglot.train.objectives.sft import sft
from diglot.train.optimizers import Optimizer, OptimizerConfig
from diglot.train.types import IGNORE, SPARE

MOE = MoEConfig(num_experts=8, top_k=2, expert_dim=32, balance_weight=0.5, z_weight=0.25)
CONFIG = DecoderConfig(
    vocab_size=50, d_model=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=48, moe=MOE
)


def batch(seed: int = 0, num_sequences: int = 4) -> dict[str, torch.Tensor]:
    ids = torch.randint(50, (num_sequences, 33), generator=torch.Generator().manual_seed(seed))
    targets = ids[:, 1:].clone()
    targets[0, :5] = IGNORE
    return {"input_ids": ids[:, :-1], "targets": targets}


@pytest.mark.parametrize("objective", [next_token(), sft], ids=["next_token", "sft"])
def test_the_total_is_cross_entropy_and_the_weighted_means_of_all_layers_times_the_items(objective) -> None:
    model, read = Decoder(CONFIG, seed=1), batch()
    losses = objective(model, read)
    count = int(losses.count)
    routers = model.trunk(read["input_ids"]).routers
    plain = objective(Decoder(CONFIG.changed(moe=replace(MOE, balance_weight=0.0, z_weight=0.0)), seed=1), read)
    balance, z = (sum(float(getattr(router, which)) for router in routers) / 2 for which in ("balance", "z"))
    assert float(losses.total) == pytest.approx(float(plain.total) + count * (0.5 * balance + 0.25 * z), rel=1e-5)
    assert float(losses.stats["router_balance"]) == pytest.approx(balance * count, rel=1e-5)
    assert count == 4 * 32 - 5


def test_the_parts_of_ranks_sum_to_what_one_rank_finds() -> None:
    """Four ranks have three rows of different length in targets; one reads a row for company."""
    read = batch(num_sequences=3)
    read["targets"][1, 3:] = IGNORE
    ranks = [{key: tensor[row : row + 1] for key, tensor in read.items()} for row in range(3)]
    ranks.append({**ranks[0], "targets": torch.full_like(ranks[0]["targets"], IGNORE), SPARE: torch.tensor(True)})
    one, many = Decoder(CONFIG, seed=1), Decoder(CONFIG, seed=1)
    expected = next_token()(one, read)
    expected.total.backward()
    told: list[torch.Tensor] = []
    many.sum_over_ranks = lambda sums: told.append(sums.clone())
    for share in ranks:
        next_token()(many, share)
    many.sum_over_ranks = lambda sums: sums.copy_(sum(told))
    found = [next_token()(many, share) for share in ranks]
    for losses in found:
        losses.total.backward()
    assert sum(losses.total.item() for losses in found) == pytest.approx(expected.total.item(), rel=1e-6)
    for name, value in expected.stats.items():
        assert sum(float(losses.stats[name]) for losses in found) == pytest.approx(float(value), rel=1e-6), name
    for (name, own), parameter in zip(one.named_parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, own.grad, rtol=1e-5, atol=1e-5, msg=name)


def test_a_dense_model_has_no_router_losses() -> None:
    total = torch.tensor(3.0)
    assert with_router_losses(total, 5, (), Decoder(CONFIG.changed(moe=None)), batch()) == (total, {})


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_balance_keeps_a_router_that_prefers_two_experts_from_starving_the_rest(kind) -> None:
    def balance_after_training(balance_weight: float) -> float:
        torch.manual_seed(0)
        model = Decoder(CONFIG.changed(moe=replace(MOE, balance_weight=balance_weight, z_weight=0.0)), seed=1)
        with torch.no_grad():
            for layer in model.layers:
                assert isinstance(layer.ffn, Experts)
                layer.ffn.router.weight[:2] += 0.5 * torch.randn(32)  # both look the same way
        optimizer, objective = Optimizer(model, OptimizerConfig(kind=kind)), next_token()
        for number in range(40):
            model.zero_grad()
            losses = objective(model, batch(number, num_sequences=16))
            (losses.total / losses.count).backward()
            optimizer.step(1e-2)
        return float(losses.stats["router_balance"] / losses.count)

    even, left_alone = balance_after_training(2.0), balance_after_training(0.0)
    assert even < 1.06
    assert left_alone > even + 0.03
