"""Muon: momentum, then the nearest orthogonal matrix as the update (Jordan et al. 2024).

Every direction of a weight matrix moves by the same amount, where AdamW lets a few large singular values rule. The
update of a [rows, columns] matrix is scaled by 0.2 sqrt(max(rows, columns)), so that its entries are about as large as
AdamW's and both can share one learning rate and weight decay (Liu et al. 2025, arXiv 2502.16982).

Matrices divided among ranks are gathered, orthogonalised on every rank, and each rank keeps its part: a matrix has to
be seen whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diglot.train.parallel.sharding import is_divided, local, part_like, whole

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
        moving = [matrix for matrix in self.matrices if matrix.weight.grad is not None]
        by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for matrix in moving:
            assert matrix.weight.grad is not None
            buffer = self.buffers[matrix.name]
            local(buffer).lerp_(local(matrix.weight.grad), 1 - self.momentum)
            look_ahead = whole(matrix.weight.grad.lerp(buffer, self.momentum))  # Nesterov
            for part in torch.split(look_ahead, list(matrix.heights)):
                by_shape[part.shape[0], part.shape[1]].append(part)
        updates = {
            shape: iter(orthogonalise(torch.stack(parts), self.num_iterations)) for shape, parts in by_shape.items()
        }
        for matrix in moving:
            local(matrix.weight).mul_(1 - lr * self.weight_decay)
            scales = [0.2 * max(height, matrix.weight.shape[1]) ** 0.5 for height in matrix.heights]
            parts = [next(updates[height, matrix.weight.shape[1]]) for height in matrix.heights]
            if is_divided(matrix.weight):
                update = torch.cat([part * scale for part, scale in zip(parts, scales, strict=True)])
                local(matrix.weight).add_(part_like(update, matrix.weight), alpha=-lr)
                continue
            for rows, part, scale in zip(torch.split(matrix.weight, list(matrix.heights)), parts, scales, strict=True):
                rows.add_(part, alpha=-lr * scale)
