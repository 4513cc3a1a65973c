"""The losses that keep the router of a mixture of experts sound, beside any objective's own.

Shape legend: L layers with experts, E experts, K chosen per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diglot.model.config import MoEConfig
from diglot.model.decoder import Decoder
from diglot.model.experts import RouterStats
from diglot.train.types import SPARE, Batch


def with_router_losses(
    total: Tensor, count: int | Tensor, routers: Sequence[RouterStats], model: Decoder, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """`total` + count * mean over layers of (balance_weight * balance + z_weight * z), and what the log shows.

    Both are means over a microbatch's tokens; times its number of items, the loop's one division makes of them the
    mean over the training step's microbatches, each by its items. Balance is asked of every microbatch, which is
    stricter than of the whole batch.

    Where ranks read a microbatch together, both are those of all its tokens: each rank adds its own tokens' part, and
    the parts of all, like their gradients, sum to what one rank would find.

    Returns: the sum to minimise, and the stats `router_balance`, `router_z` and `router_max_load` (tokens of the
        fullest expert over the mean; 1 is even), as sums over items like every stat.
    """
    moe = model.config.moe
    if moe is None or not routers:
        return total, {}
    weight: int | Tensor = count
    loads = [router.load for router in routers]
    balances = [router.balance for router in routers]
    if model.sum_over_ranks is not None:
        weight, loads = _over_ranks(count, routers, model, read_for_company=SPARE in batch)
        balances = [_balance(router.score, load, moe) for router, load in zip(routers, loads, strict=True)]
    balance = torch.stack(balances).mean()
    z = torch.stack([router.z for router in routers]).mean()
    fullest = torch.stack([load.max() / load.mean() for load in loads]).mean()
    total = total + weight * (moe.balance_weight * balance + moe.z_weight * z)
    stats = {"router_balance": balance * weight, "router_z": z * weight, "router_max_load": fullest * count}
    return total, {name: value.detach() for name, value in stats.items()}


def _over_ranks(
    count: int | Tensor, routers: Sequence[RouterStats], model: Decoder, *, read_for_company: bool
) -> tuple[Tensor, list[Tensor]]:
    """The items of all ranks times this rank's share of their tokens, and each layer's load by all of them [E].

    Balance is linear in the mean scores once the load is known, and z is a mean: a mean over all tokens is the sum of
    the ranks' means, each times its share of the tokens.
    """
    assert model.config.moe is not None
    assert model.sum_over_ranks is not None
    loads_LE = torch.stack([router.load for router in routers]).double()  # whole numbers, whatever the order of sums
    if read_for_company:
        loads_LE = torch.zeros_like(loads_LE)
    pairs = loads_LE[:1].sum(dim=1)  # K times this rank's tokens
    sums = torch.cat([loads_LE.flatten(), pairs, torch.as_tensor(count).to(pairs).reshape(1)])
    model.sum_over_ranks(sums)
    weight = sums[-1] * pairs[0] / sums[-2]
    return weight.float(), list(sums[:-2].view_as(loads_LE).float())


def _balance(score: Tensor, load: Tensor, moe: MoEConfig) -> Tensor:
    """`RouterStats.balance` of this rank's mean scores under a load of other tokens too, which sums to K times them."""
    return moe.num_experts * (load / load.sum() * score).sum()
