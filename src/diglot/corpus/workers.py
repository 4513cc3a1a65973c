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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from diglot.core.errors import DiglotError

T = TypeVar("T")


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
    """The worker ended without an answer."""

    exit_code: int | None

    def __str__(self) -> str:
        if self.exit_code is None or self.exit_code >= 0:
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


@dataclass
class Pool:
    """`size` workers over the tasks of one call."""

    size: int
    workers: list[Worker] = field(default_factory=list)

    def run(self, function: Callable[[T], Any], tasks: Sequence[T]) -> Iterator[tuple[int, Outcome]]:
        """(index, outcome) as they come. A dead worker is replaced; its task is left to the caller."""
        self.workers = [Worker.start() for _ in range(self.size)]
        waiting = iter(enumerate(tasks))
        in_work: dict[Connection, tuple[int, Worker]] = {}

        def feed(worker: Worker) -> None:
            for index, task in waiting:
                worker.send(function, (task,))
                in_work[worker.pipe] = (index, worker)
                return

        for worker in self.workers:
            feed(worker)
        while in_work:
            for pipe in wait(list(in_work)):
                assert isinstance(pipe, Connection)
                index, worker = in_work.pop(pipe)
                outcome = worker.answer()
                if isinstance(outcome, Died):
                    worker = self.replace(worker)
                feed(worker)
                yield index, outcome

    def replace(self, dead: Worker) -> Worker:
        dead.stop()
        fresh = Worker.start()
        self.workers[self.workers.index(dead)] = fresh
        return fresh


@contextlib.contextmanager
def pool(size: int) -> Iterator[Pool]:
    """Workers that are gone when the block ends, also on an error and on Ctrl-C."""
    started = Pool(size)
    try:
        yield started
    finally:
        for worker in started.workers:
            worker.stop()


@contextlib.contextmanager
def single() -> Iterator[Callable[..., Outcome]]:
    """`call(function, *arguments) -> outcome` in a child of its own, which is replaced when it dies."""
    with pool(1) as only:
        only.workers = [Worker.start()]

        def call(function: Callable[..., Any], *arguments: Any) -> Outcome:
            only.workers[0].send(function, arguments)
            outcome = only.workers[0].answer()
            if isinstance(outcome, Died):
                only.replace(only.workers[0])
            return outcome

        yield call


def _serve(pipe: Connection) -> None:
    """The life of a worker: receive (function, arguments), answer with an outcome, until the pipe ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Orphans stop at once: a parent killed with -9 cannot tell them to, and its successor rewrites their shards.
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # one process a core; read by libraries imported from here on
        os.environ.setdefault(name, "1")
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
            outcome = Failed(_portable(error), traceback.format_exc())
        with contextlib.suppress(BrokenPipeError):
            pipe.send(outcome)


def _portable(error: BaseException) -> BaseException:
    """The error itself where it survives pickling, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
