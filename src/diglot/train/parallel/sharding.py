"""Weights, gradients and optimizer state divided among ranks by PyTorch's FSDP2 (`fully_shard`).

Each layer gathers its weights before it runs and drops them afterwards; its gradients are summed and divided among the
ranks as soon as they are known. Embeddings, output matrix and final norm are the root's: they stay gathered from the
forward pass to the end of the backward pass, because the objectives read `lm_head.weight` itself.

Parameters are DTensors then, and so is the optimizer's state. `local` and `whole` take both kinds of tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder
from diglot.train.fp8 import has_fp8_products
from diglot.train.parallel.context import divide_tokens
from diglot.train.parallel.fused_names import fused_name
from diglot.train.parallel.grid import Grid
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
    if grid.shape.tensor > 1 and has_fp8_products(model):
        raise ConfigError("parallel: tensor divides matrices, and fp8 scales each as a whole. Set tensor: 1 or bf16.")
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


def is_divided(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor; asked without importing what makes them."""
    return hasattr(tensor, "to_local")


def mesh_of(tensor: Tensor) -> DeviceMesh | None:
    """The mesh of ranks that a tensor is divided among; None for one that is not."""
    return tensor.device_mesh if is_divided(tensor) else None  # type: ignore[attr-defined]


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a divided tensor, the same memory; any other tensor as it is."""
    return tensor.to_local() if is_divided(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """All of a divided tensor, gathered on every rank; any other tensor as it is."""
    if not is_divided(tensor):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    assert isinstance(tensor, DTensor)
    # The outer axes first: torch 2.15 warns where several axes are gathered in one call.
    outer = [Replicate()] * (len(tensor.placements) - 1)
    return tensor.redistribute(placements=[*outer, tensor.placements[-1]]).full_tensor()


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


def gradient_norm(gradients: Sequence[Tensor], ranks: Ranks) -> float:
    """The Euclidean norm of all gradients together, over all ranks, each of which has parts or copies of them."""
    norms = torch.stack(torch._foreach_norm([local(gradient) for gradient in gradients]))
    if ranks.grid is None:
        return float(torch.linalg.vector_norm(norms))
    copies = torch.tensor([_num_copies(gradient, ranks) for gradient in gradients], device=norms.device)
    return math.sqrt(ranks.sums([float((norms.double().square() / copies).sum())])[0])


def whole_model(model: Decoder, ranks: Ranks) -> Decoder | None:
    """A copy of a divided model, or of one on a GPU, with all its weights on the CPU of rank 0, None on the others;
    that of one CPU as it is."""
    if ranks.count == 1 and model.embed.weight.device.type == "cpu":
        return model
    settle(model)
    copy = Decoder(model.config, seed=None) if ranks.is_main else None
    targets = dict(copy.named_parameters()) if copy is not None else {}
    filled = dict.fromkeys(targets, 0)
    with torch.no_grad():
        for name, tensor in gathered(dict(model.named_parameters()), ranks):
            complete = fused_name(name)
            if complete in targets:
                start = filled[complete]
                filled[complete] += len(tensor)  # the parts of a fused matrix come in their order
                targets[complete][start : filled[complete]].copy_(tensor)
            elif name in targets:
                targets[name].copy_(tensor)
    return copy


def gathered(tensors: Mapping[str, Tensor], ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """Each divided tensor whole, one at a time. Rank 0 gets those of all stages of a pipeline, the others their own."""
    grid = ranks.grid
    if grid is None:
        yield from tensors.items()
        return
    stages = range(0, grid.size, grid.size // grid.shape.pipeline)  # the first rank of each
    sends = grid.rank in stages[1:]
    if sends:
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        dist.send_object_list([shapes], dst=0, device=torch.device("cpu"))
    for name, tensor in tensors.items():
        found = whole(tensor.detach()).contiguous()
        if sends:
            dist.send(found, dst=0)
        yield name, found
    for stage in stages[1:] if grid.rank == 0 else ():
        told: list[Any] = [None]
        dist.recv_object_list(told, src=stage, device=torch.device("cpu"))
        for name, (shape, dtype) in told[0].items():
            received = torch.empty(shape, dtype=dtype, device=grid.device)
            dist.recv(received, src=stage)
            yield name, received


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


def _num_copies(tensor: Tensor, ranks: Ranks) -> int:
    """How many ranks hold the part of a weight or gradient that this one holds."""
    assert ranks.grid is not None
    from torch.distributed.tensor import DTensor

    holders = ranks.grid.size // ranks.grid.shape.pipeline  # a layer is on one stage of the pipeline
    if not isinstance(tensor, DTensor):
        return holders
    axes = zip(tensor.device_mesh.shape, tensor.placements, strict=True)
    parts = [size for size, how in axes if not how.is_replicate()]
    return holders // math.prod(parts)
