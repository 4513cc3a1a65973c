"""Counts of parameters, operations and memory are the model's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_decoder_options import EXPERTS, OPTIONS, SMALL

from diglot.model.accounting import (
    activation_bytes,
    parameter_counts,
    size_lines,
    size_table,
    spoken,
    train_flops_per_token,
)
from diglot.model.config import DecoderConfig
from diglot.model.decoder import Decoder
from diglot.model.sizes import SIZES, ladder_config


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
    kept = activation_bytes(config, 256, recompute_every=recompute_every)
    final_norm = 2 * 4 * config.d_model * 256
    assert saved_bytes(config, recompute_every) == pytest.approx(sum(kept) + final_norm, rel=0.05)


def test_what_plan_prints() -> None:
    neo = ladder_config("map-neo-7b")
    assert size_lines(neo, 8192)[0].startswith(
        "model: 28 layers of width 3,072, 7.79 B parameters (7.40 B without embeddings), "
    )
    assert "known when the tokenizer is built" in size_lines(neo, 8192, knows_vocabulary=False)[0]
    assert "of them used by a token" in size_lines(replace(SMALL, moe=EXPERTS), 64)[0]
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
