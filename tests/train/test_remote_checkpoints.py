"""A run keeps its checkpoints behind an address as it does in a folder: whole or not at all, checked, and pruned."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run
import torch
from faulty_store import FaultyStore
from test_resume import same_result, stop_after

from diglot.core import remote
from diglot.core.errors import ConfigError, DiglotError
from diglot.core.progress import Progress
from diglot.core.remote import RemoteFolder
from diglot.corpus.read import remote as reading
from diglot.train import checkpoint_files
from diglot.train.checkpoint_files import CheckpointWriter
from diglot.train.checkpoints import Counters, checkpoints
from diglot.train.remote_checkpoints import remote_checkpoints


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    tiny_run.run(out)
    return out


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Local copies are made here, and nothing waits."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(remote, "WAIT_S", 0.0)
    monkeypatch.setattr(reading, "WAIT_S", 0.0)
    return folder


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(FaultyStore, "fails_at", None)  # set back at the end
    monkeypatch.setattr(FaultyStore, "times", None)
    return monkeypatch


def steps(url: str) -> dict[int, str]:
    found, _, _ = remote_checkpoints(RemoteFolder(url))
    return {c.counters.train_steps_done: c.retention for c in found}


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_a_run_goes_on_from_there_and_ends_in_the_same_bytes(
    protocol: str, undisturbed: Path, tmp_path: Path, scratch: Path
) -> None:
    settings: dict[str, Any] = {"checkpoint_dir": f"{protocol}://{tmp_path}/store/run", "keep_rolling": 2}
    stop_after(tmp_path / "out", 7, **settings)
    assert steps(settings["checkpoint_dir"]) == {4: "rolling", 6: "rolling"}
    (tmp_path / "out2").mkdir()
    (tmp_path / "out" / "train.jsonl").rename(tmp_path / "out2" / "train.jsonl")
    report = tiny_run.run(tmp_path / "out2", **settings)  # nothing of the first folder is needed but its log
    assert report.resumed_from == "0000000.4K"
    same_result(undisturbed, tmp_path / "out2")
    assert steps(settings["checkpoint_dir"]) == {9: "release", 12: "rolling", 14: "rolling", 15: "release"}
    assert not (tmp_path / "out2" / "checkpoints").exists()
    assert list(scratch.iterdir()) == []


def test_another_local_folder_has_the_same_bytes_as_the_usual_one(undisturbed: Path, tmp_path: Path) -> None:
    tiny_run.run(tmp_path / "out", checkpoint_dir=str(tmp_path / "elsewhere"))
    usual = {c.name: (c.path / "state.safetensors").read_bytes() for c in checkpoints(undisturbed / "checkpoints")}
    found = {c.name: (c.path / "state.safetensors").read_bytes() for c in checkpoints(tmp_path / "elsewhere")}
    assert found == usual
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_what_is_sent_is_what_a_local_checkpoint_holds(undisturbed: Path, tmp_path: Path) -> None:
    tiny_run.run(tmp_path / "out", checkpoint_dir=f"file://{tmp_path}/store")
    for local in checkpoints(undisturbed / "checkpoints"):
        for name in ("state.safetensors", "manifest.json"):
            assert (tmp_path / "store" / local.name / name).read_bytes() == (local.path / name).read_bytes()


@pytest.mark.parametrize("fails_at", ["0000000.4K/state.safetensors", "0000000.4K/manifest.json"])
def test_a_save_that_breaks_off_stops_the_run_at_the_next_and_the_one_before_it_stands(
    fails_at: str, undisturbed: Path, tmp_path: Path, faults: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"faulty://{tmp_path}/store"
    faults.setattr(FaultyStore, "fails_at", fails_at)
    with pytest.raises(DiglotError, match=rf"writing {url}/{fails_at} failed: ConnectionResetError: Connection reset"):
        tiny_run.run(tmp_path / "out", checkpoint_dir=url)
    half = tmp_path / "store" / "0000000.4K"
    assert half.exists()
    faults.setattr(FaultyStore, "fails_at", None)
    report = tiny_run.run(tmp_path / "out", checkpoint_dir=url, progress=Progress())
    assert report.resumed_from == "0000000.3K"
    assert "checkpoint 0000000.4K has no readable manifest and is passed over" in capsys.readouterr().err
    same_result(undisturbed, tmp_path / "out")
    assert remote_checkpoints(RemoteFolder(url))[1:] == ([], [])


def test_files_of_a_rank_that_cannot_begin_its_part_do_not_stay(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(tensors: Any, files: Path, ranks: Any) -> None:
        (files / "part").write_bytes(b"begun")
        raise RuntimeError("connection closed by peer")

    monkeypatch.setattr(checkpoint_files, "_saved", cannot)
    one_of_two: Any = SimpleNamespace(count=2, is_main=True, launch=None, from_main=lambda work: work())
    with CheckpointWriter(one_of_two) as writer, pytest.raises(RuntimeError, match="closed by peer") as raised:
        writer.write(
            RemoteFolder(f"file://{tmp_path}/store"),
            "0000000.1K",
            {"model.w": torch.zeros(2)},
            keep_rolling=None,
            counters=Counters(train_steps_done=1, num_tokens=64),
            retention="rolling",
            order_fingerprint="same",
            facts={},
        )
    assert list(scratch.iterdir()) == []
    del raised  # which kept the frames: nothing is removed only because nobody holds it any more


def test_a_half_written_checkpoint_goes_with_the_next_save(tmp_path: Path) -> None:
    half = tmp_path / "store" / "0000000.2K.step9"
    half.mkdir(parents=True)
    (half / "state.safetensors").write_bytes(b"half")
    tiny_run.run(tmp_path / "out", checkpoint_dir=f"file://{tmp_path}/store")
    assert not half.exists()


def test_a_connection_that_comes_back_is_tried_again(
    undisturbed: Path, tmp_path: Path, faults: pytest.MonkeyPatch
) -> None:
    faults.setattr(FaultyStore, "fails_at", "0000000.4K")
    faults.setattr(FaultyStore, "times", 2)
    tiny_run.run(tmp_path / "out", checkpoint_dir=f"faulty://{tmp_path}/store")
    assert FaultyStore.times == 0
    same_result(undisturbed, tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "said"),
    [(PermissionError("Access Denied"), "no permission"), (FileNotFoundError("no bucket"), "Create the bucket")],
)
def test_a_store_that_cannot_be_written_to_is_refused_before_training(
    error: Exception, said: str, tmp_path: Path, faults: pytest.MonkeyPatch
) -> None:
    faults.setattr(FaultyStore, "fails_at", "store")
    faults.setattr(FaultyStore, "error", error)
    with pytest.raises(DiglotError, match=said):
        tiny_run.run(tmp_path / "out", checkpoint_dir=f"faulty://{tmp_path}/store")
    assert not (tmp_path / "out" / "train.jsonl").exists()


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "manifest cut"])
def test_damage_is_found_reported_and_passed_over(
    harm: str, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"file://{tmp_path}/store"
    stop_after(tmp_path / "out", 7, checkpoint_dir=url)
    newest = tmp_path / "store" / "0000000.4K"
    state, manifest = newest / "state.safetensors", newest / "manifest.json"
    content = state.read_bytes()
    match harm:
        case "cut":
            state.write_bytes(content[:-10])
        case "flip":
            state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "remove":
            state.unlink()
        case "manifest cut":
            manifest.write_bytes(manifest.read_bytes()[:40])
    report = tiny_run.run(tmp_path / "out", checkpoint_dir=url, progress=Progress())
    said = capsys.readouterr().err
    assert said.count("warning: checkpoint 0000000.4K") == 1
    assert {
        "cut": f"state.safetensors has {len(content) - 10:,} bytes instead of {len(content):,}",
        "flip": "state.safetensors does not have the hash",
        "remove": "state.safetensors is missing",
        "manifest cut": "no readable manifest",
    }[harm] in said
    assert report.resumed_from == "0000000.3K"
    same_result(undisturbed, tmp_path / "out")


def test_a_store_that_cannot_be_read_is_no_damage(tmp_path: Path, faults: pytest.MonkeyPatch) -> None:
    """Going back to an older checkpoint because the network is down would throw work away."""
    url = f"faulty://{tmp_path}/store"
    stop_after(tmp_path / "out", 7, checkpoint_dir=url)
    faults.setattr(FaultyStore, "fails_at", "0000000.4K/state")
    faults.setattr(FaultyStore, "lost", TimeoutError("timed out"))
    with pytest.raises(DiglotError, match=r"reading faulty://.*0000000\.4K/state\.safetensors failed: .*timed out"):
        tiny_run.run(tmp_path / "out", checkpoint_dir=url)


def test_another_data_order_is_refused(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    stop_after(tmp_path / "out", 5, checkpoint_dir=url)
    with pytest.raises(ConfigError, match=rf"checkpoint {url}/0000000\.3K was written for data order tiny"):
        tiny_run.run(tmp_path / "out", checkpoint_dir=url, order_fingerprint="other")
