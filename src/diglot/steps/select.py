"""Recipe step `select`: decides which documents stay, from their attributes and a policy for each language.

No text is read, so a new limit re-decides a corpus in seconds. Writes

    decisions/<source>/<shard>.parquet   a verdict on every document, with every rule that objects
    decisions/rules.json                 names of the bits of `reasons`, in order
    policies.json                        the policies as they were resolved, by language
    policies_by_source.json              those of single sources, where the recipe names some
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

    from diglot.corpus.decide import Policies
    from diglot.corpus.policy import Policy
    from diglot.corpus.tables import Shard
    from diglot.ledger.artifact import Artifact

SHARDS_PER_WORKER = 32  # a worker takes longer to start than this many shards to decide


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """The languages wanted, and for each the policy that judges its documents: a name or a path beside the recipe.

    The language `*` wants every other language too, and names the policy for documents without one of their own.
    """

    from_: str = input_step("annotate", "classify")
    languages: tuple[str, ...] = ("en", "zh-Hans")
    policies: Mapping[str, str] = field(
        default_factory=lambda: {"en": "matrix-en", "zh-Hans": "matrix-zh", "zh-Hant": "matrix-zh"}
    )
    by_source: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # {"*novels*": {en: books}}

    def __post_init__(self) -> None:
        if not self.languages:
            raise ConfigError("languages is empty, so every document would be dropped. Name at least one, e.g. [en].")
        for language in self.languages:
            if language not in self.policies:
                raise ConfigError(
                    f"no policy for language '{language}'; known: {', '.join(sorted(self.policies))}. "
                    f"Set policies: {{{language}: ...}} or take it out of languages."
                )
        for pattern, own in self.by_source.items():
            for language in own:
                if language not in self.languages:
                    raise ConfigError(
                        f"by_source '{pattern}' names a policy for '{language}', which is none of languages: "
                        f"{', '.join(self.languages)}. Add it there or take it out here."
                    )


def select(config: SelectConfig, context: StepContext) -> dict[str, Any]:
    """Decide all shards; see the module for the files."""
    from diglot.core.storage import write_json
    from diglot.corpus.decide import rule_numbers
    from diglot.corpus.executor import map_shards
    from diglot.corpus.tables import shards

    started = time.monotonic()
    corpus = context.input()
    policies = load_policies(config, context.recipe_dir)
    rules = rule_numbers(policies.all())
    files = shards(corpus.upstream("ingest"))
    _warn_of_idle_patterns(config, {shard.source for shard in files}, context)
    tasks = [
        ShardTask(corpus=corpus, shard=shard, out=context.out, policies=policies.of(shard.source), rules=tuple(rules))
        for shard in files
    ]
    workers = min(context.workers, 1 + len(tasks) // SHARDS_PER_WORKER)
    found = map_shards(select_shard, tasks, workers=workers, progress=context.progress, label=context.step)
    write_json(context.out / "decisions" / "rules.json", list(rules))
    policies.write(context.out)
    return {**_totals(found, list(rules)), "seconds": round(time.monotonic() - started, 3)}


def load_policies(config: SelectConfig, recipe_dir: Path) -> Policies:
    """The policy of each wanted language, in the order of `languages`, and those of single sources."""
    from diglot.corpus.decide import Policies
    from diglot.corpus.policy import load_policy

    return Policies(
        {language: load_policy(config.policies[language], recipe_dir) for language in config.languages},
        tuple(
            (pattern, {language: load_policy(name, recipe_dir) for language, name in own.items()})
            for pattern, own in config.by_source.items()
        ),
    )


def observe(config: SelectConfig, recipe_dir: Path, store: Path) -> dict[str, Any]:
    """What the policies decide by, for the fingerprint: an edit to a limit is another result, to a comment is not."""
    found: dict[str, Any] = load_policies(config, recipe_dir).deciding()
    return found


def _warn_of_idle_patterns(config: SelectConfig, sources: set[str], context: StepContext) -> None:
    from fnmatch import fnmatchcase

    for pattern in config.by_source:
        if not any(fnmatchcase(source, pattern) for source in sources):
            context.progress.say(
                f"{context.step}: by_source '{pattern}' fits no source, so it changes nothing. Sources: "
                f"{', '.join(sorted(sources))}."
            )


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to decide."""

    corpus: Artifact
    shard: Shard
    out: Path
    policies: Mapping[str, Policy]
    rules: tuple[str, ...]


def select_shard(task: ShardTask) -> list[dict[str, Any]]:
    """Write the decisions of one shard; counts by language and first reason, as `_counts` gives them."""
    from diglot.corpus.decide import decide, signal_columns
    from diglot.corpus.finished import once, record_path
    from diglot.corpus.tables import write_table

    path = task.out / "decisions" / task.shard.file

    def work() -> tuple[list[Path], list[dict[str, Any]]]:
        table = decide(signal_columns(task.corpus, task.shard, task.policies.values()), task.policies, task.rules)
        write_table(path, table)
        return [path], _counts(table)

    counts: list[dict[str, Any]] = once(record_path(path), "decisions", work)
    return counts


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
    for funnel in (total, *languages.values()):
        funnel["kept_share"] = funnel["kept"] / funnel["documents"] if funnel["documents"] else 0.0
    return {**total, "languages": languages}


STEP = StepKind(kind="select", version=1, config=SelectConfig, run=select, shards_divide=True, observe=observe)
