"""The norm of a training step's gradients over all ranks, each of which holds parts of some and copies of others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diglot.train.parallel.parts import local
from diglot.train.parallel.ranks import Ranks


def gradient_norm(gradients: Sequence[Tensor], ranks: Ranks) -> float:
    """The Euclidean norm of all gradients together, over all ranks, each of which has parts or copies of them."""
    norms = torch.stack(torch._foreach_norm([local(gradient) for gradient in gradients]))
    if ranks.grid is None:
        return float(torch.linalg.vector_norm(norms))
    copies = torch.tensor([_num_copies(gradient, ranks) for gradient in gradients], device=norms.device)
    return math.sqrt(ranks.sums([float((norms.double().square() / copies).sum())])[0])


def _num_copies(tensor: Tensor, ranks: Ranks) -> int:
    """How many ranks hold the part of a weight or gradient that this one holds."""
    assert ranks.grid is not None
    from torch.distributed.tensor import DTensor

    holders = ranks.grid.size // ranks.grid.shape.pipeline  # a layer is on one stage of the pipeline
    if not isinstance(tensor, DTensor):
        return holders
    axes = zip(tensor.device_mesh.shape, tensor.placements, strict=True)
    parts = [size for size, how in axes if not how.is_replicate()]
    return holders // math.prod(parts)
