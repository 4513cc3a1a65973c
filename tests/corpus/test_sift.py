"""What-if: another limit decides the same corpus again, and the two funnels are compared."""

from __future__ import annotations

import pytest
import yaml

from annotated_pages import ingested
from diglot.core.errors import ConfigError
from diglot.corpus.policy import parse_policy
from diglot.corpus.sift import replaced, run_policies, sift, with_limit
from diglot.corpus.tables import attributes_of, decisions_of, shards
from diglot.steps.annotate import STEP as ANNOTATE
from diglot.steps.select import STEP as SELECT
from handmade_corpus import run_step

POLICY = {
    "policy": "lenient",
    "languages": ["en", "zh-Hans"],
    "about": "at least twenty units",
    "source": "ours",
    "rules": [
        {"signal": "num_units", "drop_below": 20, "why": "short", "source": "ours"},
        {"signal": "num_chars", "drop_below": 85, "why": "short", "source": "ours"},
    ],
}


@pytest.fixture(scope="module")
def selected(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    measured = run_step(ANNOTATE, store / "annotate" / "a", inputs={"from": ingested(store)})
    return select(store, measured, "s", POLICY)


def select(store, measured, name, policy):
    out = store / "select" / name
    out.mkdir(parents=True)
    (out / "lenient.yaml").write_text(yaml.safe_dump(policy), encoding="utf-8")
    policies = {"en": "lenient.yaml", "zh-Hans": "lenient.yaml"}
    return run_step(SELECT, out, inputs={"from": measured}, languages=("en", "zh-Hans"), policies=policies)


def verdicts(artifact):
    return [row for shard in shards(artifact.upstream("ingest")) for row in decisions_of(artifact, shard).to_pylist()]


def test_the_same_policies_give_the_stored_funnel_and_change_nothing(selected):
    sifted = sift(selected, run_policies(selected))
    rows = verdicts(selected)
    assert sifted.old == sifted.new
    assert (sifted.new.total.documents, sifted.new.total.kept) == (len(rows), sum(row["keep"] for row in rows))
    assert sifted.new.total.bytes_kept == sum(row["num_bytes"] for row in rows if row["keep"])
    assert (sifted.changed_rules, sifted.came_in.documents, sifted.fell_out.documents) == ((), 0, 0)


def test_a_new_limit_gives_what_a_new_select_step_would(selected):
    policies = with_limit(run_policies(selected), "num_units.drop_below=40")
    sifted = sift(selected, policies, num_examples=2)
    rules = [{**POLICY["rules"][0], "drop_below": 40}, POLICY["rules"][1]]
    again = select(selected.store, selected.upstream("annotate"), "forty", {**POLICY, "rules": rules})
    rows, before = verdicts(again), verdicts(selected)
    assert sifted.new.total.kept == sum(row["keep"] for row in rows)
    assert 0 < sifted.fell_out.documents == sum(b["keep"] and not r["keep"] for b, r in zip(before, rows, strict=True))
    number = 3  # behind the three rules of the step itself
    assert sifted.new.rules["num_units"].first == sum(row["first_reason"] == number for row in rows)
    assert sifted.new.rules["num_units"].objections == sum(row["reasons"] >> number & 1 for row in rows)
    assert sifted.new.rules["num_units"].alone == sum(row["reasons"] == 1 << number for row in rows)
    assert sifted.changed_rules == ("num_units",)


def test_examples_lie_nearest_to_the_border_on_both_sides_and_nothing_else_objects_to_them(selected):
    english = {row["id"] for row in verdicts(selected) if row["lang"] == "en"}
    units = {}
    for shard in shards(selected.upstream("ingest")):
        table = attributes_of(selected, "quality", shard, ["id", "num_units"])
        units |= {row["id"]: row["num_units"] for row in table.to_pylist() if row["id"] in english}
    below, above = sorted(set(units.values()))[-2:]
    limit = (below + above) / 2
    policies = with_limit(run_policies(selected), "num_chars=off")
    sifted = sift(selected, with_limit(policies, f"en.num_units.drop_below={limit}"), num_examples=1)
    dropped, stays = sorted(sifted.examples, key=lambda example: not example.dropped)
    assert (dropped.value, stays.value) == (below, above)
    assert units[dropped.id] == below
    assert dropped.excerpt
    assert "num_units (en)" in sifted.to_text()


def test_a_limit_is_set_in_one_language_or_in_all_taken_away_or_switched_off(selected):
    policies = run_policies(selected)
    seven = with_limit(policies, "en.num_units.drop_below=7").default
    assert seven["en"].rules[0].drop_below == 7
    assert seven["zh-Hans"] == policies.default["zh-Hans"]
    assert [rule.name for rule in with_limit(policies, "num_units=off").default["zh-Hans"].rules] == ["num_chars"]
    other = parse_policy({**POLICY, "policy": "other", "languages": ["en"]}, "other")
    assert replaced(policies, other).default == {"en": other, "zh-Hans": policies.default["zh-Hans"]}


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("num_unit.drop_below=4", "did you mean 'num_units'"),
        ("num_units=4", "Write RULE.drop_above=NUMBER"),
        ("num_units.drop_below=off", "Write RULE.drop_above=NUMBER"),
        ("num_units.drop_below=many", "must be a number"),
        ("num_units.drop_below=nan", "must be a number"),
        ("en=off", "unknown rule 'en'"),
        ("num_units.drop_below=null", "neither drop_below nor drop_above"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(selected, override, complaint):
    with pytest.raises(ConfigError, match=complaint):
        with_limit(run_policies(selected), override)


def test_a_policy_for_other_languages_is_refused(selected):
    german = parse_policy({**POLICY, "languages": ["de"]}, "german")
    with pytest.raises(ConfigError, match="is for de, but the run selects en, zh-Hans"):
        replaced(run_policies(selected), german)
