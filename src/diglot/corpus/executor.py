"""Runs one function over many shards: in this process, in local processes, or wherever the back end of the run works.

Processes are given paths, never documents: a measured pool that pickled the documents across was 2-3 times slower than
one whose workers open their own files. A worker that dies (segmentation fault, out of memory) loses nothing: its shard
is tried again, and if it dies again, the document that does it is found by bisection and set aside.

A task says by `diglot.corpus.finished` which of its files are complete, so a run that was killed redoes only the shards
that were in work. Results come back in task order, whatever the back end and the number of workers.

A step does not know where its shards are done. The runner says so around it:

    with running_on(backend): ...      # for example corpus.ray_tasks.RayTasks
    with doing_share(share): ...       # only every n-th shard, see corpus.shares
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from diglot.core.errors import DiglotError, explain_os_error
from diglot.core.progress import Progress
from diglot.corpus.shares import Share, ShareDone
from diglot.corpus.workers import Died, Failed, LocalProcesses, Outcome, Value

T = TypeVar("T")
R = TypeVar("R")

MAX_POISON = 64  # documents of one shard that may crash a worker; beyond it the fault is not in the documents


@dataclass(frozen=True, kw_only=True)
class Quarantine(Generic[T]):
    """How to find the documents that kill a worker, and how to go on without them.

    num_documents, probe: module-level functions; they run in a worker. `probe(task, start, stop)` does the work of
        the documents [start, stop) that the task has not been told to leave out, and writes nothing.
    without: gives the task that leaves these documents out and reports them; runs in the parent.
    cut_off: for tasks that read what others wrote: gives the task without the place where `num_documents` died, or
        None when it does not know it; runs in the parent.
    """

    num_documents: Callable[[T], int]
    probe: Callable[[T, int, int], object]
    without: Callable[[T, tuple[int, ...]], T]
    cut_off: Callable[[T], T | None] | None = None


class Backend(Protocol):
    """A place where tasks are done.

    elsewhere: True where even a single worker is not this process.
    """

    elsewhere: bool

    def run(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], workers: int
    ) -> Generator[tuple[int, Outcome], None, None]:
        """(index, outcome) of every task as they come. A task whose worker died is the caller's to try again.

        workers: how many may work at a time; a cluster uses what it has.
        """

    def call(self, function: Callable[..., Any], *arguments: Any) -> Outcome:
        """The outcome of `function(*arguments)` in a process that may die of it."""

    def close(self) -> None:
        """End what was started."""


_BACKEND: ContextVar[Backend | None] = ContextVar("backend", default=None)
_SHARE: ContextVar[Share | None] = ContextVar("share", default=None)


@contextlib.contextmanager
def running_on(backend: Backend) -> Iterator[None]:
    """Every `map_shards` inside works there. The caller closes the back end."""
    token = _BACKEND.set(backend)
    try:
        yield
    finally:
        _BACKEND.reset(token)


@contextlib.contextmanager
def doing_share(share: Share) -> Iterator[None]:
    """The first recorded `map_shards` inside does only this share of its tasks and ends with ShareDone."""
    token = _SHARE.set(share)
    try:
        yield
    finally:
        _SHARE.reset(token)


def map_shards(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    workers: int,
    progress: Progress,
    label: str,
    quarantine: Quarantine[T] | None = None,
    num_bytes: Callable[[T], int] | None = None,
    recorded: bool = True,
) -> list[R]:
    """`[function(task) for task in tasks]`, spread over `workers` processes or the back end of the run.

    Args:
        function: module-level, so that a worker can import it; its result is small (counts, file names).
        tasks: frozen dataclasses of paths and settings, one a shard. They are started in this order, or the largest
            first where `num_bytes` tells, so that no worker is left with a large one at the end.
        workers: 1 runs in this process, except that with a `quarantine` a single child is used: in this process, a
            crash would take the run along.
        label: what the progress line and the errors call this work.
        quarantine: without it, a task whose worker dies twice stops the run.
        num_bytes: what a task reads, in bytes; for the order, the speed and the time left. Runs in this process.
        recorded: False for work that leaves no finished files, so that a share of it is of no use to others.
    Raises: the first error of a task, with the worker's traceback as a note; DiglotError for a full disk or a dead
        worker. Finished shards stay finished. ShareDone inside `doing_share`.
    """
    if workers < 1:
        raise ValueError(f"workers = {workers}, but {label} needs at least one.")
    share = _SHARE.get() if recorded else None
    mine = share.indices(len(tasks)) if share else range(len(tasks))
    sizes = {index: num_bytes(tasks[index]) for index in mine} if num_bytes else {}
    order = sorted(mine, key=lambda index: -sizes.get(index, 0))  # stable: without sizes as they were given
    done: dict[int, R] = {}
    with (
        progress.bar(label, len(mine), "shards", total_bytes=sum(sizes.values())) as bar,
        contextlib.closing(_outcomes(function, tasks, order, workers, quarantine, progress, label)) as outcomes,
        _explained(label),
    ):
        for index, outcome in outcomes:
            done[index] = outcome.value()
            if share:
                share.mark(label, index, len(tasks))
            bar.advance(num_bytes=sizes.get(index, 0))
    if share:
        raise ShareDone(label=label, num_finished=share.num_finished(label, len(tasks)), num_tasks=len(tasks))
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


def _outcomes(
    function: Callable[[T], Any],
    tasks: Sequence[T],
    order: Sequence[int],
    workers: int,
    quarantine: Quarantine[T] | None,
    progress: Progress,
    label: str,
) -> Generator[tuple[int, Outcome], None, None]:
    """(index, outcome) of the tasks in `order`, as they come; what died was tried again."""
    given = _BACKEND.get()
    backend = given or LocalProcesses()
    if workers == 1 and quarantine is None and not backend.elsewhere:
        for index in order:
            yield index, Value(function(tasks[index]))
        return
    try:
        with contextlib.closing(backend.run(function, [tasks[index] for index in order], workers)) as running:
            for place, outcome in running:
                index = order[place]
                if isinstance(outcome, Died):
                    outcome = _after_death(backend, function, tasks[index], outcome, quarantine, progress, label)
                yield index, outcome
    finally:
        if given is None:
            backend.close()


def _after_death(
    backend: Backend,
    function: Callable[[T], Any],
    task: T,
    died: Died,
    quarantine: Quarantine[T] | None,
    progress: Progress,
    label: str,
) -> Outcome:
    """Try the task again in a fresh process; if it dies again, without the documents that kill it."""
    again = backend.call(function, task)  # a neighbour may have taken the memory: one death proves nothing
    if not isinstance(again, Died):
        progress.say(f"{label}: a worker {died}; its shard was done again and is complete.")
        return again
    if quarantine is None:
        raise DiglotError(
            f"{label}: a worker {again}, twice, at {task}. Nothing is lost: finished shards are kept. "
            "Use fewer workers if memory is short, or take this file out of the source."
        )
    progress.say(f"{label}: a worker {again}, twice, at the same shard; looking for the document that does it.")

    counted = backend.call(quarantine.num_documents, task)
    while isinstance(counted, Died) and quarantine.cut_off and (shorter := quarantine.cut_off(task)) is not None:
        progress.say(f"{label}: reading an input kills a worker; it is read up to there, and the rest is reported.")
        task = shorter
        counted = backend.call(quarantine.num_documents, task)
    num_documents = int(counted.value())

    def crashes(start: int, stop: int) -> bool:
        assert quarantine is not None
        outcome = backend.call(quarantine.probe, task, start, stop)
        if isinstance(outcome, Failed):
            outcome.value()
        return isinstance(outcome, Died)

    poison = isolate(crashes, num_documents)
    progress.say(f"{label}: {len(poison)} document(s) that kill a worker were set aside and are reported.")
    return backend.call(function, quarantine.without(task, poison))


@contextlib.contextmanager
def _explained(label: str) -> Iterator[None]:
    """An operating system error becomes a sentence with a next action; every other error passes."""
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, error.filename or "a shard", label) from error
