"""Recipe step `edit`: what is cut from kept documents or replaced in them, as spans; no document is rewritten.

    edited: {kind: edit, from: distinct, edits: {links: {}, pii: {kinds: [email, phone]}, paragraphs: {min_chars: 80}}}

Every step that comes after and reads texts gets them with the spans applied. Writes

    edits/<source>/<shard>.parquet       every document of the shard in order: `id` and the spans of its text
    decisions/<source>/<shard>.parquet   the verdicts so far and `edited_away`; num_bytes stays that of the original
    decisions/rules.json                 names of all bits
    examples.json                        for each rule some spans with the text around them, before and after

`diglot.corpus.edits` describes the edits and how they go together.
"""

from __future__ import annotations

import heapq
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError, InputError
from diglot.corpus.edits.settings import EDITED_AWAY, Edits
from diglot.steps.context import StepContext, StepKind, input_step

if TYPE_CHECKING:
    from diglot.corpus.edits.spans import Span
    from diglot.corpus.tables import Shard
    from diglot.ledger.artifact import Artifact

NUM_EXAMPLES = 8  # of each rule
CONTEXT_CHARS, EXCERPT_CHARS = 60, 240
EMPTY = {"documents": 0, "kept": 0, EDITED_AWAY: 0, "edited": 0, "bytes": 0, "bytes_after": 0}


@dataclass(frozen=True, kw_only=True)
class EditConfig:
    """Which edits are made, and when a document has lost so much that it goes.

    The limits are asked only of documents that lost something: a poem of two lines that nothing was cut from stays.
    """

    from_: str = input_step("select", "deduplicate", "decontaminate", "edit")
    edits: Edits
    min_chars: int = 20  # MAP-Neo drops documents below 20 characters after it cut paragraphs and passages
    min_kept_share: float = 0.2  # of the characters

    def __post_init__(self) -> None:
        if self.min_chars < 1:
            raise ConfigError(f"min_chars = {self.min_chars}, but a document without text cannot stay. Set 1 or more.")
        if not 0 <= self.min_kept_share <= 1:
            raise ConfigError(f"min_kept_share = {self.min_kept_share}, but it is a share: set it in [0, 1].")


def edit(config: EditConfig, context: StepContext) -> dict[str, Any]:
    """Write the spans of all shards; see the module for the files."""
    from diglot.core.storage import write_json
    from diglot.corpus.decide import next_rule
    from diglot.corpus.edits.rounds import find_copies, useful_workers
    from diglot.corpus.executor import map_shards
    from diglot.corpus.tables import rule_names, shards

    corpus, work = context.input(), context.out / "work"
    before = rule_names(corpus)
    rules = before if EDITED_AWAY in before else next_rule(before, EDITED_AWAY)  # all edit steps share the rule
    files, started = shards(corpus.upstream("ingest")), time.monotonic()
    find_copies(corpus, files, work, config.edits, context.workers, context.progress, context.step)
    seconds_comparing = time.monotonic() - started
    tasks = [
        ShardTask(
            corpus=corpus,
            shard=shard,
            number=number,
            out=context.out,
            work=work,
            config=config,
            rule=rules.index(EDITED_AWAY),
        )
        for number, shard in enumerate(files)
    ]
    workers = useful_workers(context.workers, sum(_num_bytes(corpus, shard) for shard in files))
    found = map_shards(edit_shard, tasks, workers=workers, progress=context.progress, label=context.step)
    write_json(context.out / "decisions" / "rules.json", rules)
    write_json(context.out / "examples.json", _examples(one["examples"] for one in found))
    shutil.rmtree(work, ignore_errors=True)
    return {
        **_totals(files, found),
        "seconds": {
            "compare": round(seconds_comparing, 3),
            "edit": round(time.monotonic() - started - seconds_comparing, 3),
        },
    }


def _num_bytes(corpus: Artifact, shard: Shard) -> int:
    from diglot.corpus.tables import decisions_of

    return sum(decisions_of(corpus, shard, ["num_bytes"])["num_bytes"].to_pylist())


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to edit."""

    corpus: Artifact
    shard: Shard
    number: int
    out: Path
    work: Path
    config: EditConfig
    rule: int


def edit_shard(task: ShardTask) -> dict[str, Any]:
    """Write spans and verdicts of one shard, or find them written; returns counts by language and examples by rule."""
    from diglot.corpus.finished import once, record_path

    record = record_path(task.out / "edits" / task.shard.file)
    result: dict[str, Any] = once(record, task.corpus.fingerprint, lambda: _edit_shard(task))
    return result


def _edit_shard(task: ShardTask) -> tuple[list[Path], dict[str, Any]]:
    import numpy as np

    from diglot.corpus.decide import object_to
    from diglot.corpus.edits.rounds import kept_texts
    from diglot.corpus.edits.spans import MAX_TEXT_BYTES, edited_table, merge
    from diglot.corpus.tables import decisions_of, write_table

    verdicts = decisions_of(task.corpus, task.shard)
    rows, table = kept_texts(task.corpus, task.shard)
    proposals: dict[int, list[Span]] = {}
    for row, proposed in _proposals(task, table):
        proposals.setdefault(row, []).extend(proposed)
    spans: list[list[Span]] = [[] for _ in range(len(verdicts))]
    counts: dict[str, dict[str, Any]] = {}
    examples: dict[str, list[tuple[str, int, Span]]] = {}
    gone: list[tuple[int, float]] = []
    langs, ids, texts = table["lang"].to_pylist(), table["id"].to_pylist(), table["text"]
    for row, lang in enumerate(langs):
        scalar = texts[row].as_buffer()
        size = scalar.size if scalar is not None else 0
        if size > MAX_TEXT_BYTES:
            raise InputError(f"document {ids[row]} has {size:,} bytes, more than a span counts. Drop it by a policy.")
        mine = counts.setdefault(lang, {**EMPTY, "rules": {}})
        mine["documents"] += 1
        mine["bytes"] += size
        merged = merge(proposals.get(row, []), size)
        kept_share, goes = 1.0, False
        if merged:
            spans[rows[row]] = merged
            mine["edited"] += 1
            size += _count_rules(mine["rules"], merged)
            kept_share, goes = _what_is_left(texts[row].as_py(), merged, task.config)
            for rule in {span.rule for span in merged}:
                same = [span for span in merged if span.rule == rule]
                examples.setdefault(rule, []).append((ids[row], row, same[int(ids[row][:8], 16) % len(same)]))
        if goes:
            mine[EDITED_AWAY] += 1
            gone.append((int(rows[row]), kept_share))
        else:
            mine["kept"] += 1
            mine["bytes_after"] += size
    if gone:
        at, value = (np.array(column) for column in zip(*gone, strict=True))
        verdicts = object_to(verdicts, at, task.rule, value)
    paths = [task.out / folder / task.shard.file for folder in ("edits", "decisions")]
    write_table(paths[0], edited_table(verdicts["id"].combine_chunks(), spans))
    write_table(paths[1], verdicts)
    chosen = {
        rule: [
            _example(task.shard, document, langs[row], texts[row].as_py(), span)
            for document, row, span in heapq.nsmallest(NUM_EXAMPLES, candidates)
        ]
        for rule, candidates in examples.items()
    }
    return paths, {"languages": counts, "examples": chosen}


def _proposals(task: ShardTask, table: Any) -> Iterator[tuple[int, list[Span]]]:
    """(row of the kept documents, spans) of every edit, in the order of `corpus.edits.EDITS`."""
    from diglot.corpus.edits import EDITS
    from diglot.corpus.edits.rounds import chosen_texts

    chosen = task.config.edits.chosen()
    for name in EDITS:
        if name in chosen:
            rows, texts = chosen_texts(table, chosen[name].languages)
            for row, spans in _proposed_by(name)(task, chosen[name], rows, texts):
                yield int(rows[row]), spans


Proposer = Callable[[ShardTask, Any, Any, Any], Iterable[tuple[int, "list[Span]"]]]


def _proposed_by(name: str) -> Proposer:
    """(task, settings, rows, texts) -> (row of texts, spans), for the edit of this name."""
    from diglot.corpus.edits.full_width import full_width_spans
    from diglot.corpus.edits.line_filter import line_filter
    from diglot.corpus.edits.links import links
    from diglot.corpus.edits.pii import pii
    from diglot.corpus.edits.similar_lines import similar_lines

    table: dict[str, Proposer] = {
        "lines": lambda task, edit, rows, texts: line_filter(texts, edit),
        "similar_lines": lambda task, edit, rows, texts: similar_lines(texts, edit),
        "paragraphs": _paragraphs,
        "substrings": _substrings,
        "links": lambda task, edit, rows, texts: enumerate(links(text, edit.keep_code) for text in texts),
        "pii": lambda task, edit, rows, texts: pii(texts, edit),
        "full_width": lambda task, edit, rows, texts: full_width_spans(texts, edit),
    }
    return table[name]


def _paragraphs(task: ShardTask, edit: Any, rows: Any, texts: Any) -> Iterator[tuple[int, list[Span]]]:
    import numpy as np

    from diglot.corpus.edits import PARAGRAPHS, rounds
    from diglot.corpus.edits.exchange import COPY
    from diglot.corpus.edits.paragraphs import spans

    copies = np.concatenate([np.zeros(0, COPY), *rounds.copies(task.work, PARAGRAPHS, task.number)])
    copies = copies[np.lexsort((copies["start"], copies["rank"]))]
    ranks, id_of = rounds.ranks_of(task.work, task.number)[rows], rounds.id_reader(task.work)
    row_of = {rank: row for row, rank in enumerate(ranks.tolist())}
    for part in np.split(copies, np.flatnonzero(np.diff(copies["rank"])) + 1):
        if len(part):
            yield row_of[int(part["rank"][0])], spans(part, id_of)


def _substrings(task: ShardTask, edit: Any, rows: Any, texts: Any) -> Iterator[tuple[int, list[Span]]]:
    from diglot.corpus.edits import SUBSTRINGS, rounds
    from diglot.corpus.edits.substrings import substrings

    ranks, id_of = rounds.ranks_of(task.work, task.number)[rows], rounds.id_reader(task.work)
    return substrings(lambda: rounds.copies(task.work, SUBSTRINGS, task.number), texts, ranks, edit, id_of)


def _what_is_left(text: str, spans: list[Span], config: EditConfig) -> tuple[float, bool]:
    """Share of the characters that the edits leave, and whether that is too little for the document to stay."""
    from diglot.corpus.edits.spans import apply

    after = apply(text, spans)
    share = len(after) / max(len(text), 1)
    too_little = len(after.strip()) < config.min_chars or share < config.min_kept_share
    return share, len(after) < len(text) and too_little


def _count_rules(rules: dict[str, Counter[str]], spans: list[Span]) -> int:
    """Add the spans of one document to the counts of their rules; returns by how many bytes the text grows."""
    growth = 0
    for span in spans:
        counts = rules.setdefault(span.rule, Counter(spans=0, documents=0, bytes_cut=0, bytes_put=0))
        size, put = span.stop - span.start, len(span.replacement.encode())
        counts.update(spans=1, bytes_cut=size, bytes_put=put)
        growth += put - size
    for rule in {span.rule for span in spans}:
        rules[rule]["documents"] += 1
    return growth


def _example(shard: Shard, document: str, lang: str, text: str, span: Span) -> dict[str, Any]:
    """One span with the text around it; `before` has the cut part between ⟦ and ⟧."""
    content = text.encode()
    left, right = content[: span.start].decode()[-CONTEXT_CHARS:], content[span.stop :].decode()[:CONTEXT_CHARS]
    cut = content[span.start : span.stop].decode()
    if len(cut) > EXCERPT_CHARS:
        cut = f"{cut[: EXCERPT_CHARS // 2]} [...] {cut[-EXCERPT_CHARS // 2 :]}"
    return {
        "id": document,
        "source": shard.source,
        "lang": lang,
        "start": span.start,
        "stop": span.stop,
        "first_in": span.first_in,
        "before": f"{left}⟦{cut}⟧{right}",
        "after": f"{left}{span.replacement}{right}",
    }


def _examples(shards: Iterable[Mapping[str, list[dict[str, Any]]]]) -> dict[str, list[dict[str, Any]]]:
    """Of all shards the examples with the smallest ids, so that the choice depends on the corpus only."""
    found: dict[str, list[dict[str, Any]]] = {}
    for examples in shards:
        for rule, some in examples.items():
            found.setdefault(rule, []).extend(some)
    return {
        rule: heapq.nsmallest(NUM_EXAMPLES, some, key=lambda one: (one["id"], one["start"]))
        for rule, some in sorted(found.items())
    }


def _totals(files: list[Shard], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Documents and bytes before and after, in all, by language and by source, each with its rules."""
    total: dict[str, Any] = {**EMPTY, "rules": {}}
    languages: dict[str, dict[str, Any]] = {}
    sources: dict[str, dict[str, Any]] = {}
    for shard, one in zip(files, found, strict=True):
        for lang, counts in one["languages"].items():
            for target in (
                total,
                languages.setdefault(lang, {**EMPTY, "rules": {}}),
                sources.setdefault(shard.source, {**EMPTY, "rules": {}}),
            ):
                for name in EMPTY:
                    target[name] += counts[name]
                for rule, numbers in counts["rules"].items():
                    mine = target["rules"].setdefault(rule, dict.fromkeys(numbers, 0))
                    for name, number in numbers.items():
                        mine[name] += number
    for counts in (total, *languages.values(), *sources.values()):
        assert counts["documents"] == counts["kept"] + counts[EDITED_AWAY]
        counts["rules"] = dict(sorted(counts["rules"].items()))
    dropped = {EDITED_AWAY: total.pop(EDITED_AWAY)}
    return {**total, "dropped": dropped, "languages": dict(sorted(languages.items())), "sources": sources}


STEP = StepKind(kind="edit", version=1, config=EditConfig, run=edit)
