"""The two exchanges of tokens among ranks that have a gradient each: gather all, and sum and keep one's own.

Each is the other's backward pass. They are PyTorch's functional collectives, which the compiler takes in, too, and run
on gloo and NCCL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def gathered(x: Tensor, group: ProcessGroup) -> Tensor:
    """[N, ...] of each of n ranks -> [n N, ...], one after the other; gradients are summed over the ranks."""
    from torch.distributed._functional_collectives import all_gather_single, wait_tensor

    return wait_tensor(all_gather_single(x.contiguous(), 0, group))  # type: ignore[no-any-return, no-untyped-call]


def summed_part(x: Tensor, group: ProcessGroup) -> Tensor:
    """[n N, ...] of each of n ranks -> the r-th [N, ...] of their sum on rank r; gradients are gathered."""
    from torch.distributed._functional_collectives import reduce_scatter_single, wait_tensor

    part = reduce_scatter_single(x.contiguous(), "sum", 0, group)
    return wait_tensor(part)  # type: ignore[no-any-return, no-untyped-call]
