"""Verdicts from attributes: what policies say of the documents of a shard, without reading a text.

Before any policy three rules are asked: `unmeasured` (the document killed the worker that measured it), `empty` (no
text unit), `language` (identified as a language that is not wanted, or as none). A policy under the language `*` judges
whatever has no policy of its own, also what was identified as no language. Rules of two policies with the same
name share a bit; which limit was applied follows from the language of the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from diglot.core.errors import ConfigError, InputError
from diglot.core.patterns import most_specific
from diglot.core.storage import read_json, write_json
from diglot.corpus.policy import Policy, parse_policy
from diglot.corpus.tables import DECISION, Shard, attribute_folder, column_names, read_table
from diglot.ledger.artifact import Artifact

UNMEASURED, EMPTY, LANGUAGE = "unmeasured", "empty", "language"
OWN_RULES = (UNMEASURED, EMPTY, LANGUAGE)
ANY = "*"  # as a language in policies: any that has no policy of its own
MAX_RULES = 60  # bits of a uint64, less some for the steps that follow


def rule_numbers(policies: Iterable[Policy]) -> dict[str, int]:
    """Name of a rule -> its bit: the step's own, then those of the policies in order, each name once."""
    names = dict.fromkeys(OWN_RULES)
    for policy in policies:
        for rule in policy.rules:
            if rule.name in OWN_RULES:
                raise ConfigError(f"policy {policy.policy} calls a rule '{rule.name}', which select uses. Rename it.")
            names[rule.name] = None
    if len(names) > MAX_RULES:
        raise ConfigError(
            f"the policies have {len(names)} rules of different names, but decisions have room for {MAX_RULES}. "
            "Give rules on the same signal the same name, or select fewer languages at a time."
        )
    return {name: number for number, name in enumerate(names)}


@dataclass(frozen=True)
class Policies:
    """Which policy judges which documents.

    default: by language, in the order in which the languages are wanted.
    by_source: (pattern of source names, policies by language); the most specific that fits replaces, for the languages
        it names, the default. Books and verse are not web pages: MAP-Neo too set its limits anew for each source.
    """

    default: Mapping[str, Policy]
    by_source: tuple[tuple[str, Mapping[str, Policy]], ...] = ()

    def of(self, source: str) -> dict[str, Policy]:
        """The policies of one source, by language."""
        own = dict(self.by_source)
        pattern = most_specific(source, own)
        return {**self.default, **(own[pattern] if pattern is not None else {})}

    def all(self) -> list[Policy]:
        """Every policy, those of the default first."""
        return [*self.default.values(), *(policy for _, own in self.by_source for policy in own.values())]

    def deciding(self) -> Any:
        """What decides, without explanations; as JSON."""

        def rules(policies: Mapping[str, Policy]) -> dict[str, Any]:
            return {language: policy.deciding() for language, policy in policies.items()}

        own = {"by_source": {pattern: rules(policies) for pattern, policies in self.by_source}}
        return {**rules(self.default), **(own if self.by_source else {})}

    def write(self, folder: Path) -> None:
        """policies.json, and policies_by_source.json where there are some."""
        write_json(folder / "policies.json", {language: policy.to_dict() for language, policy in self.default.items()})
        if self.by_source:
            own = [
                {"source": pattern, "policies": {language: policy.to_dict() for language, policy in policies.items()}}
                for pattern, policies in self.by_source
            ]
            write_json(folder / "policies_by_source.json", own)

    @classmethod
    def read(cls, folder: Path) -> Policies:
        """What `write` wrote."""
        own = _stored_by_source(folder)
        return cls(
            _policies(read_json(folder / "policies.json")),
            tuple((entry["source"], _policies(entry["policies"])) for entry in own),
        )


def stored_policies(folder: Path, source: str) -> Mapping[str, Any]:
    """The policies of one source as a select step stored them, by language: the fields of `Policy.to_dict`."""
    path = folder / "policies.json"
    default = read_json(path) if path.exists() else {}
    own = {entry["source"]: entry["policies"] for entry in _stored_by_source(folder)}
    pattern = most_specific(source, own)
    return {**default, **(own[pattern] if pattern is not None else {})}


class Judged(NamedTuple):
    """What the rules say of N documents: `reasons` uint64, a bit for every rule that objects; `first` int16, the number
    of the first objection or -1; `value` float32, what that rule measured, NaN where kept."""

    reasons: Any
    first: Any
    value: Any


def judge(columns: Mapping[str, Any], lang: Any, policies: Mapping[str, Policy], rules: Sequence[str]) -> Judged:
    """Ask every rule about every document.

    Args:
        columns: float32 [N] by signal: num_units, lang_score and what the policies read.
        lang: dictionary array [N], as identified; null where no language was found.
        policies: by language; documents in other languages are dropped.
        rules: the names of the bits, from `rule_numbers`.
    """
    numbers = {name: number for number, name in enumerate(rules)}
    tags = lang.dictionary.to_pylist()
    codes = lang.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    num_documents = len(codes)
    reasons, first = np.zeros(num_documents, np.uint64), np.full(num_documents, -1, np.int16)
    value = np.full(num_documents, np.nan, np.float32)

    def object_to(rows: Any, name: str, measured: Any) -> None:
        """Set the bit of rule `name` for `rows`, int64, and make it the reason of those that had none."""
        reasons[rows] |= np.uint64(1 << numbers[name])
        new = rows[first[rows] < 0]
        first[new], value[new] = numbers[name], measured[new]

    unmeasured = np.isnan(columns["num_units"])
    object_to(np.flatnonzero(unmeasured), UNMEASURED, columns["num_units"])
    object_to(np.flatnonzero(columns["num_units"] == 0), EMPTY, columns["num_units"])
    known = [number for number, tag in enumerate(tags) if tag in policies]
    named = np.isin(codes, known)
    object_to(np.flatnonzero(~named & ~unmeasured & (ANY not in policies)), LANGUAGE, columns["lang_score"])
    for language, policy in policies.items():
        if language == ANY:
            mine = np.flatnonzero(~named)
        elif language in tags:
            mine = np.flatnonzero(codes == tags.index(language))
        else:
            continue
        objections = policy.objections({signal: columns[signal][mine] for signal in policy.signals()})
        for rule, against in zip(policy.rules, objections, strict=True):
            object_to(mine[against], rule.name, columns[rule.signal])
    return Judged(reasons, first, value)


def decide(attributes: pa.Table, policies: Mapping[str, Policy], rules: Sequence[str]) -> pa.Table:
    """Verdicts (tables.DECISION) from attributes: id, num_bytes, lang, num_units, lang_score and what policies read."""
    columns = {
        name: attributes[name].to_numpy() for name in attributes.column_names if name not in ("id", "lang", "num_bytes")
    }
    judged = judge(columns, attributes["lang"].combine_chunks().dictionary_encode(), policies, rules)
    num_documents = len(attributes)
    nothing = pa.nulls(num_documents, pa.string())
    missing = pa.array(np.full(num_documents, np.nan, np.float32))
    return pa.table(
        {
            "id": attributes["id"],
            "keep": pa.array(judged.first < 0),
            "reasons": pa.array(judged.reasons),
            "first_reason": pa.array(judged.first),
            "value": pa.array(judged.value),
            "lang": attributes["lang"],
            "num_bytes": attributes["num_bytes"],
            "duplicate_of": nothing,
            "jaccard": missing,
            "containment": missing,
            "cluster": nothing,
        },
        schema=DECISION,
    )


def signal_columns(artifact: Artifact, shard: Shard, policies: Iterable[Policy], *, ids: bool = True) -> pa.Table:
    """What `decide` needs of one shard: the columns of all families side by side, `id` first.

    ids: without them the table is read in half the time, and it is not checked that the families list the same
        documents; for a corpus that was decided before.
    Raises InputError when a family was not measured, or lists other documents.
    """
    wanted = {"quality": ["num_bytes", "num_units"], "language": ["lang", "lang_score"]}
    for policy in policies:
        for family, signals in policy.columns_by_family().items():
            wanted.setdefault(family, [])
            wanted[family] += [signal for signal in signals if signal not in wanted[family]]
    joined = None
    for family, columns in wanted.items():
        path = attribute_folder(artifact, family) / shard.file
        absent = set(columns) - set(column_names(path))
        if absent:
            raise InputError(
                f"the policies read '{min(absent)}', which is not among what the annotate step measured. Give it the "
                f"word list, address list or metadata field of that name, or, where it is an older run, run it again."
            )
        table = read_table(path, ["id", *columns] if ids else columns)
        if joined is None:
            joined = table
            continue
        if len(table) != len(joined) or (ids and not table["id"].equals(joined["id"])):
            raise InputError(f"{path} does not list the same documents in the same order as the other attributes.")
        for column in columns:
            joined = joined.append_column(column, table[column])
    return joined


def object_to(decisions: pa.Table, rows: Any, rule: int, values: Any, **columns: Any) -> pa.Table:
    """The verdicts of a shard with one more rule: it drops `rows`, whatever the rules before said of them.

    Args:
        decisions: tables.DECISION, the whole shard.
        rows: int64 [K], in any order, each once.
        rule: number of its bit, the next free place in rules.json.
        values: float32 [K], what it measured.
        columns: further columns of these rows, each [K], e.g. `duplicate_of`.
    """
    reasons = decisions["reasons"].to_numpy().copy()
    first = decisions["first_reason"].to_numpy().copy()
    value = decisions["value"].to_numpy().copy()
    reasons[rows] |= np.uint64(1 << rule)
    new = first[rows] < 0
    first[rows[new]], value[rows[new]] = rule, np.asarray(values, np.float32)[new]
    changed: dict[str, Any] = {"keep": first < 0, "reasons": reasons, "first_reason": first, "value": value}
    for name, content in columns.items():
        whole = decisions[name].to_pylist()
        for row, entry in zip(rows.tolist(), content, strict=True):
            whole[row] = entry
        changed[name] = whole
    table = {name: changed.get(name, decisions[name]) for name in DECISION.names}
    return pa.table(table, schema=DECISION)


def next_rule(rules: list[str], name: str) -> list[str]:
    """rules.json with one rule more. Raises InputError when the 64 bits of `reasons` are used up."""
    if name in rules:
        raise InputError(f"a step above has a rule '{name}' already. Give this one another name.")
    if len(rules) >= 64:
        raise InputError(f"no bit of `reasons` is left for '{name}': take rules out of the policies.")
    return [*rules, name]


def _stored_by_source(folder: Path) -> list[dict[str, Any]]:
    path = folder / "policies_by_source.json"
    return read_json(path) if path.exists() else []


def _policies(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Policy]:
    """Policies from what `Policy.to_dict` gave."""
    found = {}
    for language, content in stored.items():
        rules = [
            {key: value for key, value in rule.items() if key != "limits" and value is not None}
            for rule in content["rules"]
        ]
        found[language] = parse_policy({**content, "rules": rules}, where=content["policy"])
    return found
