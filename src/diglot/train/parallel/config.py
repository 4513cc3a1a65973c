"""How the ranks of a run share its work, readable without loading torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from diglot.core.errors import ConfigError


class GridShape(NamedTuple):
    """Ranks along each axis of the grid, the outermost axis first."""

    pipeline: int
    replicate: int
    shard: int
    context: int
    tensor: int


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """A grid of ranks, pipeline x replicate x shard x context x tensor. What they find does not depend on it but for
    rounding.

    The ranks of one place in replicate x shard read the same sequences of a training step; the others read others.

    shard: ranks among which weights, gradients and optimizer state are divided (FSDP); `all` takes what the other axes
        leave.
    replicate: groups of such ranks, each with the whole model (HSDP above 1): between groups only gradients travel,
        which suits a fast network within a machine and a slower one between machines.
    tensor: ranks that divide every matrix of a layer, and between the matrices the tokens; they talk in every layer,
        so keep them within a machine.
    context: ranks that divide the tokens of each sequence, for sequences too long for one.
    pipeline: ranks that divide the layers, each with some that follow one another; microbatches pass through them.
    expert: of the ranks of `shard`, groups of so many neighbours divide the experts of a mixture and send each other
        tokens. Not with tensor, context or pipeline.
    """

    replicate: int = 1
    shard: int | Literal["all"] = "all"
    tensor: int = 1
    context: int = 1
    pipeline: int = 1
    expert: int = 1

    def __post_init__(self) -> None:
        wrong = {name: size for name, size in asdict(self).items() if size != "all" and size < 1}
        if wrong:
            raise ConfigError(f"parallel has {wrong}; all its numbers count from 1.")
        for axis, others in (("expert", ("tensor", "context", "pipeline")), ("pipeline", ("tensor", "context"))):
            beside = [other for other in others if getattr(self, other) > 1]
            if getattr(self, axis) > 1 and beside:
                raise ConfigError(
                    f"parallel: {axis} = {getattr(self, axis)} goes with replicate and shard, not with "
                    f"{', '.join(beside)}. Set one of them to 1."
                )

    def grid(self, world_size: int) -> GridShape:
        """The grid of so many ranks. Raises ConfigError where they do not fill it."""
        others = self.pipeline * self.replicate * self.context * self.tensor
        shard = max(1, world_size // others) if self.shard == "all" else self.shard
        grid = GridShape(self.pipeline, self.replicate, shard, self.context, self.tensor)
        asked = {name: size for name, size in asdict(self).items() if size != 1 or name in ("replicate", "shard")}
        if math.prod(grid) != world_size:
            raise ConfigError(
                f"parallel: {asked} makes a grid of {' x '.join(map(str, grid))} ({', '.join(grid._fields)}), but "
                f"{world_size} ranks were started. Start {math.prod(grid)}, or leave shard at all and take sizes of "
                "the others whose product divides the ranks."
            )
        if shard % self.expert:
            raise ConfigError(
                f"parallel: expert = {self.expert} does not divide the {shard} ranks of shard. Take one that does."
            )
        return grid
