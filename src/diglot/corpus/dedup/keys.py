"""What deduplication holds in memory of every document: identity, place, size and content hash, and no text.

Documents are numbered by the survivor rule: of two that are duplicates of each other, the smaller number stays. The
numbering depends on the documents only, so neither the order of shards nor the number of workers can change a result.
When a corpus is held against an older one, the older one's documents have the smallest numbers and are fixed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diglot.core.errors import InputError
from diglot.corpus.dedup.survivors import BY_DATE, SurvivorRule, instants, survival_order
from diglot.corpus.signals import family
from diglot.corpus.tables import Shard, attribute_folder, attributes_of, decisions_of, documents_of, shards
from diglot.ledger.artifact import Artifact


@dataclass(frozen=True)
class Corpus:
    """The kept documents of one artifact, and the shards they stand in."""

    artifact: Artifact
    shards: list[Shard]

    @classmethod
    def of(cls, artifact: Artifact) -> Corpus:
        return cls(artifact, shards(artifact.upstream("ingest")))

    def text_files(self) -> list[Path]:
        """The documents of each shard."""
        folder = self.artifact.upstream("ingest").path / "documents"
        return [folder / shard.file for shard in self.shards]

    def num_places(self) -> int:
        """Length of the documents' signatures."""
        path = attribute_folder(self.artifact, "minhash") / self.shards[0].file
        return int(pq.read_schema(path).field("signature").type.list_size)

    def minhash_settings(self) -> dict[str, Any]:
        """Settings of the annotate step that signed the documents."""
        folder = attribute_folder(self.artifact, "minhash")
        return Artifact(folder.parent.parent).config


@dataclass(frozen=True)
class DocumentKeys:
    """The documents that take part, best survivor first. All arrays have one row a document.

    shards, files: of all corpora, and where the texts of each are. num_fixed: so many of the first documents are of the
    older corpus and stay whatever they resemble; they stand in the shards from `num_shards` on.

    ids bytes; lang int into lang_names, as identified, `und` where unknown; shard int32 and row int64 say where the
    text is; num_bytes int64; content uint64 [N, 2] is the hash of the normalised text; num_shingles int32, repeats
    counted; loaded int64 is the place in which the document was loaded: shard by shard, row by row.
    """

    shards: list[Shard]
    files: list[Path]
    num_shards: int
    num_fixed: int
    lang_names: list[str]
    ids: Any
    lang: Any
    shard: Any
    row: Any
    num_bytes: Any
    content: Any
    num_shingles: Any
    loaded: Any

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def own(self) -> slice:
        """The documents that are decided on."""
        return slice(self.num_fixed, None)

    @property
    def source_names(self) -> list[str]:
        """Source of every shard."""
        return [shard.source for shard in self.shards]


class ShardKeys(NamedTuple):
    """The keys of one shard's kept documents, in the order of its rows."""

    ids: Any
    lang: Any
    row: Any
    num_bytes: Any
    estranged: Any
    merit: Any
    content: Any
    num_shingles: Any


def load_keys(corpus: Corpus, rule: SurvivorRule, against: Corpus | None = None, workers: int = 1) -> DocumentKeys:
    """The keys of every document that is kept, of both corpora. Raises InputError when two of one share an id."""
    parts = _load(corpus, rule, workers)
    order = _order(corpus, parts, rule)
    num_own = sum(len(part.ids) for part in parts)
    corpora, num_fixed = [corpus], 0
    if against is not None:
        fixed = _load(against, SurvivorRule(rule="first"), workers)
        fixed_order = _order(against, fixed, SurvivorRule(rule="first"))
        order, num_fixed = np.concatenate([num_own + fixed_order, order]), len(fixed_order)
        parts, corpora = [*parts, *fixed], [corpus, against]
    names = sorted({str(name) for part in parts for name in part.lang[1]})
    number = {name: i for i, name in enumerate(names)}
    lang = [np.array([number[str(name)] for name in part.lang[1]], np.int16)[part.lang[0]] for part in parts]
    sizes = [len(part.ids) for part in parts]
    return DocumentKeys(
        shards=[shard for one in corpora for shard in one.shards],
        files=[file for one in corpora for file in one.text_files()],
        num_shards=len(corpus.shards),
        num_fixed=num_fixed,
        lang_names=names,
        ids=np.concatenate([part.ids for part in parts])[order],
        lang=np.concatenate(lang)[order],
        shard=np.repeat(np.arange(len(parts), dtype=np.int32), sizes)[order],
        row=np.concatenate([part.row for part in parts])[order],
        num_bytes=np.concatenate([part.num_bytes for part in parts])[order],
        content=np.concatenate([part.content for part in parts])[order],
        num_shingles=np.concatenate([part.num_shingles for part in parts])[order],
        loaded=order,
    )


def kept_signatures(artifact: Artifact, shard: Shard, num_places: int | None = None) -> Any:
    """Signatures of the kept documents of a shard, in the order of its rows: uint32 [n, K].

    num_places: only so many, since signatures of one seed that differ in length agree in the places both have.
    """
    keep = decisions_of(artifact, shard, ["keep"])["keep"]
    column = attributes_of(artifact, "minhash", shard, ["signature"])["signature"]
    parts = [chunk.flatten().to_numpy().reshape(len(chunk), column.type.list_size) for chunk in column.chunks]
    empty = np.zeros((0, column.type.list_size), np.uint32)
    signature = np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else empty
    rows = np.flatnonzero(keep.to_numpy(zero_copy_only=False))
    return np.ascontiguousarray((signature if len(rows) == len(signature) else signature[rows])[:, :num_places])


def require_comparable(corpus: Corpus, against: Corpus) -> None:
    """Raises InputError when the two corpora's signatures were drawn with different seeds."""
    seeds = [int(one.minhash_settings().get("minhash_seed", 0)) for one in (corpus, against)]
    if seeds[0] != seeds[1]:
        raise InputError(
            f"the corpus was signed with minhash_seed {seeds[0]} and the one it is held against with {seeds[1]}, so "
            "their signatures cannot be compared. Use the same seed in both annotate steps."
        )


def _load(corpus: Corpus, rule: SurvivorRule, workers: int) -> list[ShardKeys]:
    with ThreadPoolExecutor(workers) as threads:  # Arrow and NumPy read without the interpreter lock
        return list(threads.map(functools.partial(_load_shard, corpus.artifact, rule=rule), corpus.shards))


def _load_shard(artifact: Artifact, shard: Shard, rule: SurvivorRule) -> ShardKeys:
    decisions = decisions_of(artifact, shard, ["id", "keep", "num_bytes", "lang"])
    hashes = attributes_of(artifact, "hashes", shard)
    minhash = attributes_of(artifact, "minhash", shard, ["id", "num_shingles"])
    for name, table in (("hashes", hashes), ("minhash", minhash)):
        if not table["id"].equals(decisions["id"]):
            raise InputError(
                f"attributes/{name}/{shard.file} and decisions/{shard.file} do not list the same documents in the same "
                "order. One of the two is damaged: delete its artifact and run the recipe again."
            )
    row = np.flatnonzero(decisions["keep"].to_numpy(zero_copy_only=False))
    content = np.stack([hashes["content_hi"].to_numpy()[row], hashes["content_lo"].to_numpy()[row]], axis=1)
    lang = pc.fill_null(decisions["lang"], "und").combine_chunks().dictionary_encode()
    return ShardKeys(
        ids=byte_strings(decisions["id"])[row],
        lang=(lang.indices.to_numpy()[row], lang.dictionary.to_pylist()),
        row=row,
        num_bytes=decisions["num_bytes"].to_numpy()[row],
        estranged=_estranged(artifact, shard, decisions["lang"])[row] if rule.rule == "declared" else None,
        merit=_merit(artifact, shard, rule, decisions["id"], row),
        content=content,
        num_shingles=minhash["num_shingles"].to_numpy()[row],
    )


def byte_strings(column: pa.ChunkedArray) -> Any:
    """Strings as bytes [N]. Without a detour through Python where all have one length, as ids do."""
    array = column.combine_chunks().cast(pa.string()) if isinstance(column, pa.ChunkedArray) else column
    if len(array) == 0:
        return np.zeros(0, "S1")
    _, offsets, content = array.buffers()
    ends = np.frombuffer(offsets, np.int32, len(array) + 1, array.offset * 4)
    length = int(ends[1] - ends[0])
    if length and not array.null_count and (np.diff(ends) == length).all():
        return np.frombuffer(content, f"S{length}", len(array), int(ends[0]))
    return array.to_numpy(zero_copy_only=False).astype(bytes)


def _order(corpus: Corpus, parts: Sequence[ShardKeys], rule: SurvivorRule) -> Any:
    """Places of a corpus's documents in the order of its survivor rule: int64 [N]."""
    ids = np.concatenate([part.ids for part in parts])
    _require_unique(ids)
    return survival_order(
        rule,
        ids=ids,
        num_bytes=np.concatenate([part.num_bytes for part in parts]),
        estranged=np.concatenate([part.estranged for part in parts]) if rule.rule == "declared" else None,
        merit=np.concatenate([part.merit for part in parts]) if parts[0].merit is not None else None,
        sources=[shard.source for shard in corpus.shards],
        source=np.repeat(np.arange(len(parts)), [len(part.ids) for part in parts]),
    )


def _estranged(artifact: Artifact, shard: Shard, identified: pa.ChunkedArray) -> Any:
    """A page of a translation that was never translated repeats the original, with foreign words around it.

    0 where the declared language is that of the text, 1 where none is declared, 2 where another is; int8 [N].
    """
    declared = documents_of(artifact, shard, ["lang"])["lang"]
    primary = [pc.fill_null(pc.list_element(pc.split_pattern(tags, "-"), 0), "") for tags in (declared, identified)]
    other = pc.not_equal(*primary).to_numpy(zero_copy_only=False)
    return np.where(declared.is_null().to_numpy(zero_copy_only=False), 1, np.where(other, 2, 0)).astype(np.int8)


def _merit(artifact: Artifact, shard: Shard, rule: SurvivorRule, ids: pa.ChunkedArray, rows: Any) -> Any:
    """What the rule orders kept documents by: float64 [n]; None for a rule that needs nothing read."""
    if rule.rule in BY_DATE:
        return instants(documents_of(artifact, shard, ["date"])["date"].take(rows).to_pylist())
    if rule.signal is None:
        return None
    table = attributes_of(artifact, family(rule.signal), shard)
    if rule.signal not in table.column_names or not table["id"].equals(ids):
        raise InputError(
            f"attributes/{family(rule.signal)}/{shard.file} has no column '{rule.signal}' for these documents. "
            "Measure it in a step above this one, or choose another survivor rule."
        )
    return table[rule.signal].to_numpy().astype(np.float64)[rows]


def _require_unique(ids: Any) -> None:
    ordered = np.sort(ids)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise InputError(
            f"{len(np.unique(twice))} document ids occur more than once, for example {twice[0].decode()}. An id is "
            "made of source and address: give the sources of the ingest step different names, or take out one copy."
        )
