"""A recipe on several ranks: rank 0 does what is not training, the others join what is, and hear when it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import recipe_on_ranks

from diglot.core.storage import read_json

PROGRAM = Path(recipe_on_ranks.__file__)
pytestmark = pytest.mark.slow  # processes that start torch


def torchrun(num_ranks: int, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    command += [str(PROGRAM), str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def saw(folder: Path, rank: int) -> list[str]:
    file = folder / f"saw.{rank}"
    return file.read_text().splitlines() if file.exists() else []


def test_all_ranks_join_the_training_and_rank_0_does_the_rest(tmp_path: Path) -> None:
    done = torchrun(3, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert saw(tmp_path, 0) == ["first False", "sum False", "last False"]
    assert saw(tmp_path, 1) == saw(tmp_path, 2) == ["sum True"]
    assert read_json(tmp_path / "runs/sums/sum/manifest.json")["counts"] == {"total": 6.0}
    assert done.stderr.count("sums: finished") == 1
    again = torchrun(3, tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert len(saw(tmp_path, 0)) == 3, "nothing is built twice"
    assert len(saw(tmp_path, 1)) == 1


def test_a_failure_of_rank_0_alone_ends_the_others_with_its_message(tmp_path: Path) -> None:
    done = torchrun(2, tmp_path, "alone")
    assert done.returncode != 0
    assert "rank 0 failed while building step 'first': the ink is dry." in done.stderr
    assert saw(tmp_path, 1) == []


def test_a_failure_of_rank_0_in_a_joined_step_ends_all(tmp_path: Path) -> None:
    done = torchrun(2, tmp_path, "joined")
    assert done.returncode != 0
    assert "the sum is odd." in done.stderr
