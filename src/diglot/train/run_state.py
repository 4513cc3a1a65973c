"""Where a training run stands, read from its logs alone: beside the process that writes them, or long after it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diglot.core.storage import is_url, read_json
from diglot.train.log import EVALUATION, RUN, TIMING, TRAIN

Lines = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The logs of a run up to now. `run` is run.json; empty for a run that wrote none."""

    run: Mapping[str, Any]
    train: Lines
    timing: Lines
    evaluation: Lines
    checkpoint: str | None  # name of the newest
    seconds_since_written: float

    @property
    def num_train_steps(self) -> int | None:
        """Of the whole run; None where run.json does not say."""
        phases = self.run.get("phases")
        return None if phases is None else sum(phase["num_train_steps"] for phase in phases)

    @property
    def train_steps_done(self) -> int:
        """As far as any log tells."""
        return 1 + max((lines[-1]["train_step"] for lines in (self.train, self.timing) if lines), default=-1)

    @property
    def num_tokens(self) -> int:
        return max((lines[-1]["num_tokens"] for lines in (self.train, self.timing) if lines), default=0)

    @property
    def is_done(self) -> bool:
        """All training steps are done; what the recipe step does afterwards may still run."""
        return self.num_train_steps is not None and self.train_steps_done >= self.num_train_steps

    @property
    def seconds_left(self) -> float | None:
        """By the tokens left and the last speed, without evaluation; None before there is a speed."""
        speed = self.timing[-1]["tokens_per_second"] if self.timing else 0.0
        total = self.run.get("num_tokens")
        return max(0.0, total - self.num_tokens) / speed if total and speed else None

    def to_dict(self) -> dict[str, Any]:
        """The newest of everything, for `--json`."""
        return {
            **self.run,
            "train_steps_done": self.train_steps_done,
            "num_train_steps": self.num_train_steps,
            "tokens_done": self.num_tokens,
            "seconds_left": self.seconds_left,
            "is_done": self.is_done,
            "checkpoint": self.checkpoint,
            "seconds_since_written": round(self.seconds_since_written, 1),
            "train": self.train[-1] if self.train else None,
            "timing": self.timing[-1] if self.timing else None,
            "evaluation": self.evaluation[-1] if self.evaluation else None,
        }


class Watcher:
    """Looks at a folder of logs again and again, and reads each time only what is new."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._logs = {name: _Follower(folder / name) for name in (TRAIN, TIMING, EVALUATION)}

    def look(self) -> RunState:
        for log in self._logs.values():
            log.read_on()
        run = self.folder / RUN
        facts = read_json(run) if run.exists() else {}
        written = max((log.path.stat().st_mtime for log in self._logs.values() if log.path.exists()), default=0.0)
        return RunState(
            run=facts,
            train=self._logs[TRAIN].lines,
            timing=self._logs[TIMING].lines,
            evaluation=self._logs[EVALUATION].lines,
            checkpoint=newest_checkpoint(_checkpoints(self.folder, facts)),
            seconds_since_written=max(0.0, time.time() - written),
        )


def newest_checkpoint(folder: Path | None) -> str | None:
    """By the time its manifest was written, which is when it became one. Not opened: torch would have to be loaded."""
    manifests = (
        [] if folder is None else [(_modified(path), path.parent.name) for path in folder.glob("*/manifest.json")]
    )
    return max(manifests, default=(0.0, None))[1]


def _checkpoints(folder: Path, run: Mapping[str, Any]) -> Path | None:
    """The folder of a run's checkpoints; None where it is behind an address, which is not asked again and again."""
    place = run.get("checkpoint_dir")
    if place is None:
        return folder / "checkpoints"
    return None if is_url(place) else Path(place)


class _Follower:
    """The lines of one log. A run that is resumed writes the file anew, so another file is read from its start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: Lines = []
        self._file: tuple[int, int] | None = None
        self._offset = 0

    def read_on(self) -> None:
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            facts = os.fstat(stream.fileno())
            if (facts.st_dev, facts.st_ino) != self._file or facts.st_size < self._offset:
                self._file, self._offset, self.lines = (facts.st_dev, facts.st_ino), 0, []
            stream.seek(self._offset)
            fresh = stream.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]  # the last line may still be on its way
        if not whole:
            return
        self._offset += len(whole)
        self.lines = [*self.lines, *(json.loads(line) for line in whole.splitlines())]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # deleted as an old rolling checkpoint, just now
        return 0.0
