"""Recipe step `index`: make the training tokens searchable, so that an answer can be traced to the documents behind it.

Writes a suffix array and the table of documents; `diglot.trace.training_index` describes and reads them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from diglot.steps.context import StepContext, StepKind, input_step


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """All training streams of a pack step are indexed; there is nothing to choose."""

    from_: str = input_step("pack")


def index(config: IndexConfig, context: StepContext) -> dict[str, Any]:
    """Build and save the index."""
    from diglot.corpus.pack import PackedTokens
    from diglot.corpus.tables import documents_of, shards
    from diglot.trace.training_index import TrainingIndex

    packed = context.input()
    urls: dict[str, str | None] = {}
    for shard in shards(packed.upstream("ingest")):
        table = documents_of(packed, shard, ["id", "url"])
        urls.update(zip(table["id"].to_pylist(), table["url"].to_pylist(), strict=True))
    started = time.monotonic()
    built = TrainingIndex.build(PackedTokens.open(packed.path), urls)
    seconds_sorting = time.monotonic() - started
    built.save(context.out)
    return {
        "tokens": len(built.suffixes),
        "documents": len(built.documents),
        "seconds": {"sort": round(seconds_sorting, 3)},
    }


STEP = StepKind(kind="index", version=1, config=IndexConfig, run=index)
