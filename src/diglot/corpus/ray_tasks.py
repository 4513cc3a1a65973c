"""The back end that does shards as tasks of a running Ray cluster.

Plain Ray tasks and not Ray Data, whose copy of a corpus was measured ten times slower: a task is a path and settings,
its result a few counts, and the node that runs it opens the files itself. So every node must see the store and the
sources at the same paths; that is tried out on every node before the first task.

Ray never repeats a task by itself here. A task lost with its node is sent to another node; one whose worker died is
reported, as from a local worker, to the executor, which looks for the document that did it.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import secrets
import socket
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from diglot.core.errors import ConfigError, DiglotError
from diglot.core.progress import Progress
from diglot.corpus.workers import Died, Failed, Outcome, Value, one_thread, portable

MAX_LOST_NODES = 5  # a task that lost so many nodes is more likely to be what kills them
TASKS_PER_CPU = 4  # submitted ahead, so that no node waits for the driver and a growing cluster finds work
CONNECT_TIMEOUT_S = 60.0
SECONDS_WITHOUT_CPU = 60.0  # in which a cluster that lost its last node may get another
ADDRESS = re.compile(r"auto|(ray://)?[^/:\s]+:\d+")
MUST_AGREE = ("diglot", "numpy", "pyarrow", "numba", "fastwarc", "resiliparse", "tokenizers", "sentencepiece")


class RayTasks:
    """A connection to a Ray cluster, checked; `close` leaves the cluster running.

    Args:
        address: `ray://HOST:PORT` (through Ray's client server), `HOST:PORT` (a node of the cluster), or `auto`.
        store: a folder that every node must see; a probe is written there and removed.
    Raises: ConfigError for a bad address or without Ray; DiglotError when no cluster answers, or a node has other
        versions or does not see the store.
    """

    elsewhere = True

    def __init__(self, address: str, store: Path, progress: Progress) -> None:
        self._ray, self._progress = _connect(address), progress
        try:
            nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
            if not nodes:
                raise DiglotError(f"the Ray cluster at {address} has no node with a CPU. Add one with `ray start`.")
            self._try_out(nodes, store.resolve())
            cpus = sum(int(node["Resources"]["CPU"]) for node in nodes)
            progress.say(f"Ray at {address}: {len(nodes)} nodes with {cpus} CPUs, which all see {store.resolve()}")
            self._task = self._ray.remote(num_cpus=1, max_retries=0)(_perform)
        except BaseException:
            self.close()
            raise

    def run(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], workers: int
    ) -> Generator[tuple[int, Outcome], None, None]:
        """(index, outcome) as they come. All CPUs of the cluster work, whatever `workers` says."""
        waiting = iter(range(len(tasks)))
        in_work: dict[Any, tuple[int, int]] = {}  # reference -> (index, nodes lost)

        def submit(index: int, lost: int = 0) -> None:
            in_work[self._task.remote(function, (tasks[index],))] = (index, lost)

        try:
            for index in waiting:
                submit(index)
                if len(in_work) >= self._num_ahead():
                    break
            while in_work:
                ready, _ = self._ray.wait(list(in_work), num_returns=1, timeout=SECONDS_WITHOUT_CPU)
                if not ready:
                    self._require_cpu()
                    continue
                index, lost = in_work.pop(ready[0])
                outcome = self._outcome(ready[0])
                if outcome is None and lost + 1 < MAX_LOST_NODES:
                    self._progress.say("Ray: a node was lost; a shard that it had is done on another one.")
                    submit(index, lost + 1)
                    continue
                while len(in_work) < self._num_ahead() and (following := next(waiting, None)) is not None:
                    submit(following)
                yield index, Died(None) if outcome is None else outcome
        finally:
            for reference in in_work:  # the caller left: on an error, or on Ctrl-C
                self._ray.cancel(reference, force=True)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Outcome:
        for _ in range(MAX_LOST_NODES):
            reference = self._task.remote(function, arguments)
            while not self._ray.wait([reference], timeout=SECONDS_WITHOUT_CPU)[0]:
                self._require_cpu()
            outcome = self._outcome(reference)
            if outcome is not None:
                return outcome
        return Died(None)

    def close(self) -> None:
        self._ray.shutdown()

    def _require_cpu(self) -> None:
        """After a time in which no task ended: they may be long, or nobody is left to do them."""
        if self._ray.cluster_resources().get("CPU", 0) < 1:
            raise DiglotError(
                "the Ray cluster has no node with a CPU left. Finished shards are kept: start nodes with `ray start`, "
                "or leave out --cluster, and run again."
            )

    def _num_ahead(self) -> int:
        return max(TASKS_PER_CPU * int(self._ray.cluster_resources().get("CPU", 1)), 1)

    def _outcome(self, reference: Any) -> Outcome | None:
        """Of a finished task; None when it was lost with its node."""
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(reference)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError):
            return Died(None)
        except (errors.NodeDiedError, errors.LocalRayletDiedError, errors.ObjectLostError):
            return None
        except errors.RayTaskError as error:  # what `_perform` cannot catch: a function that the node cannot load
            return Failed(DiglotError(f"a Ray worker cannot load its task: {error.cause}"), str(error))
        except errors.RaySystemError as error:
            raise DiglotError(f"the Ray cluster failed ({error}). Finished shards are kept; run again.") from error
        return outcome

    def _try_out(self, nodes: list[dict[str, Any]], store: Path) -> None:
        """Let every node read a file that this process wrote and answer in another, which this process reads."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        store.mkdir(parents=True, exist_ok=True)
        probe, word = store / f".probe-{secrets.token_hex(4)}", secrets.token_hex(8)
        task = self._ray.remote(num_cpus=0, max_retries=0)(_answer_probe)  # also where all CPUs are taken
        answers: list[Path] = []
        try:
            probe.write_text(word)
            sent = []
            for node in nodes:
                answers.append(probe.with_name(f"{probe.name}-{node['NodeID'][:12]}"))
                place = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
                sent.append(task.options(scheduling_strategy=place).remote(probe, answers[-1]))
            here = versions()
            for node, answer, reference in zip(nodes, answers, sent, strict=True):
                name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
                try:
                    there, read = self._ray.get(reference, timeout=CONNECT_TIMEOUT_S)
                except self._ray.exceptions.GetTimeoutError:
                    raise DiglotError(
                        f"node {name} did not answer within {CONNECT_TIMEOUT_S:.0f} s: it is overloaded or "
                        "gone. Look at `ray status`."
                    ) from None
                except self._ray.exceptions.RayError as error:
                    raise DiglotError(
                        f"node {name} cannot run Diglot ({_last_line(error)}). Install the same diglot there."
                    ) from error
                if different := {k: (v, there.get(k)) for k, v in here.items() if there.get(k) != v}:
                    said = ", ".join(f"{k} {v[1] or 'missing'} instead of {v[0]}" for k, v in different.items())
                    raise DiglotError(
                        f"node {name} has {said}. Other versions may write other bytes: install the same ones."
                    )
                if read != word or not answer.exists():
                    raise DiglotError(
                        f"node {name} does not see {store}. Ray tasks are given paths: put --store (and the sources) "
                        "on a file system that every node mounts at the same place."
                    )
        finally:
            for path in (probe, *answers):
                path.unlink(missing_ok=True)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what decides about bytes, as installed here."""
    from importlib.metadata import PackageNotFoundError, version

    from diglot import __version__

    found = {"diglot": __version__}
    for name in MUST_AGREE[1:]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _connect(address: str) -> Any:
    """The ray module, connected."""
    if not ADDRESS.fullmatch(address):
        raise ConfigError(
            f"--cluster {address} is no address. Write ray://HOST:10001, HOST:6379, auto for the cluster of this "
            "machine, or local for no cluster."
        )
    if address != "auto":  # Ray itself tries for minutes
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise _no_cluster(address, error) from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ConfigError("--cluster needs Ray: pip install 'diglot[ray]'.") from None
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, namespace="diglot")
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ImportError) as error:
        raise _no_cluster(address, error) from error
    return ray


def _no_cluster(address: str, error: Exception) -> DiglotError:
    return DiglotError(
        f"no Ray cluster answers at {address} ({_last_line(error)}). Start one with `ray start --head`, or leave out "
        "--cluster to use this machine."
    )


def _perform(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    """What a Ray worker does: as `corpus.workers` does it, so that errors arrive in the same form."""
    one_thread()
    try:
        return Value(function(*arguments))
    except Exception as error:
        return Failed(portable(error), traceback.format_exc())


def _answer_probe(probe: Path, answer: Path) -> tuple[dict[str, str], str]:
    """On a node: its versions, and what it reads at `probe` (empty: nothing) after writing `answer`."""
    end = time.monotonic() + 10.0  # network file systems may show a new file late
    while not probe.exists() and time.monotonic() < end:
        time.sleep(0.2)
    try:
        word = probe.read_text()
        answer.write_text(word)
    except OSError:
        word = ""
    return versions(), word


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
