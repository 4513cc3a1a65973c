"""The mean loss of each stream since the last line of the log, out of the forward passes that training does anyway.

A stream is `<source>.<language>`; languages are sums over their streams. What was added since the last line is part of
a checkpoint, so that a resumed run logs the same means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diglot.corpus.pack import language_of
from diglot.train.types import Batch, ItemLosses

STATE = ("stream_losses", "stream_items")  # names of the tensors in a checkpoint


class StreamLosses:
    """Sums over the rows of microbatches, by the batch's `streams`. Batches or objectives without rows add nothing."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._losses = torch.zeros(len(self.names), dtype=torch.float64)  # nats
        self._items = torch.zeros(len(self.names), dtype=torch.int64)
        self._step = torch.zeros(2, len(self.names), dtype=torch.float64)  # losses and items of this training step

    def add(self, batch: Batch, found: ItemLosses) -> None:
        if not self.names or found.rows is None or "streams" not in batch:
            return
        device = found.rows.losses.device  # where they stay: reading them now would wait for the GPU
        self._step = self._step.to(device)
        streams_B = batch["streams"].to(device)
        self._step[0].index_add_(0, streams_B, found.rows.losses.double())
        self._step[1].index_add_(0, streams_B, found.rows.counts.double())

    def of_step(self) -> list[float]:
        """What was added since the last `close_step`; to be summed over the ranks."""
        return self._step.flatten().tolist()

    def close_step(self, summed: Sequence[float]) -> None:
        """Take over `of_step`, summed over the ranks."""
        losses, items = torch.tensor(summed, dtype=torch.float64).view_as(self._step)
        self._losses += losses
        self._items += items.long()
        self._step.zero_()

    def take(self) -> dict[str, Any]:
        """Means in nats a token and tokens of each stream that was read, and means of each language; starts afresh.

        Empty where nothing was added.
        """
        losses, items = self._losses.tolist(), self._items.tolist()
        self._losses.zero_()
        self._items.zero_()
        by_stream = {name: (loss, num) for name, loss, num in zip(self.names, losses, items, strict=True) if num}
        if not by_stream:
            return {}
        by_language: dict[str, tuple[float, int]] = {}
        for name, (loss, num) in by_stream.items():
            before = by_language.get(language_of(name), (0.0, 0))
            by_language[language_of(name)] = (before[0] + loss, before[1] + num)
        return {
            "stream_losses": {name: loss / num for name, (loss, num) in by_stream.items()},
            "stream_items": {name: num for name, (_, num) in by_stream.items()},
            "language_losses": {name: loss / num for name, (loss, num) in sorted(by_language.items())},
        }

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint; empty where no stream has a name."""
        return dict(zip(STATE, (self._losses.clone(), self._items.clone()), strict=True)) if self.names else {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint; one that was written without streams leaves the sums at zero."""
        if self.names and all(name in tensors for name in STATE):
            self._losses.copy_(tensors[STATE[0]])
            self._items.copy_(tensors[STATE[1]])
