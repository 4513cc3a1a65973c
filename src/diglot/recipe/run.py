"""Run a plan: build what is missing, reuse what is there, record what happened.

    store/<kind>/<fingerprint>/     artifacts, shared by all recipes; `manifest.json` written last
    runs/<recipe>/plan.json         what the last run resolved to; `diglot plan` compares with it
    runs/<recipe>/recipe.yaml       the recipe with scale and overrides applied
    runs/<recipe>/ledger.jsonl      one line per finished or reused step, appended
    runs/<recipe>/<step>            link to the step's artifact

A kill at any moment leaves finished artifacts, and the finished shards and checkpoints of the step it hit.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diglot.core.errors import DiglotError, InputError, explain_os_error
from diglot.core.progress import Progress
from diglot.core.storage import PARTIAL, write_json, write_text
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
from diglot.recipe.plan import PlannedStep, make_plan
from diglot.recipe.schema import Recipe
from diglot.steps.context import StepContext


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where artifacts and runs live."""

    store: Path = Path("store")
    runs: Path = Path("runs")

    def run_folder(self, run_name: str) -> Path:
        return self.runs / run_name


def run_recipe(
    recipe: Recipe, places: Places, *, workers: int, progress: Progress, until: str | None = None
) -> dict[str, Artifact]:
    """Bring every step's artifact into existence, in order; return them by step name.

    until: stop after this step. Raises DiglotError when a step fails or an expectation is not met.
    """
    if until is not None:
        recipe.step(until)
    started = time.monotonic()
    folder = places.run_folder(recipe.run_name)
    plan = make_plan(recipe, places.store.resolve(), folder)
    progress.say(
        f"{recipe.run_name}: {len(plan)} steps, {sum(p.status == 'reuse' for p in plan)} built, in {places.store}"
    )
    _record_run(recipe, plan, folder)
    artifacts: dict[str, Artifact] = {}
    for planned in plan:
        name = planned.step.name
        if planned.status == "reuse":
            progress.say(f"  {name:<12} reused   {planned.artifact.fingerprint}")
        else:
            progress.say(f"  {name:<12} {planned.status}s   {planned.artifact.fingerprint}")
            seconds = _build(planned, recipe, workers, progress)
            progress.say(f"  {name:<12} done in {seconds:.1f} s")
        artifacts[name] = planned.artifact
        _link(folder / name, planned.artifact.path)
        _append(folder / "ledger.jsonl", {"time": now(), "step": name, "status": planned.status, **planned.record()})
        _check_expectations(recipe, name, planned.artifact)
        if name == until:
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


def _build(planned: PlannedStep, recipe: Recipe, workers: int, progress: Progress) -> float:
    """Run one step and write its manifest. Returns the seconds of this attempt."""
    step, folder = planned.step, planned.artifact.path
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        for leftover in folder.rglob(f".*{PARTIAL}"):  # of a killed attempt
            leftover.unlink(missing_ok=True)
        started, clock = now(), time.monotonic()
        context = StepContext(
            step=step.name,
            out=folder,
            inputs=planned.inputs,
            seed=recipe.seed,
            workers=workers,
            progress=progress,
            recipe_dir=recipe.path.parent,
        )
        try:
            counts = step.kind.run(step.config, context)
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
        except OSError as error:
            raise explain_os_error(error, folder, f"running step '{step.name}' in") from error
        except DiglotError as error:
            error.add_note(f"in step '{step.name}' ({step.kind.kind})")
            raise
    return seconds


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One builder per artifact; the lock falls with the process that holds it."""
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DiglotError(f"another process is building {folder}. Wait for it, or stop it and run again.") from None
        yield
    with contextlib.suppress(OSError):
        (folder / ".lock").unlink()


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
        if entry.is_symlink() and entry.name not in {p.step.name for p in plan}:
            entry.unlink()


def _link(link: Path, target: Path) -> None:
    relative = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == relative:
        return
    temporary = link.with_name(f".{link.name}{PARTIAL}")
    temporary.unlink(missing_ok=True)
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
