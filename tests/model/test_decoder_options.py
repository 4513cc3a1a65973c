"""What a decoder can be told beyond the plain one: masks, windows, stretched RoPE, experts, caps, muP, recompute."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from diglot.core.errors import ConfigError
from diglot.model.cache import KVCache
from diglot.model.config import DecoderConfig, InitConfig, MoEConfig, RopeScaling
from diglot.model.decoder import Decoder
from diglot.model.experts import Experts, slow_experts
from diglot.model.rope import rope_tables, scaled_frequencies

SMALL = DecoderConfig(
    vocab_size=61, d_model=32, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=48, max_seq_len=64
)
EXPERTS = MoEConfig(num_experts=6, top_k=2, expert_dim=24)
GEMMA = replace(
    SMALL,
    activation="gelu_tanh",
    unit_offset_norm=True,
    sandwich_norm=True,
    embed_scale=math.sqrt(32),
    attention_softcap=5.0,
    logit_softcap=3.0,
    attention_scale=0.4,
    sliding_window=5,
    sliding_layers=(True, False, True),
    local_rope_theta=100.0,
    qk_norm=True,
)
OPTIONS = {
    "experts": replace(SMALL, moe=EXPERTS),
    "one dense layer": replace(SMALL, moe=replace(EXPERTS, layers=(False, True, True), shared_dim=16)),
    "sigmoid router": replace(
        SMALL, moe=replace(EXPERTS, score="sigmoid", shared_dim=16, shared_gate=True, route_scale=2.5)
    ),
    "sliding": replace(SMALL, sliding_window=4),
    "gemma": GEMMA,
    "biases": replace(SMALL, qkv_bias=True, out_bias=True, ffn_bias=True),
    "heads by layer": replace(SMALL, num_heads=(4, 2, 6), num_kv_heads=(2, 1, 6), ffn_dim=(8, 48, 16)),
    "mup": replace(SMALL, mup_base_d_model=8),
    "yarn": replace(SMALL, rope_scaling=RopeScaling(kind="yarn", factor=4.0, original_seq_len=16)),
    "unit offset and scale": replace(SMALL, unit_offset_norm=True, embed_scale=3.0, activation="gelu_tanh"),
}


def decoder(config: DecoderConfig, seed: int = 0) -> Decoder:
    """Random weights everywhere, norms and biases too."""
    model = Decoder(config, seed=seed, init=InitConfig(std=0.2))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(SMALL.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def changed(model: Decoder, ids: torch.Tensor, place: int, **arguments: Any) -> torch.Tensor:
    """By how much each position's logits change when the token at `place` does, [T]."""
    other = ids.clone()
    other[:, place] = (ids[:, place] + 1) % SMALL.vocab_size
    with torch.no_grad():
        difference = model(ids, **arguments).logits - model(other, **arguments).logits
    return difference.abs().amax(dim=(0, 2))


@pytest.mark.parametrize("option", OPTIONS)
def test_reading_through_a_cache_equals_reading_at_once(option: str) -> None:
    model, ids = decoder(OPTIONS[option]), tokens(2, 14)
    cache = KVCache.allocate(model.config, batch=2, max_len=16)
    with torch.no_grad():
        parts = [model(part, cache=cache).logits for part in ids.split([6, 1, 1, 6], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_later_token_changes_no_earlier_logits_and_every_parameter_learns(option: str) -> None:
    model, ids = decoder(OPTIONS[option]), tokens(2, 12)
    difference = changed(model, ids, 7)
    assert difference[:7].max() == 0
    assert difference[7] > 1e-4
    torch.manual_seed(0)
    (model(ids).logits * torch.randn(2, 12, SMALL.vocab_size)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


# masks


def test_a_prefix_is_read_both_ways_and_the_rest_is_causal() -> None:
    model, ids = decoder(SMALL), tokens(2, 10)
    prefix = torch.tensor([4, 4])
    difference = changed(model, ids, 3, prefix_lengths_B=prefix)
    assert difference.min() > 1e-5  # the prefix's last token is seen by its first one, and by all behind it
    difference = changed(model, ids, 4, prefix_lengths_B=prefix)
    assert difference[:4].max() == 0
    assert difference[4:].min() > 1e-5


def test_bidirectional_attention_sees_everything_and_no_padding() -> None:
    model, ids = decoder(SMALL), tokens(1, 6)
    assert changed(model, ids, 5, bidirectional=True).min() > 1e-5
    padded = torch.cat((ids, tokens(1, 3, seed=5)), dim=1)
    mask = torch.tensor([[True] * 6 + [False] * 3])
    with torch.no_grad():
        alone = model(ids, bidirectional=True).logits
        beside = model(padded, bidirectional=True, attention_mask_BT=mask).logits[:, :6]
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-4)


def test_a_sliding_layer_looks_back_on_its_window_and_itself() -> None:
    model = decoder(replace(SMALL, num_layers=1, sliding_window=4))
    difference = changed(model, tokens(1, 12), 3)
    assert difference[:3].max() == 0
    assert difference[3:7].min() > 1e-5
    assert difference[7:].max() == 0


def test_layers_that_do_not_slide_see_all() -> None:
    model = decoder(replace(SMALL, num_layers=2, sliding_window=2, sliding_layers=(True, False)))
    assert changed(model, tokens(1, 12), 0).min() > 1e-6


@pytest.mark.parametrize("config", [SMALL, GEMMA, OPTIONS["sliding"]], ids=["plain", "gemma", "sliding"])
@pytest.mark.parametrize(
    "masks",
    [
        {"document_ids_BT": torch.tensor([[0] * 5 + [1] * 7, [0] * 9 + [1] * 3])},
        {"prefix_lengths_B": torch.tensor([3, 6])},
        {"bidirectional": True},
        {"attention_mask_BT": torch.tensor([[False] * 3 + [True] * 9, [True] * 12])},
    ],
    ids=lambda masks: next(iter(masks)),
)
def test_flex_attention_computes_what_sdpa_does(config: DecoderConfig, masks: dict[str, Any]) -> None:
    model, ids = decoder(config), tokens(2, 12)
    with torch.no_grad():
        expected = model(ids, **masks).logits
        model.attention_backend = "flex"
        torch.testing.assert_close(model(ids, **masks).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_mask_that_what_is_cached_has_not_seen_is_refused() -> None:
    model, cache = decoder(SMALL), KVCache.allocate(SMALL, batch=1, max_len=8)
    model(tokens(1, 3), cache=cache)
    with pytest.raises(ConfigError, match="cannot be used with a cache that holds tokens"):
        model(tokens(1, 2), cache=cache, bidirectional=True)


def test_a_cap_bounds_the_logits() -> None:
    with torch.no_grad():
        logits = decoder(replace(SMALL, logit_softcap=0.5))(tokens(1, 8)).logits
        plain = decoder(SMALL)(tokens(1, 8)).logits
    assert plain.abs().max() > 0.5
    torch.testing.assert_close(logits, 0.5 * torch.tanh(plain / 0.5))


# RoPE


def test_linear_scaling_reads_positions_closer_together() -> None:
    stretched, _ = rope_tables(replace(SMALL, rope_scaling=RopeScaling(kind="linear", factor=4.0)))
    plain, _ = rope_tables(SMALL)
    torch.testing.assert_close(stretched[::4], plain[:16])


def test_ntk_leaves_the_fastest_channel_alone_and_divides_the_slowest_by_the_factor() -> None:
    plain, _ = scaled_frequencies(10_000.0, 64, None)
    ntk, factor = scaled_frequencies(10_000.0, 64, RopeScaling(kind="ntk", factor=8.0))
    assert factor == 1.0
    assert ntk[0] == plain[0]
    torch.testing.assert_close(ntk[-1] * 8, plain[-1])


@pytest.mark.parametrize(
    ("scaling", "fields"),
    [
        (
            RopeScaling(kind="llama3", factor=8.0, original_seq_len=512, low_freq_factor=1.0, high_freq_factor=4.0),
            {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
        ),
        (RopeScaling(kind="yarn", factor=4.0, original_seq_len=512), {}),
        (
            RopeScaling(kind="yarn", factor=4.0, original_seq_len=512, beta_fast=16.0, attention_factor=1.5),
            {"beta_fast": 16.0, "attention_factor": 1.5},
        ),
        (RopeScaling(kind="linear", factor=3.0), {}),
    ],
)
def test_frequencies_equal_those_of_transformers(scaling: RopeScaling, fields: dict[str, float]) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": scaling.kind, "factor": scaling.factor, "rope_theta": 10_000.0, **fields}
    if scaling.original_seq_len:
        parameters["original_max_position_embeddings"] = scaling.original_seq_len
    config = transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=4, max_position_embeddings=2048, rope_parameters=parameters
    )
    expected, expected_factor = ROPE_INIT_FUNCTIONS[scaling.kind](config, "cpu")
    found, factor = scaled_frequencies(10_000.0, 64, scaling)
    torch.testing.assert_close(found.float(), expected, rtol=1e-5, atol=0)
    assert factor == pytest.approx(expected_factor)


def test_sliding_layers_may_turn_by_a_base_of_their_own() -> None:
    config = replace(SMALL, num_layers=1, sliding_window=32, local_rope_theta=100.0)
    same = replace(SMALL, num_layers=1, rope_theta=100.0)
    with torch.no_grad():
        torch.testing.assert_close(decoder(config)(tokens(1, 9)).logits, decoder(same)(tokens(1, 9)).logits)


# experts


def experts(config: MoEConfig, seed: int = 0) -> Experts:
    ffn = next(iter(decoder(replace(SMALL, moe=config), seed=seed).layers)).ffn
    assert isinstance(ffn, Experts)
    return ffn


@pytest.mark.parametrize(
    "config",
    [
        EXPERTS,
        replace(EXPERTS, top_k=1),
        replace(EXPERTS, top_k=6),
        replace(EXPERTS, normalise_top_k=False, route_scale=1.7),
        replace(EXPERTS, score="sigmoid"),
    ],
    ids=str,
)
@pytest.mark.parametrize("grouped", [False, True])
def test_sorted_experts_compute_what_a_loop_over_tokens_does(
    config: MoEConfig, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = experts(config), torch.randn(37, 32, generator=torch.Generator().manual_seed(2))
    if grouped:  # the form for a GPU, on this CPU
        monkeypatch.setattr(Experts, "_per_expert", Experts._grouped)
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0], slow_experts(layer, x), rtol=1e-5, atol=1e-5)


def test_gradients_of_sorted_experts_equal_those_of_all_experts_masked() -> None:
    layer, x = experts(EXPERTS), torch.randn(19, 32, generator=torch.Generator().manual_seed(2))
    push = torch.randn(19, 32, generator=torch.Generator().manual_seed(3))
    (layer(x)[0] * push).sum().backward()
    found = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    layer.zero_grad()
    routing = layer.route(x)
    weights = torch.zeros(19, 6).scatter(1, routing.experts, routing.weights)
    gate, up = torch.einsum("nd,efd->nef", x, layer.gate_up).chunk(2, dim=-1)
    every = torch.einsum("nef,edf->ned", F.silu(gate) * up, layer.down)
    ((weights[:, :, None] * every).sum(dim=1) * push).sum().backward()
    assert set(found) == {"router.weight", "gate_up", "down"}
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_a_gated_shared_expert_is_added() -> None:
    layer, x = experts(replace(EXPERTS, shared_dim=16, shared_gate=True)), torch.randn(5, 32)
    assert layer.shared is not None
    assert layer.shared_gate is not None
    with torch.no_grad():
        expected = slow_experts(layer, x) + torch.sigmoid(layer.shared_gate(x)) * layer.shared(x)
        torch.testing.assert_close(layer(x)[0], expected, rtol=1e-5, atol=1e-5)


def test_balance_is_one_when_even_and_the_number_of_experts_over_k_when_all_go_to_the_same() -> None:
    layer = experts(replace(EXPERTS, top_k=1))
    x = torch.eye(6, 32).repeat(4, 1)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[:6, :6] = 50 * torch.eye(6)
        even = layer.route(x).stats
        layer.router.weight.zero_()
        layer.router.weight[0] = 50.0
        one = layer.route(x.abs()).stats
    assert float(even.balance) == pytest.approx(1.0, abs=1e-4)
    assert even.load.tolist() == [4.0] * 6
    assert float(one.balance) == pytest.approx(6.0, abs=1e-4)
    assert float(one.z) == pytest.approx(2500.0, rel=1e-3)


def test_equal_scores_are_routed_the_same_way_each_time() -> None:
    layer = experts(EXPERTS)
    with torch.no_grad():
        layer.router.weight.zero_()
        first, second = (layer.route(torch.randn(9, 32)).experts for _ in range(2))
    assert torch.equal(first, second)


def test_copies_of_a_dense_feed_forward_compute_what_it_does() -> None:
    """Upcycling: with weights that sum to 1 the first training step starts from the dense model's function."""
    dense = decoder(SMALL)
    upcycled = decoder(replace(SMALL, moe=replace(EXPERTS, expert_dim=48)), seed=3)
    state = dense.state_dict()
    with torch.no_grad():
        for name, parameter in upcycled.named_parameters():
            if ".ffn." not in name:
                parameter.copy_(state[name])
            elif ".router." not in name:
                parameter.copy_(state[f"{name}.weight"].expand_as(parameter))
        torch.testing.assert_close(upcycled(tokens(2, 9)).logits, dense(tokens(2, 9)).logits, rtol=1e-4, atol=1e-4)


# what is computed again, and what comes out


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("option", ["experts", "gemma"])
def test_recomputing_layers_changes_no_gradient(option: str, every: int) -> None:
    ids = tokens(2, 12)

    def gradients(recompute_every: int) -> dict[str, torch.Tensor]:
        model = decoder(OPTIONS[option]).train()
        model.recompute_every = recompute_every
        model(ids).logits.square().sum().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients(0)
    for name, gradient in gradients(every).items():
        assert torch.equal(gradient, expected[name]), name


def test_recomputing_keeps_fewer_activations() -> None:
    def saved_numbers(recompute_every: int) -> int:
        model, sizes = decoder(SMALL).train(), []
        model.recompute_every = recompute_every

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(tokens(2, 32))
        return sum(sizes)

    assert saved_numbers(1) < saved_numbers(0) / 3


def test_states_are_the_embeddings_and_every_layers_result() -> None:
    model, ids = decoder(GEMMA), tokens(2, 6)
    with torch.no_grad():
        output = model(ids, return_states=True, return_hidden=True)
        assert output.states is not None
        assert len(output.states) == 4
        torch.testing.assert_close(output.states[0], model.embed(ids) * math.sqrt(32))
        torch.testing.assert_close(model.norm(output.states[-1]), output.hidden)
        assert model(ids).states is None


# maximal-update parametrisation


def test_under_mup_first_weights_and_logits_shrink_as_the_width_grows() -> None:
    narrow, wide = (
        Decoder(replace(SMALL, d_model=d, num_heads=d // 8, num_kv_heads=d // 8, ffn_dim=2 * d, mup_base_d_model=32))
        for d in (32, 512)
    )
    ratio = next(iter(wide.layers)).attention.qkv.weight.std() / next(iter(narrow.layers)).attention.qkv.weight.std()
    assert float(ratio) == pytest.approx(1 / math.sqrt(16), rel=0.05)
    assert float(wide.embed.weight.std() / narrow.embed.weight.std()) == pytest.approx(1, rel=0.05)
    hidden = torch.randn(3, 512)
    with torch.no_grad():
        trunk = wide.trunk(tokens(1, 4))
        torch.testing.assert_close(
            trunk.hidden * 16, wide.norm(wide.trunk(tokens(1, 4), return_states=True).states[-1])
        )  # type: ignore[index]
        torch.testing.assert_close(wide.logits(hidden), wide.lm_head(hidden))


@pytest.mark.slow
def test_under_mup_one_learning_rate_moves_logits_alike_at_every_width() -> None:
    """The coordinate check of Yang et al. 2022: without muP the change grows with the width."""
    from diglot.train.optimizers import Optimizer, OptimizerConfig

    def change(d_model: int, base: int | None) -> float:
        config = replace(SMALL, d_model=d_model, num_heads=d_model // 8, num_kv_heads=d_model // 8, ffn_dim=2 * d_model)
        model = Decoder(replace(config, mup_base_d_model=base), seed=1)
        optimizer, ids = Optimizer(model, OptimizerConfig()), tokens(4, 32)
        before = model(ids).logits.detach()
        for _ in range(3):
            model.zero_grad()
            F.cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step(1e-2)
        return float((model(ids).logits.detach() - before).square().mean().sqrt())

    assert change(512, 32) / change(32, 32) < 2.0
    assert change(512, None) / change(32, None) > 3.0


# shapes that cannot be


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sliding_layers": (True, False, True)}, "Set sliding_window"),
        ({"sliding_window": 4, "sliding_layers": (True, False)}, "lists 2 entries"),
        ({"num_heads": (4, 4)}, "lists 2 entries"),
        ({"num_heads": (4, 3, 4)}, "divisor"),
        ({"sliding_window": 0}, "above 0"),
        ({"activation": "relu"}, "silu"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RopeScaling(kind="yarn", factor=2.0), "original_seq_len"),
        (lambda: RopeScaling(kind="linear", factor=0.5), "1 or more"),
        (lambda: RopeScaling(kind="dynamic", factor=2.0), "Known: linear"),  # type: ignore[arg-type]
        (lambda: replace(EXPERTS, top_k=9), "top_k"),
        (lambda: replace(EXPERTS, shared_gate=True), "shared_dim"),
    ],
)
def test_impossible_scalings_and_experts_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
