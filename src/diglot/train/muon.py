"""Muon: momentum, then the nearest orthogonal matrix as the update (Jordan et al. 2024).

Every direction of a weight matrix moves by the same amount, where AdamW lets a few large singular values rule. The
update of a [rows, columns] matrix is scaled by 0.2 sqrt(max(rows, columns)), so that its entries are about as large as
AdamW's and both can share one learning rate and weight decay (Liu et al. 2025, arXiv 2502.16982).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# The quintic of Jordan et al.: steep at 0, so that small singular values grow fast; ends within about 0.7 .. 1.2.
A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrices: Tensor, num_iterations: int) -> Tensor:
    """U V^T of each U S V^T, approximately: Newton-Schulz iterations x <- a x + (b G + c G^2) x with G = x x^T.

    Args:
        matrices: [N, rows, columns], float32.
    Returns: the same shape; singular values near 1, singular vectors kept.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # G is rows x rows: take the shorter side
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)  # spectral norm at most 1, where the iteration converges
    for _ in range(num_iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.mT if tall else x


@dataclass(frozen=True)
class MuonMatrix:
    """One parameter and the heights of the matrices stacked in it: fused q, k, v (or gate, up) count one by one."""

    name: str
    weight: Tensor
    heights: tuple[int, ...]


class Muon:
    """Momentum buffers and the update. Matrices of one shape are orthogonalised together."""

    def __init__(
        self, matrices: Sequence[MuonMatrix], momentum: float, weight_decay: float, num_iterations: int
    ) -> None:
        self.matrices = list(matrices)
        self.momentum, self.weight_decay, self.num_iterations = momentum, weight_decay, num_iterations
        self.buffers = {m.name: torch.zeros_like(m.weight) for m in self.matrices}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for matrix in self.matrices:
            if matrix.weight.grad is None:
                continue
            buffer = self.buffers[matrix.name]
            buffer.lerp_(matrix.weight.grad, 1 - self.momentum)
            look_ahead = matrix.weight.grad.lerp(buffer, self.momentum)  # Nesterov
            for part, update in zip(
                torch.split(matrix.weight, list(matrix.heights)),
                torch.split(look_ahead, list(matrix.heights)),
                strict=True,
            ):
                by_shape[part.shape[0], part.shape[1]].append((part, update))
        for shape, pairs in by_shape.items():
            updates = orthogonalise(torch.stack([update for _, update in pairs]), self.num_iterations)
            scale = 0.2 * max(shape) ** 0.5
            for (part, _), update in zip(pairs, updates, strict=True):
                part.mul_(1 - lr * self.weight_decay).add_(update, alpha=-lr * scale)
