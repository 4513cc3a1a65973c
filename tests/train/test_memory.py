"""The memory that is foretold is the memory that training takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from diglot.model.accounting import parameter_counts
from diglot.model.config import DecoderConfig, MoEConfig
from diglot.model.decoder import Decoder
from diglot.model.sizes import ladder_config
from diglot.train.memory import memory_line, train_memory
from diglot.train.objectives.next_token import next_token
from diglot.train.optimizer_config import Kind, OptimizerConfig
from diglot.train.optimizers import Optimizer

WIDE = DecoderConfig(
    vocab_size=2000, d_model=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32, ffn_dim=384,
    tie_embeddings=True,
)  # fmt: skip
EXPERTS = MoEConfig(num_experts=8, top_k=2, expert_dim=192)
T = 128


def taken(config: DecoderConfig, N: int, num_microbatches: int, optimizer: Kind, recompute_every: int) -> int:
    """The most bytes of tensors at once in a training step, by what torch allocates and frees."""
    model = Decoder(config).train()
    model.recompute_every = recompute_every
    updates, objective = Optimizer(model, OptimizerConfig(kind=optimizer)), next_token()
    ids = torch.randint(config.vocab_size, (N // T, T), generator=torch.Generator().manual_seed(0))

    def train_step() -> None:
        for _ in range(num_microbatches):
            objective(model, {"input_ids": ids, "targets": ids}).total.backward()  # type: ignore[no-untyped-call]
        updates.step(1e-4)
        for parameter in model.parameters():
            parameter.grad = None

    train_step()
    held = sum(tensor.nbytes for tensor in [*model.parameters(), *updates.state().values()])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        train_step()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return held + most


@pytest.mark.parametrize(
    ("config", "N", "num_microbatches", "optimizer", "recompute_every"),
    [
        (WIDE, 1024, 1, "adamw", 0),
        (replace(WIDE, tie_embeddings=False, d_model=256, num_heads=8), 256, 3, "adamw", 0),
        (replace(WIDE, num_layers=8, qk_norm=True), 2048, 1, "muon", 2),
        (replace(WIDE, moe=EXPERTS), 1024, 2, "adamw", 0),
    ],
    ids=["one microbatch", "three of few tokens", "Muon, every second layer again", "experts"],
)
def test_the_peak_is_what_a_training_step_takes(
    config: DecoderConfig, N: int, num_microbatches: int, optimizer: Kind, recompute_every: int
) -> None:
    memory = train_memory(
        config,
        microbatch_tokens=N,
        num_microbatches=num_microbatches,
        optimizer=optimizer,
        recompute_every=recompute_every,
    )
    assert memory.peak == pytest.approx(taken(config, N, num_microbatches, optimizer, recompute_every), rel=0.05)


@pytest.mark.parametrize("moe", [None, EXPERTS], ids=["dense", "experts"])
def test_muons_state_is_counted_as_it_keeps_it(moe: MoEConfig | None) -> None:
    config = replace(WIDE, moe=moe)
    state = Optimizer(Decoder(config), OptimizerConfig(kind="muon")).state()
    kept = sum(tensor.nbytes for tensor in state.values())
    assert train_memory(config, microbatch_tokens=256, optimizer="muon").optimizer == pytest.approx(kept, rel=0.01)


def test_memory_is_shared_by_ranks_except_for_activations() -> None:
    one, four = (train_memory(WIDE, microbatch_tokens=512, num_ranks=n) for n in (1, 4))
    total = parameter_counts(WIDE).total
    assert (one.weights, one.gradients, one.optimizer) == (4 * total, 4 * total, 8 * total)
    assert four.weights == pytest.approx(one.weights / 4, abs=4)
    assert four.activations == one.activations


def test_what_plan_prints() -> None:
    memory = train_memory(ladder_config("map-neo-7b"), microbatch_tokens=8192)
    assert "of weights 31.2 GB, gradients 31.2 GB, optimizer 62.3 GB" in memory_line(memory, 8192)
