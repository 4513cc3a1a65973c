"""Shares of a batch scheduler: every task belongs to one, and the last one knows that it is the last."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shouting import square

from diglot.core.errors import ConfigError
from diglot.core.progress import Progress
from diglot.corpus.executor import doing_share, map_shards
from diglot.corpus.shares import Share, ShareDone

QUIET = Progress(quiet=True)


@given(st.integers(1, 20), st.integers(0, 100))
def test_every_task_belongs_to_exactly_one_share(count: int, num_tasks: int):
    shares = [Share(index=index, count=count).indices(num_tasks) for index in range(count)]
    assert sorted(index for share in shares for index in share) == list(range(num_tasks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_is_written_as_i_of_n_counted_from_0():
    assert Share.parse("2/8") == Share(index=2, count=8)
    for wrong, message in (("8/8", "0/8, 1/8, 2/8"), ("1", "not i/n"), ("-1/3", "not i/n"), ("0/0", "at least one")):
        with pytest.raises(ConfigError, match=message):
            Share.parse(wrong)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_share_does_its_own_tasks_and_says_how_many_are_finished_by_all(tmp_path: Path, workers: int):
    found = []
    for index in (1, 0, 0, 2):
        with pytest.raises(ShareDone) as done, doing_share(Share(index=index, count=3, folder=tmp_path)):
            map_shards(square, list(range(7)), workers=workers, progress=QUIET, label="square")
        found.append((done.value.num_finished, done.value.num_tasks))
    assert found == [(2, 7), (5, 7), (5, 7), (7, 7)]


def test_work_that_leaves_no_files_is_done_whole_by_every_share(tmp_path: Path):
    with doing_share(Share(index=1, count=3, folder=tmp_path)):
        assert map_shards(square, [2, 3], workers=1, progress=QUIET, label="square", recorded=False) == [4, 9]
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_fails_is_not_marked(tmp_path: Path):
    share = Share(index=0, count=1, folder=tmp_path)
    with pytest.raises(TypeError), doing_share(share):
        map_shards(square, [2, "no number"], workers=1, progress=QUIET, label="square")
    assert share.num_finished("square", 2) == 1
