"""Recipe step `write`: the corpus as files for other tools, without anything that was dropped. Writes

output/<source>/<language>/<shard>.jsonl.zst   (or .jsonl, .jsonl.gz, .parquet) one row a document
report.json                                    files with their counts, documents by source, language and licence

    release: {kind: write, from: corpus, format: parquet}
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from diglot.core.errors import unknown
from diglot.steps.context import StepContext, StepKind, input_step

FORMATS = ("jsonl.zst", "jsonl.gz", "jsonl", "parquet")


@dataclass(frozen=True, kw_only=True)
class WriteConfig:
    """format: `jsonl.zst`, `jsonl.gz`, `jsonl` or `parquet`."""

    from_: str = input_step("split", "decontaminate", "edit", "deduplicate", "select")
    format: str = "jsonl.zst"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown("format", self.format, FORMATS, "write")


def write(config: WriteConfig, context: StepContext) -> dict[str, Any]:
    """Write every kept document. Returns counts by source and language."""
    from diglot.core.storage import write_json
    from diglot.corpus.executor import map_shards
    from diglot.corpus.tables import shards
    from diglot.corpus.write import WriteTask, write_shard

    corpus = context.input()
    tasks = [
        WriteTask(corpus=corpus, shard=shard, out=context.out, format=config.format)
        for shard in shards(corpus.upstream("ingest"))
    ]
    results = map_shards(write_shard, tasks, workers=context.workers, progress=context.progress, label=context.step)
    files = [file for result in results for file in result["files"]]
    counts = {name: sum(result[name] for result in results) for name in ("documents", "kept", "dropped")}
    assert counts["documents"] == counts["kept"] + counts["dropped"], counts
    assert counts["kept"] == sum(file["documents"] for file in files), counts
    licenses: Counter[str] = Counter()
    for result in results:
        licenses.update(result["licenses"])
    counts |= {
        "bytes": sum(file["bytes"] for file in files),
        "files": len(files),
        "documents_by_source": _by("source", files),
        "documents_by_language": _by("lang", files),
        "documents_by_license": dict(sorted(licenses.items())),
    }
    write_json(context.out / "report.json", {**counts, "format": config.format, "files": files})
    return counts


def _by(field: str, files: list[dict[str, Any]]) -> dict[str, int]:
    documents: Counter[str] = Counter()
    for file in files:
        documents[file[field]] += file["documents"]
    return dict(sorted(documents.items()))


STEP = StepKind(kind="write", version=1, config=WriteConfig, run=write)
