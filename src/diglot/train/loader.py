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
    document_end: int | None = None,
    vocab_size: int | None = None,
) -> Callable[[int], list[Batch]]:
    """A phase's `batch_at`: phase-local training step -> microbatches with input_ids and targets, int64 [B, T], and
    streams, int64 [B]: each row's place in `order.stream_names`.

    Args:
        first_train_step: where the phase begins in `order`.
        microbatch_sequences: B at most; None puts a whole training step into one microbatch.
        mask_after: a token id whose successor is not learned from. MAP-Neo masks after the document-end token, as the
            first token of the next document cannot be foretold from this one.
        document_end: a token id behind which another document begins; batches then carry `document_ids`, int64 [B, T],
            so that no token sees another document. None lets all tokens of a row see those before them.
        vocab_size: ids from here up are refused.
    """

    numbers = {name: number for number, name in enumerate(order.stream_names)}

    def batch_at(train_step: int) -> list[Batch]:
        picked = order.sequences(first_train_step + train_step)
        rows = np.stack([sequence(streams[name], name, index, sequence_length) for name, index in picked])
        if vocab_size is not None and (int(rows.max()) >= vocab_size or int(rows.min()) < IGNORE):
            raise InputError(_outside(rows, picked, vocab_size, first_train_step + train_step))
        inputs, targets = rows[:, :-1].copy(), rows[:, 1:].copy()
        if mask_after is not None:
            targets[inputs == mask_after] = IGNORE
        inputs[inputs == IGNORE] = 0  # padding of a stream shorter than a sequence: any id does, nothing follows it
        arrays = {"input_ids": inputs, "targets": targets}
        arrays["streams"] = np.array([numbers[name] for name, _ in picked])
        if document_end is not None:
            arrays["document_ids"] = documents_of(inputs, document_end)
        size = microbatch_sequences or len(rows)
        return [
            {key: torch.from_numpy(array[start : start + size]) for key, array in arrays.items()}
            for start in range(0, len(rows), size)
        ]

    return batch_at


def documents_of(inputs: NDArray[np.int64], document_end: int) -> NDArray[np.int64]:
    """Numbers of the documents of each row, [B, T], counted from 0: the end token belongs to the document it ends.

    >>> documents_of(np.array([[5, 2, 7, 8, 2, 2]]), document_end=2).tolist()
    [[0, 0, 1, 1, 1, 2]]
    """
    ends = inputs == document_end
    ids: NDArray[np.int64] = np.cumsum(ends, axis=1) - ends
    return ids


def _outside(rows: NDArray[np.int64], picked: list[tuple[str, int]], vocab_size: int, train_step: int) -> str:
    """What is wrong with the first row that holds an id outside the vocabulary."""
    row, place = (int(axis[0]) for axis in np.nonzero((rows >= vocab_size) | (rows < IGNORE)))
    stream, index = picked[row]
    return (
        f"training step {train_step} reads token id {rows[row, place]} in stream '{stream}', sequence {index}, but the "
        f"vocabulary has ids 0..{vocab_size - 1}. The packed tokens are damaged or of another tokenizer: delete the "
        "pack step's folder and run the recipe again."
    )


def sequence(tokens: Tokens, name: str, index: int, sequence_length: int) -> NDArray[np.int64]:
    """Tokens index * T .. index * T + T of a stream, T + 1 of them; IGNORE behind the end of a short stream."""
    start = index * sequence_length
    found = np.asarray(tokens[start : start + sequence_length + 1]).astype(np.int64)
    if len(found) < 2 or (len(found) <= sequence_length and index > 0):
        raise InputError(
            f"stream '{name}' ends before sequence {index}. The packed tokens changed since the plan was made."
        )
    return np.pad(found, (0, sequence_length + 1 - len(found)), constant_values=IGNORE)
