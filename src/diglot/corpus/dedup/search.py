"""The whole search over the keys of a corpus: exact copies, near-duplicates, loose clusters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diglot.core.errors import ConfigError
from diglot.corpus.dedup.clusters import cluster_names, loose_clusters
from diglot.corpus.dedup.exact import exact_duplicates
from diglot.corpus.dedup.keys import DocumentKeys
from diglot.corpus.dedup.linking import Comparisons, Pairs
from diglot.corpus.dedup.lsh import Bands, Buckets, buckets
from diglot.corpus.dedup.near import Similar, near_duplicates
from diglot.corpus.dedup.overlap import ShingleStore
from diglot.corpus.dedup.verdicts import Verdicts, combine


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What counts as similar, and how it is looked for; `DeduplicateConfig` says what each means."""

    near_bands: Bands
    similar: Similar
    min_shingles: int
    cluster_bands: Bands
    cluster_jaccard: float
    max_rounds: int
    budget_bytes: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """Verdicts on all documents; every pair compared for dropping, as numbers of the keys; counts; seconds by part."""

    verdicts: Verdicts
    compared: Pairs
    accepted: Any  # bool, of the pairs
    counts: dict[str, int]
    seconds: dict[str, float]


def search(keys: DocumentKeys, read: Callable[[Any], tuple[Any, Any]], limits: Limits) -> Found:
    """Decide which documents are dropped.

    read: shingle sets of documents by their numbers in `keys`, as `ShingleStore` takes them.
    Raises: ConfigError when the bands need longer signatures than there are.
    """
    _require_places(keys, limits.near_bands, "num_bands * rows_per_band")
    _require_places(keys, limits.cluster_bands, "cluster_bands * cluster_rows")
    watch = _Stopwatch()
    with watch.part("exact"):
        exact_of = exact_duplicates(keys.content)
        has_shingles = keys.num_shingles >= limits.min_shingles
        taking_part = np.flatnonzero((exact_of < 0) & has_shingles)  # numbered anew in what follows
    signature = keys.signature[taking_part]
    store = ShingleStore(
        lambda documents: read(taking_part[documents]), keys.num_shingles[taking_part], limits.budget_bytes
    )
    comparisons = Comparisons(len(taking_part), store.overlaps, store.sizes)
    with watch.part("near"):
        found = buckets(signature, limits.near_bands)
        store.prefetch(found.members)
        near = near_duplicates(found, comparisons, limits.similar, max_rounds=limits.max_rounds)
        compared = comparisons.all()
    with watch.part("clusters"):
        kept = np.flatnonzero(near.duplicate_of < 0)
        found = buckets(signature[kept], limits.cluster_bands)
        component, num_uncompared = loose_clusters(
            Buckets(found.starts, kept[found.members]),
            comparisons,
            signature,
            limits.cluster_jaccard,
            max_rounds=limits.max_rounds,
        )
        clusters = keys.ids.copy()
        clusters[taking_part] = cluster_names(component, keys.ids[taking_part])
    accepted = limits.similar(compared)
    return Found(
        verdicts=combine(exact_of, taking_part, near, clusters),
        compared=compared._replace(left=taking_part[compared.left], right=taking_part[compared.right]),
        accepted=accepted,
        counts={
            "candidates": len(accepted),
            "verified": int(accepted.sum()),
            "rejected": int((~accepted).sum()),
            "uncompared": near.num_uncompared,
            "cluster_candidates": len(comparisons.all().left) - len(accepted),
            "cluster_uncompared": num_uncompared,
            "too_short_for_shingles": int(((exact_of < 0) & ~has_shingles).sum()),
            "texts_read": store.num_read,
        },
        seconds=watch.seconds,
    )


def _require_places(keys: DocumentKeys, bands: Bands, names: str) -> None:
    places = keys.signature.shape[1]
    used = bands.num_bands * bands.rows_per_band
    if used > places:
        raise ConfigError(
            f"{names} = {used} exceeds the {places} places of the MinHash signatures. "
            f"Set it to at most {places}, or let the annotate step write longer signatures."
        )


@dataclass
class _Stopwatch:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)
