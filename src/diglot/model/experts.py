"""A mixture of experts in place of a feed-forward: token choice, dropless (survey: arXiv 2407.06204).

Shape legend: N tokens, E experts, K chosen per token, D width, F feed-forward width of an expert.

    scores = softmax or sigmoid of x W_router, in float32
    chosen = the K largest; weights = their scores, made to sum to 1 if `normalise_top_k`, times `route_scale`
    y = sum over the chosen of weight * expert(x), plus the shared feed-forward

The N K (token, expert) pairs are sorted by expert, so that each expert multiplies one contiguous slice, and nothing is
dropped. `slow_experts` is the definition, one token's choice at a time; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diglot.model.config import DecoderConfig
from diglot.model.feed_forward import ACTIVATIONS, FeedForward


class RouterStats(NamedTuple):
    """What the router of one layer did with N tokens.

    balance: E / K * sum over experts of (share of the N tokens sent to it) * (its mean score), 1 when uniform
        (Switch Transformer, Fedus et al. 2022, eq. 4). Only the mean score has a gradient.
    z: mean of logsumexp(router logits)^2 (ST-MoE, Zoph et al. 2022, eq. 5).
    load: tokens sent to each expert, float32 [E]; its sum is K N.
    score: the mean score of each expert, [E]; they sum to 1.
    """

    balance: Tensor
    z: Tensor
    load: Tensor
    score: Tensor


class Routing(NamedTuple):
    experts: Tensor  # int64 [N, K], the chosen ones, the highest score first
    weights: Tensor  # float32 [N, K]
    stats: RouterStats


class Experts(nn.Module):
    """`gate_up` [E, 2 F, D], gate first, and `down` [E, D, F] of all experts; `router` [E, D].

    exchange: how rows find their experts where ranks hold some each: (this layer, rows sorted by expert, how many of
        each expert) to their results (`train/parallel/experts.py`). None where they are all here.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        assert config.moe is not None
        self.config = moe = config.moe
        self.router = nn.Linear(config.d_model, moe.num_experts, bias=False)
        self.gate_up = nn.Parameter(torch.empty(moe.num_experts, 2 * moe.expert_dim, config.d_model))
        self.down = nn.Parameter(torch.empty(moe.num_experts, config.d_model, moe.expert_dim))
        self.shared = (
            FeedForward(config.d_model, moe.shared_dim, activation=config.activation) if moe.shared_dim else None
        )
        self.shared_gate = nn.Linear(config.d_model, 1, bias=False) if moe.shared_gate else None
        self.act = ACTIVATIONS[config.activation]
        self.exchange: Callable[[Experts, Tensor, Tensor], Tensor] | None = None

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, RouterStats]:
        x_ND = x_BTD.flatten(0, -2)
        routing = self.route(x_ND)
        y_ND = self._sorted_experts(x_ND, routing)
        if self.shared is not None:
            shared = self.shared(x_ND)
            y_ND = y_ND + (shared if self.shared_gate is None else torch.sigmoid(self.shared_gate(x_ND)) * shared)
        return y_ND.view_as(x_BTD), routing.stats

    def route(self, x_ND: Tensor) -> Routing:
        """Which experts read which token, and with which weight."""
        moe = self.config
        with torch.autocast(x_ND.device.type, enabled=False):  # a router's small differences decide
            logits = F.linear(x_ND.float(), self.router.weight.float())
        scores = logits.softmax(dim=-1) if moe.score == "softmax" else logits.sigmoid()
        weights, experts = scores.topk(moe.top_k, dim=-1)
        if moe.normalise_top_k:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        load = torch.zeros(moe.num_experts, dtype=torch.float32, device=x_ND.device)
        load = load.scatter_add_(0, experts.flatten(), torch.ones(experts.numel(), device=x_ND.device))
        share = scores / scores.sum(dim=-1, keepdim=True) if moe.score == "sigmoid" else scores
        score = share.mean(dim=0)
        balance = moe.num_experts / moe.top_k * (load / len(x_ND) * score).sum()
        z = logits.logsumexp(dim=-1).square().mean()
        return Routing(experts, weights * moe.route_scale, RouterStats(balance, z, load, score))

    def _sorted_experts(self, x_ND: Tensor, routing: Routing) -> Tensor:
        K = self.config.top_k
        order = routing.experts.flatten().argsort(stable=True)  # stable: the sums below keep their order
        tokens = order // K
        counts = routing.stats.load.long()
        if self.exchange is None:
            results = self.results(x_ND[tokens], counts, self.gate_up, self.down)
        else:
            results = self.exchange(self, x_ND[tokens], counts)
        weighted = results.float() * routing.weights.flatten()[order, None]
        y = torch.zeros(x_ND.shape, dtype=torch.float32, device=x_ND.device).index_add(0, tokens, weighted)
        return y.to(x_ND.dtype)

    def results(self, rows: Tensor, counts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        """Of `rows` [., D], which are sorted by expert, `counts` of each, by the experts with these weights."""
        return (self._grouped if rows.is_cuda else self._per_expert)(rows, counts, gate_up, down)

    def _per_expert(self, rows: Tensor, counts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        slices = torch.split(rows, counts.tolist())
        return torch.cat(
            [
                F.linear(self._gated(F.linear(part, up)), out)
                for part, up, out in zip(slices, gate_up, down, strict=True)
            ]
        )

    def _grouped(self, rows: Tensor, counts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        """`_per_expert` by two grouped products, without waiting for the counts to reach the host."""
        ends = counts.cumsum(0).to(torch.int32)
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else rows.dtype
        rows, gate_up, down = rows.to(dtype), gate_up.to(dtype), down.to(dtype)
        inner = self._gated(F.grouped_mm(rows, gate_up.transpose(1, 2), offs=ends))
        return F.grouped_mm(inner, down.transpose(1, 2), offs=ends)

    def _gated(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return self.act(gate) * up


@torch.no_grad()
def slow_experts(layer: Experts, x_ND: Tensor) -> Tensor:
    """What `Experts` computes, without the shared feed-forward: the definition, a token and an expert at a time."""
    routing = layer.route(x_ND)
    y_ND = torch.zeros_like(x_ND)
    for n in range(len(x_ND)):
        for expert, weight in zip(routing.experts[n].tolist(), routing.weights[n], strict=True):
            gate, up = (layer.gate_up[expert] @ x_ND[n]).chunk(2)
            y_ND[n] += weight * (layer.down[expert] @ (layer.act(gate) * up))
    return y_ND
