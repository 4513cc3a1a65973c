"""The held-out documents that are scored: a sample under a token budget, and to which cluster each belongs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diglot.core.errors import InputError
from diglot.core.seeds import derive_seed
from diglot.corpus.pack import PackedTokens
from diglot.corpus.tables import decisions_of, shards
from diglot.evaluate.ngram_counts import Ints
from diglot.ledger.artifact import Artifact


@dataclass(frozen=True)
class Heldout:
    """D held-out documents. Their clusters are those of near-duplicates, which the bootstrap draws as a whole."""

    tokens: Ints  # [T] documents laid end to end, each with its closing document-end token
    starts: Ints  # [D]
    num_bytes: Ints  # [D] UTF-8 bytes of the text
    ids: list[str]
    langs: list[str]
    sources: list[str]
    clusters: list[str]

    @property
    def lengths(self) -> Ints:
        return np.diff(np.append(self.starts, len(self.tokens)))

    def per_document(self, nats_per_token: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums over each document, [D]."""
        sums: NDArray[np.float64] = np.add.reduceat(nats_per_token, self.starts)
        return sums


def training_tokens(packed: PackedTokens) -> tuple[Ints, Ints]:
    """Every training document once: (tokens [T], starts [D]) over all streams in order."""
    tokens, starts, offset = [], [], 0
    for stream in packed.streams("train"):
        tokens.append(np.asarray(stream.tokens, dtype=np.int64))
        starts.append(stream.documents["start"].to_numpy() + offset)
        offset += len(tokens[-1])
    if not offset:
        raise InputError("the packed corpus holds no training tokens. Look at the pack step's counts.")
    return np.concatenate(tokens), np.concatenate(starts).astype(np.int64)


def heldout_documents(packed: PackedTokens, artifact: Artifact | None, *, max_tokens: int, seed: int) -> Heldout:
    """A uniform sample of each language's held-out documents.

    Documents are taken whole, in a seeded order of their ids, until the language has `max_tokens` tokens; the one that
    reaches the budget is the last. So the sample depends on no shard order, and a larger budget only adds documents.

    Args:
        artifact: any artifact made from the corpus, to look up the clusters; None makes each document its own.
    Raises: InputError when nothing was held out.
    """
    ranked: dict[str, list[tuple[int, str, str, int, Ints]]] = {}
    for stream in packed.streams("heldout"):
        for row in stream.documents.to_pylist():
            tokens = stream.tokens[row["start"] : row["start"] + row["num_tokens"]].astype(np.int64)
            rank = derive_seed(seed, "heldout", row["id"])
            ranked.setdefault(stream.lang, []).append((rank, row["id"], stream.source, row["num_bytes"], tokens))
    if not ranked:
        raise InputError("no document is held out, so nothing can be scored. Raise heldout_share in the split step.")
    chosen = []
    for lang in sorted(ranked):
        total = 0
        for _, document, source, num_bytes, tokens in sorted(ranked[lang], key=lambda item: item[:2]):
            if total >= max_tokens:
                break
            total += len(tokens)
            chosen.append((document, lang, source, num_bytes, tokens))
    ids = [document for document, *_ in chosen]
    cluster_of = clusters(artifact, set(ids)) if artifact else {}
    lengths = [len(tokens) for *_, tokens in chosen]
    return Heldout(
        tokens=np.concatenate([tokens for *_, tokens in chosen]),
        starts=np.cumsum([0, *lengths[:-1]]).astype(np.int64),
        num_bytes=np.array([num_bytes for _, _, _, num_bytes, _ in chosen], dtype=np.int64),
        ids=ids,
        langs=[lang for _, lang, _, _, _ in chosen],
        sources=[source for _, _, source, _, _ in chosen],
        clusters=[cluster_of.get(document) or document for document in ids],
    )


def clusters(artifact: Artifact, ids: set[str]) -> dict[str, str | None]:
    """The loose near-duplicate cluster of each of these documents; a document alone is its own."""
    found: dict[str, str | None] = {}
    for shard in shards(artifact.upstream("ingest")):
        table = decisions_of(artifact, shard, ["id", "cluster"])
        for document, cluster in zip(table["id"].to_pylist(), table["cluster"].to_pylist(), strict=True):
            if document in ids:
                found[document] = cluster
    return found
