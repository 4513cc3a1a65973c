"""Recipe step `annotate`: measures every document once, in one pass over each shard. Nothing is decided here.

Writes attributes/<family>/<source>/<shard>.parquet: the rows of the documents table in the same order, `id` first. The
columns of each family are listed in `diglot.corpus.signals.attributes`.

A document that kills a worker is found by bisection and set aside: its signals are NaN and its hashes those of an empty
text, `select` drops it with the reason `unmeasured`, and its id is in the counts.
"""

from __future__ import annotations

import dataclasses
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError, unknown
from diglot.steps.context import StepContext, StepKind, input_step

if TYPE_CHECKING:
    import pyarrow as pa

FAMILIES = ("quality", "repetition", "language", "hashes", "minhash")


@dataclass(frozen=True, kw_only=True)
class AnnotateConfig:
    """Which families of attributes are measured. The steps after this one need all of them."""

    from_: str = input_step("ingest")
    families: tuple[str, ...] = FAMILIES
    num_permutations: int = 112  # 14 bands of 8 rows, or 28 of 4; see kernels.minhash
    minhash_seed: int = 0

    def __post_init__(self) -> None:
        for family in self.families:
            if family not in FAMILIES:
                raise unknown("family of attributes", family, FAMILIES)
        if len(set(self.families)) != len(self.families) or not self.families:
            raise ConfigError(f"families = {list(self.families)}, but each must be named once and at least one.")
        if self.num_permutations < 1:
            raise ConfigError(f"num_permutations = {self.num_permutations}, but a signature has at least one place.")


def annotate(config: AnnotateConfig, context: StepContext) -> dict[str, Any]:
    """Measure all shards; see the module for the files."""
    from diglot.corpus.executor import Quarantine, map_shards
    from diglot.corpus.finished import remove_partial_files
    from diglot.corpus.tables import shards

    started = time.monotonic()
    remove_partial_files(context.out)
    corpus = context.input()
    tasks = [
        ShardTask(documents=corpus.path / "documents" / shard.file, file=shard.file, out=context.out, config=config)
        for shard in shards(corpus)
    ]
    found = map_shards(
        annotate_shard,
        tasks,
        workers=context.workers,
        progress=context.progress,
        label=context.step,
        quarantine=Quarantine(num_documents=num_documents, probe=probe, without=without),
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
        "unicode": unicodedata.unidata_version,  # the classes of characters come from it
        "seconds": round(seconds, 3),
        "megabytes_per_second": round(measured_bytes / 1e6 / seconds, 3),
    }


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to measure; `set_aside` are rows that kill a worker."""

    documents: Path
    file: str  # <source>/<shard>.parquet
    out: Path
    config: AnnotateConfig
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

    table = read_table(task.documents, ["text"])
    _measure(task, table["text"].slice(start, stop - start), ())


def without(task: ShardTask, rows: tuple[int, ...]) -> ShardTask:
    return dataclasses.replace(task, set_aside=rows)


def _write(task: ShardTask) -> tuple[list[Path], dict[str, Any]]:
    from diglot.corpus.tables import read_table, write_table

    documents = read_table(task.documents, ["id", "text"])
    tables = _measure(task, documents["text"], task.set_aside)
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


def _measure(task: ShardTask, texts: pa.ChunkedArray, set_aside: tuple[int, ...]) -> dict[str, pa.Table]:
    """Family -> table of its columns, without ids."""
    import pyarrow as pa

    from diglot.corpus.signals.attributes import measure

    parts: dict[str, list[pa.Table]] = {family: [] for family in task.config.families}
    row = 0
    for chunk in texts.chunks or [pa.array([], pa.large_string())]:
        poison = [number - row for number in set_aside if row <= number < row + len(chunk)]
        whole = _blanked(chunk, poison)
        for family in task.config.families:
            minhash = {"num_permutations": task.config.num_permutations, "seed": task.config.minhash_seed}
            columns = measure(whole, family, **(minhash if family == "minhash" else {}))
            parts[family].append(pa.table(_unmeasured(columns, poison)))
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


STEP = StepKind(kind="annotate", version=2, config=AnnotateConfig, run=annotate)
