"""What a recipe step is, and what it is given when it runs.

A step kind is one file in this folder: a frozen config, a plain function `(config, context) -> counts`, and the
constant `STEP` that ties them. Heavy libraries are imported inside the function, so that a recipe is validated without
them.

    @dataclass(frozen=True, kw_only=True)
    class SelectConfig:
        from_: str = input_step("annotate")        # written `from:` in a recipe; names another step of the recipe
        policies: Mapping[str, str] = ...          # result-bearing: part of the fingerprint
        workers: int | None = runtime(None)        # not result-bearing: may change without a rebuild

    def select(config: SelectConfig, context: StepContext) -> dict[str, Any]: ...

    STEP = StepKind(kind="select", version=1, config=SelectConfig, run=select)

`version` is raised when the same settings and inputs would now give other bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.progress import Progress
from diglot.ledger.artifact import Artifact

if TYPE_CHECKING:
    from diglot.train.parallel.ranks import Ranks


def input_step(*kinds: str, optional: bool = False) -> Any:
    """A config field that names another step, which must be of one of `kinds`."""
    metadata = {"input": kinds}
    return field(default=None, metadata=metadata) if optional else field(metadata=metadata)


def runtime(default: Any = dataclasses.MISSING, *, default_factory: Any = dataclasses.MISSING) -> Any:
    """A config field that changes how a step runs and not what it yields; left out of the fingerprint."""
    return field(default=default, default_factory=default_factory, metadata={"result": False})


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What the runner hands to a step.

    out: the folder to fill. It may hold finished shards or checkpoints of an interrupted run: skip those. Use
        `core.storage.atomic_path` for every file. The runner writes the manifest after the step returns.
    inputs: by config field name without trailing underscore (`from`, `tokenizer`); an optional input that is not set is
        absent.
    seed: the recipe's seed; use `derive_seed(context.seed, purpose, ...)`.
    workers: how many processes may be used; the result must not depend on it.
    recipe_dir: the folder of the recipe file, for relative paths.
    ranks: the processes of a run with several; None in a run of one. Only a kind that `joins_ranks` sees them.
    """

    step: str
    out: Path
    inputs: Mapping[str, Artifact]
    seed: int
    workers: int
    progress: Progress
    recipe_dir: Path
    ranks: Ranks | None = None

    def input(self, name: str = "from") -> Artifact:
        return self.inputs[name]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A step as a run would build it. inputs: by slot; they need not be complete."""

    config: Any
    inputs: Mapping[str, Artifact]
    seed: int


@dataclass(frozen=True, kw_only=True)
class StepKind:
    """One kind of step.

    draws_random_numbers: the seed is part of its fingerprint.
    shards_divide: the tasks of its first recorded `map_shards` keep their results by `corpus.finished.once`, so that
        `--shard i/n` may divide them among processes that know nothing of each other. What the step does before that
        must bear being done side by side; what it does after, the process does that completes the step.
    joins_ranks: where a run has several ranks, all of them call `run` together, and rank 0 alone fills `out`; any other
        kind is done by rank 0 while the others wait.
    observe: for kinds that read the outside world: `(config, recipe_dir, store) -> JSON value` that changes when what
        they would read changes; part of the fingerprint.
    describe: `(now, last run or None) -> lines` that `diglot plan` prints below the step; cheap, loads no torch.
    """

    kind: str
    version: int
    config: type
    run: Callable[[Any, StepContext], dict[str, Any]]
    draws_random_numbers: bool = False
    shards_divide: bool = False
    joins_ranks: bool = False
    observe: Callable[[Any, Path, Path], dict[str, Any]] | None = None
    describe: Callable[[Planned, Planned | None], list[str]] | None = None

    def input_fields(self) -> dict[str, tuple[str, ...]]:
        """Config field name -> step kinds it accepts."""
        return {f.name: f.metadata["input"] for f in dataclasses.fields(self.config) if "input" in f.metadata}

    def result_fields(self) -> list[str]:
        """Names of the settings that are part of the fingerprint."""
        return [
            f.name
            for f in dataclasses.fields(self.config)
            if "input" not in f.metadata and f.metadata.get("result", True)
        ]
