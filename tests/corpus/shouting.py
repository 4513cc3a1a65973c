"""Shard functions for the tests of the executor; apart from them, so that a worker need not import pytest."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diglot.core.errors import InputError
from diglot.core.storage import write_text
from diglot.corpus.finished import once, record_path


@dataclass(frozen=True, kw_only=True)
class Shouting:
    """Upper-cases the lines of one file; some words are deadly."""

    source: Path
    out: Path
    skip: tuple[int, ...] = ()


def shout(task: Shouting) -> dict[str, Any]:
    def work() -> tuple[list[Path], dict[str, Any]]:
        lines = task.source.read_text().splitlines()
        kept = [line for row, line in enumerate(lines) if row not in task.skip]
        write_text(task.out, "".join(shouted(line) + "\n" for line in kept))
        return [task.out], {"lines": len(kept), "quarantined": list(task.skip)}

    result: dict[str, Any] = once(record_path(task.out), repr(task.skip), work)
    return result


def shouted(line: str) -> str:
    if line == "segfault":
        ctypes.string_at(0)
    if line == "exit":
        os._exit(17)
    if line == "full":
        Path("/dev/full").write_text("no room for this")
    if line == "bad":
        raise InputError("line 'bad' is bad; remove it.")
    if line.startswith("once "):  # dies the first time only
        flag = Path(line.removeprefix("once "))
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if line.startswith("sleep"):
        time.sleep(60)
    return line.upper()


def num_lines(task: Shouting) -> int:
    return len(task.source.read_text().splitlines())


def probe(task: Shouting, start: int, stop: int) -> None:
    for row, line in enumerate(task.source.read_text().splitlines()):
        if start <= row < stop and row not in task.skip:
            shouted(line)


def without(task: Shouting, rows: tuple[int, ...]) -> Shouting:
    return dataclasses.replace(task, skip=rows)


def square(number: int) -> int:
    return number * number


def pid(_: int) -> int:
    return os.getpid()


def slow(task: tuple[Path, int]) -> int:
    """A task of a Ray cluster that says at which node it begins, and takes its time."""
    import ray

    folder, number = task
    (folder / f"{ray.get_runtime_context().get_node_id()}-{number}").touch()
    time.sleep(3)
    return number
