"""From a data order and token streams to the microbatches of a training step.

Shape legend: B sequences of a microbatch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diglot.core.errors import InputError
from diglot.train.order import DataOrder
from diglot.train.types import IGNORE, Batch

Tokens = NDArray[np.unsignedinteger[Any]]


def batches_of(
    order: DataOrder,
    first_train_step: int,
    streams: Mapping[str, Tokens],
    *,
    sequence_length: int,
    microbatch_sequences: int | None = None,
    mask_after: int | None = None,
) -> Callable[[int], list[Batch]]:
    """A phase's `batch_at`: phase-local training step -> microbatches with input_ids and targets, int64 [B, T].

    Args:
        first_train_step: where the phase begins in `order`.
        microbatch_sequences: B at most; None puts a whole training step into one microbatch.
        mask_after: a token id whose successor is not learned from. MAP-Neo masks after the document-end token, as the
            first token of the next document cannot be foretold from this one.
    """

    def batch_at(train_step: int) -> list[Batch]:
        picked = order.sequences(first_train_step + train_step)
        rows = np.stack([sequence(streams[name], name, index, sequence_length) for name, index in picked])
        inputs, targets = rows[:, :-1].copy(), rows[:, 1:].copy()
        if mask_after is not None:
            targets[inputs == mask_after] = IGNORE
        inputs[inputs == IGNORE] = 0  # padding of a stream shorter than a sequence: any id does, nothing follows it
        size = microbatch_sequences or len(rows)
        return [
            {
                "input_ids": torch.from_numpy(inputs[start : start + size]),
                "targets": torch.from_numpy(targets[start : start + size]),
            }
            for start in range(0, len(rows), size)
        ]

    return batch_at


def sequence(tokens: Tokens, name: str, index: int, sequence_length: int) -> NDArray[np.int64]:
    """Tokens index * T .. index * T + T of a stream, T + 1 of them; IGNORE behind the end of a short stream."""
    start = index * sequence_length
    found = np.asarray(tokens[start : start + sequence_length + 1]).astype(np.int64)
    if len(found) < 2 or (len(found) <= sequence_length and index > 0):
        raise InputError(
            f"stream '{name}' ends before sequence {index}. The packed tokens changed since the plan was made."
        )
    return np.pad(found, (0, sequence_length + 1 - len(found)), constant_values=IGNORE)
