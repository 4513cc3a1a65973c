"""Weights, gradients and optimizer state divided among ranks by PyTorch's FSDP2 (`fully_shard`).

Each layer gathers its weights before it runs and drops them afterwards; its gradients are summed and divided among the
ranks as soon as they are known. Embeddings, output matrix and final norm are the root's: they stay gathered from the
forward pass to the end of the backward pass, because the objectives read `lm_head.weight` itself.

Parameters are DTensors then, and so is the optimizer's state. `local` and `whole` take both kinds of tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diglot.model.decoder import Decoder
from diglot.train.parallel_config import ParallelConfig
from diglot.train.ranks import Ranks, group_sum


def shard(model: Decoder, ranks: Ranks, config: ParallelConfig) -> None:
    """Divide `model`, which every rank has built from the same seed, in place. Nothing happens to that of one rank."""
    if ranks.count == 1:
        return
    replicate, divided = config.shape(ranks.count)
    # Takes a second to import, which a run of one process need not wait for.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    names = ("replicate", "shard")
    mesh = init_device_mesh(ranks.device, (replicate, divided), mesh_dim_names=names)
    grid = mesh["shard"] if replicate == 1 else mesh
    for layer in model.layers:
        fully_shard(layer, mesh=grid)
    fully_shard(model, mesh=grid, reshard_after_forward=False)
    register_fsdp_forward_method(model, "trunk")  # what the objectives call in place of forward
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Gradients are sums, divided once by the count of the whole training step; FSDP would average over ranks.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum


def is_divided(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor; asked without importing what makes them."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a divided tensor, the same memory; any other tensor as it is."""
    return tensor.to_local() if is_divided(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """All of a divided tensor, gathered on every rank; any other tensor as it is."""
    return tensor.full_tensor() if is_divided(tensor) else tensor  # type: ignore[attr-defined]


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of `tensor`, which every rank has whole, cut as `like` is."""
    if not is_divided(like):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None).to_local()


def settle(model: Decoder) -> None:
    """Drop gathered weights, so that `model.parameters()` are the divided ones: a forward pass without a backward pass
    leaves the root's gathered."""
    reshard = getattr(model, "reshard", None)
    if reshard is not None:
        reshard()


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """The Euclidean norm of all gradients together, over all ranks."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([local(gradient) for gradient in gradients])))
    if is_divided(gradients[0]):
        norm = group_sum(norm.square(), _shard_group(gradients[0])).sqrt()
    return float(norm)


def whole_model(model: Decoder, ranks: Ranks) -> Decoder | None:
    """A copy of a divided model with all its weights on rank 0, None on the others; that of one rank as it is."""
    if ranks.count == 1:
        return model
    settle(model)
    copy = Decoder(model.config) if ranks.is_main else None
    targets = dict(copy.named_parameters()) if copy is not None else {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gathered = whole(parameter)
            if name in targets:
                targets[name].copy_(gathered)
    return copy


def _shard_group(tensor: Any) -> Any:
    return tensor.device_mesh.get_group("shard")
