"""8-bit products, with torchao's emulation: which linear maps take them, and that little of the gradient is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_run
import torch

from diglot.core.errors import ConfigError
from diglot.model.config import MoEConfig
from diglot.model.decoder import Decoder
from diglot.train.fp8 import use_fp8_products
from diglot.train.objectives.next_token import next_token

EXPERTS = MoEConfig(num_experts=16, top_k=2, expert_dim=16, shared_dim=16, shared_gate=True)


def test_linear_maps_of_the_layers_take_fp8_and_nothing_else_does() -> None:
    model = Decoder(replace(tiny_run.CONFIG, num_layers=1, moe=EXPERTS), seed=0)
    before = dict(model.named_parameters())
    names = use_fp8_products(model, emulate=True)
    assert names == [
        "layers.0.attention.qkv",
        "layers.0.attention.out",
        "layers.0.ffn.shared.gate_up",
        "layers.0.ffn.shared.down",
    ]
    assert [name for name, module in model.named_modules() if type(module).__name__ == "Float8Linear"] == names
    assert all(parameter is before.pop(name) for name, parameter in model.named_parameters())
    assert not before


def test_gradients_come_close_to_those_of_exact_products_and_are_not_the_same() -> None:
    exact, rough = Decoder(tiny_run.CONFIG, seed=0), Decoder(tiny_run.CONFIG, seed=0)
    use_fp8_products(rough, emulate=True)
    (batch,) = tiny_run.batch_at(0, (4,))
    for model in (exact, rough):
        next_token()(model, batch).total.backward()  # type: ignore[no-untyped-call]
    for (name, ours), theirs in zip(rough.named_parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert ours.grad.dtype == torch.float32
        assert 0 < (ours.grad - theirs.grad).norm() / theirs.grad.norm() < 0.15, name  # e5m2 keeps 2 bits


def test_a_model_without_a_width_that_fits_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiples of 16"):
        use_fp8_products(Decoder(replace(tiny_run.CONFIG, d_model=24, num_heads=3, num_kv_heads=1), seed=0))
