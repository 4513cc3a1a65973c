"""Root-mean-square normalisation (Zhang and Sennrich 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diglot.model.config import DecoderConfig


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension; with `unit_offset` times 1 + weight (Gemma)."""

    def __init__(self, dim: int, eps: float, *, unit_offset: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim) if unit_offset else torch.ones(dim))
        self.eps, self.unit_offset = eps, unit_offset

    @classmethod
    def of_width(cls, config: DecoderConfig) -> RMSNorm:
        return cls(config.d_model, config.norm_eps, unit_offset=config.unit_offset_norm)

    @classmethod
    def of_heads(cls, config: DecoderConfig) -> RMSNorm:
        return cls(config.head_dim, config.norm_eps, unit_offset=config.unit_offset_norm)

    @property
    def factor(self) -> Tensor:
        """What the normalised values are multiplied by, [dim]."""
        return 1 + self.weight if self.unit_offset else self.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.factor, self.eps)
