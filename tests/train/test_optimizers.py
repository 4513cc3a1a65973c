"""AdamW and Muon do what their papers say, and their state continues them exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diglot.core.errors import ConfigError, InputError
from diglot.model.accounting import parameter_counts
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.memory import optimizer_bytes
from diglot.train.muon import Muon, MuonMatrix, orthogonalise
from diglot.train.optimizers import Optimizer, OptimizerConfig

CONFIG = DecoderConfig(vocab_size=30, d_model=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, ffn_dim=24)


WIDE = replace(CONFIG, d_model=64, ffn_dim=96)  # most matrices have the 4,096 numbers that moments of 8 bits need
LARGE = replace(CONFIG, d_model=256, ffn_dim=512, vocab_size=512)


def gradients(model: Decoder, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def weights(model: Decoder) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().astype(np.float64) for name, p in model.named_parameters()}


def test_adamw_agrees_with_numpy_in_float64_and_spares_embeddings_and_norms_from_decay() -> None:
    config = OptimizerConfig(weight_decay=0.1, embed_lr_ratio=3.0, head_lr_ratio=0.5)
    model = Decoder(CONFIG)
    optimizer = Optimizer(model, config)
    expected = weights(model)
    first = {name: np.zeros_like(w) for name, w in expected.items()}
    second = {name: np.zeros_like(w) for name, w in expected.items()}
    for t, lr in enumerate([1e-2, 2e-2, 5e-3], start=1):
        gradients(model, seed=t)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            g = parameter.grad.numpy().astype(np.float64)
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.95 * second[name] + 0.05 * g**2
            own_lr = lr * {"embed.weight": 3.0, "lm_head.weight": 0.5}.get(name, 1.0)
            decays = g.ndim == 2 and name != "embed.weight"
            step = (first[name] / (1 - 0.9**t)) / (np.sqrt(second[name] / (1 - 0.95**t)) + 1e-8)
            expected[name] = expected[name] * (1 - own_lr * 0.1 * decays) - own_lr * step
        optimizer.step(lr)
    for name, w in weights(model).items():
        np.testing.assert_allclose(w, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_adafactor_agrees_with_numpy_in_float64_and_decays_what_adamw_decays() -> None:
    config = OptimizerConfig(kind="adafactor", weight_decay=0.1, embed_lr_ratio=3.0, head_lr_ratio=0.5)
    model = Decoder(CONFIG)
    optimizer = Optimizer(model, config)
    expected = weights(model)
    rows = dict.fromkeys(expected, 0.0)
    columns = dict.fromkeys(expected, 0.0)
    variance = dict.fromkeys(expected, 0.0)
    for t, lr in enumerate([1e-2, 2e-2, 5e-3], start=1):
        gradients(model, seed=t)
        share = t**-0.8  # 1 - beta2 at update t
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            parameter.grad *= 1e-6  # below torch's own bound
            g = parameter.grad.numpy().astype(np.float64)
            w = expected[name]
            own_lr = lr * {"embed.weight": 3.0, "lm_head.weight": 0.5}.get(name, 1.0)
            alpha = max(1e-3, np.sqrt((w**2).mean())) * min(own_lr, t**-0.5)
            if g.ndim == 2:
                rows[name] = (1 - share) * rows[name] + share * (g**2).mean(axis=1, keepdims=True)
                columns[name] = (1 - share) * columns[name] + share * (g**2).mean(axis=0, keepdims=True)
                moment = rows[name] @ columns[name] / max(np.mean(rows[name]), 1e-15)
            else:
                moment = variance[name] = (1 - share) * variance[name] + share * g**2
            update = g / np.sqrt(np.maximum(moment, 1e-30))
            update = update / max(1.0, np.sqrt((update**2).mean()))
            decays = g.ndim == 2 and name != "embed.weight"
            expected[name] = w * (1 - own_lr * 0.1 * decays) - alpha * update
        optimizer.step(lr)
    for name, w in weights(model).items():
        np.testing.assert_allclose(w, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    state = sum(tensor.numel() for tensor in optimizer.state().values())
    assert state < 0.25 * sum(parameter.numel() for parameter in model.parameters())


def test_adafactor_stands_a_row_without_gradient() -> None:
    model = Decoder(CONFIG)
    optimizer = Optimizer(model, OptimizerConfig(kind="adafactor"))
    gradients(model, 0)
    assert model.embed.weight.grad is not None
    model.embed.weight.grad[3] = 0.0  # a piece that the batch does not have
    before = model.embed.weight[3].clone()
    optimizer.step(1e-2)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert torch.equal(model.embed.weight[3], before)


@pytest.mark.parametrize("shape", [(12, 12), (8, 30), (30, 8)])
def test_orthogonalise_keeps_singular_vectors_and_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    for x, found in zip(matrix, orthogonalise(matrix, 5), strict=True):
        u, s, vh = np.linalg.svd(x.numpy().astype(np.float64), full_matrices=False)
        inner = u.T @ found.numpy() @ vh.T  # diagonal where the singular vectors are kept
        large = s > 0.05 * s[0]  # five iterations do not lift what is nearly zero
        np.testing.assert_allclose(np.diag(inner)[large], 1, atol=0.35)
        np.testing.assert_allclose(inner - np.diag(np.diag(inner)), 0, atol=1e-3)


def test_muon_is_nesterov_momentum_orthogonalised_scaled_and_decayed() -> None:
    weight = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    before, momentum = weight.clone(), torch.zeros(6, 10)
    muon = Muon([MuonMatrix("w", weight, (6,))], momentum=0.9, weight_decay=0.1, num_iterations=5)
    for seed in (1, 2):
        weight.grad = torch.randn(6, 10, generator=torch.Generator().manual_seed(seed))
        momentum = 0.9 * momentum + 0.1 * weight.grad
        update = orthogonalise((0.1 * weight.grad + 0.9 * momentum)[None], 5)[0]
        before = before * (1 - 0.02 * 0.1) - 0.02 * 0.2 * 10**0.5 * update
        muon.step(0.02)
    torch.testing.assert_close(weight, before)


def test_fused_matrices_are_orthogonalised_one_by_one() -> None:
    grad = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    fused, apart = torch.zeros(24, 16), [torch.zeros(16, 16), torch.zeros(8, 16)]
    fused.grad = grad
    Muon([MuonMatrix("w", fused, (16, 8))], 0.9, 0.0, 5).step(0.1)
    for weight, part in zip(apart, grad.split([16, 8]), strict=True):
        weight.grad = part
        Muon([MuonMatrix("w", weight, (len(weight),))], 0.9, 0.0, 5).step(0.1)
    torch.testing.assert_close(fused, torch.cat(apart))


def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest() -> None:
    optimizer = Optimizer(Decoder(CONFIG), OptimizerConfig(kind="muon"))
    by_muon = {matrix.name: matrix.heights for matrix in optimizer.muon.matrices}
    assert by_muon["layers.0.attention.qkv.weight"] == (16, 8, 8)
    assert by_muon["layers.1.ffn.gate_up.weight"] == (24, 24)
    assert len(by_muon) == 2 * 4
    assert {"embed.weight", "lm_head.weight", "norm.weight"} <= set(optimizer.adamw.state["first_moment"])
    assert not set(by_muon) & set(optimizer.adamw.state["first_moment"])


def test_8_bit_moments_move_weights_nearly_as_those_of_32_do() -> None:
    exact, rough = Decoder(WIDE), Decoder(WIDE)
    start = {name: parameter.detach().clone() for name, parameter in exact.named_parameters()}
    config = {"weight_decay": 0.1, "embed_lr_ratio": 3.0, "head_lr_ratio": 0.5}
    optimizers = [
        Optimizer(model, OptimizerConfig(kind=kind, **config))  # type: ignore[arg-type]
        for model, kind in ((exact, "adamw"), (rough, "adamw8bit"))
    ]
    for seed in range(20):
        for model, optimizer in zip((exact, rough), optimizers, strict=True):
            gradients(model, seed)
            optimizer.step(1e-3)
    for (name, ours), theirs in zip(rough.named_parameters(), exact.parameters(), strict=True):
        moved = theirs - start[name]
        small = name == "embed.weight" or ours.numel() < 4096
        limit = 1e-4 if small else 0.05  # those small ones keep moments of 32 bits
        assert (ours - theirs).norm() < limit * moved.norm(), name
        assert small or not torch.equal(ours, theirs), name


def test_8_bit_moments_take_the_memory_that_the_plan_says() -> None:
    state = Optimizer(Decoder(LARGE), OptimizerConfig(kind="adamw8bit")).state()
    assert state["adamw8bit.layers.0.ffn.down.weight.first_moment.codes"].dtype == torch.uint8
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    predicted = optimizer_bytes(LARGE, "adamw8bit") * parameter_counts(LARGE).total
    assert num_bytes == pytest.approx(predicted, rel=0.02)
    assert predicted < 0.4 * optimizer_bytes(LARGE, "adamw") * parameter_counts(LARGE).total


def test_8_bit_moments_are_refused_where_ranks_divide_weights() -> None:
    class Divided(torch.nn.Parameter):
        def to_local(self) -> None: ...

    model = Decoder(WIDE)
    model.lm_head.weight = Divided(model.lm_head.weight.detach())
    with pytest.raises(ConfigError, match="one rank only"):
        Optimizer(model, OptimizerConfig(kind="adamw8bit"))


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "muon", "adafactor"])
def test_a_restored_state_continues_bit_for_bit(kind: str) -> None:
    config = OptimizerConfig(kind=kind)  # type: ignore[arg-type]
    one, two = Decoder(WIDE), Decoder(WIDE)
    first = Optimizer(one, config)
    for seed in range(3):
        gradients(one, seed)
        first.step(1e-2)
    two.load_state_dict(one.state_dict())
    second = Optimizer(two, config)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for seed in range(3, 6):
        for model, optimizer in ((one, first), (two, second)):
            gradients(model, seed)
            optimizer.step(1e-2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_state_of_another_optimizer_is_refused() -> None:
    model = Decoder(CONFIG)
    gradients(model, 0)
    adamw = Optimizer(model, OptimizerConfig())
    adamw.step(1e-2)
    with pytest.raises(InputError, match="does not fit"):
        Optimizer(model, OptimizerConfig(kind="muon")).load_state(adamw.state())


@pytest.mark.parametrize("change", [{"beta1": 1.0}, {"weight_decay": -1.0}, {"eps": 0.0}, {"kind": "sgd"}])
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        OptimizerConfig(**change)  # type: ignore[arg-type]


def test_muon_refuses_a_width_rule_that_is_not_its_own() -> None:
    config = DecoderConfig(
        vocab_size=16, d_model=16, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=8, ffn_dim=16, mup_base_d_model=8
    )
    with pytest.raises(ConfigError, match="Muon's updates follow another rule"):
        Optimizer(Decoder(config), OptimizerConfig(kind="muon"))
