"""Next-token cross-entropy that never holds the logits of a whole microbatch.

Shape legend: N tokens of a microbatch, C tokens of a chunk, V vocabulary, D width.

The logits of 4,096 tokens over 8,192 pieces take 134 MB, and plain cross-entropy walks over them about six times. Here
a chunk's logits are made, turned into their own gradient in place, multiplied back into the gradients of hidden states
and output matrix, and forgotten, all while they lie in the cache. The backward pass then only scales. That is the same
number of products as the plain way (three), and none is computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diglot.model.decoder import Decoder
from diglot.train.objectives.router import with_router_losses
from diglot.train.types import IGNORE, Batch, ItemLosses, Objective, RowLosses

CHUNK_LOGITS = 2**21  # 8 MB of float32: what a core's share of the last-level cache holds


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
        count = int(rows.counts.sum())
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
        where it is IGNORE. Both float32 in nats. Products run in bfloat16 under CPU autocast, sums and exponentials
        always in float32.
    """
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
    needs_gradient = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
    total, losses_N = _LinearCrossEntropy.apply(hidden_ND, weight_VD, targets_N, z_loss, softcap, dtype, needs_gradient)
    return total, losses_N


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
        with torch.autocast("cpu", enabled=False):
            x, w = hidden.detach().to(dtype), weight.detach().to(dtype)
            d_hidden = torch.empty_like(x) if gradient else None
            d_weight = torch.zeros_like(weight) if gradient else None
            total = torch.zeros((), dtype=torch.float32)
            losses_N = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
            chunk = max(1, CHUNK_LOGITS // weight.shape[0])
            for start in range(0, x.shape[0], chunk):
                rows, y = x[start : start + chunk], targets[start : start + chunk, None]
                kept = y != IGNORE
                y = y.clamp_min(0)
                z = (rows @ w.t()).float()  # [C, V]
                if softcap is not None:
                    z.div_(softcap).tanh_()
                    slope = 1 - z * z if d_hidden is not None else None  # of the cap
                    z.mul_(softcap)
                log_sum = torch.logsumexp(z, dim=1, keepdim=True)
                losses = torch.where(kept, log_sum - z.gather(1, y), 0.0)
                losses_N[start : start + chunk] = losses[:, 0]
                total += losses.sum() if not z_loss else (losses + z_loss * torch.where(kept, log_sum**2, 0.0)).sum()
                if d_hidden is None or d_weight is None:
                    continue
                z.sub_(log_sum).exp_()  # probabilities
                if z_loss:
                    z.mul_(1 + 2 * z_loss * log_sum)
                z.scatter_add_(1, y, torch.full_like(log_sum, -1.0))
                if not bool(kept.all()):
                    z.mul_(kept)
                if softcap is not None and slope is not None:
                    z.mul_(slope)
                d_logits = z.to(dtype)
                torch.mm(d_logits, w, out=d_hidden[start : start + chunk])
                if dtype == d_weight.dtype:
                    d_weight.addmm_(d_logits.t(), rows)
                else:
                    d_weight.add_(d_logits.t() @ rows)
        ctx.dtypes = hidden.dtype
        if gradient:
            ctx.save_for_backward(d_hidden, d_weight)
        ctx.mark_non_differentiable(losses_N)
        return total, losses_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return (d_hidden * grads[0]).to(ctx.dtypes), d_weight * grads[0], None, None, None, None, None
