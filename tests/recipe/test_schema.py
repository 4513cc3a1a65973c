"""A recipe is checked before anything runs, and every complaint names the place and the right word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diglot.core.errors import ConfigError, InputError
from diglot.recipe.schema import json_schema, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))

SMALL = """
recipe: small
seed: 5
steps:
  signals: {kind: annotate, from: pages}
  pages: {kind: ingest, source: pages/}
scales:
  xs: {about: tiny, set: {steps.pages.max_documents: 7}}
  huge: {about: a cluster, needs: {cores: 100000}}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_steps_are_put_in_an_order_in_which_inputs_come_first(small: Path):
    assert [step.name for step in load_recipe(small).steps] == ["pages", "signals"]


def test_a_scale_and_then_an_override_change_settings(small: Path):
    assert load_recipe(small).step("pages").config.max_documents is None
    assert load_recipe(small, scale="xs").step("pages").config.max_documents == 7
    assert load_recipe(small, scale="xs", overrides=["pages.max_documents=9"]).step("pages").config.max_documents == 9


def test_auto_takes_the_largest_scale_that_fits_and_says_why(small: Path):
    recipe = load_recipe(small, scale="auto")
    assert recipe.scale == "xs"
    assert "cores" in recipe.scale_reason
    assert recipe.run_name == "small@xs"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("steps:", "stepps:"), "did you mean 'steps'"),
        (("kind: ingest", "kind: ingset"), "did you mean 'ingest'"),
        (("source: pages/", "source: pages/, max_documnets: 3"), "did you mean 'max_documents'"),
        (("from: pages", "from: page"), "did you mean 'pages'"),
        (("from: pages", "fron: pages"), "did you mean 'from'"),
        (("from: pages", "from: signals"), "is of kind annotate, but annotate needs one of: ingest"),
        (("source: pages/", "source: pages/, max_documents: many"), "max_documents"),
        (("seed: 5", "seed: five"), "seed must be a whole number"),
        (("seed: 5", "seed: ["), "not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_the_nearest_right_word(small: Path, change: tuple[str, str], complaint: str):
    small.write_text(SMALL.replace(*change))
    with pytest.raises(ConfigError, match=complaint):
        load_recipe(small)


@pytest.mark.parametrize(
    "override", ["pages.max_documents", "steps.page.source=x", "pages.source.deep=1", "pages.include.0=x"]
)
def test_an_override_that_fits_nothing_is_refused(small: Path, override: str):
    with pytest.raises(ConfigError):
        load_recipe(small, overrides=[override])


def test_a_missing_recipe_lists_what_is_there(tmp_path: Path):
    with pytest.raises(InputError, match="no recipe at"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid_at_every_scale(path: Path):
    recipe = load_recipe(path)
    for scale in recipe_scales(path):
        load_recipe(path, scale=scale)
    assert recipe.about, "a shipped recipe says what it does"


def recipe_scales(path: Path) -> list[str]:
    import yaml

    return list(yaml.safe_load(path.read_text()).get("scales", {}))


def test_the_json_schema_knows_every_kind_and_refuses_other_keys():
    schema = json_schema()
    ingest = schema["$defs"]["step_ingest"]
    assert ingest["properties"]["kind"] == {"const": "ingest"}
    assert ingest["additionalProperties"] is False
    assert "from" in schema["$defs"]["step_annotate"]["required"]


def test_loading_a_recipe_loads_neither_torch_nor_numba():
    code = (
        "import sys; from pathlib import Path; from diglot.recipe.schema import load_recipe; "
        f"load_recipe(Path({str(RECIPES[0])!r})); "
        "assert not {'torch', 'numba', 'transformers'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
