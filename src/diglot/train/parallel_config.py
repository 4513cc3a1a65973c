"""How the ranks of a run share its work, readable without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diglot.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """A grid of ranks, replicate x shard. Every rank reads its share of each training step's sequences.

    shard: ranks among which weights, gradients and optimizer state are divided (FSDP); `all` takes what `replicate`
        leaves.
    replicate: groups of such ranks, each with the whole model (HSDP above 1): between groups only gradients travel,
        which suits a fast network within a machine and a slower one between machines.
    """

    replicate: int = 1
    shard: int | Literal["all"] = "all"

    def __post_init__(self) -> None:
        if self.replicate < 1 or (self.shard != "all" and self.shard < 1):
            raise ConfigError(f"parallel has replicate = {self.replicate} and shard = {self.shard}; both count from 1.")

    def shape(self, world_size: int) -> tuple[int, int]:
        """(replicate, shard) for so many ranks. Raises ConfigError where they do not fill the grid."""
        shard = max(1, world_size // self.replicate) if self.shard == "all" else self.shard
        if self.replicate * shard != world_size:
            raise ConfigError(
                f"parallel: {{replicate: {self.replicate}, shard: {self.shard}}} makes a grid of "
                f"{self.replicate} x {shard} ranks, but {world_size} were started. Start {self.replicate * shard}, or "
                "leave shard at all and take a replicate that divides the ranks."
            )
        return self.replicate, shard
