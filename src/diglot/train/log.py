"""What a run writes down: train.jsonl, timing.jsonl and TensorBoard files.

train.jsonl      one line per logged training step; on one machine, byte-identical however often the run was killed
timing.jsonl     seconds and speed; differs from run to run
tensorboard/     the same numbers for TensorBoard
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from diglot.core.storage import write_text

TRAIN, TIMING = "train.jsonl", "timing.jsonl"


class TrainLog:
    """Opened at a training step: lines of that step and later are cut off first, as they will be written again."""

    def __init__(self, folder: Path, first_train_step: int, tensorboard: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._streams: dict[str, IO[str]] = {}
        for name in (TRAIN, TIMING):
            kept = [line for line in read_lines(folder / name) if line["train_step"] < first_train_step]
            write_text(folder / name, "".join(_line(line) for line in kept))
            self._streams[name] = (folder / name).open("a", encoding="utf-8")
        self._tensorboard = _tensorboard_writer(folder / "tensorboard", first_train_step) if tensorboard else None

    def train_step(self, values: Mapping[str, Any]) -> None:
        """One line of train.jsonl; has `train_step`, and nothing that depends on the clock."""
        self._write(TRAIN, values)
        if self._tensorboard is not None:
            for key, value in values.items():
                if isinstance(value, float):
                    self._tensorboard.add_scalar(f"train/{key}", value, values["train_step"])

    def timing(self, values: Mapping[str, Any]) -> None:
        self._write(TIMING, values)
        if self._tensorboard is not None:
            self._tensorboard.add_scalar("speed/tokens_per_second", values["tokens_per_second"], values["train_step"])

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        self._streams[name].write(_line(values))
        self._streams[name].flush()

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams.values():
            stream.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


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


def _tensorboard_writer(folder: Path, first_train_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    return SummaryWriter(str(folder), purge_step=first_train_step or None, max_queue=1000, flush_secs=30)
