"""Modules with the part of the API of W&B and trackio that `train/loggers.py` calls; they note what they are given."""

from __future__ import annotations

from types import ModuleType
from typing import Any


class Run:
    def __init__(self, **settings: Any) -> None:
        self.settings, self.logged, self.is_finished = settings, list[tuple[dict[str, float], int | None]](), False
        self.axes: list[tuple[str, str]] = []

    def define_metric(self, name: str, step_metric: str) -> None:
        self.axes.append((name, step_metric))

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.is_finished = True


def stand_in(name: str) -> ModuleType:
    """`wandb` or `trackio`, with the runs that were started in `runs`."""
    module = ModuleType(name)
    module.runs = []  # type: ignore[attr-defined]

    def init(*, project: str, name: str, group: str, config: dict[str, Any], **more: Any) -> Run:
        allowed = {"wandb": {"dir", "mode", "settings"}, "trackio": {"embed"}}[module.__name__]
        assert set(more) == allowed
        print("hello from a logger")
        run = Run(project=project, name=name, group=group, config=config, **more)
        module.runs.append(run)
        return run

    module.init = init  # type: ignore[attr-defined]
    module.Settings = dict  # type: ignore[attr-defined]
    return module
