"""Next-token cross-entropy that never holds the logits of a whole microbatch.

Shape legend: N tokens of a microbatch, C tokens of a chunk, V vocabulary, D width.

The logits of 4,096 tokens over 8,192 pieces take 134 MB, and plain cross-entropy walks over them about six times. Here
a chunk's logits are made, turned into their own gradient in place, multiplied back into the gradients of hidden states
and output matrix, and forgotten. The backward pass then only scales. That is the same number of products as the plain
way (three), and none is computed twice. `chunks.py` says how large a chunk is: as large as its products want it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from diglot.model.decoder import Decoder
from diglot.train.objectives.chunks import CHUNK_LOGITS, CHUNK_LOGITS_ON_A_GPU
from diglot.train.objectives.router import with_router_losses
from diglot.train.types import IGNORE, Batch, ItemLosses, Objective, RowLosses


def next_token(*, z_loss: float = 0.0) -> Objective:
    """The pre-training objective: -log p(target), in nats, one item per target that is not IGNORE.

    Args:
        z_loss: weight of log(sum exp logits)^2, which keeps logits from drifting (Chowdhery et al. 2022); 1e-4 is
        usual.
            It is part of the loss that is minimised; the log shows the cross-entropy alone as `cross_entropy`.
    """

    def objective(model: Decoder, batch: Batch) -> ItemLosses:
        trunk = model.trunk(batch["input_ids"], document_ids_BT=batch.get("document_ids"))
        targets_N = batch["targets"].flatten()
        total, losses_N = linear_cross_entropy(
            trunk.hidden.flatten(0, 1),
            model.lm_head.weight,
            targets_N,
            z_loss=z_loss,
            softcap=model.config.logit_softcap,
        )
        rows = RowLosses(losses_N.view_as(batch["targets"]).sum(dim=1), (batch["targets"] != IGNORE).sum(dim=1))
        count = rows.counts.sum()
        total, stats = with_router_losses(total, count, trunk.routers, model, batch)
        if z_loss or stats:
            stats = {"cross_entropy": losses_N.sum(), **stats}
        return ItemLosses(total, count, stats, rows)

    return objective


def linear_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, z_loss: float = 0.0, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """Sum over targets of logsumexp(z) - z[target] + z_loss * logsumexp(z)^2, with z = hidden @ weight^T, capped to
    softcap * tanh(z / softcap) where there is a cap.

    Returns: that sum, differentiable in hidden and weight; and the cross-entropy alone of each target [N], detached, 0
        where it is IGNORE. Both float32 in nats. Products run in bfloat16 under autocast, sums and exponentials always
        in float32.
    """
    dtype = torch.bfloat16 if torch.is_autocast_enabled(hidden_ND.device.type) else torch.float32
    needs_gradient = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
    total, losses_N = _LinearCrossEntropy.apply(hidden_ND, weight_VD, targets_N, z_loss, softcap, dtype, needs_gradient)
    return total, losses_N


class _Gradients(NamedTuple):
    """Filled chunk by chunk."""

    hidden: Tensor  # [N, D]
    weight: Tensor  # [V, D]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        z_loss: float,
        softcap: float | None,
        dtype: torch.dtype,
        gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device
        chunk_of, logits = (_chunk_on_gpu, CHUNK_LOGITS_ON_A_GPU) if device.type == "cuda" else (_chunk, CHUNK_LOGITS)
        with torch.autocast(device.type, enabled=False):
            x, w = hidden.detach().to(dtype), weight.detach().to(dtype)
            gradients = _Gradients(torch.empty_like(x), torch.zeros_like(weight)) if gradient else None
            total = torch.zeros((), dtype=torch.float32, device=device)
            losses_N = torch.empty(x.shape[0], dtype=torch.float32, device=device)
            chunk = max(1, logits // weight.shape[0])
            for start in range(0, x.shape[0], chunk):
                rows = slice(start, start + chunk)
                part = None if gradients is None else gradients._replace(hidden=gradients.hidden[rows])
                losses_N[rows], loss = chunk_of(x[rows], w, targets[rows, None], z_loss, softcap, part)
                total += loss
        ctx.dtypes = hidden.dtype
        if gradients is not None:
            ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(losses_N)
        return total, losses_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return (d_hidden * grads[0]).to(ctx.dtypes), d_weight * grads[0], None, None, None, None, None


def _chunk(
    x: Tensor, w: Tensor, y: Tensor, z_loss: float, softcap: float | None, gradients: _Gradients | None
) -> tuple[Tensor, Tensor]:
    """The cross-entropies [C] of x [C, D] against targets y [C, 1], and the sum to minimise; adds to `gradients`, of
    whose `hidden` it is given its rows."""
    kept = y != IGNORE
    y = y.clamp_min(0)
    z = (x @ w.t()).float()  # [C, V]
    if softcap is not None:
        z.div_(softcap).tanh_()
        slope = 1 - z * z if gradients is not None else None  # of the cap
        z.mul_(softcap)
    log_sum = torch.logsumexp(z, dim=1, keepdim=True)
    losses = torch.where(kept, log_sum - z.gather(1, y), 0.0)
    loss = losses.sum() if not z_loss else (losses + z_loss * torch.where(kept, log_sum**2, 0.0)).sum()
    if gradients is None:
        return losses[:, 0], loss
    z.sub_(log_sum).exp_()  # probabilities
    if z_loss:
        z.mul_(1 + 2 * z_loss * log_sum)
    z.scatter_add_(1, y, torch.full_like(log_sum, -1.0))
    if not bool(kept.all()):
        z.mul_(kept)
    if softcap is not None and slope is not None:
        z.mul_(slope)
    d_logits = z.to(x.dtype)
    torch.mm(d_logits, w, out=gradients.hidden)
    if x.dtype == gradients.weight.dtype:
        gradients.weight.addmm_(d_logits.t(), x)
    else:
        gradients.weight.add_(d_logits.t() @ x)
    return losses[:, 0], loss


def _chunk_on_gpu(
    x: Tensor, w: Tensor, y: Tensor, z_loss: float, softcap: float | None, gradients: _Gradients | None
) -> tuple[Tensor, Tensor]:
    """`_chunk` in fewer walks over the logits and without waiting for the GPU.

    Products give float32 themselves, softmax is one kernel, and what a masked row would add is left out of [C, D]
    rather than of [C, V].
    """
    kept = y != IGNORE
    y = y.clamp_min(0)
    z = _product(x, w.t())  # [C, V]
    if softcap is not None:
        z.div_(softcap).tanh_()
        slope = 1 - z * z if gradients is not None else None
        z.mul_(softcap)
    at_target = z.gather(1, y)
    z = torch.log_softmax(z, dim=1)
    minus_log_p = -z.gather(1, y)
    losses = torch.where(kept, minus_log_p, 0.0)
    log_sum = minus_log_p + at_target
    loss = losses.sum() if not z_loss else (losses + z_loss * torch.where(kept, log_sum**2, 0.0)).sum()
    if gradients is None:
        return losses[:, 0], loss
    z.exp_()
    if z_loss:
        z.mul_(1 + 2 * z_loss * log_sum)
    z.scatter_add_(1, y, torch.full_like(log_sum, -1.0))
    if softcap is not None and slope is not None:
        z.mul_(slope)
    d_logits = z.to(x.dtype)
    torch.mm(d_logits, w, out=gradients.hidden)
    gradients.hidden.mul_(kept)
    _add_product(gradients.weight, d_logits.t(), x * kept)
    return losses[:, 0], loss


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b in float32, of bfloat16 on a GPU without rounding in between."""
    return torch.mm(a, b, out_dtype=torch.float32) if _has_wide_products(a) else (a @ b).float()


def _add_product(to: Tensor, a: Tensor, b: Tensor) -> None:
    """to += a b, in place."""
    if _has_wide_products(a) and to.dtype == torch.float32:
        torch.addmm(to, a, b, out_dtype=torch.float32, out=to)
    else:
        to.add_(a @ b)


def _has_wide_products(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda" and tensor.dtype == torch.bfloat16
