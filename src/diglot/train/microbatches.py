"""How the microbatches of a training step are run: one after the other, or as in `train/parallel/pipeline.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from diglot.train.types import Batch, ItemLosses


class Microbatches(Protocol):
    """A way to run them.

    copies: names of weights here that another rank holds too and counts.
    """

    copies: frozenset[str]

    def run(self, batches: Sequence[Batch]) -> Iterable[ItemLosses]:
        """What the objective finds in each, in order; afterwards `.grad` of the weights has the sum of all gradients.

        Where a rank does not see losses, they are zero, under the names that the others have.
        """
        ...


class OneByOne:
    """Forward and backward pass of one microbatch, then of the next."""

    copies: frozenset[str] = frozenset()

    def __init__(self, losses_of: Callable[[Batch], ItemLosses]) -> None:
        self.losses_of = losses_of

    def run(self, batches: Sequence[Batch]) -> Iterator[ItemLosses]:
        for batch in batches:
            losses = self.losses_of(batch)
            losses.total.backward()  # type: ignore[no-untyped-call]
            yield losses
