"""The whole search over the keys of a corpus: exact copies, near-duplicates, loose clusters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diglot.corpus.dedup.against import among, near_fixed
from diglot.corpus.dedup.clusters import AgreesEnough, cluster_names, loose_clusters
from diglot.corpus.dedup.exact import exact_duplicates
from diglot.corpus.dedup.keys import DocumentKeys
from diglot.corpus.dedup.linking import Comparisons, Pairs, first_pairs
from diglot.corpus.dedup.lsh import Bands, Buckets, distinct
from diglot.corpus.dedup.near import NearDuplicates, Similar, near_duplicates
from diglot.corpus.dedup.overlap import Read, ShingleStore
from diglot.corpus.dedup.signatures import Signatures
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


def search(keys: DocumentKeys, signatures: Signatures, read: Read, limits: Limits) -> Found:
    """Decide which documents are dropped.

    read: shingle sets of documents by their numbers in `keys`, as `ShingleStore` takes them.
    """
    watch = _Stopwatch()
    with watch.part("exact"):
        exact_of = exact_duplicates(keys.content)
        has_shingles = keys.num_shingles >= limits.min_shingles
        taking_part = (exact_of < 0) & has_shingles
        exact_of[: keys.num_fixed] = -1  # two equal texts of the older corpus both stay: that was decided there
    store = ShingleStore(read, keys.num_shingles, limits.budget_bytes)
    comparisons = Comparisons(len(keys), store.overlaps, store.sizes)
    with watch.part("candidates"):
        candidates = np.flatnonzero(taking_part)
        near_buckets = signatures.buckets("near", limits.near_bands, candidates)
        cluster_buckets = signatures.buckets("cluster", limits.cluster_bands, candidates[candidates >= keys.num_fixed])
        agrees = AgreesEnough(signatures, limits.cluster_jaccard)
        if keys.num_fixed:
            near_buckets = _with_own(near_buckets, keys.num_fixed)
        # Both kinds of candidates at once, since every file that holds one of them is decoded as a whole.
        loose = first_pairs(cluster_buckets, len(keys), agrees)
        _ = store.prefetch(np.concatenate([near_buckets.members, *loose])) or store.prefetch(near_buckets.members)
    with watch.part("near"):
        near = _near(near_buckets, comparisons, keys.num_fixed, limits)
        compared = comparisons.all()
    with watch.part("clusters"):
        component, num_uncompared = loose_clusters(
            distinct([among(cluster_buckets, near.duplicate_of < 0)]),
            comparisons,
            limits.cluster_jaccard,
            agrees,
            max_rounds=limits.max_rounds,
        )
        clusters = cluster_names(component, keys.ids)
    accepted = limits.similar(compared)
    verdicts = combine(exact_of, np.arange(len(keys)), near, clusters)
    assert verdicts.keep[: keys.num_fixed].all(), "a document of the older corpus was dropped"
    return Found(
        verdicts=verdicts,
        compared=compared,
        accepted=accepted,
        counts={
            "candidates": len(accepted),
            "verified": int(accepted.sum()),
            "rejected": int((~accepted).sum()),
            "uncompared": near.num_uncompared,
            "cluster_candidates": len(comparisons.all().left) - len(accepted),
            "cluster_uncompared": num_uncompared,
            "too_short_for_shingles": int(((exact_of < 0) & ~has_shingles)[keys.own].sum()),
            "texts_read": store.num_read,
        },
        seconds=watch.seconds,
    )


def _with_own(found: Buckets, num_fixed: int) -> Buckets:
    """The buckets in which there is a document that is decided on. Members ascend, so it is the last one."""
    mine = found.members[found.starts[1:] - 1] >= num_fixed
    sizes = found.sizes
    return Buckets(np.append(0, np.cumsum(sizes[mine])), found.members[np.repeat(mine, sizes)])


def _near(found: Buckets, comparisons: Comparisons, num_fixed: int, limits: Limits) -> NearDuplicates:
    """Near-duplicates of the older corpus first, then those among what is left of the new one."""
    if num_fixed == 0:
        return near_duplicates(found, comparisons, limits.similar, max_rounds=limits.max_rounds)
    old = near_fixed(found, comparisons, limits.similar, num_fixed, max_rounds=limits.max_rounds)
    left = old.duplicate_of < 0
    left[:num_fixed] = False
    own = near_duplicates(among(found, left), comparisons, limits.similar, max_rounds=limits.max_rounds)
    of_old = old.duplicate_of >= 0
    return NearDuplicates(
        np.where(of_old, old.duplicate_of, own.duplicate_of),
        np.where(of_old, old.jaccard, own.jaccard),
        np.where(of_old, old.containment, own.containment),
        old.num_uncompared + own.num_uncompared,
    )


@dataclass
class _Stopwatch:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)
