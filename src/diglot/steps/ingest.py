"""Ingest: from folders, web archives, datasets and documentation packages to the documents table.

    documents/<source>/<shard>.parquet   every page and text that could be read, also those without main text
    refused.jsonl                        everything else that was read, with its place and the reason
    sources.json                         a ledger record for each source: licence, version, counts

Records read = documents + refused, exactly.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError, InputError
from diglot.core.progress import Progress
from diglot.core.storage import atomic_path, write_json
from diglot.ledger.records import SourceRecord
from diglot.steps.context import StepContext, StepKind

if TYPE_CHECKING:
    from diglot.corpus.ingestion import IngestTask
    from diglot.corpus.read.record import SourceFile
    from diglot.corpus.read.sources import Found, Source


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """Where documents come from.

    source: a folder, file, glob, URL (`hf://`, `s3://` ...) or `debian:NAME,NAME`, or a list of them. Folders hold
        HTML, text, Markdown, WARC, JSON lines or Parquet, also compressed; relative paths start at the recipe or,
        failing that, at the working folder.
    include, exclude: globs over the path of a file within its source, e.g. `*.html`.
    license: of sources that do not state theirs.
    max_documents: keep the documents with the smallest ids, a random but fixed subset; None keeps all.
    shard_bytes: input files are grouped into shards of about this size; also the most text in one output file.
    max_document_bytes: larger pages are refused as `too_large`.
    languages_declared: note the language that pages, fields and addresses declare.
    """

    source: str | list[str] = field(metadata={"result": False})  # what it holds counts, see `observe`, not where it is
    include: list[str] | None = None
    exclude: list[str] | None = None
    license: str | None = None
    max_documents: int | None = None
    shard_bytes: int = 16 << 20
    max_document_bytes: int = 16 << 20
    languages_declared: bool = True

    def __post_init__(self) -> None:
        if not self.specs:
            raise ConfigError("ingest has no source. Set source: to a folder, file, URL or debian:PACKAGE.")
        for name in ("max_documents", "shard_bytes", "max_document_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value}, but it must be at least 1.")

    @property
    def specs(self) -> list[str]:
        specs = [self.source] if isinstance(self.source, str) else list(self.source)
        return [spec for spec in specs if spec.strip()]


def ingest(config: IngestConfig, context: StepContext) -> dict[str, Any]:
    """Read every source. Returns counts by source, reason and declared language."""
    from diglot.corpus.executor import map_shards
    from diglot.corpus.ingestion import QUARANTINE, ingest_shard, num_input_bytes, refusals_path

    started = time.perf_counter()
    found = _find(config, context.recipe_dir, context.progress)
    if not found.files:
        raise InputError(
            f"{_spelled(config)} holds no files{' that include and exclude let through' if config.include else ''}. "
            "Point source at a folder of pages, e.g. --set steps.pages.source=/path/to/pages."
        )
    found_s = time.perf_counter() - started
    tasks = plan(found, config, context.out / "documents")
    tasks, left_out = _subset(tasks, config.max_documents, context)
    results = map_shards(
        ingest_shard,
        tasks,
        workers=context.workers,
        progress=context.progress,
        label="ingest",
        quarantine=QUARANTINE,
        num_bytes=num_input_bytes,
    )
    expected = {task.out.parent / name for task, result in zip(tasks, results, strict=True) for name in result["files"]}
    for path in (context.out / "documents").rglob("*.parquet"):
        if path not in expected:
            path.unlink()  # of an interrupted run over other files
    with atomic_path(context.out / "refused.jsonl") as partial, partial.open("wb") as gathered:
        for task in tasks:
            gathered.write(refusals_path(task.out).read_bytes())
    counts = _counts(tasks, results) | {"left_out": left_out}
    if counts["documents"] == 0:
        reasons = ", ".join(f"{reason} {number}" for reason, number in counts["refused"].items())
        raise InputError(
            f"{_spelled(config)} holds no readable document ({reasons or 'nothing was read'}). Supported: HTML, text, "
            "Markdown, WARC, JSON lines and Parquet, also .gz and .zst. See refused.jsonl in the step's folder."
        )
    write_json(context.out / "sources.json", [record.to_dict() for record in _records(found, tasks, results)])
    seconds = time.perf_counter() - started
    return counts | {"seconds": {"find": round(found_s, 3), "read": round(seconds - found_s, 3)}}


def observe(config: IngestConfig, recipe_dir: Path, store: Path) -> dict[str, Any]:
    """What would be read, for the fingerprint. Fetches `debian:` packages that the cache lacks."""
    from diglot.corpus.read.observe import observe_files

    return observe_files(_find(config, recipe_dir, Progress()))


def plan(found: Found, config: IngestConfig, folder: Path) -> list[IngestTask]:
    """Shards of about `shard_bytes` of input each, by source, files in order. A larger file is a shard of its own."""
    from diglot.corpus.ingestion import IngestTask
    from diglot.corpus.read.record import Limits

    tasks = []
    for name, source in sorted(found.sources.items()):
        files = [file for file in found.files if file.source == name]
        for number, group in enumerate(_grouped(files, config.shard_bytes)):
            task = IngestTask(
                source=name,
                license=source.license or config.license,
                files=tuple(group),
                out=folder / name / f"{number:05}.parquet",
                limits=Limits(max_document_bytes=config.max_document_bytes),
                part_bytes=config.shard_bytes,
                declared_languages=config.languages_declared,
            )
            tasks.append(task)
    return tasks


def _find(config: IngestConfig, recipe_dir: Path, progress: Progress) -> Found:
    from diglot.corpus.read.sources import Selection, find

    selection = Selection(include=tuple(config.include or ()), exclude=tuple(config.exclude or ()))
    return find(config.specs, bases=[recipe_dir, Path.cwd()], selection=selection, progress=progress)


def _grouped(files: Sequence[SourceFile], shard_bytes: int) -> list[list[SourceFile]]:
    groups: list[list[SourceFile]] = [[]]
    size = 0
    for file in files:
        if groups[-1] and size + file.size > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.size
    return groups


def _subset(tasks: list[IngestTask], max_documents: int | None, context: StepContext) -> tuple[list[IngestTask], int]:
    """The tasks limited to the `max_documents` smallest ids, and how many records that leaves out."""
    from dataclasses import replace

    from diglot.corpus.executor import map_shards
    from diglot.corpus.ingestion import list_ids, num_input_bytes

    if max_documents is None:
        return tasks, 0
    listed = map_shards(
        list_ids,
        tasks,
        workers=context.workers,
        progress=context.progress,
        label="choose documents",
        num_bytes=num_input_bytes,
        recorded=False,
    )
    ids = sorted(id for of_shard in listed for id in of_shard)
    if len(ids) <= max_documents:
        return tasks, 0
    return [replace(task, last_id=ids[max_documents - 1]) for task in tasks], len(ids) - max_documents


def _counts(tasks: list[IngestTask], results: list[dict[str, Any]]) -> dict[str, Any]:
    refused: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    documents_of: Counter[str] = Counter()
    bytes_of: Counter[str] = Counter()
    for task, result in zip(tasks, results, strict=True):
        refused.update(result["refused"])
        languages.update(result["declared_languages"])
        documents_of[task.source] += result["documents"]
        bytes_of[task.source] += result["bytes"]
    documents = documents_of.total()
    return {
        "records_read": documents + refused.total(),
        "documents": documents,
        "bytes": bytes_of.total(),
        "input_bytes": sum(result["input_bytes"] for result in results),
        "shards": sum(len(result["files"]) for result in results),
        "refused": dict(sorted(refused.items())),
        "documents_by_source": dict(sorted(documents_of.items())),
        "bytes_by_source": dict(sorted(bytes_of.items())),
        "documents_by_declared_language": dict(sorted(languages.items())),
    }


def _records(found: Found, tasks: list[IngestTask], results: list[dict[str, Any]]) -> list[SourceRecord]:
    by_source: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for task, result in zip(tasks, results, strict=True):
        by_source[task.source].append(result)
    return [_record(source, by_source[name]) for name, source in sorted(found.sources.items())]


def _record(source: Source, results: list[dict[str, Any]]) -> SourceRecord:
    periods = [result["period"] for result in results if result["period"]]
    return SourceRecord(
        id=source.name,
        title=source.title,
        version=source.version,
        license=source.license,
        acquisition=source.acquisition,
        address=source.address,
        documents=sum(result["documents"] for result in results),
        bytes=sum(result["bytes"] for result in results),
        input_bytes=sum(result["input_bytes"] for result in results),
        period=(min(first for first, _ in periods), max(last for _, last in periods)) if periods else None,
    )


def _spelled(config: IngestConfig) -> str:
    return f"source {json.dumps(config.source, ensure_ascii=False)}"


STEP = StepKind(kind="ingest", version=2, config=IngestConfig, run=ingest, shards_divide=True, observe=observe)
