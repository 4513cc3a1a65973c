"""This rank's place in the grid of ranks, and PyTorch's mesh of it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diglot.model.spread import Spread
from diglot.train.parallel.config import GridShape

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh

AXES = GridShape._fields


@dataclass(frozen=True)
class Grid:
    """The grid and one rank in it. Ranks next to each other on the last axis (tensor) have neighbouring numbers.

    expert: so many neighbours on the axis `shard` hold the experts of a mixture between them.
    """

    shape: GridShape
    rank: int
    device: str
    expert: int = 1

    @functools.cached_property
    def place(self) -> GridShape:
        """This rank's place on each axis, from 0."""
        left, place = self.rank, list[int]()
        for size in reversed(self.shape):
            left, here = divmod(left, size)
            place.append(here)
        return GridShape(*reversed(place))

    @property
    def num_readers(self) -> int:
        """Places that read different sequences."""
        return self.shape.replicate * self.shape.shard

    @property
    def reader(self) -> int:
        """The number of this rank's place among them. Ranks of one number read the same sequences."""
        return self.place.replicate * self.shape.shard + self.place.shard

    @property
    def spread(self) -> Spread | None:
        """This rank's tokens of each sequence that it reads; None for all of them."""
        shape, place = self.shape, self.place
        if shape.context == shape.tensor == 1:
            return None
        return Spread(shape.context, place.context, shape.tensor, place.tensor)

    @functools.cached_property
    def mesh(self) -> DeviceMesh:
        """A mesh with all of AXES. Every rank has to ask for it at the same time first."""
        # Takes a second to import, which a run of one process need not wait for.
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(self.device, tuple(self.shape), mesh_dim_names=AXES)

    @functools.cached_property
    def weight_mesh(self) -> DeviceMesh:
        """Over what FSDP divides a matrix of a layer: (replicate x) shard and context in one."""
        return self._over("shard", "context")

    @functools.cached_property
    def shared_mesh(self) -> DeviceMesh:
        """Over what FSDP divides a weight that the ranks of tensor, too, have whole and read other tokens with."""
        return self._over("shard", "context", "tensor") if self.shape.tensor > 1 else self.weight_mesh

    def _over(self, *axes: str) -> DeviceMesh:
        used = [axis for axis in axes if axis == "shard" or getattr(self.shape, axis) > 1]
        flat = self.mesh[tuple(used)]._flatten("_".join(used)) if len(used) > 1 else self.mesh["shard"]
        if self.shape.replicate == 1:
            return flat
        # There is no public way to put a flattened mesh beside another axis (torch 2.15).
        from torch.distributed.device_mesh import DeviceMesh

        return DeviceMesh._concatenate([self.mesh["replicate"], flat])

    @functools.cached_property
    def expert_mesh(self) -> DeviceMesh:
        """The mesh with `shard` cut in two axes: groups of `expert` neighbours, which hold every expert between them,
        and `expert_shard`, the ranks of one place in their groups, which hold the same experts."""
        sizes = (self.shape.shard // self.expert, self.expert)
        return self.mesh._unflatten("shard", sizes, ("expert_shard", "expert"))

    def sum_over_readers(self, tensor: Tensor) -> None:
        """Add a tensor, in place, over the ranks that read other tokens of the same microbatch."""
        import torch.distributed as dist

        for axis in ("replicate", "shard", "context"):
            if getattr(self.shape, axis) > 1:
                dist.all_reduce(tensor, group=self.mesh.get_group(axis))

    @property
    def size(self) -> int:
        return math.prod(self.shape)
