"""Documents as finished artifacts of a store, for benchmarks that start after ingestion.

Everything is kept by a `select` artifact of one empty rule, so that deduplication sees all documents.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
import zstandard

from diglot.core.progress import Progress
from diglot.core.storage import write_json
from diglot.corpus.tables import DECISION, DOCUMENT, write_table
from diglot.ledger.artifact import Artifact
from diglot.ledger.manifest import Manifest, record_files, write_manifest
from diglot.steps import annotate, deduplicate
from diglot.steps.context import StepContext, StepKind

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARD_BYTES = 32_000_000


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a .jsonl.zst file of the shared data."""
    with path.open("rb") as stream:
        text = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(stream)
        yield from map(json.loads, io.TextIOWrapper(text, "utf-8"))


def prose() -> Iterator[dict[str, Any]]:
    """All English and Chinese pre-training prose of the shared data: `text`, `source`, `lang`."""
    for path in sorted([*SHARED.glob("pretrain/en/*.zst"), *SHARED.glob("pretrain/zh/*.zst")]):
        source = f"{path.parent.name}-{path.name.partition('.')[0]}"
        for record in records(path):
            lang = "zh-Hans" if record["lang"] == "zh" else record["lang"]
            yield {"text": record["text"], "source": source, "lang": lang}


def rewritten(text: str, copy: int) -> str:
    """`text` in another alphabet: letters and Chinese characters are permuted, the same way in the whole copy.

    So the copies of a corpus share nothing with each other, and each has the duplicates that the original has.
    """
    return text if copy == 0 else text.translate(_alphabet(copy))


def ingested(store: Path, documents: Iterable[Mapping[str, Any]]) -> tuple[Artifact, int]:
    """Write documents (`text`, `source`, `lang`, perhaps `id`) and verdicts that keep them. Returns their bytes too."""
    ingest, select = store / "ingest" / "i", store / "select" / "s"
    rows: list[dict[str, Any]] = []
    sizes: list[int] = []
    total = number = shard = 0
    for document in documents:
        if rows and (shard >= SHARD_BYTES or rows[-1]["source"] != document["source"]):
            _write_shard(ingest, select, rows, sizes, number)
            rows, sizes, shard, number = [], [], 0, number + 1
        size = len(document["text"].encode())
        name = document.get("id") or xxhash.xxh3_128_hexdigest(f"{document['source']} {number} {len(rows)}".encode())
        rows.append({"id": name, **{key: document[key] for key in ("text", "source", "lang")}})
        sizes.append(size)
        shard += size
        total += size
    _write_shard(ingest, select, rows, sizes, number)
    write_json(select / "decisions" / "rules.json", ["language"])
    return finished(ingest, {}), total


def run(kind: StepKind, out: Path, inputs: dict[str, Artifact], workers: int = 1, **settings: Any) -> Artifact:
    """Run one recipe step and finish its artifact."""
    out.mkdir(parents=True, exist_ok=True)
    config = kind.config(**{("from_" if name == "from" else name): name for name in inputs}, **settings)
    progress = Progress(quiet=True)
    context = StepContext(
        step=kind.kind, out=out, inputs=inputs, seed=0, workers=workers, progress=progress, recipe_dir=out
    )
    counts = kind.run(config, context)
    return finished(out, inputs, counts, {name: getattr(config, name) for name in kind.result_fields()})


def deduplicated(store: Path, ingest: Artifact, workers: int = 1, **settings: Any) -> Artifact:
    """Hash, sign and deduplicate everything that was ingested into this store."""
    signed = run(annotate.STEP, store / "annotate" / "a", {"from": ingest}, workers, families=("hashes", "minhash"))
    kept = finished(store / "select" / "s", {"from": signed})
    return run(deduplicate.STEP, store / "deduplicate" / "d", {"from": kept}, workers, **settings)


def finished(
    path: Path, inputs: dict[str, Artifact], counts: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> Artifact:
    manifest = Manifest(
        kind=path.parent.name,
        version=1,
        step=path.parent.name,
        fingerprint=path.name,
        config=config or {},
        inputs={name: one.fingerprint for name, one in inputs.items()},
        input_kinds={one.fingerprint: one.kind for one in inputs.values()},
        seed=0,
        counts=counts or {},
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:00:00+00:00",
        seconds=0.0,
        code={},
        environment={},
        host={},
        files=record_files(path) if counts is None and not inputs else (),
    )
    write_manifest(path, manifest)
    return Artifact(path)


def _alphabet(copy: int, known: dict[int, dict[int, int]] = {}) -> dict[int, int]:  # noqa: B006  the cache is the point
    if copy not in known:
        draw = random.Random(copy)
        table: dict[int, int] = {}
        for first, last in ((ord("a"), ord("z")), (ord("A"), ord("Z")), (0x4E00, 0x9FFF)):
            characters = list(range(first, last + 1))
            table |= dict(zip(characters, draw.sample(characters, len(characters)), strict=True))
        known.clear()
        known[copy] = table
    return known[copy]


def _write_shard(ingest: Path, select: Path, rows: list[dict[str, Any]], sizes: list[int], number: int) -> None:
    file, num_rows = f"{rows[0]['source']}/{number:05d}.parquet", len(rows)
    table = pa.Table.from_pylist(rows, schema=DOCUMENT)
    write_table(ingest / "documents" / file, table)
    missing = np.full(num_rows, np.nan, np.float32)
    columns = {
        "id": table["id"],
        "keep": np.ones(num_rows, bool),
        "reasons": np.zeros(num_rows, np.uint64),
        "first_reason": np.full(num_rows, -1, np.int16),
        "value": missing,
        "lang": table["lang"],
        "num_bytes": np.array(sizes, np.int64),
        "duplicate_of": pa.nulls(num_rows, pa.string()),
        "jaccard": missing,
        "containment": missing,
        "cluster": pa.nulls(num_rows, pa.string()),
    }
    write_table(select / "decisions" / file, pa.table(columns, schema=DECISION))
