"""The pages of docs/rules are written from the policies, and every rule fired or says why it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from diglot.core.errors import ConfigError
from diglot.corpus.policy import load_policy, policy_names
from diglot.corpus.rule_pages import RECORD, main, pages, silent_rules
from diglot.corpus.signals import RPS_NAMES, SIGNALS

RULES = Path(__file__).parents[2] / "docs" / "rules"


@pytest.fixture(scope="module")
def record():
    return json.loads((RULES / RECORD).read_text(encoding="utf-8"))


def test_the_committed_pages_are_current(record):
    current = pages(record)
    assert {path.name for path in RULES.glob("*.md")} == set(current)
    stale = [name for name, content in current.items() if (RULES / name).read_text(encoding="utf-8") != content]
    assert not stale, "run: python -m diglot.corpus.rule_pages docs/rules"


def test_the_record_was_made_with_the_limits_of_today(record):
    for name in policy_names():
        limits = {rule.name: rule.limits() for rule in load_policy(name).rules}
        assert {rule: own["limits"] for rule, own in record["policies"][name]["rules"].items()} == limits


def test_every_rule_fired_or_says_why_not(record):
    assert not [(policy, rule) for policy, rule, why in silent_rules(record) if not why]


def test_counts_add_up(record):
    for own in record["policies"].values():
        for rule in own["rules"].values():
            assert rule["alone"] <= rule["dropped"] <= own["dropped"] <= own["documents"]
            assert len(rule["examples"]) == min(2, rule["dropped"])
        assert sum(rule["alone"] for rule in own["rules"].values()) <= own["dropped"]


def test_a_page_has_the_limit_reason_source_and_definition_of_each_rule(record):
    page = pages(record)["matrix-en.md"]
    for rule in load_policy("matrix-en").rules:
        section = page.partition(f"## {rule.name}\n")[2].partition("\n## ")[0]
        for part in (rule.limits(), rule.why, rule.source, rule.victims, "Signal: "):
            assert part in section
    assert "`rps_doc_word_count`" in page
    signals = pages(record)["signals.md"]
    assert all(f"### {name}\n" in signals for name in SIGNALS)
    assert all(f"`{name}`" in signals for name in RPS_NAMES)


def test_an_edited_page_is_found_and_written_again(tmp_path, capsys):
    shutil.copytree(RULES, tmp_path / "rules")
    page = tmp_path / "rules" / "c4.md"
    page.write_text("edited", encoding="utf-8")
    assert main([str(tmp_path / "rules"), "--check"]) == 1
    assert page.read_text(encoding="utf-8") == "edited"
    assert "not current: c4.md" in capsys.readouterr().out
    assert main([str(tmp_path / "rules")]) == 0
    assert page.read_text(encoding="utf-8") == (RULES / "c4.md").read_text(encoding="utf-8")
    assert main([str(tmp_path / "rules"), "--check"]) == 0


def test_without_a_record_the_command_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="-m benchmarks"):
        main([str(tmp_path)])
