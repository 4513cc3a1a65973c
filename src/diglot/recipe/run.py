"""Run a plan: build what is missing, reuse what is there, record what happened.

    store/<kind>/<fingerprint>/     artifacts, shared by all recipes; `manifest.json` written last
    runs/<recipe>/plan.json         what the last run resolved to; `diglot plan` compares with it
    runs/<recipe>/recipe.yaml       the recipe with scale and overrides applied
    runs/<recipe>/ledger.jsonl      one line per finished or reused step, appended
    runs/<recipe>/<step>            link to the step's artifact

A kill at any moment leaves finished artifacts, and the finished shards and checkpoints of the step it hit.

With several ranks (torchrun) rank 0 does all this; the others join the steps that train (`recipe/followers.py`).

With a share (`--shard i/n`) a run does every n-th shard of the first unfinished step and leaves. Shares of one step
work side by side; the last one completes the step, or the next run without a share does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml

from diglot.core.errors import ConfigError, DiglotError, InputError, explain_os_error
from diglot.core.progress import Progress
from diglot.core.storage import PARTIAL, write_json, write_text
from diglot.corpus.executor import Backend, doing_share, running_on
from diglot.corpus.finished import remove_partial_files
from diglot.corpus.shares import FOLDER as SHARES
from diglot.corpus.shares import Share, ShareDone
from diglot.corpus.workers import LocalProcesses
from diglot.ledger.artifact import Artifact
from diglot.ledger.manifest import (
    Manifest,
    code_facts,
    environment_facts,
    host_facts,
    now,
    record_files,
    write_manifest,
)
from diglot.recipe.followers import announce_done, announce_join, follow
from diglot.recipe.plan import PlannedStep, make_plan
from diglot.recipe.schema import Recipe
from diglot.steps.context import StepContext

if TYPE_CHECKING:
    from diglot.train.parallel.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where artifacts and runs live."""

    store: Path = Path("store")
    runs: Path = Path("runs")

    def run_folder(self, run_name: str) -> Path:
        return self.runs / run_name


def run_recipe(
    recipe: Recipe,
    places: Places,
    *,
    workers: int,
    progress: Progress,
    until: str | None = None,
    backend: Backend | None = None,
    share: Share | None = None,
    ranks: Ranks | None = None,
) -> dict[str, Artifact]:
    """Bring every step's artifact into existence, in order; return them by step name.

    Args:
        until: stop after this step.
        backend: where shards are done; None is `workers` processes of this machine. No result depends on it.
        share: do only this share of the first unfinished step; what is returned are the steps finished then.
        ranks: the processes of this run where it has several; every one of them calls this.
    Raises: DiglotError when a step fails or an expectation is not met.
    """
    if until is not None:
        recipe.step(until)
    started = time.monotonic()
    folder = places.run_folder(recipe.run_name)
    plan = make_plan(recipe, places.store.resolve(), folder)
    if ranks is not None and share is not None:
        raise ConfigError("--shard is for processes that know nothing of each other. Leave it out with several ranks.")
    if ranks is not None and not ranks.is_main:
        return follow(plan, ranks, until, lambda planned: _join(planned, recipe, workers, progress, ranks))
    progress.say(
        f"{recipe.run_name}: {len(plan)} steps, {sum(p.status == 'reuse' for p in plan)} built, in {places.store}"
    )
    _record_run(recipe, plan, folder)
    artifacts: dict[str, Artifact] = {}
    for planned in plan:
        name = planned.step.name
        if planned.status == "reuse":
            progress.say(f"  {name:<12} reused   {planned.artifact.fingerprint}")
        elif share and not _do_share(planned, recipe, workers, progress, backend, share):
            return artifacts
        else:
            progress.say(f"  {name:<12} {planned.status}s   {planned.artifact.fingerprint}")
            seconds = _build(planned, recipe, workers, progress, backend, ranks, wait=share is not None)
            progress.say(f"  {name:<12} done in {seconds:.1f} s")
        artifacts[name] = planned.artifact
        announce_done(ranks, planned)
        _link(folder / name, planned.artifact.path)
        _append(folder / "ledger.jsonl", {"time": now(), "step": name, "status": planned.status, **planned.record()})
        _check_expectations(recipe, name, planned.artifact)
        if name == until or (share and planned.status != "reuse"):
            break
    progress.say(f"{recipe.run_name}: finished in {time.monotonic() - started:.1f} s")
    return artifacts


def run_artifacts(places: Places, run_name: str) -> dict[str, Artifact]:
    """The finished artifacts of the last run of a recipe, by step name."""
    folder = places.run_folder(run_name)
    if not folder.is_dir():
        known = [str(p.parent.relative_to(places.runs)) for p in sorted(places.runs.rglob("plan.json"))]
        raise InputError(f"no run called '{run_name}' in {places.runs}. Runs here: {', '.join(known) or 'none'}.")
    links = [p for p in sorted(folder.iterdir()) if p.is_symlink()]
    artifacts = {p.name: Artifact(p.resolve()) for p in links}
    return {name: artifact for name, artifact in artifacts.items() if artifact.is_complete}


class _BusyError(DiglotError):
    """Another process holds the lock of an artifact."""


def _build(
    planned: PlannedStep,
    recipe: Recipe,
    workers: int,
    progress: Progress,
    backend: Backend | None,
    ranks: Ranks | None,
    *,
    wait: bool,
) -> float:
    """Run one step and write its manifest. Returns the seconds of this attempt.

    wait: for other processes to let go: shares whose last shards are finished do so in a moment.
    """
    step, folder = planned.step, planned.artifact.path
    with _lock(folder, wait=wait):
        if planned.artifact.is_complete:  # by another process, since the plan was made
            return 0.0
        remove_partial_files(folder)  # of a killed attempt
        started, clock = now(), time.monotonic()
        with _explained(planned):
            announce_join(ranks, planned)
            counts = _run(planned, recipe, workers, progress, backend, ranks)
            shutil.rmtree(folder / SHARES, ignore_errors=True)
            seconds = time.monotonic() - clock
            write_manifest(
                folder,
                Manifest(
                    kind=step.kind.kind,
                    version=step.kind.version,
                    step=step.name,
                    fingerprint=planned.artifact.fingerprint,
                    config=step.settings()
                    if planned.observed is None
                    else {**step.settings(), "observed": planned.observed},
                    inputs={slot: artifact.fingerprint for slot, artifact in planned.inputs.items()},
                    input_kinds={artifact.fingerprint: artifact.kind for artifact in planned.inputs.values()},
                    seed=recipe.seed if step.kind.draws_random_numbers else None,
                    counts=counts,
                    started=started,
                    ended=now(),
                    seconds=round(seconds, 3),
                    code=code_facts(),
                    environment=environment_facts(),
                    host=host_facts(),
                    files=record_files(folder),
                ),
            )
    return seconds


def _join(planned: PlannedStep, recipe: Recipe, workers: int, progress: Progress, ranks: Ranks) -> None:
    """Run one step beside rank 0, which holds its lock and writes its manifest."""
    with _explained(planned):
        _run(planned, recipe, workers, progress, None, ranks)


def _run(
    planned: PlannedStep,
    recipe: Recipe,
    workers: int,
    progress: Progress,
    backend: Backend | None,
    ranks: Ranks | None = None,
) -> Any:
    """Call the step's function; its workers live as long as it."""
    step, local = planned.step, LocalProcesses()
    context = StepContext(
        step=step.name,
        out=planned.artifact.path,
        inputs=planned.inputs,
        seed=recipe.seed,
        workers=workers,
        progress=progress,
        recipe_dir=recipe.path.parent.resolve(),  # the workers of a cluster have other working folders
        ranks=ranks if step.kind.joins_ranks else None,
    )
    try:
        with running_on(backend or local):
            return step.kind.run(step.config, context)
    finally:
        local.close()


def _do_share(
    planned: PlannedStep, recipe: Recipe, workers: int, progress: Progress, backend: Backend | None, share: Share
) -> bool:
    """Do a share of a step, side by side with other shares. True when that was the last of its shards."""
    step, folder, name = planned.step, planned.artifact.path, f"{share.index}/{share.count}"
    if not step.kind.shards_divide:
        raise ConfigError(
            f"step '{step.name}' ({step.kind.kind}) cannot be divided into shares, and all before it are finished. "
            f"Run it once without --shard: diglot run ... --until {step.name}"
        )
    progress.say(f"  {step.name:<12} share {name}   {planned.artifact.fingerprint}")
    try:
        with _lock(folder, shared=True), _explained(planned), doing_share(replace(share, folder=folder)):
            if planned.artifact.is_complete:  # since the plan was made; nothing is written to a finished artifact
                progress.say(f"  {step.name:<12} was completed by another process; nothing is left for share {name}")
                return False
            _run(planned, recipe, workers, progress, backend)
    except _BusyError:
        progress.say(f"  {step.name:<12} is being completed by another process; nothing is left for share {name}")
        return False
    except ShareDone as done:
        progress.say(
            f"  {step.name:<12} share {name} done; {done.num_finished} of {done.num_tasks} shards are finished"
        )
        if done.num_finished < done.num_tasks:
            progress.say(
                "The share that finishes the last shard completes the step, and so does a run without --shard."
            )
        return done.num_finished == done.num_tasks
    raise AssertionError(f"{step.kind.kind} says that its shards divide, but maps none that are recorded.")


@contextlib.contextmanager
def _explained(planned: PlannedStep) -> Iterator[None]:
    """Errors that a user can cause name the step."""
    step, folder = planned.step, planned.artifact.path
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, folder, f"running step '{step.name}' in") from error
    except DiglotError as error:
        error.add_note(f"in step '{step.name}' ({step.kind.kind})")
        raise


@contextlib.contextmanager
def _lock(folder: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """One builder per artifact, or any number of shares of it; the lock falls with the process that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    while True:
        with path.open("a") as stream:
            try:
                fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise _BusyError(
                    f"another process is building {folder}. Wait for it, or stop it and run again."
                ) from None
            if not _is_at(stream, path):  # removed by its last holder before we locked it
                continue
            yield
            if not shared:
                path.unlink(missing_ok=True)
            return


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _record_run(recipe: Recipe, plan: list[PlannedStep], folder: Path) -> None:
    write_text(folder / "recipe.yaml", yaml.safe_dump(dict(recipe.resolved), sort_keys=False, allow_unicode=True))
    write_json(
        folder / "plan.json",
        {
            "recipe": recipe.name,
            "run": recipe.run_name,
            "scale": recipe.scale,
            "scale_reason": recipe.scale_reason,
            "seed": recipe.seed,
            "order": [p.step.name for p in plan],
            "steps": {p.step.name: p.record() for p in plan},
        },
    )
    for entry in folder.iterdir():  # links of steps that the recipe no longer has
        # names with a dot in front are links that another process is just putting in place
        if entry.is_symlink() and entry.name[0] != "." and entry.name not in {p.step.name for p in plan}:
            entry.unlink(missing_ok=True)


def _link(link: Path, target: Path) -> None:
    relative = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == relative:
        return
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}{PARTIAL}")
    temporary.symlink_to(relative)
    os.replace(temporary, link)


def _append(path: Path, record: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n")


def _check_expectations(recipe: Recipe, step: str, artifact: Artifact) -> None:
    for key, (low, high) in recipe.expect.items():
        name, _, path = key.partition(".")
        if name != step:
            continue
        value: Any = artifact.counts
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, int | float):
            raise DiglotError(
                f"expect {key}: step '{step}' counted no such number. It counted: {', '.join(artifact.counts)}."
            )
        if not low <= value <= high:
            raise DiglotError(
                f"expect {key}: found {value:g}, outside [{low:g}, {high:g}]. The artifact is kept: look at it with "
                f"`diglot show {recipe.run_name} {step}`, then change the step or the expectation."
            )
