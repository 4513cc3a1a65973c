"""Runs one function over many shards, in this process or in a pool of local processes.

Processes are given paths, never documents: a measured pool that pickled the documents across was 2-3 times slower than
one whose workers open their own files. A worker that dies (segmentation fault, out of memory) loses nothing: its shard
is tried again, and if it dies again, the document that does it is found by bisection and set aside.

A task says by `diglot.corpus.finished` which of its files are complete, so a run that was killed redoes only the shards
that were in work. Results come back in task order, whatever the number of workers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from diglot.core.errors import DiglotError, explain_os_error
from diglot.core.progress import Progress
from diglot.corpus.workers import Died, Failed, Outcome, pool, single

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
        with pool(min(workers, len(tasks))) as running:
            for index, outcome in running.run(function, tasks):
                if isinstance(outcome, Died):
                    outcome = _after_death(function, tasks[index], outcome, quarantine, progress, label)
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


def _after_death(
    function: Callable[[T], Any],
    task: T,
    died: Died,
    quarantine: Quarantine[T] | None,
    progress: Progress,
    label: str,
) -> Outcome:
    """Try the task again in a fresh process; if it dies again, without the documents that kill it."""
    with single() as call:
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
