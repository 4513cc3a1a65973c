"""Expert parallel: the ranks of a group hold some experts each, and send each other the tokens (GShard, Lepikhin et al.
2020, arXiv 2006.16668; here without capacities, nothing is dropped).

Shape legend: R ranks of a group, E experts, M = E / R of them on a rank, D width.

A rank routes its own tokens. Their rows, sorted by expert, are sorted by rank too, so that one all-to-all takes each to
the rank of its expert; a second one, the first reversed, brings the results back. The backward pass takes the gradients
the same ways. An expert sees the tokens of all ranks of its group, so its gradient is a sum over them already; FSDP
adds those of the other groups.

Of the weights, a rank holds M whole experts divided along their second axis (FSDP) over the ranks of other groups with
the same experts: even parts however few experts there are, in a layout that checkpoints know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp._fully_shard._fsdp_common import FSDPMeshInfo, HSDPMeshInfo, ShardPlacementResult
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder
from diglot.model.experts import Experts
from diglot.train.parallel.grid import Grid

AXIS_OF_FSDP = 1  # of gate_up [E, 2 F, D] and down [E, D, F]


def divide_experts(model: Decoder, grid: Grid) -> Callable[[nn.Parameter], ShardPlacementResult | None]:
    """Leave on each rank its experts of every layer, in place, and let the layers exchange their tokens.

    Returns: for `fully_shard`, how it places a parameter: experts on the ranks that hold the same, others as usual.
    Raises: ConfigError where there are no experts, or they do not divide evenly.
    """
    _check(model, grid)
    mesh, replicated = grid.expert_mesh, grid.shape.replicate > 1
    where = (
        HSDPMeshInfo(mesh["replicate", "expert_shard"], shard_mesh_dim=1, replicate_mesh_dim=0)
        if replicated
        else FSDPMeshInfo(mesh["expert_shard"], shard_mesh_dim=0)
    )
    divided = set[nn.Parameter]()
    for layer in model.layers:
        if isinstance(layer.ffn, Experts):
            layer.ffn.exchange = TokenExchange(mesh["expert"])
            for name in ("gate_up", "down"):
                # Every rank has built all of them from the same seed: nothing needs to be sent.
                part = distribute_tensor(getattr(layer.ffn, name), mesh["expert"], [Shard(0)], src_data_rank=None)
                setattr(layer.ffn, name, nn.Parameter(part))
                divided.add(getattr(layer.ffn, name))

    def placement(parameter: nn.Parameter) -> ShardPlacementResult | None:
        return ShardPlacementResult(Shard(AXIS_OF_FSDP), where) if parameter in divided else None

    return placement


class TokenExchange:
    """`Experts.exchange` of a layer whose experts the ranks of a one-dimensional mesh hold between them, in order."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self.group, self.num_ranks = mesh.get_group(), mesh.size()

    # The compiler would break the layer here anyway: how many rows arrive is known only when they are counted.
    @torch.compiler.disable
    def __call__(self, layer: Experts, rows: Tensor, counts: Tensor) -> Tensor:
        """The results of `rows` [., D], which are sorted by expert, `counts` [E] of each."""
        counts_RM = counts.view(self.num_ranks, -1)
        arriving_RM = torch.empty_like(counts_RM)  # from each rank, for each expert here
        dist.all_to_all_single(arriving_RM, counts_RM, group=self.group)
        # The one wait of the host: an all-to-all wants its sizes there.
        leaving, arriving = torch.stack([counts_RM.sum(dim=1), arriving_RM.sum(dim=1)]).tolist()
        if torch.is_autocast_enabled(rows.device.type):
            rows = rows.to(torch.get_autocast_dtype(rows.device.type))  # as the products would, but sent as half
        rows = all_to_all_single_autograd(rows, arriving, leaving, self.group)
        M = arriving_RM.shape[1]
        expert = torch.arange(M, device=rows.device).repeat(self.num_ranks)
        order = expert.repeat_interleave(arriving_RM.flatten(), output_size=sum(arriving)).argsort(stable=True)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        gate_up, down = layer.gate_up, layer.down
        assert isinstance(gate_up, DTensor)
        assert isinstance(down, DTensor)
        results = layer.results(
            _Permuted.apply(rows, order, back), arriving_RM.sum(dim=0), gate_up.to_local(), down.to_local()
        )
        return all_to_all_single_autograd(_Permuted.apply(results, back, order), leaving, arriving, self.group)


class _Permuted(torch.autograd.Function):
    """`rows[order]` for an order whose inverse is known: its backward pass gathers too, where indexing would add."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return rows[order]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.inverse], None, None


def _check(model: Decoder, grid: Grid) -> None:
    config, num_holders = model.config, grid.shape.shard // grid.expert
    if config.moe is None:
        raise ConfigError(f"parallel: expert = {grid.expert}, but the model has no experts. Leave expert out.")
    if config.moe.num_experts % grid.expert:
        raise ConfigError(
            f"parallel: expert = {grid.expert} does not divide the {config.moe.num_experts} experts of a layer. Take "
            "one that does."
        )
    for name, size in (("2 * expert_dim", 2 * config.moe.expert_dim), ("d_model", config.d_model)):
        if size % num_holders:
            raise ConfigError(
                f"parallel: the weights of an expert are divided evenly over shard / expert = {num_holders} ranks, "
                f"which do not divide {name} = {size}. Take a larger expert, or a width that divides."
            )
