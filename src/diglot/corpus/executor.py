"""Runs one function over many shards, in this process or in a pool of local processes.

Processes are given paths, never documents: a measured pool that pickled the documents across was 2-3 times slower than
one whose workers open their own files. Workers are spawned, not forked: the parent may have threads (numba, Arrow,
torch), and a fork copies their locks but not the threads that would release them. Each worker holds one pipe to the
parent, so a worker that dies (segmentation fault, out of memory) is noticed at once, and it is known what it was doing.

A task says by `diglot.corpus.finished` which of its files are complete, so a run that was killed redoes only the shards
that were in work. Results come back in task order, whatever the number of workers.
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
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from diglot.core.errors import DiglotError, explain_os_error
from diglot.core.progress import Progress

T = TypeVar("T")
R = TypeVar("R")

MAX_POISON = 64  # documents of one shard that may crash a worker; beyond it the fault is not in the documents


@dataclass(frozen=True, kw_only=True)
class Quarantine(Generic[T]):
    """How to find the documents that kill a worker, and how to go on without them.

    num_documents, probe: module-level functions; they run in a worker. `probe(task, start, stop)` does the work of
        the documents [start, stop) that the task has not been told to leave out, and writes nothing.
    without: gives the task that leaves these documents out and reports them; runs in the parent.
    """

    num_documents: Callable[[T], int]
    probe: Callable[[T, int, int], object]
    without: Callable[[T, tuple[int, ...]], T]


def map_shards(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    workers: int,
    progress: Progress,
    label: str,
    quarantine: Quarantine[T] | None = None,
) -> list[R]:
    """`[function(task) for task in tasks]`, spread over `workers` processes.

    Args:
        function: module-level, so that a worker can import it; its result is small (counts, file names).
        tasks: frozen dataclasses of paths and settings, one a shard. They are started in this order.
        workers: 1 runs in this process, except that with a `quarantine` a single child is used: in this process, a
            crash would take the run along.
        label: what the progress line and the errors call this work.
        quarantine: without it, a task whose worker dies twice stops the run.
    Raises: the first error of a task, with the worker's traceback as a note; DiglotError for a full disk or a dead
        worker. Finished shards stay finished.
    """
    if workers < 1:
        raise ValueError(f"workers = {workers}, but {label} needs at least one.")
    with progress.bar(label, len(tasks), "shards") as bar:
        if workers == 1 and quarantine is None:
            results: list[R] = []
            for task in tasks:
                with _explained(label):
                    results.append(function(task))
                bar.advance()
            return results
        done: dict[int, R] = {}
        with _pool(min(workers, len(tasks))) as pool:
            for index, outcome in pool.run(function, tasks):
                if isinstance(outcome, Died):
                    outcome = _after_death(pool, function, tasks[index], outcome, quarantine, progress, label)
                with _explained(label):
                    done[index] = outcome.value()
                bar.advance()
    return [done[index] for index in range(len(tasks))]


def isolate(crashes: Callable[[int, int], bool], num_documents: int) -> tuple[int, ...]:
    """The documents that crash on their own, found by bisection: about 2 log2(n) trials for one among n.

    Raises DiglotError when a range crashes although none of its documents does (then it is memory, not a document), and
    when more than MAX_POISON documents crash.
    """
    found: list[int] = []
    ranges = [(0, num_documents, False)] if num_documents else []
    while ranges:
        start, stop, known = ranges.pop()  # known: this range was seen to crash, or must because its sister did not
        if not known and not crashes(start, stop):
            continue
        if stop - start == 1:
            found.append(start)
            if len(found) > MAX_POISON:
                raise DiglotError(
                    f"more than {MAX_POISON} of {num_documents} documents kill a worker; the fault is not in single "
                    "documents. Run with --workers 1 and look at the installation (`diglot doctor`)."
                )
            continue
        middle = (start + stop) // 2
        if crashes(start, middle):
            ranges += [(middle, stop, False), (start, middle, True)]
        # A trial that crashes costs a new process, so the right half is believed to crash when the left one survives;
        # but not a single document, which would be dropped on that belief.
        elif stop - middle > 1 or crashes(middle, stop):
            ranges.append((middle, stop, True))
        else:
            raise DiglotError(
                f"documents {start}..{stop - 1} of a shard kill a worker together but not one by one, so memory ran "
                "out rather than a document being at fault. Use fewer workers (--workers 1) or smaller shards."
            )
    return tuple(sorted(found))


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
class _Worker:
    """One child process and the parent's end of its pipe."""

    process: BaseProcess
    pipe: Connection

    @classmethod
    def start(cls) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        # Ctrl-C reaches the whole process group and the parent decides what to do. The mask is inherited, so a worker is
        # deaf to it from its first moment; the parent gets a pending one when the mask is lifted.
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
class _Pool:
    size: int
    workers: list[_Worker] = field(default_factory=list)

    def run(self, function: Callable[[T], Any], tasks: Sequence[T]) -> Iterator[tuple[int, Outcome]]:
        """(index, outcome) as they come. A dead worker is replaced; its task is left to the caller."""
        self.workers = [_Worker.start() for _ in range(self.size)]
        waiting = iter(enumerate(tasks))
        in_work: dict[Connection, tuple[int, _Worker]] = {}

        def feed(worker: _Worker) -> None:
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

    def replace(self, dead: _Worker) -> _Worker:
        dead.stop()
        fresh = _Worker.start()
        self.workers[self.workers.index(dead)] = fresh
        return fresh


@contextlib.contextmanager
def _pool(size: int) -> Iterator[_Pool]:
    """Workers that are gone when the block ends, also on an error and on Ctrl-C."""
    pool = _Pool(size)
    try:
        yield pool
    finally:
        for worker in pool.workers:
            worker.stop()


@contextlib.contextmanager
def _single() -> Iterator[Callable[..., Outcome]]:
    """`call(function, *arguments) -> outcome` in a child of its own, which is replaced when it dies."""
    with _pool(1) as pool:
        pool.workers = [_Worker.start()]

        def call(function: Callable[..., Any], *arguments: Any) -> Outcome:
            pool.workers[0].send(function, arguments)
            outcome = pool.workers[0].answer()
            if isinstance(outcome, Died):
                pool.replace(pool.workers[0])
            return outcome

        yield call


def _after_death(
    pool: _Pool,
    function: Callable[[T], Any],
    task: T,
    died: Died,
    quarantine: Quarantine[T] | None,
    progress: Progress,
    label: str,
) -> Outcome:
    """Try the task again in a fresh process; if it dies again, without the documents that kill it."""
    with _single() as call:
        again = call(function, task)  # a neighbour may have taken the memory: one death proves nothing
        if not isinstance(again, Died):
            progress.say(f"{label}: a worker {died}; its shard was done again and is complete.")
            return again
        if quarantine is None:
            raise DiglotError(
                f"{label}: a worker {again}, twice, at {task}. Nothing is lost: finished shards are kept. "
                "Use fewer workers if memory is short, or take this file out of the source."
            )
        progress.say(f"{label}: a worker {again}, twice, at the same shard; looking for the document that does it.")

        def crashes(start: int, stop: int) -> bool:
            assert quarantine is not None
            outcome = call(quarantine.probe, task, start, stop)
            if isinstance(outcome, Failed):
                outcome.value()
            return isinstance(outcome, Died)

        poison = isolate(crashes, int(call(quarantine.num_documents, task).value()))
        progress.say(f"{label}: {len(poison)} document(s) that kill a worker were set aside and are reported.")
        return call(function, quarantine.without(task, poison))


@contextlib.contextmanager
def _explained(label: str) -> Iterator[None]:
    """An operating system error becomes a sentence with a next action; every other error passes."""
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, error.filename or "a shard", label) from error


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
