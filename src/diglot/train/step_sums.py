"""What a training step adds up over its microbatches and all ranks, losses, items and gradients, to divide it once.

Objectives give sums, and the division is by the items of the whole training step. A mean of each microbatch's or rank's
mean would weigh the items of a short one more.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diglot.core.errors import InputError
from diglot.model.decoder import Decoder
from diglot.train.microbatches import Microbatches
from diglot.train.parallel.gradient_norm import gradient_norm
from diglot.train.parallel.parts import local
from diglot.train.parallel.ranks import Ranks
from diglot.train.stream_losses import StreamLosses
from diglot.train.types import Batch


@dataclass(frozen=True)
class StepSums:
    """Of one training step, over what one rank read of it or over all.

    losses: of each microbatch, in nats. num_items: of all microbatches. stats: further sums for the log.
    """

    losses: list[float]
    num_items: int
    stats: dict[str, float]


def accumulate(microbatches: Microbatches, batches: Sequence[Batch], streams: StreamLosses) -> StepSums:
    """Forward and backward passes through this rank's share. Gradients are added up in `.grad` of the weights, and what
    each stream lost in `streams`."""
    found, counts, stats = list[Tensor](), list[int | Tensor](), dict[str, list[Tensor]]()
    for batch, losses in zip(batches, microbatches.run(batches), strict=True):
        found.append(losses.total.detach())
        counts.append(losses.count)
        streams.add(batch, losses)
        for name, value in losses.stats.items():
            stats.setdefault(name, []).append(value.detach())
    # Numbers are read once a training step: reading one waits for all that the GPU has still to do.
    values = iter(_read([*found, *counts, *(value for each in stats.values() for value in each)]))
    return StepSums(
        [next(values) for _ in found],
        int(_sum([next(values) for _ in counts])),
        {name: _sum([next(values) for _ in each]) for name, each in stats.items()},
    )


def over_ranks(own: StepSums, streams: StreamLosses, ranks: Ranks) -> StepSums:
    """The same of all ranks together, so that each of them decides alike.

    Raises: InputError where no rank has an item.
    """
    num_items, *values = ranks.sums([own.num_items, *own.losses, *own.stats.values(), *streams.of_step()])
    if num_items == 0:
        raise InputError("a training step has no item to learn from: every target is masked. Check the batches.")
    losses, values = values[: len(own.losses)], values[len(own.losses) :]
    streams.close_step(values[len(own.stats) :])
    return StepSums(losses, int(num_items), dict(zip(own.stats, values[: len(own.stats)], strict=True)))


def divide_and_clip(
    model: Decoder, num_items: int, clip_norm: float | None, ranks: Ranks, copies: frozenset[str]
) -> float:
    """Turn summed gradients into those of the mean loss, clipped; returns the norm before clipping.

    copies: names of weights that another rank holds too and counts.
    """
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = gradient_norm([grad for name, grad in grads.items() if name not in copies], ranks) / num_items
    shrink = 1.0 if clip_norm is None or norm <= clip_norm else clip_norm / norm
    torch._foreach_mul_([local(grad) for grad in grads.values()], shrink / num_items)
    return norm


def _read(numbers: Sequence[int | Tensor]) -> list[float]:
    """Numbers of a training step, in float64, with one wait for the device that the tensors lie on."""
    tensors = [number for number in numbers if isinstance(number, Tensor)]
    read = iter(torch.stack([tensor.double() for tensor in tensors]).tolist() if tensors else [])
    return [next(read) if isinstance(number, Tensor) else float(number) for number in numbers]


def _sum(values: Sequence[float]) -> float:
    """One after the other; Python 3.12's own sum carries what is lost, which would be other last bits than 3.11's."""
    return functools.reduce(operator.add, values, 0.0)
