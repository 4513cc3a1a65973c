"""Recipe step `annotate`: measures every document once, in one pass over each shard. Nothing is decided here.

Writes attributes/<family>/<source>/<shard>.parquet: the rows of the documents table in the same order, `id` first. The
columns of each family are listed in `diglot.corpus.signals.attributes`. A recipe may bring signals of its own:

    word_lists: {strict: lists/strict.txt}        words.strict, see `diglot.corpus.signals.word_lists`
    url_lists: {adult: blacklists/adult}          url.adult, see `diglot.corpus.signals.url_lists`
    meta_fields: [ccnet_perplexity]               meta.ccnet_perplexity, a number among a document's metadata

The family `as_released` measures what MAP-Neo's released code does, with its defects, and only when it is asked for.

A document that kills a worker is found by bisection and set aside: its signals are NaN and its hashes those of an empty
text, `select` drops it with the reason `unmeasured`, and its id is in the counts.
"""

from __future__ import annotations

import dataclasses
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError, unknown
from diglot.steps.context import StepContext, StepKind, input_step

if TYPE_CHECKING:
    import pyarrow as pa

    from diglot.corpus.signals.brought import Brought

FAMILIES = ("quality", "repetition", "language", "hashes", "minhash")
WHEN_ASKED = ("as_released",)


@dataclass(frozen=True, kw_only=True)
class AnnotateConfig:
    """Which families of attributes are measured. The steps after this one need all of the default ones.

    word_lists, url_lists: name -> file or folder beside the recipe; their content counts and not where it is.
    """

    from_: str = input_step("ingest")
    families: tuple[str, ...] = FAMILIES
    num_permutations: int = 112  # 14 bands of 8 rows, or 28 of 4; see kernels.minhash
    minhash_seed: int = 0
    word_lists: Mapping[str, str] = field(default_factory=dict, metadata={"result": False})  # see `observe`
    url_lists: Mapping[str, str] = field(default_factory=dict, metadata={"result": False})
    meta_fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from diglot.corpus.signals.brought import check_names

        for family in self.families:
            if family not in FAMILIES + WHEN_ASKED:
                raise unknown("family of attributes", family, FAMILIES + WHEN_ASKED)
        for setting in ("word_lists", "url_lists", "meta_fields"):
            check_names(getattr(self, setting), setting)
        if len(set(self.families)) != len(self.families) or not self.families:
            raise ConfigError(f"families = {list(self.families)}, but each must be named once and at least one.")
        if self.num_permutations < 1:
            raise ConfigError(f"num_permutations = {self.num_permutations}, but a signature has at least one place.")


def annotate(config: AnnotateConfig, context: StepContext) -> dict[str, Any]:
    """Measure all shards; see the module for the files."""
    from diglot.corpus.executor import Quarantine, map_shards
    from diglot.corpus.tables import shards

    started = time.monotonic()
    corpus = context.input()
    brought = load_brought(config, context.recipe_dir)
    documents = corpus.path / "documents"
    tasks = [
        ShardTask(documents=documents / shard.file, file=shard.file, out=context.out, config=config, brought=brought)
        for shard in shards(corpus)
    ]
    found = map_shards(
        annotate_shard,
        tasks,
        workers=context.workers,
        progress=context.progress,
        label=context.step,
        quarantine=Quarantine(num_documents=num_documents, probe=probe, without=without),
        num_bytes=lambda task: task.documents.stat().st_size,
    )
    languages: dict[str, dict[str, int]] = {}
    for counts in found:
        for tag, (documents, size) in counts["languages"].items():
            total = languages.setdefault(tag, {"documents": 0, "bytes": 0})
            total["documents"] += documents
            total["bytes"] += size
    measured_bytes, seconds = sum(c["bytes"] for c in found), time.monotonic() - started
    return {
        "documents": sum(c["documents"] for c in found),
        "bytes": measured_bytes,
        "languages": dict(sorted(languages.items(), key=lambda item: (-item[1]["documents"], item[0]))),
        "quarantined": [document for c in found for document in c["quarantined"]],
        **({"lists": brought.entries()} if brought.word_lists or brought.url_lists else {}),
        "unicode": unicodedata.unidata_version,  # the classes of characters come from it
        "seconds": round(seconds, 3),
        "megabytes_per_second": round(measured_bytes / 1e6 / seconds, 3),
    }


def load_brought(config: AnnotateConfig, recipe_dir: Path) -> Brought:
    """The lists that the recipe names. Raises ConfigError or InputError where one cannot be used."""
    from diglot.corpus.signals.brought import Brought, named_lists

    return Brought(
        word_lists=named_lists(config.word_lists, recipe_dir, "word_lists"),
        url_lists=named_lists(config.url_lists, recipe_dir, "url_lists"),
        meta_fields=config.meta_fields,
    )


def observe(config: AnnotateConfig, recipe_dir: Path, store: Path) -> dict[str, Any]:
    """The names and digests of the lists, for the fingerprint: an edited list is another result, a moved one is not."""
    brought = load_brought(config, recipe_dir)
    return {
        setting: {named.name: named.digest for named in lists}
        for setting, lists in (("word_lists", brought.word_lists), ("url_lists", brought.url_lists))
    }


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to measure; `set_aside` are rows that kill a worker."""

    documents: Path
    file: str  # <source>/<shard>.parquet
    out: Path
    config: AnnotateConfig
    brought: Brought | None = None
    set_aside: tuple[int, ...] = ()


def annotate_shard(task: ShardTask) -> dict[str, Any]:
    """Write the attributes of one shard, or find them written. Counts: documents, bytes, languages, quarantined ids."""
    from diglot.corpus.finished import once, record_path

    first = task.out / "attributes" / task.config.families[0] / task.file
    result: dict[str, Any] = once(record_path(first), "attributes", lambda: _write(task))
    return result


def num_documents(task: ShardTask) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(task.documents).num_rows)


def probe(task: ShardTask, start: int, stop: int) -> None:
    """Measure the documents [start, stop) and forget the result: whether that kills the process is the question."""
    from diglot.corpus.tables import read_table

    table = read_table(task.documents, _columns(task))
    _measure(task, table.slice(start, stop - start), ())


def without(task: ShardTask, rows: tuple[int, ...]) -> ShardTask:
    return dataclasses.replace(task, set_aside=rows)


def _write(task: ShardTask) -> tuple[list[Path], dict[str, Any]]:
    from diglot.corpus.tables import read_table, write_table

    documents = read_table(task.documents, ["id", *_columns(task)])
    tables = _measure(task, documents, task.set_aside)
    files = []
    for family, table in tables.items():
        path = task.out / "attributes" / family / task.file
        write_table(path, table.add_column(0, "id", documents["id"]))
        files.append(path)
    ids = documents["id"].to_pylist()
    return files, {
        "documents": len(documents),
        "bytes": _num_bytes(documents["text"]),
        "languages": _languages(documents["text"], tables),
        "quarantined": [ids[row] for row in task.set_aside],
    }


def _columns(task: ShardTask) -> list[str]:
    """Columns of the documents table that are measured."""
    return ["text", *(task.brought.reads() if task.brought else ())]


def _measure(task: ShardTask, documents: pa.Table, set_aside: tuple[int, ...]) -> dict[str, pa.Table]:
    """Family -> table of its columns, without ids."""
    import pyarrow as pa

    from diglot.corpus.signals.attributes import measure

    brought = task.brought.families() if task.brought else ()
    parts: dict[str, list[pa.Table]] = {family: [] for family in (*task.config.families, *brought)}
    texts, row = documents["text"], 0
    for chunk in texts.chunks or [pa.array([], pa.large_string())]:
        poison = [number - row for number in set_aside if row <= number < row + len(chunk)]
        whole = _blanked(chunk, poison)
        for family in task.config.families:
            minhash = {"num_permutations": task.config.num_permutations, "seed": task.config.minhash_seed}
            columns = measure(whole, family, **(minhash if family == "minhash" else {}))
            parts[family].append(pa.table(_unmeasured(columns, poison)))
        rows = documents.slice(row, len(chunk)).set_column(documents.column_names.index("text"), "text", whole)
        for family in brought:
            assert task.brought is not None
            parts[family].append(pa.table(_unmeasured(task.brought.columns(family, rows), poison)))
        row += len(chunk)
    return {family: pa.concat_tables(tables) for family, tables in parts.items()}


def _blanked(texts: pa.Array, rows: list[int]) -> pa.Array:
    """`texts` as large strings, with empty texts for nulls and in `rows`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = texts.cast(pa.large_string())
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    if rows:
        keep = np.ones(len(texts), bool)
        keep[rows] = False
        texts = pc.if_else(pa.array(keep), texts, "").cast(pa.large_string())
    return texts


def _unmeasured(columns: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """Signals of the documents that could not be measured become NaN."""
    import pyarrow as pa

    if not rows:
        return columns
    for name, column in columns.items():
        if pa.types.is_float32(column.type):
            values = column.to_numpy(zero_copy_only=False).copy()
            values[rows] = float("nan")
            columns[name] = pa.array(values)
    return columns


def _num_bytes(texts: pa.ChunkedArray) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(pc.binary_length(texts)).as_py() or 0)


def _languages(texts: pa.ChunkedArray, tables: dict[str, pa.Table]) -> dict[str, tuple[int, int]]:
    """Identified language -> documents and bytes; `und` where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "language" not in tables:
        return {}
    lang = pc.fill_null(tables["language"]["lang"], "und").combine_chunks()
    size = pc.fill_null(pc.binary_length(texts), 0).combine_chunks()
    groups = pa.table({"lang": lang, "size": size}).group_by("lang", use_threads=False)
    return {
        row["lang"]: (row["size_count"], row["size_sum"])
        for row in groups.aggregate([("size", "count"), ("size", "sum")]).sort_by("lang").to_pylist()
    }


STEP = StepKind(kind="annotate", version=2, config=AnnotateConfig, run=annotate, shards_divide=True, observe=observe)
