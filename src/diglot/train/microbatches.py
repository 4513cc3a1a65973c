"""How the microbatches of a training step are run: one after the other, or as in `train/parallel/pipeline.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from diglot.model.decoder import Decoder
from diglot.train.parallel.ranks import Ranks
from diglot.train.parallel.stages import check_microbatches
from diglot.train.types import Batch, ItemLosses, Objective, Phase


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


def way_to_run(model: Decoder, objective: Objective, ranks: Ranks, phases: Sequence[Phase]) -> Microbatches:
    """How these ranks run microbatches. Raises ConfigError where a phase has too few for the stages of a pipeline."""
    if ranks.grid is None or ranks.grid.shape.pipeline == 1:
        return OneByOne(lambda batch: objective(model, batch))
    # Imports torch's pipelines and the compiler, seconds that no other run need wait for.
    from diglot.train.parallel.pipeline import Pipelined

    for phase in phases:
        where = f"the first training step of phase '{phase.name}'"
        check_microbatches(len(phase.batch_at(0)), ranks.grid.shape.pipeline, where)
    return Pipelined(model, objective, ranks)


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
