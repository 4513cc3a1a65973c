"""The usual model out of one that is divided among ranks, for what comes after training: saving, exporting, measuring.

Its tensors are put together one at a time, so that no GPU has to hold them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from diglot.model.decoder import Decoder
from diglot.train.parallel.fused_names import fused_name, part_names
from diglot.train.parallel.parts import settle, whole
from diglot.train.parallel.ranks import Ranks


def whole_model(model: Decoder, ranks: Ranks) -> Decoder | None:
    """A copy of a divided model, or of one on a GPU, with all its weights on the CPU of rank 0, None on the others;
    that of one CPU as it is."""
    if ranks.count == 1 and model.embed.weight.device.type == "cpu":
        return model
    settle(model)
    copy = Decoder(model.config, seed=None) if ranks.is_main else None
    targets = dict(copy.named_parameters()) if copy is not None else {}
    with torch.no_grad():
        for name, tensor in whole_tensors(dict(model.named_parameters()), ranks):
            if name in targets:
                targets[name].copy_(tensor)
    return copy


def whole_tensors(tensors: Mapping[str, Tensor], ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """Weights, or gradients by the names of their weights, one at a time: divided ones whole, and the parts of a fused
    one (`train/parallel/tensor.py`) as the one that they were.

    All ranks call it together. Rank 0 gets those of all stages of a pipeline, the others those of their own.
    """
    waiting: dict[str, Tensor] = {}
    for name, tensor in _each_whole(tensors, ranks):
        complete = fused_name(name)
        if complete is None:
            yield name, tensor
            continue
        waiting[name] = tensor
        siblings = part_names(complete)
        if all(sibling in waiting for sibling in siblings):
            yield complete, torch.cat([waiting.pop(sibling) for sibling in siblings])


def _each_whole(tensors: Mapping[str, Tensor], ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """`whole_tensors` with the parts of fused ones still apart."""
    grid = ranks.grid
    if grid is None:
        yield from tensors.items()
        return
    stages = range(0, grid.size, grid.size // grid.shape.pipeline)  # the first rank of each
    sends = grid.rank in stages[1:]
    if sends:
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        dist.send_object_list([shapes], dst=0, device=torch.device("cpu"))
    for name, tensor in tensors.items():
        found = whole(tensor.detach()).contiguous()
        if sends:
            dist.send(found, dst=0)
        yield name, found
    for stage in stages[1:] if grid.rank == 0 else ():
        told: list[Any] = [None]
        dist.recv_object_list(told, src=stage, device=torch.device("cpu"))
        for name, (shape, dtype) in told[0].items():
            received = torch.empty(shape, dtype=dtype, device=grid.device)
            dist.recv(received, src=stage)
            yield name, received
