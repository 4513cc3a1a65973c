"""Recipe step `deduplicate`: exact duplicates, then verified near-duplicates, then loose clusters for the split.

Only documents that the steps before keep take part. With `against`, also those that another corpus keeps: they stay,
and what resembles them is dropped here. Writes

    decisions/<source>/<shard>.parquet   the verdicts so far with two rules and the clusters added
    decisions/rules.json                 names of all bits
    pairs.parquet                        every pair that was compared for dropping, accepted or not
    clusters.json                        largest groups with addresses, loss of every source, alarms, the S-curves, what
                                         was removed at which similarity, the survivor rule in words

Signatures and band hashes of a large corpus go through partitions in a folder `.exchange`, gone when the step is done.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diglot.core.errors import ConfigError, unknown
from diglot.steps.context import StepContext, StepKind, input_step, runtime

if TYPE_CHECKING:
    import pyarrow as pa

    from diglot.corpus.dedup.keys import Corpus, DocumentKeys
    from diglot.corpus.dedup.lsh import Bands
    from diglot.corpus.dedup.search import Found
    from diglot.corpus.dedup.signatures import Signatures
    from diglot.corpus.dedup.survivors import SurvivorRule
    from diglot.corpus.dedup.verdicts import Verdicts
    from diglot.corpus.tables import Shard
    from diglot.ledger.artifact import Artifact

NUM_BANDS, ROWS_PER_BAND = 14, 8  # also what `threshold: 0.8` finds with 112 permutations
DOCUMENTS_PER_WORKER = 200_000  # a worker takes longer to start than this many signatures to hash


@dataclass(frozen=True, kw_only=True)
class BestBySignal:
    """A survivor rule: of duplicates, the document with the best value of a measured signal or a classifier's score."""

    signal: str  # `lang_score`, `score.math`, ...
    best: Literal["highest", "lowest"] = "highest"

    def __post_init__(self) -> None:
        from diglot.corpus.signals import family

        family(self.signal, "survivor")  # refuses an unknown name with the nearest one


@dataclass(frozen=True, kw_only=True)
class DeduplicateConfig:
    """What counts as a duplicate, and who stays.

    MAP-Neo drops whole MinHash components over character 13-grams, 9 bands of 13 rows, without comparing texts. Here
    shingles are 5 text units, candidates are compared, and only what is similar to the kept document is dropped.

    Candidates are found by bands, given in one of three ways: `num_bands` and `rows_per_band`; `bands`, the name of a
    published choice; or `threshold`, for which the best bands are searched. None of them: 14 bands of 8 rows.
    """

    from_: str = input_step("select", "deduplicate", "edit", "decontaminate")
    # Another corpus, whose kept documents stay whatever they resemble.
    against: str | None = input_step("deduplicate", "select", "split", "edit", "decontaminate", optional=True)
    survivor: BestBySignal | str = "declared"  # longest, first, newest, oldest; or {signal: lang_score, best: highest}
    prefer_sources: tuple[str, ...] = ()  # their documents survive before those of others, whatever the rule says
    bands: str | None = None  # map-neo: 9 bands of 13 rows; needs num_permutations >= 117 in the annotate step
    threshold: float | None = None  # Jaccard at which the bands should separate
    # What a missed pair above the threshold weighs against a proposed one below it, which costs a comparison.
    false_negative_weight: float = 0.95
    num_bands: int | None = None  # 14 where nothing else says
    rows_per_band: int | None = None  # 8
    verify_jaccard: float = 0.8
    verify_containment: float | None = 0.95  # share of the dropped text's shingles that the kept one has; null: off
    min_shingles: int = 8  # shorter texts are left to exact deduplication: one changed word changes most of them
    cluster_bands: int = 28
    cluster_rows: int = 4
    cluster_jaccard: float = 0.5
    alarm_share: float = 0.5  # of a source's documents; a higher loss is reported as an alarm
    max_rounds: int = 256  # against buckets of very many documents that differ: what is left out is counted
    memory_mb: int = runtime(512)  # shingle sets held at a time; a quarter of it for signatures or keys of a partition
    partitions: int | Literal["auto"] = runtime("auto")  # 1: signatures in memory; more: through files; auto: by size

    def __post_init__(self) -> None:
        from diglot.corpus.dedup.survivors import SURVIVORS

        if isinstance(self.survivor, str) and self.survivor not in SURVIVORS:
            raise unknown("survivor rule", self.survivor, [*SURVIVORS, "{signal: NAME}"])
        self._check_bands()
        for name in ("verify_jaccard", "verify_containment", "cluster_jaccard", "alarm_share", "threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"{name} = {value}, but it is a share: set it above 0 and at most 1.")
        if not 0 < self.false_negative_weight < 1:
            raise ConfigError(
                f"false_negative_weight = {self.false_negative_weight}, but it lies between 0 and 1: near 1, few pairs "
                "above the threshold are missed; near 0, few below it are compared in vain."
            )
        for name in ("num_bands", "rows_per_band", "cluster_bands", "cluster_rows", "min_shingles", "max_rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value}, but it must be at least 1.")
        if self.memory_mb < 1:
            raise ConfigError(f"memory_mb = {self.memory_mb}, but shingle sets need at least 1.")
        if self.partitions != "auto" and not 1 <= self.partitions <= 1 << 14:
            raise ConfigError(f"partitions = {self.partitions}, but it must be auto or a number from 1 to {1 << 14}.")

    def _check_bands(self) -> None:
        from diglot.corpus.dedup.lsh import PRESETS

        explicit = self.num_bands if self.num_bands is not None else self.rows_per_band
        ways = {"num_bands or rows_per_band": explicit, "bands": self.bands, "threshold": self.threshold}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} both say how candidates are found. Keep one of them.")
        if self.bands is not None and self.bands not in PRESETS:
            raise unknown("bands", self.bands, PRESETS)

    def near_bands(self, num_places: int) -> Bands:
        """The bands for signatures of `num_places`."""
        from diglot.corpus.dedup.lsh import PRESETS, Bands, search_bands

        if self.threshold is not None:
            return search_bands(self.threshold, num_places, self.false_negative_weight)
        if self.bands is not None:
            return PRESETS[self.bands]
        return Bands(self.num_bands or NUM_BANDS, self.rows_per_band or ROWS_PER_BAND)

    def survivor_rule(self) -> SurvivorRule:
        from diglot.corpus.dedup.survivors import SurvivorRule

        if isinstance(self.survivor, str):
            return SurvivorRule(rule=self.survivor, prefer_sources=self.prefer_sources)
        return SurvivorRule(
            rule="signal",
            signal=self.survivor.signal,
            highest=self.survivor.best == "highest",
            prefer_sources=self.prefer_sources,
        )


def deduplicate(config: DeduplicateConfig, context: StepContext) -> dict[str, Any]:
    """Add the verdicts of deduplication to those of the steps before; see the module for the files."""
    from diglot.corpus.dedup import signatures
    from diglot.corpus.dedup.keys import Corpus, load_keys, require_comparable
    from diglot.corpus.dedup.lsh import Bands
    from diglot.corpus.dedup.near import Similar
    from diglot.corpus.dedup.overlap import TextReader
    from diglot.corpus.dedup.report import alarms, losses
    from diglot.corpus.dedup.search import Limits, search

    started = time.monotonic()
    corpora = [Corpus.of(context.inputs[name]) for name in ("from", "against") if name in context.inputs]
    if len(corpora) == 2:
        require_comparable(*corpora)
    num_places = min(corpus.num_places() for corpus in corpora)
    near_bands, cluster_bands = config.near_bands(num_places), Bands(config.cluster_bands, config.cluster_rows)
    _require_places(near_bands, num_places, "num_bands * rows_per_band")
    _require_places(cluster_bands, num_places, "cluster_bands * cluster_rows")
    rule = config.survivor_rule()
    _warn_of_missing_sources(config, context, corpora[0])
    keys = load_keys(corpora[0], rule, corpora[1] if len(corpora) == 2 else None, workers=context.workers)
    exchange = context.out / ".exchange"
    signed = _signatures(config, context, corpora, keys, num_places, near_bands, cluster_bands, exchange)
    seconds_reading = time.monotonic() - started
    found = search(
        keys,
        signed,
        TextReader(keys, context.workers),
        Limits(
            near_bands=near_bands,
            similar=Similar(config.verify_jaccard, config.verify_containment),
            min_shingles=config.min_shingles,
            cluster_bands=cluster_bands,
            cluster_jaccard=config.cluster_jaccard,
            max_rounds=config.max_rounds,
            budget_bytes=config.memory_mb << 20,
        ),
    )
    signatures.remove(exchange)
    started, verdicts = time.monotonic(), found.verdicts
    by_source = losses(keys.source_names, keys.shard, keys, verdicts)
    warnings = alarms(by_source, config.alarm_share)
    _write_decisions(context, keys, verdicts)
    _write_pairs(context, keys, found)
    report = _report(keys, found, by_source, warnings, rule, near_bands, cluster_bands)
    _write_report(context, report)
    for warning in warnings:
        context.progress.say(f"{context.step}: {warning}")
    keep, exact, near = (column[keys.own] for column in (verdicts.keep, verdicts.exact, verdicts.near))
    num_bytes = keys.num_bytes[keys.own]
    assert len(keep) == keep.sum() + exact.sum() + near.sum()
    return {
        "documents": len(keep),
        "kept": int(keep.sum()),
        "dropped": {"exact_duplicate": int(exact.sum()), "near_duplicate": int(near.sum())},
        "bytes": int(num_bytes.sum()),
        "bytes_dropped": int(num_bytes[~keep].sum()),
        "languages": losses(keys.lang_names, keys.lang, keys, verdicts),
        "sources": by_source,
        "pairs": found.counts,
        "clusters": _cluster_counts(verdicts.cluster[keys.own][keep]),
        "survivor": rule.said,
        "near_curve": report["near_curve"],
        **_against_counts(keys, verdicts),
        "alarms": warnings,
        "seconds": {
            "read_keys": round(seconds_reading, 3),
            **found.seconds,
            "write": round(time.monotonic() - started, 3),
        },
    }


def _require_places(bands: Bands, num_places: int, names: str) -> None:
    used = bands.num_bands * bands.rows_per_band
    if used > num_places:
        raise ConfigError(
            f"{names} = {used} exceeds the {num_places} places of the MinHash signatures. Set it to at most "
            f"{num_places}, or let the annotate step write longer signatures: num_permutations: {used}."
        )


def _warn_of_missing_sources(config: DeduplicateConfig, context: StepContext, corpus: Corpus) -> None:
    known = {shard.source for shard in corpus.shards}
    missing = [name for name in config.prefer_sources if name not in known]
    if missing:
        context.progress.say(
            f"{context.step}: prefer_sources names {', '.join(missing)}, which this corpus does not have, so it has no "
            f"effect. Its sources: {', '.join(sorted(known)[:20])}{' ...' if len(known) > 20 else ''}."
        )


def _signatures(
    config: DeduplicateConfig,
    context: StepContext,
    corpora: list[Corpus],
    keys: DocumentKeys,
    num_places: int,
    near_bands: Bands,
    cluster_bands: Bands,
    exchange: Path,
) -> Signatures:
    """The signatures of all documents: in memory where they are few, through files otherwise."""
    import numpy as np

    from diglot.corpus.dedup import signatures
    from diglot.corpus.dedup.keys import kept_signatures

    shards = [(corpus.artifact, shard) for corpus in corpora for shard in corpus.shards]
    row = np.empty(len(keys), np.int64)
    row[:] = keys.loaded
    num_partitions = config.partitions
    if num_partitions == "auto":
        num_bands = near_bands.num_bands + cluster_bands.num_bands
        num_partitions = signatures.partitions_for(len(keys), num_places, num_bands, config.memory_mb << 20)
    if num_partitions == 1:
        signature, first = np.empty((len(keys), num_places), np.uint32), 0
        for artifact, shard in shards:
            part = kept_signatures(artifact, shard, num_places)
            signature[first : first + len(part)] = part
            first += len(part)
        return signatures.InMemory(signature, row)
    context.progress.say(f"{context.step}: {len(keys):,} documents, {num_partitions} partitions in {exchange}")
    tasks = [
        signatures.ShardSignatures(
            read=functools.partial(kept_signatures, artifact, shard, num_places),
            key=f"{artifact.fingerprint} {shard.file} {num_places}",
            folder=exchange,
            number=number,
            bands=(("near", near_bands), ("cluster", cluster_bands)),
            num_partitions=num_partitions,
        )
        for number, (artifact, shard) in enumerate(shards)
    ]
    workers = min(context.workers, 1 + len(keys) // DOCUMENTS_PER_WORKER)
    return signatures.write(tasks, row=row, workers=workers, progress=context.progress, label=context.step)


def _write_decisions(context: StepContext, keys: DocumentKeys, verdicts: Verdicts) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from diglot.core.storage import write_json
    from diglot.corpus.dedup.verdicts import add_rules
    from diglot.corpus.tables import rule_names

    corpus = context.input()
    rules = add_rules(rule_names(corpus))
    own = np.arange(keys.num_fixed, len(keys))
    order = own[np.lexsort((keys.row[own], keys.shard[own]))]
    ends = np.searchsorted(keys.shard[order], np.arange(keys.num_shards), side="right").tolist()
    starts = [0, *ends[:-1]]

    def write(number: int) -> None:
        mine = order[starts[number] : ends[number]]
        _write_shard(context.out, corpus, keys.shards[number], mine, keys, verdicts, rules)

    with (
        context.progress.bar(context.step, keys.num_shards, "shards") as bar,
        ThreadPoolExecutor(context.workers) as threads,
    ):
        for _ in threads.map(write, range(keys.num_shards)):
            bar.advance()
    write_json(context.out / "decisions" / "rules.json", rules)


def _write_shard(
    out: Path, corpus: Artifact, shard: Shard, numbers: Any, keys: DocumentKeys, verdicts: Verdicts, rules: list[str]
) -> None:
    from diglot.corpus.dedup.verdicts import decide
    from diglot.corpus.tables import decisions_of, write_table

    table: pa.Table = decide(decisions_of(corpus, shard), keys.row[numbers], numbers, verdicts, keys, rules)
    write_table(out / "decisions" / shard.file, table)


def _write_pairs(context: StepContext, keys: DocumentKeys, found: Found) -> None:
    """Evidence: every pair that was compared for dropping; `better` would have survived of the two."""
    import pyarrow as pa

    from diglot.corpus.tables import write_table

    pairs = found.compared
    table = pa.table(
        {
            "better": pa.array(keys.ids[pairs.left]).cast(pa.string()),
            "other": pa.array(keys.ids[pairs.right]).cast(pa.string()),
            "jaccard": pa.array(pairs.jaccard),
            "containment": pa.array(pairs.containment),
            "accepted": pa.array(found.accepted),
        }
    )
    write_table(context.out / "pairs.parquet", table.sort_by([("better", "ascending"), ("other", "ascending")]))


def _report(
    keys: DocumentKeys,
    found: Found,
    by_source: Mapping[str, Any],
    warnings: list[str],
    rule: SurvivorRule,
    near_bands: Bands,
    cluster_bands: Bands,
) -> dict[str, Any]:
    """What clusters.json says."""
    from diglot.corpus.dedup.lsh import curve
    from diglot.corpus.dedup.report import largest_clusters, largest_duplicate_groups, removed_by_jaccard

    # How often texts were read depends on the memory allowed, and this file does not.
    pairs: dict[str, Any] = {name: count for name, count in found.counts.items() if name != "texts_read"}
    pairs["rejected_share"] = round(pairs["rejected"] / max(pairs["candidates"], 1), 4)
    return {
        "alarms": warnings,
        "survivor": rule.said,
        "by_source": by_source,
        "pairs": pairs,
        "removed_by_jaccard": removed_by_jaccard(found.verdicts, found.compared, found.accepted),
        "near_curve": curve(near_bands),
        "cluster_curve": curve(cluster_bands),
        "largest_duplicate_groups": largest_duplicate_groups(keys, found.verdicts),
        "largest_clusters": largest_clusters(keys, found.verdicts),
        **_against_counts(keys, found.verdicts),
    }


def _write_report(context: StepContext, report: Mapping[str, Any]) -> None:
    from diglot.core.storage import write_json

    write_json(context.out / "clusters.json", report)


def _against_counts(keys: DocumentKeys, verdicts: Verdicts) -> dict[str, Any]:
    """With an older corpus: how many documents it has, and how many were dropped for one of them."""
    if keys.num_shards == len(keys.shards):
        return {}
    of_old = (verdicts.duplicate_of[keys.own] >= 0) & (verdicts.duplicate_of[keys.own] < keys.num_fixed)
    exact = verdicts.exact[keys.own]
    return {
        "against": {
            "documents": keys.num_fixed,
            "dropped_for_them": {
                "exact_duplicate": int((of_old & exact).sum()),
                "near_duplicate": int((of_old & ~exact).sum()),
            },
        }
    }


def _cluster_counts(clusters: Any) -> dict[str, int]:
    """clusters: bytes, of every kept document."""
    import numpy as np

    _, sizes = np.unique(clusters, return_counts=True)
    return {"number": len(sizes), "largest": int(sizes.max(initial=0)), "documents": int(sizes[sizes > 1].sum())}


STEP = StepKind(kind="deduplicate", version=2, config=DeduplicateConfig, run=deduplicate)
