"""What a run writes down: files with a line of JSON for each moment, and the same numbers for loggers with curves.

train.jsonl      one line per logged training step; on one machine, byte-identical however often the run was killed.
                 `loss` is of that training step, `stream_losses` of all since the line before
timing.jsonl     seconds, speed, MFU and memory; differs from run to run
eval.jsonl       what was measured on the model beside training; as reproducible as train.jsonl
run.json         what the run is: phases, precision, threads, the peak of the machine
tensorboard/, wandb/  where `train/loggers.py` writes, if asked
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from diglot.core.storage import write_text
from diglot.train.loggers import open_loggers

TRAIN, TIMING, EVALUATION, RUN = "train.jsonl", "timing.jsonl", "eval.jsonl", "run.json"
NOT_CURVES = ("train_step", "num_tokens", "num_items", "stream_items")


class TrainLog:
    """Opened at a training step: lines of that step and later are cut off first, as they will be written again."""

    def __init__(self, folder: Path, first_train_step: int, loggers: Iterable[str] = (), label: str = "train") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._streams: dict[str, IO[str]] = {}
        self._folder = folder
        self._loggers = open_loggers(loggers, folder, label, first_train_step)
        for name in (TRAIN, TIMING, EVALUATION):
            kept = [line for line in read_lines(folder / name) if line["train_step"] < first_train_step]
            if kept or name != EVALUATION or (folder / name).exists():
                write_text(folder / name, "".join(_line(line) for line in kept))

    def train_step(self, values: Mapping[str, Any]) -> None:
        """One line of train.jsonl; has `train_step`, and nothing that depends on the clock."""
        self._write(TRAIN, values)
        self._log("train", values)

    def timing(self, values: Mapping[str, Any]) -> None:
        self._write(TIMING, values)
        self._log("speed", values)

    def evaluation(self, values: Mapping[str, Any]) -> None:
        self._write(EVALUATION, values)
        self._log("evaluation", values)

    def _log(self, prefix: str, values: Mapping[str, Any]) -> None:
        for logger in self._loggers:
            logger.log(scalars(prefix, values), values["train_step"])

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        if name not in self._streams:
            self._streams[name] = (self._folder / name).open("a", encoding="utf-8")
        self._streams[name].write(_line(values))
        self._streams[name].flush()

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams.values():
            stream.close()
        for logger in self._loggers:
            logger.close()


def scalars(prefix: str, values: Mapping[str, Any]) -> dict[str, float]:
    """A line as curves: `train/loss`, `train/stream_losses/debian.en`. Counts of the run so far are an axis, no curve.

    >>> scalars("train", {"train_step": 3, "phase": "decay", "loss": 2.5, "language_losses": {"en": 2.0}})
    {'train/loss': 2.5, 'train/language_losses/en': 2.0}
    """
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and key not in NOT_CURVES:
            found |= scalars(f"{prefix}/{key}", value)
        elif isinstance(value, int | float) and key not in NOT_CURVES:
            found[f"{prefix}/{key}"] = float(value)
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a log; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
