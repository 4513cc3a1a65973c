"""Which tokens of a sequence a rank holds where several ranks share each sequence.

Shape legend: T tokens of the whole sequence, n ranks of the context axis, m of the tensor axis.

The sequence is cut into 2n chunks, and rank r of n looks from those of chunks r and 2n - 1 - r: under the causal rule
an early chunk has little to look at and a late one much, so that all ranks have the same work (Llama 3, arXiv
2407.21783, 3.3.2). Between attention and feed-forward the m ranks that divide the matrices of a layer hold an m-th of
those tokens each (sequence parallel, Korthikanti et al. 2022, arXiv 2205.05198).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diglot.core.errors import ConfigError


class Piece(NamedTuple):
    """Queries `start` .. `stop` of this rank, which are the last of the first `seen` tokens of the sequence."""

    start: int
    stop: int
    seen: int


@dataclass(frozen=True)
class Spread:
    """One rank's place among those that share a sequence: number `context_rank` of n and `tensor_rank` of m."""

    context: int = 1
    context_rank: int = 0
    tensor: int = 1
    tensor_rank: int = 0

    @property
    def num_parts(self) -> int:
        """Ranks that hold different tokens of a sequence."""
        return self.context * self.tensor

    def queries(self, T: int, device: torch.device | str = "cpu") -> Tensor:
        """int64 [T / n]: the slots of the sequence from which this rank's attention looks, in order."""
        slots = torch.arange(T, device=device)
        if self.context == 1:
            return slots
        chunks = slots.view(2 * self.context, -1)
        return torch.cat((chunks[self.context_rank], chunks[-1 - self.context_rank]))

    def held(self, T: int, device: torch.device | str = "cpu") -> Tensor:
        """int64 [T / (n m)]: the slots of the tokens that this rank holds between the matrices.

        Raises: ConfigError where the ranks do not divide T.
        """
        parts = self.tensor * (2 * self.context if self.context > 1 else 1)
        if T % parts:
            factors = f"tensor = {self.tensor}" + (f" times 2 x context = {self.context}" if self.context > 1 else "")
            raise ConfigError(
                f"parallel: sequences of {T} tokens are cut into {parts} equal parts ({factors}). Take a "
                f"sequence_length that is a multiple of {parts}, or smaller tensor and context."
            )
        return self.queries(T, device).view(self.tensor, -1)[self.tensor_rank]

    def pieces(self, T: int) -> tuple[Piece, ...]:
        """The plain causal rule for `queries(T)`, as rectangles whose last rows see everything."""
        if self.context == 1:
            return ()
        chunk = T // (2 * self.context)
        late = 2 * self.context - self.context_rank
        return Piece(0, chunk, (self.context_rank + 1) * chunk), Piece(chunk, 2 * chunk, late * chunk)
