"""The chunked loss is the plain loss, in value and gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.objectives import next_token as module
from diglot.train.objectives.next_token import linear_cross_entropy, next_token
from diglot.train.types import IGNORE

N, D, V = 50, 16, 37


def case(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, D, generator=generator).requires_grad_()
    weight = torch.randn(V, D, generator=generator).requires_grad_()
    targets = torch.randint(V, (N,), generator=generator)
    targets[::7] = IGNORE
    return hidden, weight, targets


@pytest.fixture(params=[1, 8, 50, 1000], ids="chunks of {}".format)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "CHUNK_LOGITS", request.param * V)
    return int(request.param)


@pytest.fixture(params=["cpu", "gpu"], autouse=True)
def chunk_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way through a chunk that a GPU takes gives the same on a CPU."""
    if request.param == "gpu":
        monkeypatch.setattr(module, "_chunk", module._chunk_on_gpu)


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_value_agrees_with_numpy_in_float64(chunk: int, z_loss: float) -> None:
    hidden, weight, targets = case()
    z = hidden.detach().numpy().astype(np.float64) @ weight.detach().numpy().astype(np.float64).T
    log_sum = np.log(np.exp(z).sum(axis=1))
    kept = targets.numpy() != IGNORE
    losses = (log_sum - z[np.arange(N), targets.numpy().clip(0)])[kept]
    total, each = linear_cross_entropy(hidden, weight, targets, z_loss=z_loss)
    np.testing.assert_allclose(each.numpy()[kept], losses, rtol=1e-4)
    assert not each[targets == IGNORE].any()
    assert not each.requires_grad
    assert total.item() == pytest.approx(losses.sum() + z_loss * (log_sum[kept] ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_gradients_agree_with_autograd_of_the_plain_formula(chunk: int, z_loss: float, softcap: float | None) -> None:
    hidden, weight, targets = case()
    total, _ = linear_cross_entropy(hidden, weight, targets, z_loss=z_loss, softcap=softcap)
    found = torch.autograd.grad(total * 0.5, (hidden, weight))
    z = hidden @ weight.t()
    z = z if softcap is None else softcap * torch.tanh(z / softcap)
    plain = F.cross_entropy(z, targets, reduction="sum", ignore_index=IGNORE)
    plain = plain + z_loss * (torch.logsumexp(z, dim=1)[targets != IGNORE] ** 2).sum()
    for ours, theirs in zip(found, torch.autograd.grad(plain * 0.5, (hidden, weight)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_value_is_the_same_without_gradients() -> None:
    hidden, weight, targets = case()
    with torch.no_grad():
        without = linear_cross_entropy(hidden, weight, targets)[0]
    assert without.item() == linear_cross_entropy(hidden, weight, targets)[0].item()
    assert not without.requires_grad


def test_under_autocast_products_are_bfloat16_and_gradients_come_close() -> None:
    hidden, weight, targets = case()
    exact = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets)[0], (hidden, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = linear_cross_entropy(hidden, weight, targets)
    rough = torch.autograd.grad(total, (hidden, weight))
    assert total.dtype == torch.float32
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.float32
        assert 0 < ((a - b).norm() / b.norm()).item() < 0.02


def test_the_objective_sums_over_all_targets_that_are_not_ignored() -> None:
    config = DecoderConfig(vocab_size=V, d_model=D, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=8, ffn_dim=24)
    model = Decoder(config)
    ids = torch.randint(V, (3, 8), generator=torch.Generator().manual_seed(1))
    targets = ids.roll(-1, dims=1)
    targets[:, -1] = IGNORE
    losses = next_token()(model, {"input_ids": ids, "targets": targets})
    plain = F.cross_entropy(model(ids).logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORE)
    assert losses.count == 3 * 7
    assert losses.rows is not None
    by_row = F.cross_entropy(model(ids).logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORE).sum(1)
    torch.testing.assert_close(losses.rows.losses, by_row.detach())
    assert losses.rows.counts.tolist() == [7, 7, 7]
    assert losses.total.item() == pytest.approx(plain.item(), rel=1e-6)


def test_z_loss_is_minimised_and_logged_apart() -> None:
    model = Decoder(
        DecoderConfig(vocab_size=V, d_model=D, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=8, ffn_dim=24)
    )
    ids = torch.randint(V, (2, 8), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "targets": ids}
    plain, with_z = next_token()(model, batch), next_token(z_loss=0.1)(model, batch)
    assert with_z.stats["cross_entropy"].item() == pytest.approx(plain.total.item(), rel=1e-6)
    assert with_z.total.item() > plain.total.item()
