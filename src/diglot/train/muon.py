"""Muon: momentum, then the nearest orthogonal matrix as the update (Jordan et al. 2024).

Every direction of a weight matrix moves by the same amount, where AdamW lets a few large singular values rule. The
update of a [rows, columns] matrix is scaled by 0.2 sqrt(max(rows, columns)), so that its entries are about as large as
AdamW's and both can share one learning rate and weight decay (Liu et al. 2025, arXiv 2502.16982).

Matrices divided among ranks are gathered, because a matrix has to be seen whole. Each rank orthogonalises its share of
those of one shape, all send each other the results, and each keeps its part of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from diglot.train.device import fp32_products
from diglot.train.parallel.parts import is_divided, local, mesh_of, part_like, whole

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

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


def orthogonalised_among(mesh: DeviceMesh | None, matrices: Tensor, num_iterations: int) -> Tensor:
    """`orthogonalise`, the work divided among the ranks of the longest axis of `mesh`, all of which have `matrices`."""
    if mesh is None:
        return orthogonalise(matrices, num_iterations)
    axis = max(range(mesh.ndim), key=mesh.size)
    share = math.ceil(len(matrices) / mesh.size(axis))
    mine = matrices[mesh.get_local_rank(axis) * share :][:share]
    part = matrices.new_zeros(share, *matrices.shape[1:])  # parts of one size, though the last ranks may have fewer
    part[: len(mine)] = orthogonalise(mine, num_iterations)
    found = matrices.new_empty(mesh.size(axis) * share, *matrices.shape[1:])
    dist.all_gather_into_tensor(found, part, group=mesh.get_group(axis))
    return found[: len(matrices)]


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
        # It approximates anyway; Jordan et al. take bfloat16.
        device = self.matrices[0].weight.device if self.matrices else torch.device("cpu")
        with fp32_products(device, rough=True):
            for matrices in self._groups():
                self._update(matrices, lr)

    def _groups(self) -> Iterator[list[MuonMatrix]]:
        """Which are updated together: without ranks all; among ranks as many of one shape as there are ranks, since
        every rank holds a group whole meanwhile."""
        groups: dict[Any, list[MuonMatrix]] = defaultdict(list)
        for matrix in self.matrices:
            if matrix.weight.grad is not None:
                mesh = mesh_of(matrix.weight)
                groups[mesh and (mesh, matrix.weight.shape, matrix.heights)].append(matrix)
        for alike, matrices in groups.items():
            size = max(alike[0].shape) if alike else len(matrices)
            yield from (matrices[start : start + size] for start in range(0, len(matrices), size))

    def _update(self, matrices: Sequence[MuonMatrix], lr: float) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            assert matrix.weight.grad is not None
            buffer = self.buffers[matrix.name]
            local(buffer).lerp_(local(matrix.weight.grad), 1 - self.momentum)
            look_ahead = whole(matrix.weight.grad.lerp(buffer, self.momentum))  # Nesterov
            for part in torch.split(look_ahead, list(matrix.heights)):
                by_shape[part.shape[0], part.shape[1]].append(part)
        mesh = mesh_of(matrices[0].weight)
        updates = {
            shape: iter(orthogonalised_among(mesh, torch.stack(parts), self.num_iterations))
            for shape, parts in by_shape.items()
        }
        for matrix in matrices:
            local(matrix.weight).mul_(1 - lr * self.weight_decay)
            scales = [0.2 * max(height, matrix.weight.shape[1]) ** 0.5 for height in matrix.heights]
            parts = [next(updates[height, matrix.weight.shape[1]]) for height in matrix.heights]
            if is_divided(matrix.weight):
                update = torch.cat([part * scale for part, scale in zip(parts, scales, strict=True)])
                local(matrix.weight).add_(part_like(update, matrix.weight), alpha=-lr)
                continue
            for rows, part, scale in zip(torch.split(matrix.weight, list(matrix.heights)), parts, scales, strict=True):
                rows.add_(part, alpha=-lr * scale)
