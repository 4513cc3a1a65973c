"""Recipe step `select`: decides which documents stay, from their attributes and a policy for each language.

No text is read, so a new limit re-decides a corpus in seconds. Writes

    decisions/<source>/<shard>.parquet   a verdict on every document, with every rule that objects
    decisions/rules.json                 names of the bits of `reasons`, in order
    policies.json                        the policies as they were resolved, by language

Before any policy three rules of the step itself are asked: `unmeasured` (the document killed the worker that measured
it), `empty` (no text unit), `language` (identified as a language that is not wanted, or as none). Rules of two policies
with the same name share a bit; which limit was applied follows from the language of the document.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError
from diglot.steps.context import StepContext, StepKind, input_step

if TYPE_CHECKING:
    import pyarrow as pa

    from diglot.corpus.policy import Policy

UNMEASURED, EMPTY, LANGUAGE = "unmeasured", "empty", "language"
OWN_RULES = (UNMEASURED, EMPTY, LANGUAGE)
MAX_RULES = 60  # bits of a uint64, less some for the steps that follow
SHARDS_PER_WORKER = 32  # a worker takes longer to start than this many shards to decide


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """The languages wanted, and for each the policy that judges its documents: a name or a path beside the recipe."""

    from_: str = input_step("annotate")
    languages: tuple[str, ...] = ("en", "zh-Hans")
    policies: Mapping[str, str] = field(
        default_factory=lambda: {"en": "matrix-en", "zh-Hans": "matrix-zh", "zh-Hant": "matrix-zh"}
    )

    def __post_init__(self) -> None:
        if not self.languages:
            raise ConfigError("languages is empty, so every document would be dropped. Name at least one, e.g. [en].")
        for language in self.languages:
            if language not in self.policies:
                raise ConfigError(
                    f"no policy for language '{language}'; known: {', '.join(sorted(self.policies))}. "
                    f"Set policies: {{{language}: ...}} or take it out of languages."
                )


def select(config: SelectConfig, context: StepContext) -> dict[str, Any]:
    """Decide all shards; see the module for the files."""
    from diglot.core.storage import write_json
    from diglot.corpus.executor import map_shards
    from diglot.corpus.tables import shards

    started = time.monotonic()
    corpus = context.input()
    policies = load_policies(config, context.recipe_dir)
    rules = rule_numbers(list(policies.values()))
    attributes = corpus.upstream("annotate").path / "attributes"
    tasks = [
        ShardTask(attributes=attributes, file=shard.file, out=context.out, policies=policies, rules=tuple(rules))
        for shard in shards(corpus.upstream("ingest"))
    ]
    workers = min(context.workers, 1 + len(tasks) // SHARDS_PER_WORKER)
    found = map_shards(select_shard, tasks, workers=workers, progress=context.progress, label=context.step)
    write_json(context.out / "decisions" / "rules.json", list(rules))
    write_json(context.out / "policies.json", {language: policy.to_dict() for language, policy in policies.items()})
    return {**_totals(found, list(rules)), "seconds": round(time.monotonic() - started, 3)}


def load_policies(config: SelectConfig, recipe_dir: Path) -> dict[str, Policy]:
    """The policy of each wanted language, in the order of `languages`."""
    from diglot.corpus.policy import load_policy

    return {language: load_policy(config.policies[language], recipe_dir) for language in config.languages}


def observe(config: SelectConfig, recipe_dir: Path, store: Path) -> dict[str, Any]:
    """What the policies decide by, for the fingerprint: an edit to a limit is another result, to a comment is not."""
    return {language: policy.deciding() for language, policy in load_policies(config, recipe_dir).items()}


def rule_numbers(policies: list[Policy]) -> dict[str, int]:
    """Name of a rule -> its bit: the step's own, then those of the policies in order, each name once."""
    names = dict.fromkeys(OWN_RULES)
    for policy in policies:
        for rule in policy.rules:
            if rule.name in OWN_RULES:
                raise ConfigError(f"policy {policy.policy} calls a rule '{rule.name}', which the step uses. Rename it.")
            names[rule.name] = None
    if len(names) > MAX_RULES:
        raise ConfigError(
            f"the policies have {len(names)} rules of different names, but decisions have room for {MAX_RULES}. "
            "Give rules on the same signal the same name, or select fewer languages at a time."
        )
    return {name: number for number, name in enumerate(names)}


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to decide."""

    attributes: Path
    file: str
    out: Path
    policies: Mapping[str, Policy]
    rules: tuple[str, ...]


def select_shard(task: ShardTask) -> list[dict[str, Any]]:
    """Write the decisions of one shard; counts by language and first reason, as `_counts` gives them."""
    from diglot.corpus.tables import write_table

    table = decide(_read_attributes(task), task.policies, task.rules)
    write_table(task.out / "decisions" / task.file, table)
    return _counts(table)


def decide(attributes: pa.Table, policies: Mapping[str, Policy], rules: tuple[str, ...]) -> pa.Table:
    """Verdicts (tables.DECISION) from attributes: id, num_bytes, lang, num_units, lang_score and what policies read."""
    import numpy as np
    import pyarrow as pa

    from diglot.corpus.tables import DECISION

    num_rows, numbers = len(attributes), {name: number for number, name in enumerate(rules)}
    columns = {
        name: attributes[name].to_numpy() for name in attributes.column_names if name not in ("id", "lang", "num_bytes")
    }
    lang = np.array(attributes["lang"].to_pylist(), object)
    reasons, first = np.zeros(num_rows, np.uint64), np.full(num_rows, -1, np.int16)
    value = np.full(num_rows, np.nan, np.float32)

    def object_to(rows: Any, name: str, measured: Any) -> None:
        """Set the bit of rule `name` for `rows`, int64, and make it the reason of those that had none."""
        reasons[rows] |= np.uint64(1 << numbers[name])
        new = rows[first[rows] < 0]
        first[new], value[new] = numbers[name], measured[new]

    unmeasured = np.isnan(columns["num_units"])
    object_to(np.flatnonzero(unmeasured), UNMEASURED, columns["num_units"])
    object_to(np.flatnonzero(columns["num_units"] == 0), EMPTY, columns["num_units"])
    unwanted = ~np.logical_or.reduce([lang == language for language in policies]) & ~unmeasured
    object_to(np.flatnonzero(unwanted), LANGUAGE, columns["lang_score"])
    for language, policy in policies.items():
        mine = np.flatnonzero(lang == language)
        objections = policy.objections({signal: columns[signal][mine] for signal in policy.signals()})
        for rule, against in zip(policy.rules, objections, strict=True):
            object_to(mine[against], rule.name, columns[rule.signal])
    nothing = pa.nulls(num_rows, pa.string())
    missing = pa.array(np.full(num_rows, np.nan, np.float32))
    return pa.table(
        {
            "id": attributes["id"],
            "keep": pa.array(first < 0),
            "reasons": pa.array(reasons),
            "first_reason": pa.array(first),
            "value": pa.array(value),
            "lang": attributes["lang"],
            "num_bytes": attributes["num_bytes"],
            "duplicate_of": nothing,
            "jaccard": missing,
            "containment": missing,
            "cluster": nothing,
        },
        schema=DECISION,
    )


def _read_attributes(task: ShardTask) -> pa.Table:
    """The columns that decide, of all families side by side."""
    from diglot.core.errors import InputError
    from diglot.corpus.tables import read_table

    wanted = {"quality": ["id", "num_bytes", "num_units"], "language": ["lang", "lang_score"]}
    for policy in task.policies.values():
        for family, signals in policy.columns_by_family().items():
            wanted.setdefault(family, [])
            wanted[family] += [signal for signal in signals if signal not in wanted[family]]
    joined = None
    for family, columns in wanted.items():
        path = task.attributes / family / task.file
        if not path.exists():
            raise InputError(
                f"the policies read signals of the family '{family}', which the annotate step did not measure. "
                f"Add {family} to its families."
            )
        table = read_table(path, ["id", *[column for column in columns if column != "id"]])
        if joined is None:
            joined = table
            continue
        if not table["id"].equals(joined["id"]):
            raise InputError(f"{path} does not list the same documents in the same order as the other attributes.")
        for column in table.column_names[1:]:
            joined = joined.append_column(column, table[column])
    return joined


def _counts(decisions: pa.Table) -> list[dict[str, Any]]:
    """Documents and bytes for each (language, first reason) of a shard; reason -1 is kept."""
    groups = decisions.select(["lang", "first_reason", "num_bytes"]).group_by(
        ["lang", "first_reason"], use_threads=False
    )
    rows: list[dict[str, Any]] = groups.aggregate([("num_bytes", "sum"), ([], "count_all")]).to_pylist()
    return rows


def _totals(shards: list[list[dict[str, Any]]], rules: list[str]) -> dict[str, Any]:
    """The funnel: documents and bytes, kept and dropped, in all, by language and by first reason."""
    empty = {"documents": 0, "kept": 0, "dropped": 0, "bytes": 0, "bytes_kept": 0}
    total: dict[str, Any] = {**empty, "reasons": {}}
    languages: dict[str, dict[str, Any]] = {}
    for row in (row for shard in shards for row in shard):
        tag = row["lang"] or "und"
        for funnel in (total, languages.setdefault(tag, {**empty, "reasons": {}})):
            documents, size, number = row["count_all"], row["num_bytes_sum"], row["first_reason"]
            funnel["documents"] += documents
            funnel["bytes"] += size
            if number < 0:
                funnel["kept"] += documents
                funnel["bytes_kept"] += size
            else:
                funnel["dropped"] += documents
                funnel["reasons"][rules[number]] = funnel["reasons"].get(rules[number], 0) + documents
    for funnel in (total, *languages.values()):
        assert (
            funnel["documents"]
            == funnel["kept"] + funnel["dropped"]
            == funnel["kept"] + sum(funnel["reasons"].values())
        )
        funnel["reasons"] = dict(sorted(funnel["reasons"].items(), key=lambda item: rules.index(item[0])))
    languages = dict(sorted(languages.items(), key=lambda item: (-item[1]["documents"], item[0])))
    kept_share = total["kept"] / total["documents"] if total["documents"] else 0.0
    return {**total, "kept_share": kept_share, "languages": languages}


STEP = StepKind(kind="select", version=1, config=SelectConfig, run=select, observe=observe)
