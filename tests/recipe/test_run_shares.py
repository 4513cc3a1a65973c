"""`diglot run --shard i/n`: shares of one step side by side, the last one completes it, and what is refused."""

from __future__ import annotations

import errno
import fcntl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diglot.core.errors import ConfigError, DiglotError
from diglot.core.progress import Progress
from diglot.core.storage import PARTIAL, write_text
from diglot.corpus.executor import map_shards
from diglot.corpus.finished import once, record_path
from diglot.corpus.shares import Share
from diglot.ledger.artifact import Artifact
from diglot.recipe import run as runner
from diglot.recipe.run import Places, run_recipe
from diglot.recipe.schema import load_recipe
from diglot.steps import kinds
from diglot.steps.context import StepContext, StepKind, input_step

WORDS = ("file", "folder", "disk", "kernel", "shell")
RECIPE = """
recipe: words
seed: 1
steps:
  loud: {kind: shout}
  louder: {kind: shout, from: loud}
  all: {kind: join, from: louder}
"""
calls: list[str] = []


@dataclass(frozen=True, kw_only=True)
class ShoutConfig:
    from_: str | None = input_step("shout", optional=True)


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    from_: str = input_step("shout")


@dataclass(frozen=True, kw_only=True)
class Word:
    word: str
    out: Path


def shout_word(task: Word) -> int:
    def work() -> tuple[list[Path], int]:
        calls.append(task.word)
        write_text(task.out, task.word.upper() + "!")
        return [task.out], len(task.word) + 1

    letters: int = once(record_path(task.out), "", work)
    return letters


def shout(config: ShoutConfig, context: StepContext) -> dict[str, Any]:
    words = [(context.input().path / f"{w}.txt").read_text() if "from" in context.inputs else w for w in WORDS]
    tasks = [Word(word=text, out=context.out / f"{word}.txt") for word, text in zip(WORDS, words, strict=True)]
    return {"letters": sum(map_shards(shout_word, tasks, workers=1, progress=context.progress, label=context.step))}


def join(config: JoinConfig, context: StepContext) -> dict[str, Any]:
    write_text(context.out / "all.txt", " ".join((context.input().path / f"{word}.txt").read_text() for word in WORDS))
    return {"words": len(WORDS)}


SHOUT = StepKind(kind="shout", version=1, config=ShoutConfig, run=shout, shards_divide=True)
JOIN = StepKind(kind="join", version=1, config=JoinConfig, run=join)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    monkeypatch.setattr(kinds, "KINDS", {"shout": f"{__name__}:SHOUT", "join": f"{__name__}:JOIN"})
    kinds.step_kind.cache_clear()
    calls.clear()
    (tmp_path / "words.yaml").write_text(RECIPE)
    yield Places(store=tmp_path / "store", runs=tmp_path / "runs")
    kinds.step_kind.cache_clear()


def run(places: Places, share: str | None = None, **options: Any) -> dict[str, Artifact]:
    recipe = load_recipe(places.store.parent / "words.yaml")
    options["share"] = Share.parse(share) if share else None
    return run_recipe(recipe, places, **{"workers": 1, "progress": Progress(), **options})


def test_the_share_that_finishes_the_last_shard_completes_the_step(places: Places, capsys: pytest.CaptureFixture[str]):
    assert run(places, "1/3") == {}
    assert "loud         share 1/3 done; 2 of 5 shards are finished" in capsys.readouterr().err
    assert run(places, "0/3") == {}
    assert list(run(places, "2/3")) == ["loud"]
    assert "5 of 5 shards are finished" in capsys.readouterr().err
    assert sorted(calls) == sorted(WORDS)  # each once
    assert list(run(places, "0/1")) == ["loud", "louder"]  # a share does one step
    assert (run(places)["all"].path / "all.txt").read_text() == "FILE!! FOLDER!! DISK!! KERNEL!! SHELL!!"


def test_a_run_without_a_share_makes_up_for_missing_ones(places: Places):
    run(places, "0/2", until="loud")
    done = list(calls)
    artifacts = run(places, until="loud")
    assert [file.path for file in artifacts["loud"].manifest.files] == sorted(f"{word}.txt" for word in WORDS)
    assert calls[: len(done)] == done == ["file", "disk", "shell"]
    assert calls[len(done) :] == ["folder", "kernel"]
    assert not (artifacts["loud"].path / ".shares").exists()


def test_a_shard_that_was_damaged_after_its_share_left_is_done_again(places: Places):
    run(places, "0/2", until="loud")
    (path,) = places.store.rglob("file.txt")
    path.write_text("FI")
    run(places, "1/2", until="loud")
    assert path.read_text() == "FILE!"


def test_a_step_that_cannot_be_divided_says_how_to_run_it(places: Places):
    run(places, until="louder")
    with pytest.raises(ConfigError, match=r"step 'all' \(join\) cannot be divided .* --until all"):
        run(places, "0/2")


def test_a_share_and_a_whole_run_do_not_build_the_same_step_at_once(places: Places, capsys: pytest.CaptureFixture[str]):
    run(places, "0/2")
    (folder,) = (places.store / "shout").iterdir()
    with (folder / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)  # another share is at work
        with pytest.raises(DiglotError, match="another process is building"):
            run(places)
        fcntl.flock(stream, fcntl.LOCK_EX)  # a whole run is at work
        assert run(places, "1/2") == {}
        assert "is being completed by another process" in capsys.readouterr().err
        fcntl.flock(stream, fcntl.LOCK_SH)  # the other share is about to leave
        threading.Timer(0.3, fcntl.flock, (stream, fcntl.LOCK_UN)).start()
        assert list(run(places, "1/2")) == ["loud"]  # waits for it and completes the step
    assert sorted(calls) == sorted(WORDS)


def test_a_file_system_without_locks_stops_a_share_and_does_not_let_it_leave_with_nothing_done(places, monkeypatch):
    def unsupported(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises((OSError, DiglotError), match="No locks available"):
        run(places, "0/2")
    with pytest.raises((OSError, DiglotError), match="No locks available"):
        run(places)


def test_links_that_another_process_is_putting_in_place_stay(places: Places):
    run(places, until="loud")
    other, old = (places.runs / "words" / name for name in (f".louder.1{PARTIAL}", "quiet"))
    for link in (other, old):
        link.symlink_to("nowhere")
    run(places, until="loud")
    assert other.is_symlink()
    assert not old.is_symlink()


def test_a_share_leaves_the_unfinished_files_of_others_alone_and_a_whole_run_removes_them(places: Places):
    run(places, "0/2")
    (folder,) = (places.store / "shout").iterdir()
    unfinished = folder / f".kernel.txt.1{PARTIAL}"
    unfinished.touch()
    run(places, "0/2")
    assert unfinished.exists()
    run(places, until="loud")
    assert not unfinished.exists()


def test_a_lock_on_a_file_that_its_last_holder_removed_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between opening and locking the file, another run ends and removes it: locking the old one would lock nothing."""
    flock, removed = fcntl.flock, []

    def remove_and_lock(stream: Any, how: int) -> None:
        if not removed:
            removed.append((tmp_path / ".lock").unlink())
        flock(stream, how)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    with runner._lock(tmp_path), pytest.raises(DiglotError, match="another process"), runner._lock(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


def test_a_step_that_others_complete_between_plan_and_share_is_left_alone(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    record = runner._record_run

    def meanwhile(*arguments: Any) -> None:
        monkeypatch.setattr(runner, "_record_run", record)
        run(places, until="loud")
        record(*arguments)

    monkeypatch.setattr(runner, "_record_run", meanwhile)
    assert run(places, "0/2", until="loud") == {}
    assert "was completed by another process" in capsys.readouterr().err
    assert sorted(calls) == sorted(WORDS)
    assert not list(places.store.rglob(".shares"))
