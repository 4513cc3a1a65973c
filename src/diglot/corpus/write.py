"""Kept documents as files that any other tool reads: JSON lines or Parquet, by source, language and shard.

    output/<source>/<language>/<shard>.jsonl.zst   or .parquet

One row a document: id, text, url, source, lang, date, license, meta, and below a split `held_out`, since nobody should
train on what a model is measured on. The text is as the last editing step left it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from diglot.core.storage import atomic_path
from diglot.corpus.finished import once, record_path
from diglot.corpus.tables import COMPRESSION, ROW_GROUP, Shard, decisions_of, documents_of, read_table
from diglot.ledger.artifact import Artifact

COLUMNS = ["id", "text", "url", "source", "lang", "date", "license", "meta"]
NO_LANGUAGE = "und"


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """One shard to write. format: `jsonl.zst`, `jsonl.gz`, `jsonl` or `parquet`."""

    corpus: Artifact
    shard: Shard
    out: Path
    format: str


def write_shard(task: WriteTask) -> dict[str, Any]:
    """Write the kept documents of one shard, or find them written. Counts: documents, kept, dropped, files."""
    record = record_path(task.out / "output" / task.shard.file)
    result: dict[str, Any] = once(record, task.format, lambda: _write(task))
    return result


def _write(task: WriteTask) -> tuple[list[Path], dict[str, Any]]:
    decisions = decisions_of(task.corpus, task.shard, ["id", "keep", "lang"])
    documents = documents_of(task.corpus, task.shard, COLUMNS)
    if not documents["id"].equals(decisions["id"]):
        raise AssertionError(f"documents and decisions of {task.shard.file} are not the same rows")
    lang = pc.coalesce(decisions["lang"], documents["lang"], pa.scalar(NO_LANGUAGE))
    documents = documents.set_column(COLUMNS.index("lang"), "lang", lang).filter(decisions["keep"])
    held_out = _held_out(task)
    if held_out is not None:
        documents = documents.append_column("held_out", held_out.filter(decisions["keep"]))
    files: list[dict[str, Any]] = []
    paths: list[Path] = []
    licenses: Counter[str] = Counter(license or "unknown" for license in documents["license"].to_pylist())
    for language in sorted(set(documents["lang"].to_pylist())):
        part = documents.filter(pc.equal(documents["lang"], language))
        name = f"output/{task.shard.source}/{language}/{task.shard.name}.{task.format}"
        with atomic_path(task.out / name) as partial:
            WRITERS[task.format](part, partial)
        paths.append(task.out / name)
        num_bytes = int(pc.sum(pc.binary_length(part["text"])).as_py() or 0)
        facts = {"file": name, "source": task.shard.source, "lang": language}
        files.append({**facts, "documents": len(part), "bytes": num_bytes})
    assert sum(file["documents"] for file in files) == len(documents)
    return paths, {
        "documents": len(decisions),
        "kept": len(documents),
        "dropped": len(decisions) - len(documents),
        "files": files,
        "licenses": dict(sorted(licenses.items())),
    }


def _held_out(task: WriteTask) -> pa.ChunkedArray | None:
    """Of every document of the shard; None where no split stands above."""
    split = next((step for step in task.corpus.ancestors(aside=False) if step.kind == "split"), None)
    return None if split is None else read_table(split.path / "heldout" / task.shard.file, ["held_out"])["held_out"]


def _parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=ROW_GROUP, **COMPRESSION)


def _json_lines(table: pa.Table, path: Path) -> None:
    with path.open("wb") as stream:
        _write_lines(table, stream)


def _json_lines_zstd(table: pa.Table, path: Path) -> None:
    with path.open("wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as stream:
        _write_lines(table, stream)


def _json_lines_gzip(table: pa.Table, path: Path) -> None:
    import gzip

    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as stream:
        _write_lines(table, stream)


def _write_lines(table: pa.Table, stream: Any) -> None:
    """Fields without a value are left out; `meta` is an object again."""
    for batch in table.to_batches(max_chunksize=ROW_GROUP):
        for row in batch.to_pylist():
            fields = {name: value for name, value in row.items() if value is not None}
            if "meta" in fields:
                fields["meta"] = json.loads(fields["meta"])
            stream.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "jsonl.zst": _json_lines_zstd,
    "jsonl.gz": _json_lines_gzip,
    "jsonl": _json_lines,
    "parquet": _parquet,
}
