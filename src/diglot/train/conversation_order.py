"""Which conversations each training step reads: a pure function of their lengths, the seed and the step.

An epoch is a seeded permutation, so each conversation is read once before any is read twice. Within windows of the
permutation conversations are sorted by length before they are cut into batches, which saves most of the padding; the
batches of an epoch are then shuffled. What does not fill a last batch waits for the next epoch's permutation.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from diglot.core.errors import ConfigError
from diglot.core.seeds import derive_seed

WINDOW_BATCHES = 16


class ConversationOrder:
    """`items(train_step)`: indices of the items of that step's batch, shortest first."""

    def __init__(self, lengths: Sequence[int], items_per_train_step: int, seed: int) -> None:
        if not lengths:
            raise ConfigError("there is nothing to train on: no conversation fits. Raise max_tokens or compose more.")
        self.lengths = np.asarray(lengths)
        self.size = min(items_per_train_step, len(lengths))
        self.seed = seed

    @property
    def train_steps_per_epoch(self) -> int:
        return len(self.lengths) // self.size

    def items(self, train_step: int) -> list[int]:
        epoch, place = divmod(train_step, self.train_steps_per_epoch)
        return self._epoch(epoch)[place]

    @functools.lru_cache(maxsize=2)  # noqa: B019 (an order lives as long as its run)
    def _epoch(self, epoch: int) -> list[list[int]]:
        generator = np.random.Generator(np.random.Philox(key=derive_seed(self.seed, "conversations", epoch)))
        permutation = generator.permutation(len(self.lengths))[: self.train_steps_per_epoch * self.size]
        window = WINDOW_BATCHES * self.size
        batches: list[list[int]] = []
        for start in range(0, len(permutation), window):
            items = permutation[start : start + window]
            items = items[np.lexsort((items, self.lengths[items]))]
            batches += items.reshape(-1, self.size).tolist()
        return [batches[i] for i in generator.permutation(len(batches))]
