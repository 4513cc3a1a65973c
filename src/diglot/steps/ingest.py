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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError, InputError, unknown
from diglot.core.patterns import most_specific
from diglot.core.progress import Progress
from diglot.core.storage import atomic_path, write_json
from diglot.ledger.records import SourceRecord
from diglot.steps.context import StepContext, StepKind

if TYPE_CHECKING:
    from diglot.corpus.ingestion import IngestTask
    from diglot.corpus.read.record import SourceFile
    from diglot.corpus.read.sources import Found, Source


FIELDS = ("text", "html", "html_b64", "url", "lang", "date", "license", "id", "title")
SPLIT = frozenset({"warc", "wat", "jsonl", "parquet"})  # formats whose large files are read in parts
EXTRACTORS = ("diglot", "resiliparse", "trafilatura")


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """Where documents come from.

    source: a folder, file, glob, URL (`hf://`, `s3://` ...), `debian:NAME,NAME` or `cc:PATHS_FILE`, a list of them,
        or a map of names to them: {en: PATH, zh: PATH} puts `en-` and `zh-` before the names of their sources.
        Folders hold HTML, text, Markdown, LaTeX, WARC, ARC, JSON lines, CSV, Parquet, MediaWiki dumps or tar archives,
        also compressed; relative paths start at the recipe or, failing that, at the working folder.
    include, exclude: globs over the path of a file within its source, e.g. `*.html`.
    fields: our field name -> that of a dataset, for JSON lines, CSV and Parquet, e.g. `{text: body, url: meta.link}`;
        or such maps by a glob over source names, e.g. `{"news-*": {text: body}}`, of which the most specific counts.
    cc_base: where the paths of `cc:` lists are: a URL or a folder.
    max_files: take the first so many files of a `cc:` list.
    license: of sources that do not state theirs.
    max_documents: keep the documents with the smallest ids, a random but fixed subset; None keeps all.
    shard_bytes: input files are grouped into shards of about this size; also the most text in one output file.
    span_bytes: a WARC, plain JSON lines or Parquet file above this size is read in parts, each a shard, so that
        several workers share it.
    max_document_bytes: larger pages are refused as `too_large`.
    extractor: of main text from HTML: `diglot`, `resiliparse` (its main-content mode) or `trafilatura` (slow; needs
        diglot[precise]); one name, or names by glob over the source's name: {"*": diglot, "news-*": trafilatura}.
        The most specific glob wins.
    languages_declared: note the language that pages, fields and addresses declare.
    """

    source: str | list[str] | dict[str, str] = field(metadata={"result": False})  # its content counts, see `observe`
    include: list[str] | None = None
    exclude: list[str] | None = None
    license: str | None = None
    fields: dict[str, str | dict[str, str]] | None = None
    cc_base: str = field(default="https://data.commoncrawl.org/", metadata={"result": False})
    max_files: int | None = None
    max_documents: int | None = None
    shard_bytes: int = 16 << 20
    span_bytes: int = 64 << 20
    max_document_bytes: int = 16 << 20
    extractor: str | dict[str, str] = "diglot"
    languages_declared: bool = True

    def __post_init__(self) -> None:
        for name in self.extractor.values() if isinstance(self.extractor, dict) else [self.extractor]:
            if name not in EXTRACTORS:
                raise unknown("extractor", name, EXTRACTORS)
        if not self.specs:
            raise ConfigError("ingest has no source. Set source: to a folder, file, URL or debian:PACKAGE.")
        for name in ("max_documents", "max_files", "shard_bytes", "span_bytes", "max_document_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value}, but it must be at least 1.")
        self._check_fields()

    def _check_fields(self) -> None:
        values = list((self.fields or {}).values())
        nested = [value for value in values if isinstance(value, dict)]
        if nested and len(nested) < len(values):
            raise ConfigError("fields mixes names and maps. Give names, or a map for each glob over source names.")
        maps: list[Mapping[str, object]] = [*nested] or [self.fields or {}]
        for names in maps:
            for name in names:
                if name not in FIELDS:
                    raise unknown("field", name, FIELDS, "fields")

    def fields_of(self, source: str) -> tuple[tuple[str, str], ...]:
        """(our name, its name) of the fields of one source."""
        flat = {ours: theirs for ours, theirs in (self.fields or {}).items() if isinstance(theirs, str)}
        maps = {glob: names for glob, names in (self.fields or {}).items() if isinstance(names, dict)}
        glob = most_specific(source, maps)
        return tuple(sorted((flat if glob is None else maps[glob]).items()))

    @property
    def specs(self) -> list[str]:
        if isinstance(self.source, dict):
            return list(self.source.values())
        specs = [self.source] if isinstance(self.source, str) else self.source
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
    tasks, results = _joined(tasks, results, context)
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
            "Markdown, LaTeX, WARC, ARC, JSON lines, CSV, Parquet, MediaWiki dumps and tar archives, also compressed. "
            "See refused.jsonl in the step's folder."
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
    from diglot.corpus.extractors import extractor, extractor_of
    from diglot.corpus.ingestion import IngestTask
    from diglot.corpus.read.record import Limits

    tasks = []
    for name, source in sorted(found.sources.items()):
        fields, by = config.fields_of(name), extractor_of(name, config.extractor)
        extractor(by)  # a missing package stops the step here and not in its workers
        files = [replace(file, fields=fields) for file in found.files if file.source == name]
        groups = [part for group in _grouped(files, config.shard_bytes) for part in _spans(group, config.span_bytes)]
        for number, group in enumerate(groups):
            task = IngestTask(
                source=name,
                license=source.license or config.license,
                files=tuple(group),
                out=folder / name / f"{number:05}.parquet",
                limits=Limits(max_document_bytes=config.max_document_bytes),
                part_bytes=config.shard_bytes,
                declared_languages=config.languages_declared,
                extractor=by,
            )
            tasks.append(task)
    return tasks


def _find(config: IngestConfig, recipe_dir: Path, progress: Progress) -> Found:
    from diglot.corpus.read.sources import CommonCrawl, Selection, find

    selection = Selection(include=tuple(config.include or ()), exclude=tuple(config.exclude or ()))
    return find(
        config.specs,
        prefixes=list(config.source) if isinstance(config.source, dict) else (),
        bases=[recipe_dir, Path.cwd()],
        selection=selection,
        progress=progress,
        common_crawl=CommonCrawl(base=config.cc_base, max_files=config.max_files),
    )


def _spans(group: list[SourceFile], span_bytes: int) -> list[list[SourceFile]]:
    """A group that is one large container as its parts of equal size; every other group as it is."""
    from diglot.corpus.read.formats import uncompressed

    file = group[0]
    number = -(-file.size // span_bytes)
    plain = uncompressed(file.container) == file.container.lower()
    packed = file.format in ("warc", "wat") and file.container.lower().endswith(".gz")  # a gzip member a record
    if len(group) > 1 or number < 2 or file.format not in SPLIT or not (plain or packed):
        return [group]
    return [
        [replace(file, span=(file.size * part // number, file.size * (part + 1) // number))] for part in range(number)
    ]


def _joined(
    tasks: list[IngestTask], results: list[dict[str, Any]], context: StepContext
) -> tuple[list[IngestTask], list[dict[str, Any]]]:
    """The results with every part of a file starting where the part before it ended.

    A part searches for its first record, and could take a page that quotes one for it; then it is read again.
    """
    from diglot.corpus.executor import map_shards
    from diglot.corpus.ingestion import QUARANTINE, ingest_shard

    tasks, results = list(tasks), list(results)
    for number, (task, result) in enumerate(zip(tasks, results, strict=True)):
        file = task.files[0]
        if not (file.span and file.span[0] and result["reached"] and results[number - 1]["reached"]):
            continue
        ended = results[number - 1]["reached"][0][1]
        if ended is None:
            ended = file.size
        begun = result["reached"][0][0]
        if ended != (file.size if begun is None else begun):
            tasks[number] = replace(task, files=(replace(file, exact=ended),))
            results[number] = map_shards(
                ingest_shard,
                [tasks[number]],
                workers=1,
                progress=context.progress,
                label="ingest, a part again",
                quarantine=QUARANTINE,
            )[0]
    return tasks, results


def _grouped(files: Sequence[SourceFile], shard_bytes: int) -> list[list[SourceFile]]:
    from diglot.core.storage import is_url
    from diglot.corpus.read.formats import CONTAINERS

    groups: list[list[SourceFile]] = [[]]
    size = 0
    for file in files:
        unknown_size = file.size == 0 and is_url(file.path) and file.format in CONTAINERS
        if groups[-1] and (size + file.size > shard_bytes or unknown_size):
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.size
    return groups


def _subset(tasks: list[IngestTask], max_documents: int | None, context: StepContext) -> tuple[list[IngestTask], int]:
    """The tasks limited to the `max_documents` smallest ids, and how many records that leaves out."""
    from diglot.corpus.executor import map_shards
    from diglot.corpus.ingestion import QUARANTINE, list_ids, num_input_bytes

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
        quarantine=QUARANTINE,
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
