"""The executor: order, identical bytes for any number of workers, dead workers, poison documents, interruptions."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shouting import Shouting, num_lines, pid, probe, shout, square, without

from diglot.core.errors import DiglotError, InputError
from diglot.core.progress import Bar, Progress
from diglot.core.storage import write_text
from diglot.corpus.executor import MAX_POISON, Quarantine, isolate, map_shards, running_on
from diglot.corpus.finished import finished, mark_finished, record_path, remove_partial_files
from diglot.corpus.workers import LocalProcesses

QUIET = Progress(quiet=True)
QUARANTINE = Quarantine(num_documents=num_lines, probe=probe, without=without)


def tasks_for(folder: Path, *texts: str, out: str = "out") -> list[Shouting]:
    tasks = []
    for number, text in enumerate(texts):
        source = folder / "in" / f"{number}.txt"
        write_text(source, text)
        tasks.append(Shouting(source=source, out=folder / out / f"{number}.txt"))
    return tasks


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_results_come_back_in_task_order(workers):
    assert map_shards(square, list(range(9)), workers=workers, progress=QUIET, label="square") == [
        0, 1, 4, 9, 16, 25, 36, 49, 64,
    ]  # fmt: skip


def test_one_worker_without_quarantine_runs_in_this_process_and_two_do_not():
    assert map_shards(pid, [0], workers=1, progress=QUIET, label="pid") == [os.getpid()]
    assert os.getpid() not in map_shards(pid, [0, 1], workers=2, progress=QUIET, label="pid")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_largest_shard_is_started_first_and_results_stay_in_task_order(tmp_path, workers):
    tasks = tasks_for(tmp_path, "a\n", "b\n" * 3, "c\n" * 9)
    started = []
    sizes = {"num_bytes": lambda task: task.source.stat().st_size, "workers": workers, "label": "shout"}
    results = map_shards(shout, tasks, progress=QUIET, **sizes)
    assert [result["lines"] for result in results] == [1, 3, 9]
    if workers == 1:
        map_shards(lambda task: started.append(task.source.name), tasks, progress=QUIET, **sizes)
        assert started == ["2.txt", "1.txt", "0.txt"]


def test_the_progress_line_tells_speed_and_time_left_by_bytes():
    lines = []
    bar = Bar("read", 4, "shards", lines.append, live=True, total_bytes=40_000_000)
    bar.advance(num_bytes=30_000_000)
    assert bar.line(bar._start + 3.0) == "read: 1/4 shards (75% of 40 MB, 0:01 left)  10.0 MB/s"


def test_workers_live_as_long_as_the_back_end_and_no_longer():
    backend = LocalProcesses()
    with running_on(backend):
        first, second = (
            {*map_shards(pid, range(6), workers=2, progress=QUIET, label="pid")},
            {*map_shards(pid, range(6), workers=2, progress=QUIET, label="pid")},
        )
    assert len(first | second) <= 2
    backend.close()
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in first | second), 5)


def test_workers_in_the_middle_of_a_task_are_stopped_when_another_task_fails(tmp_path):
    tasks = tasks_for(tmp_path, "sleep\n", "bad\n")
    backend = LocalProcesses()
    with running_on(backend), pytest.raises(InputError):
        map_shards(shout, tasks, workers=2, progress=QUIET, label="shout")
    assert len(multiprocessing.active_children()) <= 1  # nobody sleeps on
    backend.close()
    assert not multiprocessing.active_children()


def test_no_tasks_give_no_results():
    assert map_shards(square, [], workers=4, progress=QUIET, label="square") == []


def test_worker_counts_1_2_4_write_the_same_bytes(tmp_path):
    written = {}
    for workers in (1, 2, 4):
        tasks = tasks_for(tmp_path, *(f"text {n}\n中文 {n}\n" for n in range(7)), out=f"out{workers}")
        results = map_shards(shout, tasks, workers=workers, progress=QUIET, label="shout")
        written[workers] = results, [(p.name, p.read_bytes()) for p in sorted((tmp_path / f"out{workers}").iterdir())]
    assert written[1] == written[2] == written[4]
    assert len(written[1][1]) == 14  # seven files and their records


@pytest.mark.parametrize("deadly", ["segfault", "exit"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_document_that_kills_its_worker_is_found_left_out_and_reported(tmp_path, deadly, workers):
    poisoned = "\n".join(["a", "b", "c", deadly, "d", deadly, "e"])
    tasks = tasks_for(tmp_path, "x\ny\n", poisoned, "z\n")
    results = map_shards(shout, tasks, workers=workers, progress=QUIET, label="shout", quarantine=QUARANTINE)
    assert results == [
        {"lines": 2, "quarantined": []},
        {"lines": 5, "quarantined": [3, 5]},
        {"lines": 1, "quarantined": []},
    ]
    assert tasks[1].out.read_text() == "A\nB\nC\nD\nE\n"


def test_a_worker_that_dies_once_costs_nothing(tmp_path):
    tasks = tasks_for(tmp_path, f"a\nonce {tmp_path / 'flag'}\n", "b\n")
    results = map_shards(shout, tasks, workers=2, progress=QUIET, label="shout")
    assert [result["lines"] for result in results] == [2, 1]


def test_without_quarantine_a_deadly_task_stops_the_run_and_is_named(tmp_path):
    tasks = tasks_for(tmp_path, "a\n", "exit\n")
    with pytest.raises(DiglotError, match=r"left with code 17, twice, at .*1\.txt"):
        map_shards(shout, tasks, workers=2, progress=QUIET, label="shout")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_in_a_worker_becomes_a_sentence_with_a_next_action(tmp_path, workers):
    tasks = tasks_for(tmp_path, "a\n", "full\n")
    with pytest.raises(DiglotError, match=r"no space left while shout .*run the same command again"):
        map_shards(shout, tasks, workers=workers, progress=QUIET, label="shout")
    assert not tasks[1].out.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_users_error_in_a_worker_reaches_the_caller_unchanged(tmp_path, workers):
    with pytest.raises(InputError, match=r"^line 'bad' is bad; remove it.$"):
        map_shards(shout, tasks_for(tmp_path, "bad\n"), workers=workers, progress=QUIET, label="shout")


def test_a_bug_in_a_worker_keeps_its_type_and_shows_the_workers_traceback():
    with pytest.raises(TypeError) as caught:
        map_shards(square, ["no number"], workers=2, progress=QUIET, label="square")
    assert "in square" in caught.value.__notes__[0]


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=5))))
def test_bisection_finds_exactly_the_poison(case):
    num_documents, poison = case
    trials = 0

    def crashes(start: int, stop: int) -> bool:
        nonlocal trials
        trials += 1
        return any(start <= row < stop for row in poison)

    assert isolate(crashes, num_documents) == tuple(sorted(poison))
    assert trials <= 1 + 2 * len(poison) * num_documents.bit_length()


def test_a_range_that_dies_only_as_a_whole_is_called_a_lack_of_memory():
    with pytest.raises(DiglotError, match="memory ran out"):
        isolate(lambda start, stop: stop - start == 8, 8)


def test_a_shard_that_only_kills_is_no_matter_of_single_documents():
    with pytest.raises(DiglotError, match=f"more than {MAX_POISON}"):
        isolate(lambda start, stop: True, 1000)


def test_a_finished_shard_is_not_done_again(tmp_path):
    (task,) = tasks_for(tmp_path, "a\n")
    shout(task)
    before = task.out.stat().st_mtime_ns
    assert shout(task) == {"lines": 1, "quarantined": []}
    assert task.out.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", [b"", b"A", b"B\n", None])
def test_a_damaged_shard_is_noticed_and_done_again(tmp_path, damage):
    (task,) = tasks_for(tmp_path, "a\n")
    shout(task)
    task.out.unlink() if damage is None else task.out.write_bytes(damage)
    shout(task)
    assert task.out.read_text() == "A\n"


def test_a_record_of_other_inputs_or_in_pieces_does_not_count(tmp_path):
    (tmp_path / "s.parquet").write_bytes(b"rows")
    record = record_path(tmp_path / "s.parquet")
    mark_finished(record, "inputs 1", [tmp_path / "s.parquet"], {"rows": 1})
    assert finished(record, "inputs 1") == {"rows": 1}
    assert finished(record, "inputs 2") is None
    record.write_bytes(record.read_bytes()[:-5])
    assert finished(record, "inputs 1") is None


PROGRAM = """
import sys
from pathlib import Path
from diglot.core.progress import Bar, Progress
from diglot.corpus.executor import map_shards
from shouting import Shouting, shout

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    sources = sorted((folder / "in").iterdir())
    tasks = [Shouting(source=source, out=folder / "out" / source.name) for source in sources]
    print(map_shards(shout, tasks, workers=2, progress=Progress(quiet=True), label="shout"))
"""


def start_program(folder: Path) -> subprocess.Popen[str]:
    script = folder / "program.py"
    script.write_text(PROGRAM)
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": str(here)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def processes_of_session(leader: int) -> list[int]:
    """Living processes of the session, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_after_ctrl_c_or_kill_no_process_stays_and_the_next_run_does_only_the_rest(tmp_path, how):
    tasks = tasks_for(tmp_path, "a\n", "sleep\n", "b\n", "sleep\n")
    program = start_program(tmp_path)
    wait_until(lambda: record_path(tasks[0].out).exists() and record_path(tasks[2].out).exists())
    if how == signal.SIGINT:
        os.killpg(program.pid, how)  # as the terminal does: parent and workers get it
    else:
        program.send_signal(how)
    _, errors = program.communicate(timeout=10)
    wait_until(lambda: not processes_of_session(program.pid), 5)
    if how == signal.SIGINT:
        assert errors.count("Traceback") == 1  # the parent's; the command line prints a sentence
        assert "KeyboardInterrupt" in errors
    kept = tasks[0].out.stat().st_mtime_ns

    write_text(tasks[1].source, "c\n")
    write_text(tasks[3].source, "d\n")
    assert start_program(tmp_path).wait(30) == 0
    assert [task.out.read_text() for task in tasks] == ["A\n", "C\n", "B\n", "D\n"]
    assert tasks[0].out.stat().st_mtime_ns == kept


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_ctrl_c_while_workers_start_shows_no_traceback_of_theirs(tmp_path):
    tasks_for(tmp_path, "sleep\n", "sleep\n")
    program = start_program(tmp_path)
    wait_until(lambda: len(processes_of_session(program.pid)) >= 3)  # the parent, Python's resource tracker, a worker
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=10)
    assert errors.count("Traceback") == 1, errors
    wait_until(lambda: not processes_of_session(program.pid), 5)


def test_partial_files_of_killed_writers_are_removed_and_others_are_not(tmp_path):
    (tmp_path / "deep").mkdir()
    partial = tmp_path / "deep" / ".0000.parquet.123.partial"
    finished_file = tmp_path / "deep" / "0000.parquet"
    partial.touch()
    finished_file.touch()
    checkpoint = tmp_path / "checkpoints" / ".0000000.4K.partial"
    checkpoint.mkdir(parents=True)
    (checkpoint / ".manifest.json.123.partial").touch()
    remove_partial_files(tmp_path)
    assert not partial.exists()
    assert not checkpoint.exists()
    assert finished_file.exists()
