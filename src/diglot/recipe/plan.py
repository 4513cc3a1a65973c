"""What a run would do: which artifacts are there, which will be built, and what changed since the last run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from diglot.core.storage import read_json
from diglot.ledger.artifact import Artifact
from diglot.ledger.fingerprint import canonical, fingerprint
from diglot.recipe.schema import Recipe, Step
from diglot.steps.context import Planned

PYTHON_WORDS = ("from",)  # slots whose config field has an underscore behind it
Status = Literal["reuse", "resume", "build"]


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step with the name of its result.

    changes: what differs from the last run, one line per setting. details: what the step says of itself.
    """

    step: Step
    config: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    observed: Mapping[str, Any] | None
    artifact: Artifact
    status: Status
    changes: tuple[str, ...]
    details: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """What determines the result, as it is compared with the next run's."""
        return {
            "kind": self.step.kind.kind,
            "version": self.step.kind.version,
            "fingerprint": self.artifact.fingerprint,
            "config": dict(self.config),
            "inputs": {slot: artifact.fingerprint for slot, artifact in self.inputs.items()},
            "observed": self.observed,
        }


def make_plan(recipe: Recipe, store: Path, run_folder: Path, *, describe: bool = False) -> list[PlannedStep]:
    """Fingerprint every step of a recipe, in running order. With `describe`, steps fill in their `details`.

    A step that reads the outside world (`ingest`) observes it here, so that a changed folder gives a new fingerprint.
    """
    last = read_json(run_folder / "plan.json") if (run_folder / "plan.json").exists() else None
    planned: dict[str, PlannedStep] = {}
    for step in recipe.steps:
        inputs = {slot: planned[name].artifact for slot, name in step.inputs.items()}
        config = step.result_settings()
        observed = step.kind.observe(step.config, recipe.path.parent, store) if step.kind.observe else None
        name = fingerprint(
            step.kind.kind,
            step.kind.version,
            config if observed is None else {**config, "observed": observed},
            {slot: artifact.fingerprint for slot, artifact in inputs.items()},
            recipe.seed if step.kind.draws_random_numbers else None,
        )
        artifact = Artifact(store / step.kind.kind / name)
        entry = PlannedStep(
            step=step,
            config=config,
            inputs=inputs,
            observed=observed,
            artifact=artifact,
            status="reuse" if artifact.is_complete else "resume" if _has_parts(artifact.path) else "build",
            changes=(),
        )
        before = (last or {}).get("steps", {}).get(step.name)
        changes = _changes(entry, before, recipe.seed, last)
        details = _details(entry, before, recipe.seed, last, store) if describe else ()
        planned[step.name] = replace(entry, changes=changes, details=details)
    return list(planned.values())


def _has_parts(folder: Path) -> bool:
    return folder.exists() and any(not p.name.startswith(".") for p in folder.iterdir())


def _changes(
    now: PlannedStep, before: Mapping[str, Any] | None, seed: int, last: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """`tokens: 1000000 -> 2000000`, one line per difference; empty when nothing changed or there was no last run."""
    if last is None:
        return ()
    if before is None:
        return ("new step",)
    record = now.record()
    lines = [f"{key}: {before[key]} -> {record[key]}" for key in ("kind", "version") if before[key] != record[key]]
    lines += _difference("", before["config"], record["config"])
    for slot in sorted({*before["inputs"], *record["inputs"]}):
        old, new = before["inputs"].get(slot), record["inputs"].get(slot)
        if old != new:
            lines.append(f"input {slot}: {old or 'none'} -> {new or 'none'}")
    if canonical(before["observed"]) != canonical(record["observed"]):
        lines.append("the source's content changed")
    if now.step.kind.draws_random_numbers and last["seed"] != seed:
        lines.append(f"seed: {last['seed']} -> {seed}")
    return tuple(lines)


def _details(
    now: PlannedStep, before: Mapping[str, Any] | None, seed: int, last: Mapping[str, Any] | None, store: Path
) -> tuple[str, ...]:
    """What the step's kind says of this plan and of the last run's, where its inputs are still in the store."""
    kind = now.step.kind
    if kind.describe is None:
        return ()
    earlier = None
    if before is not None and last is not None and before["kind"] == kind.kind:
        inputs = {slot: found for slot, name in before["inputs"].items() if (found := _in_store(store, name))}
        slots = {f"{slot}_" if slot in PYTHON_WORDS else slot: slot for slot in before["inputs"]}
        config: Any = None
        with contextlib.suppress(ValidationError):  # of another version: there is nothing to compare with
            config = TypeAdapter(kind.config).validate_python({**before["config"], **slots})
        if config is not None and len(inputs) == len(before["inputs"]):
            earlier = Planned(config=config, inputs=inputs, seed=last["seed"])
    return tuple(kind.describe(Planned(config=now.step.config, inputs=now.inputs, seed=seed), earlier))


def _in_store(store: Path, name: str) -> Artifact | None:
    return next((Artifact(path) for path in sorted(store.glob(f"*/{name}"))), None)


def _difference(prefix: str, before: Any, after: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(k for k in after if k not in before)]
        return [
            line
            for k in keys
            for line in _difference(f"{prefix}.{k}" if prefix else str(k), before.get(k), after.get(k))
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line
            for i, pair in enumerate(zip(before, after, strict=True))
            for line in _difference(f"{prefix}.{i}", *pair)
        ]
    return [] if before == after else [f"{prefix}: {before} -> {after}"]
