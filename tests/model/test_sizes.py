"""The ladder has the sizes it is published with, and its counts are the model's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_decoder import SHAPES, SMALL
from torch.utils.flop_counter import FlopCounterMode

from diglot.core.errors import ConfigError
from diglot.model.accounting import parameter_counts, train_flops_per_token
from diglot.model.decoder import Decoder, InitConfig
from diglot.model.sizes import SIZES, ModelConfig, ladder_config


@pytest.mark.parametrize(
    ("name", "millions"), [("nano", 1.05), ("micro", 3.5), ("mini", 8.4), ("small", 23.6), ("base", 50.3)]
)
def test_the_ladder_has_the_published_sizes(name: str, millions: float) -> None:
    config = ladder_config(name, vocab_size=1000, max_seq_len=64)
    assert parameter_counts(config).without_embeddings / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_counts_are_those_of_the_model(shape: str) -> None:
    model = Decoder(SHAPES[shape])
    counts = parameter_counts(SHAPES[shape])
    assert counts.total == sum(p.numel() for p in model.parameters())
    matrices = {id(m): m.numel() for m in (model.embed.weight, model.lm_head.weight)}
    assert counts.without_embeddings == counts.total - sum(matrices.values())


def test_faithful_widens_the_feed_forward_and_multi_query_keeps_one_pair() -> None:
    usual = ladder_config("micro", vocab_size=1000, max_seq_len=64)
    faithful = ladder_config("micro", vocab_size=1000, max_seq_len=64, faithful=True, multi_query=True)
    assert (usual.ffn_dim, faithful.ffn_dim) == (4 * 192, 8 * 192)
    assert (usual.num_kv_heads, faithful.num_kv_heads) == (6, 1)


def test_an_unknown_size_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'micro'"):
        ladder_config("mikro", vocab_size=1000, max_seq_len=64)
    assert list(SIZES)[:5] == ["nano", "micro", "mini", "small", "base"]


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, num_kv_heads=2, ffn_dim=(16, 64, 8))])
def test_floating_point_operations_are_three_times_what_torch_counts_for_a_forward_pass(config: object) -> None:
    assert isinstance(config, type(SMALL))
    B, T = 2, 32
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        Decoder(config)(torch.zeros(B, T, dtype=torch.int64))
    inner = config.num_heads * config.head_dim
    unmasked = 2 * 2 * config.num_layers * T * T * inner * B  # torch counts every pair of tokens; the mask halves them
    counted = counter.get_total_flops() - unmasked / 2
    assert train_flops_per_token(config, T) * B * T == pytest.approx(3 * counted, rel=1e-6)


def test_first_weights_follow_the_rule_and_the_seed() -> None:
    config = replace(SMALL, d_model=256, ffn_dim=512, vocab_size=500)
    model = Decoder(config, seed=1)
    layer = next(iter(model.layers))
    depth = (2 * config.num_layers) ** 0.5
    for weight, std in [
        (model.embed.weight, 0.02),
        (model.lm_head.weight, 0.02),
        (layer.attention.qkv.weight, 0.02),
        (layer.attention.out.weight, 0.02 / depth),
        (layer.ffn.down.weight, 0.02 / depth),
    ]:
        assert weight.std().item() == pytest.approx(std, rel=0.02)
    assert torch.equal(model.embed.weight, Decoder(config, seed=1).embed.weight)
    assert not torch.equal(model.embed.weight, Decoder(config, seed=2).embed.weight)


def test_a_deeper_model_starts_with_the_same_first_layers() -> None:
    shallow, deep = Decoder(SMALL, seed=1), Decoder(replace(SMALL, num_layers=5), seed=1)
    pairs = zip(shallow.layers, deep.layers, strict=False)
    assert all(torch.equal(a.attention.qkv.weight, b.attention.qkv.weight) for a, b in pairs)


def test_zero_outputs_make_every_layer_the_identity() -> None:
    model = Decoder(SMALL, init=InitConfig(std=None, zero_outputs=True))
    x = torch.randn(1, 5, SMALL.d_model)
    torch.testing.assert_close(model.hidden(embeddings_BTD=x), model.norm(x))
    assert next(iter(model.layers)).attention.qkv.weight.std().item() == pytest.approx(48**-0.5, rel=0.05)


def test_a_single_key_and_value_head_stays_one_beside_more_query_heads() -> None:
    shape = ModelConfig(size="map-neo-2b", num_heads=16, head_dim=128).decoder(1000)
    assert (shape.num_heads, shape.num_kv_heads) == (16, 1)
    assert ModelConfig(size="mini", num_heads=4).decoder(1000).num_kv_heads == 4


@pytest.mark.parametrize("name", ["num_layers", "num_heads", "max_seq_len"])
def test_a_size_of_zero_is_not_taken_for_the_default(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = 0"):
        ModelConfig(**{name: 0})  # type: ignore[arg-type]
