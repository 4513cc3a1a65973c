"""A small store written by hand: ingested, annotated and selected documents, for tests of the steps after them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from diglot.core.progress import Progress
from diglot.core.storage import write_json
from diglot.corpus.tables import DECISION, DOCUMENT, write_table
from diglot.kernels.jit import text_buffers
from diglot.kernels.minhash import signatures
from diglot.ledger.artifact import Artifact
from diglot.ledger.manifest import Manifest, record_files, write_manifest
from diglot.steps.context import StepContext, StepKind

RULES = ["language", "matrix-en/num_units"]


@dataclass
class Doc:
    """One document; `reason` is the number of the rule that dropped it before, -1 where kept."""

    text: str
    source: str = "pages"
    shard: str = "00000"
    lang: str = "en"
    url: str = ""
    reason: int = -1
    id: str = field(default="")
    declared: str | None = "as identified"
    date: str | None = None
    license: str | None = "CC0-1.0"

    def __post_init__(self) -> None:
        self.declared = self.lang if self.declared == "as identified" else self.declared
        self.url = self.url or f"https://example.org/{xxhash.xxh3_64_hexdigest(self.text.encode())}"
        self.id = self.id or xxhash.xxh3_128_hexdigest(f"{self.source} {self.url}".encode())


def finish(path: Path, config: dict[str, Any], inputs: dict[str, Artifact], counts: dict[str, Any]) -> Artifact:
    """Write the manifest that makes a folder an artifact."""
    manifest = Manifest(
        kind=path.parent.name,
        version=1,
        step=path.parent.name,
        fingerprint=path.name,
        config=config,
        inputs={name: artifact.fingerprint for name, artifact in inputs.items()},
        input_kinds={artifact.fingerprint: artifact.kind for artifact in inputs.values()},
        seed=0,
        counts=counts,
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:00:00+00:00",
        seconds=0.0,
        code={},
        environment={},
        host={},
        files=record_files(path),
    )
    write_manifest(path, manifest)
    return Artifact(path)


def selected(store: Path, docs: list[Doc], name: str = "0") -> Artifact:
    """The artifact of a select step over these documents; shards and rows are in the order of the list."""
    ingest, annotate, select = (store / kind / f"{kind}-{name}" for kind in ("ingest", "annotate", "select"))
    shards: dict[tuple[str, str], list[Doc]] = {}
    for doc in docs:
        shards.setdefault((doc.source, doc.shard), []).append(doc)
    for (source, name), rows in shards.items():
        file = f"{source}/{name}.parquet"
        write_table(ingest / "documents" / file, _documents(rows))
        for family, table in _attributes(rows).items():
            write_table(annotate / "attributes" / family / file, table)
        write_table(select / "decisions" / file, _decisions(rows))
    write_json(select / "decisions" / "rules.json", RULES)
    pages = finish(ingest, {}, {}, {"documents": len(docs)})
    signals = finish(annotate, {}, {"from": pages}, {})
    return finish(select, {}, {"from": signals}, {})


def run_step(
    kind: StepKind,
    out: Path,
    workers: int = 1,
    seed: int = 0,
    inputs: dict[str, Artifact] | None = None,
    **settings: Any,
) -> Artifact:
    """Run one recipe step into `out` (store/<kind>/<name>) and finish its artifact. Inputs go by slot name."""
    inputs = inputs or {}
    fields = {("from_" if name == "from" else name): name for name in inputs}
    config = kind.config(**fields, **settings)
    context = StepContext(
        step=kind.kind,
        out=out,
        inputs=inputs,
        seed=seed,
        workers=workers,
        progress=Progress(quiet=True),
        recipe_dir=out,
    )
    out.mkdir(parents=True, exist_ok=True)
    counts = kind.run(config, context)
    return finish(out, {name: getattr(config, name) for name in kind.result_fields()}, inputs, counts)


def _documents(rows: list[Doc]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "id": doc.id,
                "text": doc.text,
                "url": doc.url,
                "source": doc.source,
                "lang": doc.declared,
                "date": doc.date,
                "license": doc.license,
                "origin": {"container": "handmade.tar", "offset": row, "length": len(doc.text)},
                "meta": "{}",
            }
            for row, doc in enumerate(rows)
        ],
        schema=DOCUMENT,
    )


def _attributes(rows: list[Doc]) -> dict[str, pa.Table]:
    ids = pa.array([doc.id for doc in rows])
    texts = pa.array([doc.text for doc in rows], pa.large_string())
    signature, num_shingles = signatures(*text_buffers(texts))
    digests = [xxhash.xxh3_128_intdigest(" ".join(doc.text.split()).encode()) for doc in rows]
    lengths = pa.array([float(len(doc.text.split())) for doc in rows], pa.float32())
    return {
        "hashes": pa.table(
            {
                "id": ids,
                "content_hi": pa.array([d >> 64 for d in digests], pa.uint64()),
                "content_lo": pa.array([d & (2**64 - 1) for d in digests], pa.uint64()),
            }
        ),
        "minhash": pa.table(
            {
                "id": ids,
                "signature": pa.FixedSizeListArray.from_arrays(pa.array(signature.ravel()), signature.shape[1]),
                "num_shingles": pa.array(num_shingles),
            }
        ),
        "quality": pa.table({"id": ids, "num_units": lengths}),
        "language": pa.table(
            {
                "id": ids,
                "lang": pa.array([doc.lang for doc in rows]),
                "lang_score": pa.array([0.9] * len(rows), pa.float32()),
            }
        ),
    }


def _decisions(rows: list[Doc]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "id": doc.id,
                "keep": doc.reason < 0,
                "reasons": 0 if doc.reason < 0 else 1 << doc.reason,
                "first_reason": doc.reason,
                "value": np.nan if doc.reason < 0 else 3.0,
                "lang": doc.lang,
                "num_bytes": len(doc.text.encode()),
                "duplicate_of": None,
                "jaccard": np.nan,
                "containment": np.nan,
                "cluster": None,
            }
            for doc in rows
        ],
        schema=DECISION,
    )
