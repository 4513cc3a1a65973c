"""Recipe step `split`: hold documents out of training, by whole near-duplicate cluster. Writes

heldout/<source>/<shard>.parquet     `id`, `held_out`: every document of the shard in order
decisions/                           the verdicts of the step before, unchanged
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diglot.core.errors import ConfigError, InputError
from diglot.steps.context import StepContext, StepKind, input_step


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How much is held out.

    share_heldout counts clusters; 3 % of some thousand documents give scores with an interval of a few hundredths of a
    bit. min_heldout_documents lets every source and language be seen in them, as far as max_heldout_share allows.
    """

    from_: str = input_step("decontaminate", "edit", "deduplicate", "select")
    share_heldout: float = 0.03
    min_heldout_documents: int = 4
    max_heldout_share: float = 0.2  # of the documents of a source and language; no larger cluster is held out

    def __post_init__(self) -> None:
        if not 0 <= self.share_heldout <= self.max_heldout_share < 1:
            raise ConfigError(
                f"share_heldout = {self.share_heldout} and max_heldout_share = {self.max_heldout_share}, but shares "
                "must obey 0 <= share_heldout <= max_heldout_share < 1. Lower the first or raise the second."
            )
        if self.min_heldout_documents < 0:
            raise ConfigError(f"min_heldout_documents = {self.min_heldout_documents}, but it must be at least 0.")


def split(config: SplitConfig, context: StepContext) -> dict[str, Any]:
    """Draw the held-out clusters and write which documents they are."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from diglot.core.seeds import derive_seed
    from diglot.corpus.splits import HELDOUT, draw, lot
    from diglot.corpus.tables import decisions_of, shards, write_table

    corpus = context.input()
    files = shards(corpus.upstream("ingest"))
    parts = []
    for shard in files:
        part = decisions_of(corpus, shard, ["id", "keep", "lang", "num_bytes", "cluster"])
        parts.append(part.append_column("source", pa.repeat(shard.source, len(part))))
    table = pa.concat_tables(parts).combine_chunks()
    kept = table.filter(table["keep"])
    if len(kept) == 0:
        raise InputError("no document is left to split: all were dropped. The counts of the select step say why.")
    # Before deduplication there are no clusters: every document is its own.
    names, cluster = np.unique(
        pc.coalesce(kept["cluster"], kept["id"]).to_numpy(zero_copy_only=False).astype(str), return_inverse=True
    )
    strata, stratum = np.unique(
        np.stack([kept["source"].to_pylist(), pc.coalesce(kept["lang"], "unknown").to_pylist()], axis=1),
        axis=0,
        return_inverse=True,
    )
    seed = derive_seed(context.seed, "split")
    drawn = draw(
        np.array([lot(seed, name) for name in names.tolist()]),
        cluster,
        stratum.ravel(),
        share=config.share_heldout,
        at_least=config.min_heldout_documents,
        at_most_share=config.max_heldout_share,
    )
    held_out = np.zeros(len(table), bool)
    held_out[table["keep"].to_numpy()] = drawn.held_out[cluster]
    first = 0
    for shard, part in zip(files, parts, strict=True):
        rows = pa.table({"id": part["id"], "held_out": held_out[first : first + len(part)]}, schema=HELDOUT)
        write_table(context.out / "heldout" / shard.file, rows)
        first += len(part)
    _copy_decisions(context)
    return {
        **_count(kept, drawn.held_out[cluster]),
        "heldout_clusters": int(drawn.held_out.sum()),
        "clusters_too_large_to_hold_out": int(drawn.too_large.sum()),
        "languages": {
            lang: _count(kept, drawn.held_out[cluster], strata[stratum.ravel(), 1] == lang)
            for lang in sorted(set(strata[:, 1].tolist()))
        },
        "strata": {
            f"{source}.{lang}": _count(kept, drawn.held_out[cluster], stratum.ravel() == number)
            for number, (source, lang) in enumerate(strata.tolist())
        },
    }


def _count(kept: Any, held_out: Any, among: Any = True) -> dict[str, Any]:
    """Documents and bytes of both splits, of the kept documents where `among` is true."""
    num_bytes = kept["num_bytes"].to_numpy()
    return {
        name: {"documents": int(chosen.sum()), "bytes": int(num_bytes[chosen].sum())}
        for name, chosen in (("train", ~held_out & among), ("heldout", held_out & among))
    }


def _copy_decisions(context: StepContext) -> None:
    """The verdicts belong to this artifact too, so that the steps after it ask one folder only."""
    import shutil

    from diglot.core.storage import atomic_path
    from diglot.corpus.tables import DECIDING

    source = context.input().upstream(*DECIDING).path / "decisions"
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            with atomic_path(context.out / "decisions" / path.relative_to(source)) as partial:
                shutil.copyfile(path, partial)


STEP = StepKind(kind="split", version=1, config=SplitConfig, run=split, draws_random_numbers=True)
