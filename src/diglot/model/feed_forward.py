"""The dense feed-forward of a layer: SwiGLU, or Gemma's GeGLU (Shazeer 2020, arXiv 2002.05202)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from diglot.model.config import Activation

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
}


class FeedForward(nn.Module):
    """down(act(gate(x)) * up(x)); gate and up are one matrix, as one larger product is faster than two."""

    def __init__(self, d_model: int, ffn_dim: int, *, bias: bool = False, activation: Activation = "silu") -> None:
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * ffn_dim, bias=bias)
        self.down = nn.Linear(ffn_dim, d_model, bias=bias)
        self.act = ACTIVATIONS[activation]

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, up = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(self.act(gate) * up)  # type: ignore[no-any-return]
