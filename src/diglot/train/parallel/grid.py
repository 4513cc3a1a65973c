"""This rank's place in the grid of ranks, and PyTorch's mesh of it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diglot.train.parallel.config import GridShape

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

AXES = GridShape._fields


@dataclass(frozen=True)
class Grid:
    """The grid and one rank in it. Ranks next to each other on the last axis (tensor) have neighbouring numbers."""

    shape: GridShape
    rank: int
    device: str

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

    @functools.cached_property
    def mesh(self) -> DeviceMesh:
        """A mesh with all of AXES. Every rank has to ask for it at the same time first."""
        # Takes a second to import, which a run of one process need not wait for.
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(self.device, tuple(self.shape), mesh_dim_names=AXES)

    @functools.cached_property
    def weight_mesh(self) -> DeviceMesh:
        """Over what FSDP divides a weight that ranks of all other axes share: (replicate x) shard."""
        return self.mesh["shard"] if self.shape.replicate == 1 else self.mesh["replicate", "shard"]

    @property
    def size(self) -> int:
        return math.prod(self.shape)
