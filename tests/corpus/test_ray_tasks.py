"""Ray as a back end of the executor: order, errors, dead workers, and what is refused before the first task."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shouting import Shouting, num_lines, pid, probe, shout, slow, square, without

from diglot.core.errors import ConfigError, DiglotError, InputError
from diglot.core.progress import Progress
from diglot.core.storage import write_text
from diglot.corpus import ray_tasks
from diglot.corpus.executor import Quarantine, map_shards, running_on
from diglot.corpus.ray_tasks import RayTasks
from ray_on_loopback import ray_cluster

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes whose workers find the modules beside this one."""
    with ray_cluster(2, modules=Path(__file__).parent) as (cluster, _):
        yield cluster.address


@pytest.fixture
def backend(address: str, tmp_path: Path) -> Iterator[RayTasks]:
    backend = RayTasks(address, tmp_path / "store", QUIET)
    with running_on(backend):
        yield backend
    backend.close()


@pytest.mark.slow
def test_results_come_in_task_order_from_other_processes_and_no_probe_stays(backend: RayTasks, tmp_path: Path):
    assert map_shards(square, list(range(30)), workers=1, progress=QUIET, label="square") == [n * n for n in range(30)]
    assert os.getpid() not in map_shards(pid, [0, 1], workers=1, progress=QUIET, label="pid")
    assert map_shards(square, [], workers=1, progress=QUIET, label="square") == []
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.slow
def test_a_document_that_kills_its_ray_worker_is_found_left_out_and_reported(backend: RayTasks, tmp_path: Path):
    tasks = []
    for number, text in enumerate(("x\ny\n", "a\nsegfault\nb\nc\n", "z\n")):
        write_text(tmp_path / "in" / f"{number}.txt", text)
        tasks.append(Shouting(source=tmp_path / "in" / f"{number}.txt", out=tmp_path / "out" / f"{number}.txt"))
    quarantine = Quarantine(num_documents=num_lines, probe=probe, without=without)
    results = map_shards(shout, tasks, workers=1, progress=QUIET, label="shout", quarantine=quarantine)
    assert [result["quarantined"] for result in results] == [[], [1], []]
    assert tasks[1].out.read_text() == "A\nB\nC\n"
    with pytest.raises(DiglotError, match=r"a worker died, twice, at .*1\.txt"):
        map_shards(shout, [Shouting(source=tasks[1].source, out=tmp_path / "x")], workers=1, progress=QUIET, label="x")


@pytest.mark.slow
def test_errors_arrive_as_from_a_local_worker(backend: RayTasks, tmp_path: Path):
    write_text(tmp_path / "bad.txt", "bad\n")
    task = Shouting(source=tmp_path / "bad.txt", out=tmp_path / "out.txt")
    with pytest.raises(InputError, match=r"^line 'bad' is bad; remove it.$"):
        map_shards(shout, [task], workers=1, progress=QUIET, label="shout")
    with pytest.raises(TypeError) as caught:
        map_shards(square, ["no number"], workers=1, progress=QUIET, label="square")
    assert "in square" in caught.value.__notes__[0]


@pytest.mark.slow
def test_a_node_that_does_not_see_the_store_or_has_other_versions_is_named(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray_tasks, "_answer_probe", answering({}, ""))
    with pytest.raises(DiglotError, match=r"node .*127\.0\.0\.1\) does not see .*store.*same place"):
        RayTasks(address, tmp_path / "store", QUIET)
    monkeypatch.setattr(ray_tasks, "_answer_probe", answering({"numpy": "0.1"}, ""))
    with pytest.raises(DiglotError, match=r"node .* has numpy 0\.1 instead of .*install the same"):
        RayTasks(address, tmp_path / "store", QUIET)


@pytest.mark.slow
def test_tasks_of_a_lost_node_are_done_on_another(tmp_path: Path):
    begun = tmp_path / "begun"
    begun.mkdir()
    with ray_cluster(2, modules=Path(__file__).parent) as (cluster, nodes):

        def lose_a_node() -> None:
            while not list(begun.glob(f"{nodes[1].node_id}-*")):
                time.sleep(0.02)
            cluster.remove_node(nodes[1], allow_graceful=False)

        backend = RayTasks(cluster.address, tmp_path / "store", QUIET)
        threading.Thread(target=lose_a_node, daemon=True).start()
        with running_on(backend):
            tasks = [(begun, number) for number in range(6)]
            assert map_shards(slow, tasks, workers=1, progress=QUIET, label="slow") == list(range(6))
        backend.close()
    begins = [path.name.rpartition("-")[2] for path in begun.iterdir()]
    assert len(begins) > len(set(begins)) == 6  # what was lost began twice


def answering(changes: dict[str, str], word: str) -> Any:
    answer = {**ray_tasks.versions(), **changes}, word
    return lambda probe, reply: answer


@pytest.mark.parametrize("address", ["here", "ray://", "ray://host", "http://host:1"])
def test_an_address_that_is_none_says_what_one_looks_like(address: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="ray://HOST:10001"):
        RayTasks(address, tmp_path, QUIET)


def test_where_no_cluster_answers_the_error_says_how_to_start_one(tmp_path: Path):
    pytest.importorskip("ray")
    with pytest.raises(DiglotError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 .*ray start --head"):
        RayTasks("127.0.0.1:1", tmp_path, QUIET)


def test_without_ray_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'diglot\[ray\]'"):
        RayTasks("auto", tmp_path, QUIET)


def test_a_cluster_that_lost_its_last_node_is_an_error_and_no_endless_wait():
    class Ray:
        """As the driver sees it when no node is left: nothing becomes ready, and there are no resources."""

        wait = staticmethod(lambda references, **_: ([], references))
        cluster_resources = staticmethod(dict)
        cancel = staticmethod(lambda reference, **_: None)

    backend = RayTasks.__new__(RayTasks)
    backend._ray = Ray()
    backend._task = Ray()
    backend._task.remote = lambda function, arguments: arguments
    with pytest.raises(DiglotError, match="no node with a CPU left"):
        list(backend.run(square, [1, 2], workers=1))
