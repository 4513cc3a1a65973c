"""Worker processes: each holds one pipe to the parent and does what is sent through it, until the pipe ends.

Workers are spawned, not forked: the parent may have threads (numba, Arrow, torch), and a fork copies their locks but
not the threads that would release them. The pipe of a worker that dies ends, so its death is noticed at once, and it is
known what it was doing. Workers are deaf to Ctrl-C and stop when their parent does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from diglot.core.errors import DiglotError


@dataclass(frozen=True)
class Value:
    """A task's result."""

    result: Any

    def value(self) -> Any:
        return self.result


@dataclass(frozen=True)
class Failed:
    """A task raised; `error` arrives without its traceback, which `trace` holds as text."""

    error: BaseException
    trace: str

    def value(self) -> Any:
        if not isinstance(self.error, DiglotError):
            self.error.add_note(f"In a worker process:\n{self.trace}")
        raise self.error


@dataclass(frozen=True)
class Died:
    """The worker ended without an answer; its exit code, where it is known."""

    exit_code: int | None

    def __str__(self) -> str:
        if self.exit_code is None:
            return "died"
        if self.exit_code >= 0:
            return f"left with code {self.exit_code}"
        name = signal.Signals(-self.exit_code).name
        return f"was killed by {name}" + (" (often: out of memory)" if name == "SIGKILL" else "")

    def value(self) -> Any:
        raise DiglotError(f"a worker {self}.")


Outcome = Value | Failed | Died


@dataclass
class Worker:
    """One child process and the parent's end of its pipe."""

    process: BaseProcess
    pipe: Connection

    @classmethod
    def start(cls) -> Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        # Ctrl-C reaches the whole process group, and the parent decides what to do. The mask is inherited, so a worker
        # is deaf to it from its first moment; the parent gets a pending one when the mask is lifted.
        resource_tracker.ensure_running()  # it lifts the mask when it starts, which must not happen inside `start`
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()  # so that the pipe ends when the child does
        return cls(process, ours)

    def send(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died while idle; `answer` reports it
            self.pipe.send((function, arguments))

    def answer(self) -> Outcome:
        """Wait for the outcome of what was sent."""
        try:
            outcome: Outcome = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Died(self.process.exitcode)
        return outcome

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class LocalProcesses:
    """Worker processes of this machine; they stay for the next call until `close`.

    Loading the kernels takes a worker longer than a small shard does, so a step that maps twice starts them once.
    """

    elsewhere = False

    def __init__(self) -> None:
        self._idle: list[Worker] = []
        self._trial: Worker | None = None  # for `call`

    def run(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], workers: int
    ) -> Generator[tuple[int, Outcome], None, None]:
        """(index, outcome) as they come, from `workers` processes. A dead one is replaced; its task is the caller's.

        Workers that are in the middle of a task when the caller leaves the loop are stopped.
        """
        waiting = iter(enumerate(tasks))
        in_work: dict[Connection, tuple[int, Worker]] = {}

        def feed(worker: Worker) -> None:
            for index, task in waiting:
                worker.send(function, (task,))
                in_work[worker.pipe] = (index, worker)
                return
            self._idle.append(worker)

        try:
            for _ in range(min(workers, len(tasks))):
                feed(self._idle.pop() if self._idle else Worker.start())
            while in_work:
                for pipe in wait(list(in_work)):
                    assert isinstance(pipe, Connection)
                    index, worker = in_work.pop(pipe)
                    outcome = worker.answer()
                    if isinstance(outcome, Died):
                        worker.stop()
                        worker = Worker.start()
                    feed(worker)
                    yield index, outcome
        finally:
            for _, worker in in_work.values():
                worker.stop()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Outcome:
        """The outcome of `function(*arguments)` in a process of its own, which may die of it."""
        worker, self._trial = self._trial or Worker.start(), None
        try:
            worker.send(function, arguments)
            outcome = worker.answer()
        except BaseException:  # Ctrl-C: do not leave it working
            worker.stop()
            raise
        if isinstance(outcome, Died):
            worker.stop()
        else:
            self._trial = worker
        return outcome

    def close(self) -> None:
        for worker in [*self._idle, *([self._trial] if self._trial else [])]:
            worker.stop()
        self._idle, self._trial = [], None


def _serve(pipe: Connection) -> None:
    """The life of a worker: receive (function, arguments), answer with an outcome, until the pipe ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Orphans stop at once: a parent killed with -9 cannot tell them to, and its successor rewrites their shards.
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    one_thread()
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        except Exception as error:  # a function that cannot be imported here
            pipe.send(Failed(RuntimeError(f"a worker cannot load its task: {error}"), traceback.format_exc()))
            continue
        outcome: Outcome
        try:
            outcome = Value(function(*arguments))
        except BaseException as error:
            outcome = Failed(portable(error), traceback.format_exc())
        with contextlib.suppress(BrokenPipeError):
            pipe.send(outcome)


def one_thread() -> None:
    """One process a core, so one thread a process: Arrow, OpenMP and numba read this when they are first used."""
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def portable(error: BaseException) -> BaseException:
    """The error itself where it survives pickling, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
