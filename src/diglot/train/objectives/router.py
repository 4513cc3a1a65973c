"""The losses that keep the router of a mixture of experts sound, beside any objective's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diglot.model.config import MoEConfig
from diglot.model.experts import RouterStats


def with_router_losses(
    total: Tensor, count: int, routers: Sequence[RouterStats], moe: MoEConfig | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """`total` + count * mean over layers of (balance_weight * balance + z_weight * z), and what the log shows.

    Both are means over a microbatch's tokens; times its number of items, the loop's one division makes of them the
    mean over the training step's microbatches, each by its items. Balance is asked of every microbatch, which is
    stricter than of the whole batch.

    Returns: the sum to minimise, and the stats `router_balance`, `router_z` and `router_max_load` (tokens of the
        fullest expert over the mean; 1 is even), as sums over items like every stat.
    """
    if moe is None or not routers:
        return total, {}
    balance = torch.stack([router.balance for router in routers]).mean()
    z = torch.stack([router.z for router in routers]).mean()
    loads = torch.stack([router.load.max() / router.load.mean() for router in routers]).mean()
    stats = {"router_balance": balance, "router_z": z, "router_max_load": loads}
    total = total + count * (moe.balance_weight * balance + moe.z_weight * z)
    return total, {name: (value * count).detach() for name, value in stats.items()}
