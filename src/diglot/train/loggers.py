"""Where curves are drawn besides the JSON-lines files: TensorBoard, Weights & Biases, trackio.

A logger is imported only when a run asks for it. None of them sends anything anywhere unless its own environment says
so: W&B runs offline (WANDB_MODE=online changes that, `wandb sync` sends later), trackio keeps a local database
(TRACKIO_SPACE_ID or TRACKIO_SERVER_URL change that). They are given numbers, the run's label and its folder's name, and
neither settings nor environment; W&B's own collection of host, code, git and console is switched off.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from diglot.core.errors import ConfigError, unknown

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}  # logger -> what it is imported from
PROJECT = "diglot"


class Logger(Protocol):
    """Takes curves. `scalars` has names like `train/loss`."""

    def log(self, scalars: Mapping[str, float], train_step: int) -> None: ...

    def close(self) -> None: ...


def check_loggers(names: Iterable[str]) -> None:
    """Raises ConfigError for a name that is no logger."""
    for name in names:
        if name not in PACKAGES:
            raise unknown("logger", name, PACKAGES)


def open_loggers(names: Iterable[str], folder: Path, label: str, first_train_step: int) -> list[Logger]:
    """Loggers for a run that goes on from a training step; they write to `folder` where they write files.

    Raises: ConfigError that names the package when one is not installed.
    """
    names = list(names)
    check_loggers(names)
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise ConfigError(
                f"loggers: {name} needs the package {PACKAGES[name]}, which is not installed. "
                f"pip install {PACKAGES[name]}, or take {name} out of loggers."
            )
    makers: dict[str, Callable[[Path, str, int], Logger]]
    makers = {"tensorboard": _TensorBoard, "wandb": _Wandb, "trackio": _Trackio}
    return [makers[name](folder, label, first_train_step) for name in names]


class _TensorBoard:
    def __init__(self, folder: Path, label: str, first_train_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._writer: Any = SummaryWriter(
            str(folder / "tensorboard"), purge_step=first_train_step or None, max_queue=1000, flush_secs=30
        )

    def log(self, scalars: Mapping[str, float], train_step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, train_step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of its own for every process: W&B refuses steps that go back, and a resumed run repeats some.

    Parts of one training share the group, which is the folder's name, and the axis `train_step`.
    """

    def __init__(self, folder: Path, label: str, first_train_step: int) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=label,
            group=folder.name,
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config={"first_train_step": first_train_step},
            settings=wandb.Settings(
                console="off", disable_git=True, disable_code=True, x_disable_meta=True, x_disable_machine_info=True
            ),
        )
        self._run.define_metric("*", step_metric="train_step")

    def log(self, scalars: Mapping[str, float], train_step: int) -> None:
        self._run.log({**scalars, "train_step": train_step})

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, folder: Path, label: str, first_train_step: int) -> None:
        trackio: Any = importlib.import_module("trackio")
        with contextlib.redirect_stdout(sys.stderr):  # it greets on standard output, which is for results
            self._run = trackio.init(
                project=PROJECT,
                name=f"{label}-{folder.name}-from-{first_train_step}",
                group=folder.name,
                config={"first_train_step": first_train_step},
                embed=False,
            )

    def log(self, scalars: Mapping[str, float], train_step: int) -> None:
        self._run.log(dict(scalars), step=train_step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()
