"""Recipe step `decontaminate`: finds benchmark items inside documents, and drops the documents that hold one. Writes

    hits/<source>/<shard>.parquet        every document that shares an n-gram with an item: which, how much, where
    decisions/<source>/<shard>.parquet   the verdicts so far with the rule `contaminated` added
    decisions/rules.json                 names of all bits
    contamination.json                   per benchmark: items looked for and found, documents dropped, excerpts

With `heldout: true` below a split, held-out documents are looked for in the training documents as well; the rule is
then `heldout_overlap`. What an item is says `diglot.corpus.decontaminate.items`, what is compared `...index`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError, InputError
from diglot.steps.context import StepContext, StepKind, input_step

if TYPE_CHECKING:
    from diglot.corpus.decontaminate.index import Index
    from diglot.corpus.decontaminate.items import ItemText
    from diglot.corpus.decontaminate.scan import ShardTask, Verdict

MAX_COMMON_LISTED = 20
ALARM_SHARE = 0.2  # of the documents; a leak of benchmarks is far smaller


@dataclass(frozen=True, kw_only=True)
class DecontaminateConfig:
    """Which items, how they are compared, and from which coverage a document is dropped.

    benchmarks: a folder of JSON-lines files (also .gz, .zst), a file, or a list of them; relative to the recipe or to
        the working folder.
    fields: pattern of benchmark names -> the fields that hold the question; the others of such a benchmark are left
        out. Of several patterns the most specific counts. Without one every field does, as
        `corpus/decontaminate/items.py` says.
    drop_coverage: share of the question's (or the passage's) units that a document must have to be dropped.
    word_ngram, min_words: n-grams of at most and at least this many words; shorter questions are not looked for.
    character_ngram, min_characters: the same in texts that are mostly CJK characters.
    common_items: n-grams in more items than this are phrases of exams and are not looked for.
    common_documents: n-grams in more documents than this are phrases of the corpus and count for nothing.
    heldout: look for the held-out documents of the split above, too; heldout_coverage: from this share of a held-out
        document on, the training document is dropped.
    """

    from_: str = input_step("select", "deduplicate", "edit", "split", "decontaminate")
    benchmarks: str | tuple[str, ...] = field(default=(), metadata={"result": False})  # what they hold: `observe`
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    drop_coverage: float = 0.65
    word_ngram: int = 13
    min_words: int = 8
    character_ngram: int = 13
    min_characters: int = 10
    common_items: int = 10
    common_documents: int = 100
    heldout: bool = False
    heldout_coverage: float = 0.3

    def __post_init__(self) -> None:
        if not self.paths and not self.heldout:
            raise ConfigError("decontaminate has nothing to look for. Set benchmarks: FOLDER, or heldout: true.")
        for name in ("drop_coverage", "heldout_coverage"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, but it is a share: set it above 0 and at most 1.")
        for name in ("common_items", "common_documents"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, but it must be at least 1.")
        for low, high in (("min_words", "word_ngram"), ("min_characters", "character_ngram")):
            if not 8 <= getattr(self, low) <= getattr(self, high) <= 64:
                raise ConfigError(
                    f"{low} = {getattr(self, low)} and {high} = {getattr(self, high)}, but they must obey "
                    f"8 <= {low} <= {high} <= 64. Shorter n-grams stand in every large corpus by chance."
                )

    @property
    def paths(self) -> list[str]:
        return [path for path in ([self.benchmarks] if isinstance(self.benchmarks, str) else self.benchmarks) if path]


def decontaminate(config: DecontaminateConfig, context: StepContext) -> dict[str, Any]:
    """Find, judge, report; see the module for the files."""
    from diglot.core.storage import write_json
    from diglot.corpus.decontaminate.report import by_benchmark
    from diglot.corpus.decontaminate.scan import documents_by_ngram, judge_shard, scan_shard
    from diglot.corpus.executor import map_shards

    started, seconds = time.monotonic(), {}
    index, tasks = _prepare(config, context)
    seconds["index"] = time.monotonic() - started
    context.progress.say(
        f"{context.step}: looking for {len(index.table.anchors):,} n-grams of {len(index.parts):,} texts of items"
    )
    read = map_shards(
        scan_shard, tasks, workers=context.workers, progress=context.progress, label=f"{context.step}: find"
    )
    seconds["find"] = time.monotonic() - started - seconds["index"]
    num_documents = documents_by_ngram(tasks, len(index.table.anchors))
    verdict = _verdict(config, context, num_documents > config.common_documents)
    with context.progress.bar(f"{context.step}: judge", len(tasks), "shards") as bar:
        judged = []
        for task in tasks:
            judged.append(judge_shard(task, verdict))
            bar.advance()
    benchmarks = by_benchmark(index, tasks)
    common = _common_phrases(index, tasks, num_documents, config.common_documents)
    write_json(context.out / "contamination.json", {"benchmarks": benchmarks, "common_phrases": common})
    shutil.rmtree(context.out / "places", ignore_errors=True)
    (context.out / "index.npz").unlink()
    documents, dropped = (sum(one[name] for one in judged) for name in ("documents", "dropped"))
    reasons = {rule: sum(one["reasons"][rule] for one in judged) for rule in verdict.rules}
    assert dropped == sum(reasons.values())
    assert documents == sum(one["documents"] for one in read)
    alarms = _alarms(documents, reasons)
    for alarm in alarms:
        context.progress.say(f"{context.step}: {alarm}")
    seconds["judge"] = time.monotonic() - started - sum(seconds.values())
    return {
        "documents": documents,
        "kept": documents - dropped,
        "dropped": reasons,
        "alarms": alarms,
        "bytes": sum(one["bytes"] for one in judged),
        "bytes_dropped": sum(one["bytes_dropped"] for one in judged),
        "sources": _by_source(judged),
        "benchmarks": {
            name: {key: value for key, value in found.items() if key != "examples"}
            for name, found in benchmarks.items()
        },
        "ngrams": {
            "looked_for": len(index.table.anchors),
            "in_too_many_items": index.num_common,
            "in_too_many_documents": int((num_documents > config.common_documents).sum()),
        },
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def observe(config: DecontaminateConfig, recipe_dir: Path, store: Path) -> dict[str, Any]:
    """Digests of the benchmark files, for the fingerprint: a changed item is another result."""
    from diglot.corpus.decontaminate.items import observe_benchmarks

    return {"benchmarks": observe_benchmarks(_files(config, recipe_dir))}


def _files(config: DecontaminateConfig, recipe_dir: Path) -> list[Path]:
    from diglot.corpus.decontaminate.items import benchmark_files, check_fields

    files = benchmark_files(config.paths, [recipe_dir, Path.cwd()])
    check_fields(config.fields, files)
    return files


def _prepare(config: DecontaminateConfig, context: StepContext) -> tuple[Index, list[ShardTask]]:
    """The index, also as a file for the workers, and the shards to look at."""
    from diglot.corpus.decontaminate.index import NgramLengths, build_index
    from diglot.corpus.decontaminate.items import read_benchmark
    from diglot.corpus.decontaminate.scan import ShardTask
    from diglot.corpus.finished import xxh3_file
    from diglot.corpus.tables import shards

    corpus = context.input()
    texts = [text for file in _files(config, context.recipe_dir) for text in read_benchmark(file, config.fields)]
    split = corpus.upstream("split") if config.heldout else None
    if config.heldout:
        texts += _heldout_texts(context)
    index = build_index(
        texts,
        NgramLengths(
            word_ngram=config.word_ngram,
            min_words=config.min_words,
            character_ngram=config.character_ngram,
            min_characters=config.min_characters,
            common_items=config.common_items,
        ),
    )
    path = context.out / "index.npz"
    index.save(path)
    key = xxh3_file(path)
    return index, [
        ShardTask(corpus=corpus, shard=shard, out=context.out, index=path, index_key=key, split=split)
        for shard in shards(corpus.upstream("ingest"))
    ]


def _alarms(documents: int, reasons: Mapping[str, int]) -> list[str]:
    """A sentence for a rule that drops so much that the corpus repeats itself rather than its benchmarks."""
    return [
        f"{rule} dropped {number / documents:.0%} of {documents:,} documents, more than {ALARM_SHARE:.0%}: they repeat "
        "each other. Look at contamination.json, and raise the coverage or take the step out."
        for rule, number in reasons.items()
        if documents and number > ALARM_SHARE * documents
    ]


def _heldout_texts(context: StepContext) -> list[ItemText]:
    """Every held-out document as an item with one passage."""
    from diglot.corpus.decontaminate.items import PASSAGE, ItemText
    from diglot.corpus.decontaminate.scan import HELDOUT
    from diglot.corpus.splits import split_documents

    texts = []
    for _, table in split_documents(context.input(), "heldout", ["id", "text"]):
        for document, text in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
            texts.append(ItemText(HELDOUT, document, PASSAGE, text))
    if not texts:
        raise InputError("heldout: true, but no document is held out. Raise share_heldout in the split step.")
    return texts


def _verdict(config: DecontaminateConfig, context: StepContext, common: Any) -> Verdict:
    """Write rules.json and give what the second pass goes by."""
    from diglot.core.storage import write_json
    from diglot.corpus.decide import next_rule
    from diglot.corpus.decontaminate.scan import CONTAMINATED, HELDOUT_OVERLAP, Verdict
    from diglot.corpus.tables import rule_names

    rules, mine = rule_names(context.input()), {}
    for rule, wanted in ((CONTAMINATED, bool(config.paths)), (HELDOUT_OVERLAP, config.heldout)):
        if wanted:
            rules = rules if rule in rules else next_rule(rules, rule)  # several such steps share a rule
            mine[rule] = rules.index(rule)
    write_json(context.out / "decisions" / "rules.json", rules)
    return Verdict(
        common=common, drop_coverage=config.drop_coverage, heldout_coverage=config.heldout_coverage, rules=mine
    )


def _common_phrases(index: Index, tasks: Sequence[ShardTask], num_documents: Any, limit: int) -> list[dict[str, Any]]:
    """The n-grams that were ignored because they stand in too many documents, most frequent first, with their text."""
    import numpy as np

    from diglot.corpus.tables import documents_of, read_table

    order = np.argsort(-num_documents, kind="stable")[:MAX_COMMON_LISTED]
    wanted = {int(ngram) for ngram in order if num_documents[ngram] > limit}
    text_of: dict[int, str] = {}
    for task in tasks:
        if len(text_of) == len(wanted):
            break
        for place in read_table(task.places).to_pylist():
            if place["ngram"] in wanted and place["ngram"] not in text_of:
                text = documents_of(task.corpus, task.shard, ["text"])["text"][place["row"]].as_py().encode()
                text_of[place["ngram"]] = text[place["start"] : place["stop"]].decode()
    return [
        {
            "text": text_of[ngram],
            "documents": int(num_documents[ngram]),
            "items": sorted({_name(index, part) for part in index.part[index.first[ngram] : index.first[ngram + 1]]}),
        }
        for ngram in sorted(wanted, key=lambda ngram: (-num_documents[ngram], ngram))
    ]


def _name(index: Index, part: int) -> str:
    return f"{index.parts[part].benchmark}/{index.parts[part].item}"


def _by_source(judged: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    sums: dict[str, dict[str, int]] = {}
    for one in judged:
        mine = sums.setdefault(one["source"], {"documents": 0, "dropped": 0})
        mine["documents"] += one["documents"]
        mine["dropped"] += one["dropped"]
    return dict(sorted(sums.items()))


STEP = StepKind(kind="decontaminate", version=2, config=DecontaminateConfig, run=decontaminate, observe=observe)
