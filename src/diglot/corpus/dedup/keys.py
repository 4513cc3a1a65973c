"""What deduplication holds in memory of every document: identity, place, size, hashes and signature, and no text.

Documents are numbered by the survivor rule: of two that are duplicates of each other, the smaller number stays. The
numbering depends on ids and sizes only, so neither the order of shards nor the number of workers can change a result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from diglot.core.errors import InputError, unknown
from diglot.corpus.tables import Shard, attributes_of, decisions_of, documents_of, shards
from diglot.ledger.artifact import Artifact

SURVIVORS = {
    "declared": "the page that declares the language it is written in, then as `longest`",
    "longest": "most UTF-8 bytes, then the smallest id",
    "first": "the smallest id",
}


@dataclass(frozen=True)
class DocumentKeys:
    """The documents that take part, best survivor first. All arrays have one row a document.

    ids bytes; lang str, as identified, `und` where unknown; shard int32 and row int64 say where the text is; num_bytes
    int64; estranged int8 is 0 where the declared language is that of the text, 1 where none is declared, 2 where
    another is; content uint64 [N, 2] is the hash of the normalised text; signature uint32 [N, K]; num_shingles int32,
    repeats counted.
    """

    shards: list[Shard]
    ids: Any
    lang: Any
    shard: Any
    row: Any
    num_bytes: Any
    estranged: Any
    content: Any
    signature: Any
    num_shingles: Any

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sources(self) -> Any:
        """Source of every document, str [N]."""
        return np.array([shard.source for shard in self.shards])[self.shard]


def load_keys(artifact: Artifact, survivor: str) -> DocumentKeys:
    """The keys of every document that `artifact` keeps. Raises InputError when two documents share an id."""
    if survivor not in SURVIVORS:
        raise unknown("survivor rule", survivor, SURVIVORS)
    files = shards(artifact.upstream("ingest"))
    parts = [_load_shard(artifact, number, shard) for number, shard in enumerate(files)]
    ids, lang, number, row, num_bytes, estranged, content, signature, num_shingles = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    _require_unique(ids)
    criteria = {"declared": (ids, -num_bytes, estranged), "longest": (ids, -num_bytes), "first": (ids,)}
    order = np.lexsort(criteria[survivor])  # the last criterion counts first
    return DocumentKeys(
        shards=files,
        ids=ids[order],
        lang=lang[order],
        shard=number[order],
        row=row[order],
        num_bytes=num_bytes[order],
        estranged=estranged[order],
        content=content[order],
        signature=signature[order],
        num_shingles=num_shingles[order],
    )


def _load_shard(artifact: Artifact, number: int, shard: Shard) -> tuple[Any, ...]:
    decisions = decisions_of(artifact, shard, ["id", "keep", "num_bytes", "lang"])
    declared = documents_of(artifact, shard, ["lang"])["lang"]
    hashes = attributes_of(artifact, "hashes", shard)
    minhash = attributes_of(artifact, "minhash", shard)
    for name, table in (("hashes", hashes), ("minhash", minhash)):
        if not table["id"].equals(decisions["id"]):
            raise InputError(
                f"attributes/{name}/{shard.file} and decisions/{shard.file} do not list the same documents in the same "
                "order. One of the two is damaged: delete its artifact and run the recipe again."
            )
    row = np.flatnonzero(decisions["keep"].to_numpy(zero_copy_only=False))
    column = minhash["signature"]
    places = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks] or [np.zeros(0, np.uint32)])
    signature = places.reshape(len(minhash), column.type.list_size)
    content = np.stack([hashes["content_hi"].to_numpy(), hashes["content_lo"].to_numpy()], axis=1)
    return (
        decisions["id"].to_numpy(zero_copy_only=False).astype(bytes)[row],
        pc.fill_null(decisions["lang"], "und").to_numpy(zero_copy_only=False).astype(str)[row],
        np.full(len(row), number, np.int32),
        row,
        decisions["num_bytes"].to_numpy()[row],
        _estranged(declared, decisions["lang"])[row],
        content[row],
        signature[row],
        minhash["num_shingles"].to_numpy()[row],
    )


def _estranged(declared: Any, identified: Any) -> Any:
    """A page of a translation that was never translated repeats the original, with foreign words around it."""
    primary = [pc.fill_null(pc.list_element(pc.split_pattern(tags, "-"), 0), "") for tags in (declared, identified)]
    other = pc.not_equal(*primary).to_numpy(zero_copy_only=False)
    return np.where(declared.is_null().to_numpy(zero_copy_only=False), 1, np.where(other, 2, 0)).astype(np.int8)


def _require_unique(ids: Any) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        twice = values[counts > 1]
        raise InputError(
            f"{len(twice)} document ids occur more than once, for example {twice[0].decode()}. An id is made of source "
            "and address: give the sources of the ingest step different names, or take out the second copy."
        )
