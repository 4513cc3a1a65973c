"""Weights, gradients and optimizer state divided among ranks by PyTorch's FSDP2 (`fully_shard`).

Each layer gathers its weights before it runs and drops them afterwards; its gradients are summed and divided among the
ranks as soon as they are known. Embeddings, output matrix and final norm are the root's: they stay gathered from the
forward pass to the end of the backward pass, because the objectives read `lm_head.weight` itself.

Parameters are DTensors then, and so is the optimizer's state; `train/parallel/parts.py` takes both kinds of tensor, and
`train/parallel/whole_model.py` puts the model together again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diglot.model.decoder import Decoder
from diglot.train.parallel.context import divide_tokens
from diglot.train.parallel.grid import Grid
from diglot.train.parallel.parts import is_divided
from diglot.train.parallel.ranks import Ranks
from diglot.train.parallel.stages import keep_stage
from diglot.train.parallel.tensor import divide_matrices

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard(model: Decoder, ranks: Ranks, *, gather_bf16: bool = False) -> None:
    """Divide `model`, which every rank has built from the same seed, in place. Nothing happens to that of one rank.

    gather_bf16: layers are gathered as bfloat16, which halves what travels where products take bfloat16 anyway; their
        gradients are still summed in float32. Layers with experts are not, as their routers read float32.
    """
    grid = ranks.grid
    if grid is None:
        return
    keep_stage(model, grid)
    from torch.distributed.fsdp import (
        FSDPModule,
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    if grid.shape.tensor > 1:
        divide_matrices(model, grid)
    divide_tokens(model, grid)
    place = _placement(grid)
    if grid.expert > 1:
        from diglot.train.parallel.experts import divide_experts

        place = divide_experts(model, grid)
    model.sum_over_ranks = grid.sum_over_readers
    # What flows between the layers stays float32, as under autocast on one rank.
    bf16 = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for index, layer in model.layers.numbered():
        rounds = gather_bf16 and not model.config.has_experts[index]
        policy = bf16 if rounds else MixedPrecisionPolicy()
        fully_shard(layer, mesh=grid.weight_mesh, mp_policy=policy, shard_placement_fn=place)
    fully_shard(model, mesh=grid.shared_mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "trunk")  # what the objectives call in place of forward
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Gradients are sums, divided once by the count of the whole training step; FSDP would average over ranks.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum


def _placement(grid: Grid) -> Callable[[nn.Parameter], Any] | None:
    """For `fully_shard` of a layer: which of its weights are divided over which mesh."""
    if grid.shape.tensor == 1:
        return None
    # What the function returns has no public name (torch 2.15), though fully_shard asks for it.
    from torch.distributed.fsdp._fully_shard._fsdp_common import FSDPMeshInfo, ShardPlacementResult
    from torch.distributed.fsdp._fully_shard._fsdp_init import _get_mesh_info

    def over(mesh: DeviceMesh) -> ShardPlacementResult:
        where = _get_mesh_info(mesh)
        assert isinstance(where, FSDPMeshInfo)
        return ShardPlacementResult(None, where)

    matrices, shared = over(grid.weight_mesh), over(grid.shared_mesh)
    return lambda parameter: matrices if is_divided(parameter) else shared
