"""What a run notes of its conditions, and when it says that they changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run

from diglot.core.progress import Progress
from diglot.core.storage import read_json, write_json
from diglot.train.backend import Backend
from diglot.train.checkpoints import checkpoints
from diglot.train.parallel.config import ParallelConfig
from diglot.train.parallel.grid import Grid
from diglot.train.parallel.ranks import ALONE, Ranks
from diglot.train.reporting import changed_facts, facts_of

CPU = Backend("cpu", 2, "fp32", False, True, ())
GPU = replace(CPU, device="Some GPU")


def ranks(num_ranks: int, **parallel: int) -> Ranks:
    config = ParallelConfig(**parallel)
    return Ranks(grid=Grid(config.grid(num_ranks), 0, "cpu", config.expert))


def test_another_grid_of_as_many_ranks_is_a_change() -> None:
    matrices, layers = facts_of(CPU, ranks(2, tensor=2)), facts_of(CPU, ranks(2, pipeline=2))
    assert changed_facts(matrices, layers) == {"grid": ({"tensor": 2}, {"pipeline": 2})}
    assert changed_facts(matrices, facts_of(CPU, ranks(2, tensor=2))) == {}
    experts, shards = facts_of(CPU, ranks(4, expert=2)), facts_of(CPU, ranks(4))
    assert changed_facts(experts, shards) == {"grid": ({"shard": 4, "expert": 2}, {"shard": 4})}


def test_one_process_has_no_grid_and_a_checkpoint_of_many_says_so() -> None:
    alone = facts_of(CPU, ALONE)
    assert "grid" not in alone
    assert facts_of(CPU, ranks(1)) == alone
    assert changed_facts(facts_of(CPU, ranks(2)), alone) == {"grid": ({"shard": 2}, None)}


@pytest.mark.parametrize(("backend", "expected"), [(CPU, {"num_threads": (2, 4)}), (GPU, {})])
def test_threads_of_the_processor_count_where_it_trains(backend: Backend, expected: dict[str, object]) -> None:
    four = facts_of(replace(backend, num_threads=4), ALONE)
    assert changed_facts(facts_of(backend, ALONE), four) == expected


class Told(Progress):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.texts = list[str]()

    def say(self, text: str) -> None:
        self.texts.append(text)


def test_a_run_that_goes_on_under_another_grid_warns(tmp_path: Path) -> None:
    tiny_run.run(tmp_path)
    newest = checkpoints(tmp_path / "checkpoints")[-1].path / "manifest.json"
    manifest = read_json(newest)
    write_json(newest, {**manifest, "facts": {**manifest["facts"], "num_ranks": 2, "grid": {"tensor": 2}}})
    told = Told()
    tiny_run.run(tmp_path, progress=told)
    warnings = [text for text in told.texts if "warning" in text]
    assert len(warnings) == 1
    assert "'num_ranks': (2, 1)" in warnings[0]
    assert "'grid': ({'tensor': 2}, None)" in warnings[0]
    told.texts.clear()
    tiny_run.run(tmp_path / "other", progress=told)
    tiny_run.run(tmp_path / "other", progress=told)
    assert not any("warning" in text for text in told.texts)
