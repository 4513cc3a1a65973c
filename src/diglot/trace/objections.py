"""The rules that object to a document, with what each measured, its limit and its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from diglot.corpus.decide import ANY, stored_policies
from diglot.corpus.decontaminate.scan import CONTAMINATED, HELDOUT, HELDOUT_OVERLAP
from diglot.corpus.dedup.verdicts import EXACT_RULE, NEAR_RULE
from diglot.corpus.edits.settings import EDITED_AWAY
from diglot.corpus.tables import Shard, decisions_of, edit_steps, read_table, rule_names
from diglot.ledger.artifact import Artifact
from diglot.trace.lineage_reports import Objection
from diglot.trace.place import Signals, finite

LANGUAGE_RULE = "language"
MAX_ITEMS_NAMED = 3  # benchmark items of a contaminated document


def objections(decider: Artifact, verdict: Mapping[str, Any], signals: Signals, shard: Shard) -> tuple[Objection, ...]:
    """Every rule whose bit is set, the one that dropped the document first.

    Args:
        decider: the artifact of the last step that decided.
        verdict: the document's row of its decisions.
        signals: what was measured, by family.
        shard: that the document stands in; some sources have policies of their own.
    """
    rules, first = rule_names(decider), verdict["first_reason"]
    set_bits = [bit for bit in range(len(rules)) if verdict["reasons"] >> bit & 1]
    set_bits.sort(key=lambda bit: (bit != first, bit))
    return tuple(_objection(decider, rules[bit], verdict, signals, shard, is_first=bit == first) for bit in set_bits)


def _objection(
    decider: Artifact, rule: str, verdict: Mapping[str, Any], signals: Signals, shard: Shard, is_first: bool
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
        return Objection(rule=rule, value=value, limit=_edit_limit(decider, verdict["id"], shard), why=None)
    select = decider.upstream("select")
    if rule == LANGUAGE_RULE:
        wanted = ", ".join(select.config.get("languages", ()))
        limit = f"identified as {verdict['lang'] or 'no language'}, wanted {wanted}"
        return Objection(rule=rule, value=_measured("lang_score", signals), limit=limit, why=None)
    described = _described(select, rule, verdict["lang"], shard.source)
    value = finite(verdict["value"]) if is_first else None
    return Objection(
        rule=rule,
        value=value if value is not None else _measured(described.get("signal", rule), signals),
        limit=described.get("limits"),
        why=described.get("why"),
    )


def _described(select: Artifact, rule: str, lang: str | None, source: str) -> Mapping[str, Any]:
    """The rule as the policy of this language and source has it; empty for the select step's own rules."""
    stored = stored_policies(select.path, source)
    policy = stored.get(lang or "") or stored.get(ANY, {})
    found: Mapping[str, Any] = next((one for one in policy.get("rules", ()) if one["name"] == rule), {})
    return found


def _contamination(decider: Artifact, rule: str, verdict: Mapping[str, Any]) -> Objection:
    """Which items stand in the document, the fullest first: benchmark and item, with their coverage."""
    kind, name = ("drop_coverage", "item") if rule == CONTAMINATED else ("heldout_coverage", "held-out document")
    steps = [a for a in decider.ancestors(aside=False) if a.kind == "decontaminate" and rule in rule_names(a)]
    for step in steps:  # later ones know the rule too; the one that dropped the document has its hits
        hits = [
            hit
            for hit in _dropping_hits(step, verdict["id"])
            if (hit["benchmark"] == HELDOUT) == (rule == HELDOUT_OVERLAP)
        ]
        if hits:
            break
    hits.sort(key=lambda hit: (-hit["coverage"], hit["benchmark"], hit["item"]))
    named = [f"{hit['benchmark']} {hit['item']} ({hit['coverage']:.2f})" for hit in hits[:MAX_ITEMS_NAMED]]
    more = f" and {len(hits) - MAX_ITEMS_NAMED} more" if len(hits) > MAX_ITEMS_NAMED else ""
    return Objection(
        rule=rule,
        value=hits[0]["coverage"] if hits else None,
        limit=f"at least {step.config[kind]:g} of one {name}",
        why=f"holds {', '.join(named)}{more}",
    )


def _dropping_hits(step: Artifact, document: str) -> list[dict[str, Any]]:
    hits = []
    for path in sorted((step.path / "hits").rglob("*.parquet")):
        table = read_table(path, ["id", "benchmark", "item", "coverage", "drops"])
        hits += table.filter(pc.and_(pc.equal(table["id"], document), table["drops"])).to_pylist()
    return hits


def _near_limit(config: Mapping[str, Any]) -> str:
    limit = f"Jaccard >= {config['verify_jaccard']:g}"
    containment = config["verify_containment"]
    return limit if containment is None else f"{limit} or containment >= {containment:g}"


def _edit_limit(decider: Artifact, document: str, shard: Shard) -> str:
    """The limit of the first edit step that dropped the document; later ones carry its verdict on."""
    for step in edit_steps(decider):
        table = decisions_of(step, shard, ["id", "keep"])
        if not table.filter(pc.equal(table["id"], document))["keep"][0].as_py():
            break
    share, chars = step.config["min_kept_share"], step.config["min_chars"]
    return f"at least {share:.0%} of the characters and {chars} of them left by the edits"


def _measured(signal: str, signals: Signals) -> float | None:
    return next((family[signal] for family in signals.values() if signal in family), None)
