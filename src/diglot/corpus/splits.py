"""Held-out documents: chosen by whole near-duplicate cluster, so that no held-out page has a sister in training.

heldout/<source>/<shard>.parquet lists every document of the shard in order with `held_out`; only kept documents are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from diglot.core.errors import unknown
from diglot.corpus.tables import Shard, decisions_of, documents_of, read_table, shards
from diglot.ledger.artifact import Artifact

SPLITS = ("train", "heldout")
HELDOUT = pa.schema([("id", pa.string()), ("held_out", pa.bool_())])


def split_documents(artifact: Artifact, split: str, columns: list[str]) -> Iterator[tuple[Shard, pa.Table]]:
    """For each shard the kept documents of one split, in order, plus the identified language as `decided_lang`.

    Args:
        split: `train` or `heldout`.
        columns: of `tables.DOCUMENT`.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    folder = artifact.upstream("split").path / "heldout"
    for shard in shards(artifact.upstream("ingest")):
        decisions = decisions_of(artifact, shard, ["keep", "lang"])
        held_out = read_table(folder / shard.file, ["held_out"])["held_out"].to_numpy(zero_copy_only=False)
        keep = decisions["keep"].to_numpy(zero_copy_only=False)
        table = documents_of(artifact, shard, columns).append_column("decided_lang", decisions["lang"])
        yield shard, table.filter(pa.array(keep & (held_out == (split == "heldout"))))


class Draw(NamedTuple):
    """Which clusters are held out, and what had to be left out of the draw.

    held_out bool [C], by cluster. too_large bool [C]: clusters that hold so much of a stratum that holding them out
    would take more than the limit; they are trained on.
    """

    held_out: Any
    too_large: Any


def lot(seed: int, cluster: str) -> float:
    """The number in [0, 1) that a cluster draws; the same in every corpus, so a corpus that grows keeps its split."""
    return float(xxhash.xxh3_64_intdigest(f"{seed}\x1f{cluster}".encode()) / 2**64)


def draw(lots: Any, cluster: Any, stratum: Any, share: float, at_least: int, at_most_share: float) -> Draw:
    """Choose the clusters to hold out.

    A cluster is held out when its lot is below `share`. A stratum (one language of one source) in which fewer than
    `at_least` documents came out takes the clusters of its next lots, up to `at_most_share` of its documents.

    Args:
        lots: float64 [C], what each cluster drew.
        cluster, stratum: int64 [D], of every kept document.
    """
    num_clusters, num_strata = len(lots), int(stratum.max(initial=-1)) + 1
    cells, counts = np.unique(cluster * num_strata + stratum, return_counts=True)  # documents of a cluster in a stratum
    cell_cluster, cell_stratum = (cells // num_strata, cells % num_strata) if num_strata else (cells, cells)
    limit = np.floor(at_most_share * np.bincount(stratum, minlength=num_strata)).astype(np.int64)
    too_large = np.zeros(num_clusters, bool)
    too_large[cell_cluster[counts > np.maximum(limit[cell_stratum], 1)]] = True
    held_out = (lots < share) & ~too_large
    for one in range(num_strata):
        mine = np.flatnonzero(cell_stratum == one)
        mine = mine[np.lexsort((cell_cluster[mine], lots[cell_cluster[mine]]))]
        held = int(counts[mine][held_out[cell_cluster[mine]]].sum())
        for cell in mine:
            if held >= at_least:
                break
            if not held_out[cell_cluster[cell]] and not too_large[cell_cluster[cell]]:
                if held + counts[cell] > limit[one]:
                    continue
                held_out[cell_cluster[cell]] = True
                held += int(counts[cell])
    return Draw(held_out, too_large)
