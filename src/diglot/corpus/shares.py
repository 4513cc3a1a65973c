"""A share of a step's shards, for batch schedulers: process `i` of `n` does every n-th shard and leaves.

The processes know nothing of each other; they meet in the step's folder, on a file system that all of them see. Each
marks the shards it has finished, so that the last one knows that it is the last. The marks only count: what is finished
is decided by `corpus.finished`, which compares hashes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from diglot.core.errors import ConfigError

FOLDER = ".shares"  # in the artifact's folder; hidden, and gone when the artifact is complete


@dataclass(frozen=True, kw_only=True)
class Share:
    """Share `index` of `count`: the tasks index, index + count, index + 2 count ...

    folder: where finished tasks are marked; None until a step is chosen.
    """

    index: int
    count: int
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"--shard {self.index}/{self.count} names no share; the {self.count} shares are "
                f"{', '.join(f'{i}/{self.count}' for i in range(min(max(self.count, 0), 3)))} ... counted from 0."
                if self.count > 0
                else f"--shard {self.index}/{self.count}: there must be at least one share, e.g. --shard 0/8."
            )

    @classmethod
    def parse(cls, text: str) -> Share:
        """`2/8` is the third of eight shares. Raises ConfigError."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not match:
            raise ConfigError(f"--shard {text} is not i/n. Write e.g. --shard 0/8 for the first of eight shares.")
        return cls(index=int(match[1]), count=int(match[2]))

    def indices(self, num_tasks: int) -> range:
        return range(self.index, num_tasks, self.count)

    def mark(self, label: str, index: int, num_tasks: int) -> None:
        """Note that a task is finished."""
        path = self._marks(label, num_tasks) / f".{index:06}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def num_finished(self, label: str, num_tasks: int) -> int:
        """How many of a step's tasks are marked, by whatever share."""
        return sum(1 for _ in self._marks(label, num_tasks).glob(".[0-9]*"))

    def _marks(self, label: str, num_tasks: int) -> Path:
        assert self.folder is not None
        return self.folder / FOLDER / f"{label.replace('/', '-')}-of-{num_tasks}"


@dataclass
class ShareDone(Exception):  # noqa: N818  it ends a step early, and nothing is wrong
    """A share of a step is finished: `num_finished` of its `num_tasks` shards are, by all shares together."""

    label: str
    num_finished: int
    num_tasks: int
