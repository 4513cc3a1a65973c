"""Recipe step `deduplicate`: exact duplicates, then verified near-duplicates, then loose clusters for the split.

Only documents that the steps before keep take part. Writes

    decisions/<source>/<shard>.parquet   the verdicts so far with two rules and the clusters added
    decisions/rules.json                 names of all bits
    pairs.parquet                        every pair that was compared for dropping, accepted or not
    clusters.json                        largest groups with addresses, loss of every source, alarms, the S-curves
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError
from diglot.steps.context import StepContext, StepKind, input_step, runtime

if TYPE_CHECKING:
    from diglot.corpus.dedup.keys import DocumentKeys
    from diglot.corpus.dedup.search import Found
    from diglot.corpus.dedup.verdicts import Verdicts


@dataclass(frozen=True, kw_only=True)
class DeduplicateConfig:
    """What counts as a duplicate, and who stays.

    MAP-Neo drops whole MinHash components over character 13-grams, 9 bands of 13 rows, without comparing texts. Here
    shingles are 5 text units, candidates are compared, and only what is similar to the kept document is dropped.
    """

    from_: str = input_step("select", "deduplicate", "edit", "decontaminate")
    survivor: str = "declared"  # the page in its declared language, then the longest; or `longest`, or `first`
    num_bands: int = 14
    rows_per_band: int = 8
    verify_jaccard: float = 0.8
    verify_containment: float | None = 0.95  # share of the dropped text's shingles that the kept one has; null: off
    min_shingles: int = 8  # shorter texts are left to exact deduplication: one changed word changes most of them
    cluster_bands: int = 28
    cluster_rows: int = 4
    cluster_jaccard: float = 0.5
    alarm_share: float = 0.5  # of a source's documents; a higher loss is reported as an alarm
    max_rounds: int = 256  # against buckets of very many documents that differ: what is left out is counted
    memory_mb: int = runtime(1024)  # shingle sets held at a time

    def __post_init__(self) -> None:
        for name in ("verify_jaccard", "verify_containment", "cluster_jaccard", "alarm_share"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"{name} = {value}, but it is a share: set it above 0 and at most 1.")
        for name in ("num_bands", "rows_per_band", "cluster_bands", "cluster_rows", "min_shingles", "max_rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, but it must be at least 1.")
        if self.memory_mb < 1:
            raise ConfigError(f"memory_mb = {self.memory_mb}, but shingle sets need at least 1.")


def deduplicate(config: DeduplicateConfig, context: StepContext) -> dict[str, Any]:
    """Add the verdicts of deduplication to those of the steps before; see the module for the files."""
    from diglot.corpus.dedup.keys import load_keys
    from diglot.corpus.dedup.lsh import Bands
    from diglot.corpus.dedup.near import Similar
    from diglot.corpus.dedup.overlap import TextReader
    from diglot.corpus.dedup.report import alarms, losses
    from diglot.corpus.dedup.search import Limits, search

    corpus, started = context.input(), time.monotonic()
    keys = load_keys(corpus, config.survivor)
    seconds_reading = time.monotonic() - started
    found = search(
        keys,
        TextReader(corpus.upstream("ingest").path / "documents", keys, context.workers),
        Limits(
            near_bands=Bands(config.num_bands, config.rows_per_band),
            similar=Similar(config.verify_jaccard, config.verify_containment),
            min_shingles=config.min_shingles,
            cluster_bands=Bands(config.cluster_bands, config.cluster_rows),
            cluster_jaccard=config.cluster_jaccard,
            max_rounds=config.max_rounds,
            budget_bytes=config.memory_mb << 20,
        ),
    )
    started, verdicts = time.monotonic(), found.verdicts
    by_source = losses(keys.sources, keys, verdicts)
    warnings = alarms(by_source, config.alarm_share)
    _write_decisions(context, keys, verdicts)
    _write_pairs(context, keys, found)
    _write_report(config, context, keys, found, by_source, warnings)
    for warning in warnings:
        context.progress.say(f"{context.step}: {warning}")
    return {
        "documents": len(keys),
        "kept": int(verdicts.keep.sum()),
        "dropped": {"exact_duplicate": int(verdicts.exact.sum()), "near_duplicate": int(verdicts.near.sum())},
        "bytes": int(keys.num_bytes.sum()),
        "bytes_dropped": int(keys.num_bytes[~verdicts.keep].sum()),
        "languages": losses(keys.lang, keys, verdicts),
        "sources": by_source,
        "pairs": found.counts,
        "clusters": _cluster_counts(verdicts),
        "alarms": warnings,
        "seconds": {
            "read_keys": round(seconds_reading, 3),
            **found.seconds,
            "write": round(time.monotonic() - started, 3),
        },
    }


def _write_decisions(context: StepContext, keys: DocumentKeys, verdicts: Verdicts) -> None:
    import numpy as np

    from diglot.core.storage import write_json
    from diglot.corpus.dedup.verdicts import add_rules, decide
    from diglot.corpus.tables import decisions_of, rule_names, write_table

    corpus = context.input()
    rules = rule_names(corpus)
    order = np.lexsort((keys.row, keys.shard))
    ends = np.searchsorted(keys.shard[order], np.arange(len(keys.shards)), side="right")
    with context.progress.bar(context.step, len(keys.shards), "shards") as bar:
        for number, shard in enumerate(keys.shards):
            mine = order[ends[number - 1] if number else 0 : ends[number]]
            table = decide(decisions_of(corpus, shard), keys.row[mine], mine, verdicts, keys, len(rules))
            write_table(context.out / "decisions" / shard.file, table)
            bar.advance()
    write_json(context.out / "decisions" / "rules.json", add_rules(rules))


def _write_pairs(context: StepContext, keys: DocumentKeys, found: Found) -> None:
    """Evidence: every pair that was compared for dropping; `better` would have survived of the two."""
    import pyarrow as pa

    from diglot.corpus.tables import write_table

    pairs = found.compared
    table = pa.table(
        {
            "better": pa.array(keys.ids[pairs.left].astype(str)),
            "other": pa.array(keys.ids[pairs.right].astype(str)),
            "jaccard": pa.array(pairs.jaccard),
            "containment": pa.array(pairs.containment),
            "accepted": pa.array(found.accepted),
        }
    )
    write_table(context.out / "pairs.parquet", table.sort_by([("better", "ascending"), ("other", "ascending")]))


def _write_report(
    config: DeduplicateConfig,
    context: StepContext,
    keys: DocumentKeys,
    found: Found,
    by_source: dict[str, dict[str, Any]],
    warnings: list[str],
) -> None:
    from diglot.core.storage import write_json
    from diglot.corpus.dedup.lsh import Bands, curve
    from diglot.corpus.dedup.report import largest_clusters, largest_duplicate_groups

    corpus = context.input()
    # How often texts were read depends on the memory allowed, and this file does not.
    pairs = {name: count for name, count in found.counts.items() if name != "texts_read"}
    report = {
        "alarms": warnings,
        "by_source": by_source,
        "pairs": pairs,
        "near_curve": curve(Bands(config.num_bands, config.rows_per_band)),
        "cluster_curve": curve(Bands(config.cluster_bands, config.cluster_rows)),
        "largest_duplicate_groups": largest_duplicate_groups(corpus, keys, found.verdicts),
        "largest_clusters": largest_clusters(corpus, keys, found.verdicts),
    }
    write_json(context.out / "clusters.json", report)


def _cluster_counts(verdicts: Verdicts) -> dict[str, int]:
    import numpy as np

    _, sizes = np.unique(verdicts.cluster[verdicts.keep], return_counts=True)
    return {"number": len(sizes), "largest": int(sizes.max(initial=0)), "documents": int(sizes[sizes > 1].sum())}


STEP = StepKind(kind="deduplicate", version=1, config=DeduplicateConfig, run=deduplicate)
