"""A recipe on several ranks, as a program for torchrun: a step of rank 0 alone, one that all join, and another alone.

torchrun --nproc-per-node N recipe_on_ranks.py FOLDER [FAIL]

FAIL: alone or joined, where rank 0 fails. FOLDER/saw.<rank> lists the steps that a rank ran.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diglot.core.errors import DiglotError
from diglot.core.launch import launch_from
from diglot.core.progress import Progress
from diglot.core.storage import write_text
from diglot.recipe.run import Places, run_recipe
from diglot.recipe.schema import load_recipe
from diglot.steps import kinds
from diglot.steps.context import StepContext, StepKind, input_step
from diglot.train.parallel.ranks import joined

RECIPE = """
recipe: sums
seed: 1
steps:
  first: {kind: write}
  sum: {kind: add, from: first}
  last: {kind: write, from: sum}
"""
FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
FAIL = sys.argv[2] if len(sys.argv) > 2 else ""


@dataclass(frozen=True, kw_only=True)
class Config:
    from_: str | None = input_step("write", "add", optional=True)


def note(context: StepContext) -> None:
    with (FOLDER / f"saw.{os.environ['RANK']}").open("a") as stream:
        stream.write(f"{context.step} {context.progress.quiet}\n")


def write(config: Config, context: StepContext) -> dict[str, Any]:
    note(context)
    assert context.ranks is None
    time.sleep(1)
    if FAIL == "alone":
        raise DiglotError("the ink is dry.")
    write_text(context.out / "text.txt", "written")
    return {}


def add(config: Config, context: StepContext) -> dict[str, Any]:
    note(context)
    assert context.ranks is not None
    if FAIL == "joined" and context.ranks.is_main:
        raise DiglotError("the sum is odd.")
    (total,) = context.ranks.sums([float(os.environ["RANK"]) + 1])
    if context.ranks.is_main:
        write_text(context.out / "text.txt", str(total))
    return {"total": total}


WRITE = StepKind(kind="write", version=1, config=Config, run=write)
ADD = StepKind(kind="add", version=1, config=Config, run=add, joins_ranks=True)


if __name__ == "__main__":
    kinds.KINDS = {"write": "__main__:WRITE", "add": "__main__:ADD"}  # type: ignore[misc]
    recipe = FOLDER / "sums.yaml"
    recipe.write_text(RECIPE)
    launch = launch_from(os.environ)
    assert launch is not None
    places = Places(store=FOLDER / "store", runs=FOLDER / "runs")
    with joined(launch) as ranks:
        found = run_recipe(
            load_recipe(recipe), places, workers=1, progress=Progress(quiet=not launch.is_main), ranks=ranks
        )
    assert list(found) == ["first", "sum", "last"]
