"""Context parallel: the tokens of each sequence divided among ranks, for sequences too long for one.

Shape legend: B sequences, T tokens of a whole sequence, n ranks, C = T / 2n tokens of a chunk, KV key and value heads,
Hd head width.

Every rank looks from its own tokens (`model/spread.py` says which) at the keys and values of all, which are gathered in
every layer, as in Llama 3 (arXiv 2407.21783, 3.3.2). So any mask works that works on one rank: documents, windows,
prefixes. With grouped queries they are a small part of what a layer computes; a ring that passes them on would hide
them behind products, and know the causal rule alone. Every layer keeps the keys and values of a whole sequence for its
backward pass, unless it is computed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diglot.model.decoder import Decoder
from diglot.train.parallel.collectives import gathered
from diglot.train.parallel.grid import Grid

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class GatheredKeys:
    """Keys and values of a whole sequence out of those of the ranks of `group`."""

    group: ProcessGroup

    def __call__(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Two [B, KV, T / n, Hd], chunks r and 2n - 1 - r of rank r -> two [B, KV, T, Hd] in the sequence's order."""
        B, KV, T, Hd = k.shape
        both = torch.stack((k, v)).view(2, B, KV, 2, T // 2, Hd).movedim(3, 0)  # [2 chunks, 2, B, KV, C, Hd]
        chunks = gathered(both, self.group).unbind(0)  # unbind: its backward pass is one copy
        in_order = [*chunks[0::2], *reversed(chunks[1::2])]
        k, v = torch.cat(in_order, dim=-2).unbind(0)
        return k, v


def divide_tokens(model: Decoder, grid: Grid) -> None:
    """Let `model` read a rank's tokens of each sequence, in place. `Ranks.rows` cuts the batches."""
    model.spread = grid.spread
    if grid.shape.context == 1:
        return
    keys = GatheredKeys(grid.mesh.get_group("context"))
    for layer in model.layers:
        layer.attention.all_keys = keys
