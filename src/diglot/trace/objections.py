"""The rules that object to a document, with what each measured, its limit and its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from diglot.corpus.decide import stored_policies
from diglot.corpus.decontaminate.scan import CONTAMINATED, HELDOUT, HELDOUT_OVERLAP
from diglot.corpus.dedup.verdicts import EXACT_RULE, NEAR_RULE
from diglot.corpus.tables import read_table, rule_names
from diglot.ledger.artifact import Artifact
from diglot.trace.lineage_reports import Objection
from diglot.trace.place import Signals, finite

LANGUAGE_RULE = "language"
MAX_ITEMS_NAMED = 3  # benchmark items of a contaminated document
EDITED_AWAY = "edited_away"  # of the edit step


def objections(decider: Artifact, verdict: Mapping[str, Any], signals: Signals, source: str) -> tuple[Objection, ...]:
    """Every rule whose bit is set, the one that dropped the document first.

    Args:
        decider: the artifact of the last step that decided.
        verdict: the document's row of its decisions.
        signals: what was measured, by family.
        source: of the document; some sources have policies of their own.
    """
    rules, first = rule_names(decider), verdict["first_reason"]
    set_bits = [bit for bit in range(len(rules)) if verdict["reasons"] >> bit & 1]
    set_bits.sort(key=lambda bit: (bit != first, bit))
    return tuple(_objection(decider, rules[bit], verdict, signals, source, is_first=bit == first) for bit in set_bits)


def _objection(
    decider: Artifact, rule: str, verdict: Mapping[str, Any], signals: Signals, source: str, is_first: bool
) -> Objection:
    if rule == EXACT_RULE:
        return Objection(rule=rule, value=finite(verdict["jaccard"]), limit="equal text", why=None)
    if rule == NEAR_RULE:
        limit = _near_limit(decider.upstream("deduplicate").config)
        return Objection(rule=rule, value=finite(verdict["jaccard"]), limit=limit, why=None)
    if rule in (CONTAMINATED, HELDOUT_OVERLAP):
        return _contamination(decider, rule, verdict)
    if rule == EDITED_AWAY:
        value = finite(verdict["value"]) if is_first else None
        return Objection(rule=rule, value=value, limit=_edit_limit(decider.upstream("edit").config), why=None)
    select = decider.upstream("select")
    if rule == LANGUAGE_RULE:
        wanted = ", ".join(select.config.get("languages", ()))
        limit = f"identified as {verdict['lang'] or 'no language'}, wanted {wanted}"
        return Objection(rule=rule, value=_measured("lang_score", signals), limit=limit, why=None)
    described = _described(select, rule, verdict["lang"], source)
    value = finite(verdict["value"]) if is_first else None
    return Objection(
        rule=rule,
        value=value if value is not None else _measured(described.get("signal", rule), signals),
        limit=described.get("limits"),
        why=described.get("why"),
    )


def _described(select: Artifact, rule: str, lang: str | None, source: str) -> Mapping[str, Any]:
    """The rule as the policy of this language and source has it; empty for the select step's own rules."""
    policy = stored_policies(select.path, source).get(lang or "", {})
    found: Mapping[str, Any] = next((one for one in policy.get("rules", ()) if one["name"] == rule), {})
    return found


def _contamination(decider: Artifact, rule: str, verdict: Mapping[str, Any]) -> Objection:
    """Which items stand in the document, the fullest first: benchmark and item, with their coverage."""
    step = next(a for a in decider.ancestors() if a.kind == "decontaminate" and rule in rule_names(a))
    kind, name = ("drop_coverage", "item") if rule == CONTAMINATED else ("heldout_coverage", "held-out document")
    hits = []
    for path in sorted((step.path / "hits").rglob("*.parquet")):
        table = read_table(path, ["id", "benchmark", "item", "coverage", "drops"])
        hits += table.filter(pc.and_(pc.equal(table["id"], verdict["id"]), table["drops"])).to_pylist()
    hits = [hit for hit in hits if (hit["benchmark"] == HELDOUT) == (rule == HELDOUT_OVERLAP)]
    hits.sort(key=lambda hit: (-hit["coverage"], hit["benchmark"], hit["item"]))
    named = [f"{hit['benchmark']} {hit['item']} ({hit['coverage']:.2f})" for hit in hits[:MAX_ITEMS_NAMED]]
    more = f" and {len(hits) - MAX_ITEMS_NAMED} more" if len(hits) > MAX_ITEMS_NAMED else ""
    return Objection(
        rule=rule,
        value=hits[0]["coverage"] if hits else None,
        limit=f"at least {step.config[kind]:g} of one {name}",
        why=f"holds {', '.join(named)}{more}",
    )


def _near_limit(config: Mapping[str, Any]) -> str:
    limit = f"Jaccard >= {config['verify_jaccard']:g}"
    containment = config["verify_containment"]
    return limit if containment is None else f"{limit} or containment >= {containment:g}"


def _edit_limit(config: Mapping[str, Any]) -> str:
    return (
        f"at least {config['min_kept_share']:.0%} of the characters and {config['min_chars']} of them left by the edits"
    )


def _measured(signal: str, signals: Signals) -> float | None:
    return next((family[signal] for family in signals.values() if signal in family), None)
