"""Reuse, resume, plan differences and expectations, on a step kind that counts how often it is asked to work."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diglot.core.errors import ConfigError, DiglotError, InputError
from diglot.core.progress import Progress
from diglot.core.storage import write_text
from diglot.recipe.plan import make_plan
from diglot.recipe.run import Places, run_artifacts, run_recipe
from diglot.recipe.schema import load_recipe
from diglot.steps import kinds
from diglot.steps.context import Planned, StepContext, StepKind, input_step, runtime


@dataclass(frozen=True, kw_only=True)
class WriteConfig:
    text: str
    pace: int = runtime(1)

    def __post_init__(self) -> None:
        if not self.text:
            raise ConfigError("text must not be empty.")


@dataclass(frozen=True, kw_only=True)
class RepeatConfig:
    from_: str = input_step("write", "repeat")
    times: int = 2


calls: list[str] = []


def write(config: WriteConfig, context: StepContext) -> dict[str, Any]:
    calls.append(context.step)
    write_text(context.out / "text.txt", config.text)
    return {"letters": len(config.text)}


def repeat(config: RepeatConfig, context: StepContext) -> dict[str, Any]:
    calls.append(context.step)
    text = (context.input().path / "text.txt").read_text() * config.times
    if "boom" in text:
        raise DiglotError("the text explodes; write another one.")
    write_text(context.out / "text.txt", text)
    return {"letters": len(text)}


def compare(now: Planned, last: Planned | None) -> list[str]:
    text = (now.inputs["from"].path / "text.txt").read_text()
    return [f"{last.config.times if last else 'never'} then {now.config.times} times {text}, from {now.config.from_}"]


WRITE = StepKind(kind="write", version=1, config=WriteConfig, run=write)
REPEAT = StepKind(
    kind="repeat", version=1, config=RepeatConfig, run=repeat, draws_random_numbers=True, describe=compare
)
RECIPE = """
recipe: words
seed: 1
steps:
  first: {kind: write, text: hey}
  more: {kind: repeat, from: first, times: 3}
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setattr(kinds, "KINDS", {"write": f"{__name__}:WRITE", "repeat": f"{__name__}:REPEAT"})
    kinds.step_kind.cache_clear()
    calls.clear()
    (tmp_path / "words.yaml").write_text(RECIPE)
    yield Places(store=tmp_path / "store", runs=tmp_path / "runs")
    kinds.step_kind.cache_clear()


def run(places: Places, *overrides: str, **options: Any):
    recipe = load_recipe(places.store.parent / "words.yaml", overrides=overrides)
    return run_recipe(recipe, places, workers=1, progress=Progress(quiet=True), **options)


def test_a_second_run_builds_nothing(places: Places):
    first = run(places)
    assert run(places) == first
    assert calls == ["first", "more"]
    assert (first["more"].path / "text.txt").read_text() == "heyheyhey"


def test_a_changed_setting_rebuilds_the_step_and_what_follows_it_only(places: Places):
    run(places)
    run(places, "more.times=2")
    run(places, "first.pace=9")  # not result-bearing
    assert calls == ["first", "more", "more"]


def test_the_seed_renames_only_steps_that_draw_random_numbers(places: Places):
    run(places)
    run(places, "seed=2")
    assert calls == ["first", "more", "more"]


def test_a_folder_without_manifest_is_not_trusted(places: Places):
    artifact = run(places)["more"]
    (artifact.path / "manifest.json").unlink()
    run(places)
    assert calls == ["first", "more", "more"]


def test_plan_says_what_is_reused_and_what_changed(places: Places):
    run(places)
    recipe = load_recipe(places.store.parent / "words.yaml", overrides=["more.times=5"])
    first, more = make_plan(recipe, places.store.resolve(), places.run_folder("words"))
    assert (first.status, first.changes) == ("reuse", ())
    assert (more.status, more.changes) == ("build", ("times: 3 -> 5",))


def test_plan_lets_a_step_compare_itself_with_the_last_run(places: Places):
    recipe = load_recipe(places.store.parent / "words.yaml", overrides=["more.times=5"])
    run(places)

    def details():
        planned = make_plan(recipe, places.store.resolve(), places.run_folder("words"), describe=True)
        return [step.details for step in planned]

    assert details() == [(), ("3 then 5 times hey, from first",)]
    shutil.rmtree(places.run_folder("words"))
    assert details()[1] == ("never then 5 times hey, from first",)
    assert make_plan(recipe, places.store.resolve(), places.run_folder("words"))[1].details == ()


def test_a_step_that_fails_keeps_the_ones_before_it_and_names_itself(places: Places):
    with pytest.raises(DiglotError, match="write another one") as caught:
        run(places, "first.text=boom")
    assert caught.value.__notes__ == ["in step 'more' (repeat)"]
    assert list(run_artifacts(places, "words")) == ["first"]


def test_the_manifest_names_inputs_files_and_counts(places: Places):
    artifacts = run(places)
    manifest = artifacts["more"].manifest
    assert manifest.inputs == {"from": artifacts["first"].fingerprint}
    assert manifest.counts == {"letters": 9}
    assert [(f.path, f.bytes) for f in manifest.files] == [("text.txt", 9)]
    assert artifacts["more"].upstream("write").path == artifacts["first"].path
    ledger = [json.loads(line) for line in (places.runs / "words" / "ledger.jsonl").read_text().splitlines()]
    assert [(record["step"], record["status"]) for record in ledger] == [("first", "build"), ("more", "build")]


def test_until_stops_after_that_step(places: Places):
    assert list(run(places, until="first")) == ["first"]
    with pytest.raises(ConfigError, match="did you mean 'first'"):
        run(places, until="frist")


@pytest.mark.parametrize(
    ("bounds", "message"), [("[9, 9]", None), ("[1, 8]", "found 9, outside"), ("[1, x]", "must be a pair")]
)
def test_an_expectation_outside_its_range_stops_the_run(places: Places, bounds: str, message: str | None):
    path = places.store.parent / "words.yaml"
    path.write_text(RECIPE + f"expect: {{more.letters: {bounds}}}\n")
    if message is None:
        run(places)
    else:
        with pytest.raises(DiglotError, match=message):
            run(places)


def test_a_config_that_refuses_itself_is_reported_with_its_place(places: Places):
    with pytest.raises(ConfigError, match=r"step 'first' of words.yaml: text must not be empty"):
        run(places, "first.text=''")


def test_an_unknown_run_lists_the_known_ones(places: Places):
    run(places)
    with pytest.raises(InputError, match="Runs here: words"):
        run_artifacts(places, "word")
