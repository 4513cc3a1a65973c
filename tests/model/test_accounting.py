"""Counts of parameters, operations and memory are the model's own."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from test_decoder_options import EXPERTS, OPTIONS, SMALL

from diglot.model.accounting import (
    activation_bytes,
    memory_line,
    parameter_counts,
    size_lines,
    size_table,
    spoken,
    train_flops_per_token,
    train_memory,
)
from diglot.model.config import DecoderConfig, MoEConfig
from diglot.model.decoder import Decoder
from diglot.model.sizes import SIZES, ladder_config
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.optimizers import Optimizer


@pytest.mark.parametrize(
    ("name", "billions", "without"),
    [("map-neo-7b", 7.79, 7.40), ("map-neo-2b", 2.24, 1.98), ("ct-llm-2b", 2.13, 1.62)],
)
def test_published_shapes_have_the_published_counts(name: str, billions: float, without: float) -> None:
    counts = parameter_counts(ladder_config(name))
    assert SIZES[name].origin == "published"
    assert round(counts.total / 1e9, 2) == billions
    assert round(counts.without_embeddings / 1e9, 2) == without


@pytest.mark.parametrize(
    ("name", "millions"),
    [("map-neo-250m", 250), ("map-neo-460m", 460), ("map-neo-980m", 980), ("mindllm-1.3b", 1300), ("mindllm-3b", 3100)],
)
def test_shapes_of_our_own_count_to_the_size_in_their_name(name: str, millions: float) -> None:
    assert SIZES[name].origin in ("ours", "reconstruction")
    assert parameter_counts(ladder_config(name)).total / 1e6 == pytest.approx(millions, rel=0.025)


@pytest.mark.parametrize("option", OPTIONS)
def test_counts_are_those_of_the_model(option: str) -> None:
    model = Decoder(OPTIONS[option])
    counts = parameter_counts(OPTIONS[option])
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.total - counts.without_embeddings == 2 * model.embed.weight.numel()


def test_a_token_uses_its_own_experts_alone() -> None:
    config = replace(SMALL, moe=EXPERTS)
    unused = (EXPERTS.num_experts - EXPERTS.top_k) * 3 * SMALL.d_model * EXPERTS.expert_dim * SMALL.num_layers
    counts = parameter_counts(config)
    assert counts.active == counts.total - unused
    assert parameter_counts(SMALL).active == parameter_counts(SMALL).total


def test_a_window_makes_long_sequences_cheaper_and_experts_cost_what_a_token_uses() -> None:
    pairs = 12 * SMALL.num_layers * SMALL.num_heads * SMALL.head_dim
    plain, sliding = (train_flops_per_token(replace(SMALL, sliding_window=w), 64) for w in (None, 16))
    seen = sum(min(place + 1, 16) for place in range(64)) / 64
    assert plain - sliding == pytest.approx(pairs * (32 - seen), rel=0.03)
    one, two = (train_flops_per_token(replace(SMALL, moe=replace(EXPERTS, top_k=k)), 64) for k in (1, 2))
    assert two - one == 6 * 3 * SMALL.d_model * EXPERTS.expert_dim * SMALL.num_layers


WIDE = DecoderConfig(
    vocab_size=64, d_model=64, num_layers=3, num_heads=4, num_kv_heads=4, head_dim=16, ffn_dim=192, max_seq_len=128
)


def saved_bytes(config: DecoderConfig, recompute_every: int = 0) -> int:
    """Bytes that autograd keeps of a forward pass of [2, 128] tokens, each storage once and no parameter."""
    model = Decoder(config).train()
    model.recompute_every = recompute_every
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.hidden(torch.randint(64, (2, 128)))
    del hidden
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(
    "config",
    [
        WIDE,
        replace(WIDE, num_kv_heads=1),
        replace(WIDE, d_model=128, ffn_dim=(128, 512, 256)),
        replace(WIDE, qk_norm=True, num_kv_heads=2),
    ],
    ids=["multi-head", "multi-query", "own widths", "qk-norm"],
)
@pytest.mark.parametrize("recompute_every", [0, 2])
def test_activations_are_what_autograd_keeps(config: DecoderConfig, recompute_every: int) -> None:
    counted = activation_bytes(config, 256, sequence_length=128, recompute_every=recompute_every)
    if recompute_every:  # one layer's are made again in the backward pass, which the hooks of the forward do not see
        layers = [
            activation_bytes(replace(config, num_layers=1, ffn_dim=f), 256, sequence_length=128)
            for f in config.ffn_dims
        ]
        stream = 4 * config.d_model * 256
        counted -= max(layers[::recompute_every]) - stream
    assert saved_bytes(config, recompute_every) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("moe", [None, EXPERTS], ids=["dense", "experts"])
def test_muons_state_is_counted_as_it_keeps_it(moe: MoEConfig | None) -> None:
    config = replace(WIDE, vocab_size=2000, moe=moe)
    state = Optimizer(Decoder(config), OptimizerConfig(kind="muon")).state()
    kept = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    found = re.search(r"optimizer ([\d.]+) MB", memory_line(config, 256, 128, optimizer="muon"))
    assert found is not None
    assert float(found[1]) * 1e6 == pytest.approx(kept, rel=0.01)


def test_memory_is_shared_by_ranks_except_for_activations() -> None:
    one, four = (train_memory(WIDE, microbatch_tokens=512, sequence_length=128, num_ranks=n) for n in (1, 4))
    total = parameter_counts(WIDE).total
    assert (one.weights, one.gradients, one.optimizer) == (4 * total, 4 * total, 8 * total)
    assert four.weights == pytest.approx(one.weights / 4, abs=4)
    assert four.activations == one.activations
    assert one.total == one.weights + one.gradients + one.optimizer + one.activations


def test_what_plan_prints() -> None:
    neo = ladder_config("map-neo-7b")
    assert size_lines(neo, 8192)[0].startswith(
        "model: 28 layers of width 3,072, 7.79 B parameters (7.40 B without embeddings), "
    )
    assert "known when the tokenizer is built" in size_lines(neo, 8192, knows_vocabulary=False)[0]
    assert "of them used by a token" in size_lines(replace(SMALL, moe=EXPERTS), 64)[0]
    assert "weights 31.2 GB, gradients 31.2 GB, optimizer 62.3 GB" in memory_line(neo, 8192, 8192)
    assert [spoken(n) for n in (12, 1234, 45_600_000, 7.79e9)] == ["12 ", "1.23 k", "45.6 M", "7.79 G"]


def test_every_size_has_a_row_that_says_where_its_shape_comes_from() -> None:
    rows = {row.name: row for row in size_table()}
    assert list(rows) == list(SIZES)
    assert (
        rows["map-neo-7b"]
        .line()
        .startswith("| map-neo-7b | 28 | 3,072 | 16 | 16 | 192 | 24,576 | 8,192 | 64,256 | 7.79 B |")
    )
    assert rows["map-neo-980m"].line().endswith("| ours |")
    assert (
        size_table(vocab_size=1000)[0].parameters.total
        == parameter_counts(ladder_config("nano", vocab_size=1000)).total
    )
