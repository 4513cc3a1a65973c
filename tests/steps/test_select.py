"""The select step: every document gets a verdict with every objection, from attributes alone."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pyarrow as pa
import pytest
import yaml

from annotated_pages import ingested
from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json
from diglot.corpus.decide import decide, rule_numbers
from diglot.corpus.policy import load_policy, parse_policy
from diglot.corpus.tables import DECISION, decisions_of, rule_names, shards
from diglot.ledger.artifact import Artifact
from diglot.steps.annotate import STEP as ANNOTATE
from diglot.steps.select import STEP, SelectConfig, observe
from handmade_corpus import run_step

LENIENT = {
    "policy": "lenient",
    "languages": ["en"],
    "about": "at least twenty units",
    "source": "ours",
    "rules": [
        {"signal": "num_units", "drop_below": 20, "why": "short", "source": "ours"},
        {"signal": "num_chars", "drop_below": 85, "why": "short", "source": "ours"},
        {"signal": "unit_entropy", "drop_below": 0.1, "why": "repeats", "source": "ours"},
    ],
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return run_step(ANNOTATE, store / "annotate" / "a", inputs={"from": ingested(store)})


@pytest.fixture
def signals(tmp_path, measured):
    """The annotated corpus in a store of the test's own, which it may damage."""
    shutil.copytree(measured.store, tmp_path, dirs_exist_ok=True)
    return Artifact(tmp_path / "annotate" / "a")


def selected(tmp_path, signals, name="s", workers=1, **settings):
    out = tmp_path / "select" / name
    out.mkdir(parents=True, exist_ok=True)
    (out / "lenient.yaml").write_text(yaml.safe_dump(LENIENT), encoding="utf-8")
    settings.setdefault("languages", ("en", "zh-Hans"))
    settings.setdefault("policies", {"en": "lenient.yaml", "zh-Hans": "lenient.yaml"})
    return run_step(STEP, out, inputs={"from": signals}, workers=workers, **settings)


def verdicts(artifact):
    rows = [row for shard in shards(artifact.upstream("ingest")) for row in decisions_of(artifact, shard).to_pylist()]
    rules = rule_names(artifact)
    return {row["id"]: [rule for bit, rule in enumerate(rules) if row["reasons"] >> bit & 1] for row in rows}


def test_each_document_has_every_reason_that_applies(tmp_path, signals):
    assert verdicts(selected(tmp_path, signals)) == {
        "guide-0": ["language"],  # traditional Chinese is not wanted here
        "guide-1": ["num_units", "num_chars"],
        "handbook-0": [],
        "handbook-1": ["empty", "language"],
        "handbook-2": ["language"],
        "handbook-3": ["num_chars"],
        "handbook-4": ["language"],
    }


def test_the_language_star_wants_every_other_language_and_has_a_policy_for_it(tmp_path, signals):
    strict = {**LENIENT, "rules": [{"signal": "num_units", "drop_below": 1000, "why": "w", "source": "s", "name": "x"}]}
    (tmp_path / "strict.yaml").write_text(yaml.safe_dump(strict), encoding="utf-8")
    policies = {"*": str(tmp_path / "strict.yaml"), "en": "lenient.yaml"}
    found = verdicts(selected(tmp_path, signals, languages=("*", "en"), policies=policies))
    assert found["handbook-2"] == ["x"]  # another language
    assert found["handbook-1"] == ["empty", "x"]  # identified as no language
    assert found == verdicts(selected(tmp_path, signals, name="t", languages=("en", "*"), policies=policies))
    assert not any("language" in reasons for reasons in found.values())
    assert sum(reasons in ([], ["num_units", "num_chars"], ["num_chars"]) for reasons in found.values()) == 2


def test_counts_sum_exactly_by_language_and_first_reason(tmp_path, signals):
    counts = selected(tmp_path, signals).counts
    assert (counts["documents"], counts["kept"], counts["dropped"]) == (7, 1, 6)
    assert counts["reasons"] == {"empty": 1, "language": 3, "num_units": 1, "num_chars": 1}
    assert counts["languages"]["en"]["reasons"] == {"num_units": 1}
    assert counts["languages"]["zh-Hans"]["reasons"] == {"num_chars": 1}
    for key in ("documents", "kept", "dropped", "bytes", "bytes_kept"):
        assert sum(language[key] for language in counts["languages"].values()) == counts[key]
    assert counts["bytes"] == signals.counts["bytes"]


def test_the_table_has_the_schema_that_all_later_steps_read(tmp_path, signals):
    artifact = selected(tmp_path, signals)
    for shard in shards(artifact.upstream("ingest")):
        table = decisions_of(artifact, shard)
        assert table.schema.equals(DECISION)
        kept = table["keep"].to_numpy(zero_copy_only=False)
        assert ((table["first_reason"].to_numpy() == -1) == kept).all()
        assert ((table["reasons"].to_numpy() == 0) == kept).all()


def test_the_first_reason_follows_the_policy_and_carries_what_was_measured(tmp_path, signals):
    artifact = selected(tmp_path, signals)
    shard = shards(artifact.upstream("ingest"))[0]
    row = decisions_of(artifact, shard).to_pylist()[1]
    assert row["id"] == "guide-1"
    assert rule_names(artifact)[row["first_reason"]] == "num_units"
    assert row["value"] == 18


def test_no_text_is_read_and_workers_do_not_change_a_byte(tmp_path, signals):
    texts = signals.upstream("ingest").path / "documents"
    for path in texts.rglob("*.parquet"):
        path.write_bytes(b"unreadable")
    one, four = (selected(tmp_path, signals, name=str(n), workers=n).path for n in (1, 4))
    for path in (one / "decisions").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (four / path.relative_to(one)).read_bytes()


def test_the_policies_that_come_with_diglot_share_bits_by_name_and_fit_into_the_mask():
    policies = [load_policy(name) for name in ("matrix-en", "matrix-zh")]
    numbers = rule_numbers(policies)
    assert list(numbers)[:3] == ["unmeasured", "empty", "language"]
    assert sorted(numbers.values()) == list(range(len(numbers)))
    assert set(numbers) - {"unmeasured", "empty", "language"} == {r.name for p in policies for r in p.rules}


def test_a_document_that_was_not_measured_is_dropped_for_that_alone():
    policy = parse_policy(LENIENT, "here")
    nan = pa.array(np.array([np.nan, 30], np.float32))
    attributes = pa.table(
        {
            "id": ["a", "b"],
            "num_bytes": pa.array([0, 120]),
            "lang": ["en", "en"],
            "num_units": nan,
            "num_chars": pa.array(np.array([np.nan, 100], np.float32)),
            "unit_entropy": pa.array(np.array([np.nan, 3], np.float32)),
            "lang_score": pa.array(np.array([np.nan, 1], np.float32)),
        }
    )
    table = decide(attributes, {"en": policy}, tuple(rule_numbers([policy])))
    assert table["keep"].to_pylist() == [False, True]
    assert table["reasons"].to_pylist() == [1, 0]


def test_policies_are_written_out_as_they_were_resolved(tmp_path, signals):
    artifact = selected(tmp_path, signals, policies={"en": "matrix-en", "zh-Hans": "matrix-zh"})
    written = read_json(artifact.path / "policies.json")
    assert written["en"]["rules"][0]["limits"] == "num_units < 50 or > 100000"
    assert written["zh-Hans"]["policy"] == "matrix-zh"


def test_the_fingerprint_sees_a_limit_and_not_a_comment(tmp_path):
    config = SelectConfig(from_="signals", languages=("en",), policies={"en": "p.yaml"})

    def seen(**rule):
        content = {**LENIENT, "rules": [{**LENIENT["rules"][0], **rule}]}
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return observe(config, tmp_path, tmp_path)

    assert seen(why="other words") == seen()
    assert seen(drop_below=21) != seen()


def test_missing_policies_families_and_clashing_names_are_refused(tmp_path, signals):
    with pytest.raises(ConfigError, match="no policy for language 'de'"):
        SelectConfig(from_="signals", languages=("de",))
    with pytest.raises(ConfigError, match="languages is empty"):
        SelectConfig(from_="signals", languages=())
    shutil.rmtree(signals.path / "attributes" / "repetition")
    with pytest.raises(InputError, match="Add repetition to the families of the annotate step"):
        selected(tmp_path, signals)
    policy = parse_policy(LENIENT, "here")
    named_empty = dataclasses.replace(policy.rules[0], name="empty")
    with pytest.raises(ConfigError, match="'empty', which select uses"):
        rule_numbers([dataclasses.replace(policy, rules=(named_empty,))])
    many = [
        dataclasses.replace(policy, rules=tuple(dataclasses.replace(policy.rules[0], name=f"r{n}") for n in range(70)))
    ]
    with pytest.raises(ConfigError, match="room for 60"):
        rule_numbers(many)


def test_a_source_may_have_a_policy_of_its_own(tmp_path, signals):
    whole = selected(tmp_path, signals)
    sources = sorted({shard.source for shard in shards(signals.upstream("ingest"))})
    other = tmp_path / "select" / "own"
    other.mkdir(parents=True)
    (other / "nothing.yaml").write_text(
        yaml.safe_dump({**LENIENT, "policy": "nothing", "rules": [{**LENIENT["rules"][0], "drop_below": 1e6}]}),
        encoding="utf-8",
    )
    own = selected(tmp_path, signals, "own", by_source={sources[0][:-1] + "*": {"en": "nothing.yaml"}})
    for shard in shards(signals.upstream("ingest")):
        before, after = decisions_of(whole, shard).to_pylist(), decisions_of(own, shard).to_pylist()
        for old, new in zip(before, after, strict=True):
            if new["lang"] == "en" and shard.source == sources[0]:
                assert not new["keep"]
            else:
                assert (new["keep"], new["value"]) == (old["keep"], pytest.approx(old["value"], nan_ok=True))
    with pytest.raises(ConfigError, match="names a policy for 'de', which is none of languages"):
        SelectConfig(from_="x", languages=("en",), by_source={"*": {"de": "matrix-en"}})
