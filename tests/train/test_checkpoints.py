"""A checkpoint is whole or absent, is checked before it is used, and is deleted only where that was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diglot.core.errors import ConfigError, DiglotError
from diglot.train import checkpoints as module
from diglot.train.checkpoint_files import read_state
from diglot.train.checkpoints import (
    Checkpoint,
    Counters,
    Retention,
    checkpoints,
    delete_checkpoint,
    newest_valid,
    prune,
    write_checkpoint,
)
from diglot.train.parallel.ranks import ALONE

TENSORS = {"model.w": torch.arange(6.0).view(2, 3), "optimizer.w.num_updates": torch.tensor(3.0)}


class DeafError(BaseException):
    """No Exception, as that of DCP."""


def write(folder: Path, train_steps: int, retention: Retention = "rolling", order: str = "same") -> Checkpoint:
    return write_checkpoint(
        folder,
        f"{train_steps:07d}.0K",
        TENSORS,
        counters=Counters(train_steps_done=train_steps, num_tokens=1000 * train_steps),
        retention=retention,
        order_fingerprint=order,
        facts={"torch": "any"},
    )


def newest(folder: Path, order: str = "same") -> tuple[str | None, list[str]]:
    warnings: list[str] = []
    found = newest_valid(folder, order, warnings.append)
    return found.name if found else None, warnings


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    written = write(tmp_path, 3)
    (found,) = checkpoints(tmp_path)
    assert found.counters == written.counters == Counters(train_steps_done=3, num_tokens=3000)
    assert found.damage() is None
    read = read_state(found, "", TENSORS, ALONE)
    assert {name: t.tolist() for name, t in read.items()} == {n: t.tolist() for n, t in TENSORS.items()}


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    states = [(write(tmp_path / name, 3).path / "state.safetensors").read_bytes() for name in ("one", "two")]
    assert states[0] == states[1]


def test_a_write_that_breaks_off_leaves_nothing_that_looks_like_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1)

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_json", full_disk)
    with pytest.raises(DiglotError, match="no space left"):
        write(tmp_path, 2)
    assert newest(tmp_path) == ("0000001.0K", [])
    monkeypatch.undo()
    write(tmp_path, 2)
    assert newest(tmp_path) == ("0000002.0K", [])


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "no manifest", "manifest cut"])
def test_damage_is_found_reported_and_passed_over(harm: str, tmp_path: Path) -> None:
    write(tmp_path, 1)
    damaged = write(tmp_path, 2).path
    state, manifest = damaged / "state.safetensors", damaged / "manifest.json"
    content = state.read_bytes()
    match harm:
        case "cut":
            state.write_bytes(content[:-1])
        case "flip":
            state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "remove":
            state.unlink()
        case "no manifest":
            manifest.unlink()
        case "manifest cut":
            manifest.write_bytes(manifest.read_bytes()[:40])
    name, warnings = newest(tmp_path)
    assert name == "0000001.0K"
    assert len(warnings) == 1
    assert "0000002.0K" in warnings[0]


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert newest(tmp_path / "absent") == (None, [])


def test_another_data_order_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(ConfigError, match="data order same, this run has other"):
        newest(tmp_path, order="other")


def test_two_training_steps_whose_tokens_round_to_one_name_are_both_kept(tmp_path: Path) -> None:
    for train_steps in (1, 2):
        write_checkpoint(
            tmp_path,
            "0000000.1K",
            TENSORS,
            counters=Counters(train_steps_done=train_steps, num_tokens=50 * train_steps),
            retention="release",
            order_fingerprint="same",
            facts={},
        )
    assert [c.name for c in checkpoints(tmp_path)] == ["0000000.1K", "0000000.1K.step2"]


def test_pruning_keeps_release_checkpoints_and_the_newest_rolling_ones(tmp_path: Path) -> None:
    kinds: list[Retention] = ["rolling", "release", "rolling", "emergency", "rolling", "rolling"]
    for train_steps, retention in enumerate(kinds, start=1):
        write(tmp_path, train_steps, retention)
    prune(tmp_path, None)
    assert len(checkpoints(tmp_path)) == 6
    prune(tmp_path, 2)
    assert [c.counters.train_steps_done for c in checkpoints(tmp_path)] == [2, 5, 6]


def test_an_emergency_checkpoint_stays_while_it_is_the_newest(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2, "emergency")
    prune(tmp_path, 1)
    assert [c.counters.train_steps_done for c in checkpoints(tmp_path)] == [1, 2]


@pytest.mark.parametrize("error", [RuntimeError, DeafError])
def test_a_full_disk_is_explained_however_a_library_says_it(error: type[BaseException]) -> None:
    with (
        pytest.raises(DiglotError, match=r"no space left while writing the checkpoint here.*free some space"),
        module.write_errors_explained("here"),
    ):
        raise error("I/O error: No space left on device (os error 28)")


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="a bug"), module.write_errors_explained("here"):
        raise RuntimeError("a bug")


def test_a_half_deleted_checkpoint_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 1).path
    monkeypatch.setattr(module.shutil, "rmtree", lambda *args, **kwargs: None)  # killed before the rest was gone
    delete_checkpoint(path)
    assert (path / "state.safetensors").exists()
    assert checkpoints(tmp_path) == []
