"""What the ranks of a run do besides rank 0: they join the steps that all ranks train, and wait for the others.

Rank 0 announces of each step either that it joins or that it is done. A step's artifact lies in the store, which all
ranks share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from diglot.core.errors import DiglotError
from diglot.ledger.artifact import Artifact
from diglot.recipe.plan import PlannedStep

if TYPE_CHECKING:
    from diglot.train.parallel.ranks import Ranks

HOURS_TO_WAIT = 48.0  # for one step that rank 0 does alone
SECONDS_TO_APPEAR = 60.0  # a network file system shows a new file late


def announce_join(ranks: Ranks | None, planned: PlannedStep) -> None:
    """Rank 0, before a step that all ranks run."""
    if ranks is not None and planned.step.kind.joins_ranks:
        ranks.announce(_joins(planned), "")


def announce_done(ranks: Ranks | None, planned: PlannedStep) -> None:
    """Rank 0, when a step's artifact is complete."""
    if ranks is not None:
        ranks.announce(_done(planned), "")


def follow(
    plan: Sequence[PlannedStep], ranks: Ranks, until: str | None, run: Callable[[PlannedStep], object]
) -> dict[str, Artifact]:
    """Bring a rank other than 0 through a recipe. `run` does its part of a step; returns the artifacts by step name."""
    artifacts = {}
    for planned in plan:
        name = planned.step.name
        doing = f"building step '{name}'"
        if ranks.wait_for((_joins(planned), _done(planned)), doing, HOURS_TO_WAIT) == _joins(planned):
            run(planned)
            ranks.wait_for((_done(planned),), doing, HOURS_TO_WAIT)
        _must_appear(planned.artifact)
        artifacts[name] = planned.artifact
        if name == until:
            break
    return artifacts


def _joins(planned: PlannedStep) -> str:
    return f"{planned.step.name} joins"


def _done(planned: PlannedStep) -> str:
    return f"{planned.step.name} is done"


def _must_appear(artifact: Artifact) -> None:
    limit = time.monotonic() + SECONDS_TO_APPEAR
    while not artifact.is_complete:
        if time.monotonic() > limit:
            raise DiglotError(
                f"rank 0 has built {artifact.path}, but this rank does not see it. Put --store on a file system that "
                "all machines share, and give every rank the same recipe and sources."
            )
        time.sleep(0.2)
