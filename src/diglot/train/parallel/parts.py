"""A weight, gradient or optimizer state of which each rank has a part (a DTensor): the part, or the whole.

A tensor that is not divided, as on one rank, is its own part and its own whole: who asks need not know which it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from diglot.model.decoder import Decoder

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


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
