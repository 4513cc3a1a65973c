"""Deduplication's parts: exact groups, the S-curve, linking inside buckets, and who is dropped for whom."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.corpus.dedup.clusters import cluster_names
from diglot.corpus.dedup.exact import exact_duplicates
from diglot.corpus.dedup.linking import Comparisons, Pairs, link
from diglot.corpus.dedup.lsh import Bands, Buckets, buckets
from diglot.corpus.dedup.near import NearDuplicates, Similar, near_duplicates
from diglot.corpus.dedup.overlap import ShingleStore
from diglot.corpus.dedup.verdicts import combine
from diglot.kernels.union_find import components_oracle


def comparisons_of(sets: list[set[int]]) -> Comparisons:
    """Exact comparisons of explicit shingle sets."""
    return Comparisons(
        len(sets),
        lambda left, right: np.array([len(sets[a] & sets[b]) for a, b in zip(left, right, strict=True)], np.int64),
        lambda documents: np.array([len(sets[d]) for d in documents], np.int64),
    )


def buckets_of(members: list[set[int]]) -> Buckets:
    several = [sorted(one) for one in members if len(one) > 1]
    starts = np.cumsum([0, *map(len, several)])
    return Buckets(starts, np.array(list(itertools.chain(*several)), np.int64))


shingle_sets = st.lists(st.sets(st.integers(0, 12), min_size=1, max_size=8), min_size=2, max_size=9)
grouped = shingle_sets.flatmap(
    lambda sets: st.tuples(st.just(sets), st.lists(st.sets(st.integers(0, len(sets) - 1)), max_size=6))
)


@settings(max_examples=100, deadline=None)
@given(grouped, st.sampled_from([0.3, 0.5, 0.8]))
def test_linking_equals_comparing_every_pair_of_every_bucket(example, threshold):
    sets, groups = example
    found, num_uncompared = link(buckets_of(groups), comparisons_of(sets), Similar(threshold), max_rounds=99)
    edges = [
        (a, b)
        for group in groups
        for a, b in itertools.combinations(sorted(group), 2)
        if len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= threshold
    ]
    assert found.tolist() == components_oracle(len(sets), edges)
    assert num_uncompared == 0


@settings(max_examples=100, deadline=None)
@given(grouped, st.sampled_from([Similar(0.5), Similar(0.8), Similar(0.6, 0.9)]))
def test_what_is_dropped_is_similar_to_a_kept_document_and_no_similar_bucket_mates_stay(example, similar):
    sets, groups = example
    result = near_duplicates(buckets_of(groups), comparisons_of(sets), similar, max_rounds=99)
    kept = {d for d in range(len(sets)) if result.duplicate_of[d] < 0}

    def is_similar(better: int, other: int) -> bool:
        common = len(sets[better] & sets[other])
        jaccard, containment = common / len(sets[better] | sets[other]), common / len(sets[other])
        return jaccard >= similar.jaccard or containment >= (similar.containment or 2)

    for document in set(range(len(sets))) - kept:
        survivor = int(result.duplicate_of[document])
        assert survivor in kept
        assert survivor < document
        assert is_similar(survivor, document)
        common = len(sets[survivor] & sets[document])
        assert result.jaccard[document] == np.float32(common / len(sets[survivor] | sets[document]))
        assert result.containment[document] == np.float32(common / len(sets[document]))
    for group in groups:
        assert not any(is_similar(a, b) for a, b in itertools.combinations(sorted(group & kept), 2))


def test_a_document_that_is_similar_only_to_a_dropped_one_stays():
    # A chain: 0 ~ 1 and 1 ~ 2 but not 0 ~ 2. Connected components would drop 2 for 0, which it does not resemble.
    sets = [set(range(10)), set(range(2, 12)), set(range(4, 14))]
    result = near_duplicates(buckets_of([{0, 1, 2}]), comparisons_of(sets), Similar(0.6), max_rounds=9)
    assert result.duplicate_of.tolist() == [-1, 0, -1]
    assert result.jaccard[1] == np.float32(8 / 12)


def test_containment_counts_what_the_kept_document_lacks_of_the_dropped_one():
    page, quote = set(range(100)), set(range(30, 60))
    similar = Similar(0.8, 0.95)
    longest_first = near_duplicates(buckets_of([{0, 1}]), comparisons_of([page, quote]), similar, max_rounds=9)
    assert longest_first.duplicate_of.tolist() == [-1, 0]
    assert longest_first.containment[1] == 1
    shortest_first = near_duplicates(buckets_of([{0, 1}]), comparisons_of([quote, page]), similar, max_rounds=9)
    assert shortest_first.duplicate_of.tolist() == [-1, -1]  # dropping the page would lose 70 of its 100 shingles


def test_a_bucket_of_copies_costs_one_comparison_a_copy():
    comparisons = comparisons_of([{1, 2, 3}] * 50)
    near_duplicates(buckets_of([set(range(50))]), comparisons, Similar(0.8), max_rounds=9)
    assert len(comparisons.all().left) == 49


def test_rounds_beyond_the_limit_are_counted_and_drop_nothing():
    sets = [{10 * d, 10 * d + 1} for d in range(20)]
    result = near_duplicates(buckets_of([set(range(20))]), comparisons_of(sets), Similar(0.8), max_rounds=3)
    assert (result.duplicate_of == -1).all()
    assert result.num_uncompared == 17 * 16 // 2
    # A chain in which each document is similar to the next only: three survivors are found, 14 documents stay open.
    chain = [set(range(4 * d, 4 * d + 20)) for d in range(20)]
    result = near_duplicates(
        buckets_of([{d, d + 1} for d in range(19)]), comparisons_of(chain), Similar(0.6), max_rounds=3
    )
    assert (result.duplicate_of >= 0).sum() == 3
    assert result.num_uncompared == 14 * 13 // 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=12))
def test_buckets_hold_exactly_the_documents_that_agree_on_a_band(rows):
    signature = np.array(rows, np.uint32)
    found = buckets(signature, Bands(3, 2))
    groups = {tuple(found.members[a:b].tolist()) for a, b in itertools.pairwise(found.starts)}
    expected = set()
    for band in range(3):
        values = [tuple(row[2 * band : 2 * band + 2]) for row in rows]
        expected |= {tuple(i for i, v in enumerate(values) if v == value) for value in values}
    assert groups == {group for group in expected if len(group) > 1}
    assert len(groups) == len(found.sizes)  # equal buckets of different bands are listed once


def test_s_curve_by_hand():
    assert Bands(9, 13).probability(0.8) == pytest.approx(0.399, abs=5e-4)
    assert Bands(9, 13).probability(0.9) == pytest.approx(0.929, abs=5e-4)
    assert Bands(14, 8).probability(Bands(14, 8).threshold()) == pytest.approx(0.5)


@pytest.mark.parametrize("jaccard", [0.5, 0.65, 0.8, 0.9])
def test_lsh_proposes_pairs_of_known_similarity_as_often_as_the_s_curve_says(jaccard):
    from diglot.kernels.minhash import signatures

    num_pairs, size = 600, 300
    rng = np.random.default_rng(int(100 * jaccard))
    shared = round(2 * size * jaccard / (1 + jaccard))  # |A| = |B| = size and |A & B| / |A | B| = jaccard
    words = rng.integers(0, 2**40, (num_pairs, 2 * size - shared))
    sides = np.concatenate([words[:, :size], words[:, size - shared :]])
    documents = [b" ".join(b"w%d" % word for word in row) for row in sides.tolist()]
    # Shingles of one unit, so that the similarity is known exactly.
    offsets = np.cumsum([0, *map(len, documents)])
    signature, _ = signatures(offsets, np.frombuffer(b"".join(documents), np.uint8), shingle_units=1)
    found = buckets(signature, Bands(14, 8))
    groups = (found.members[a:b] for a, b in itertools.pairwise(found.starts))
    hits = len({int(group[0]) for group in groups if group[0] + num_pairs in group})
    exact = shared / (2 * size - shared)
    expected = Bands(14, 8).probability(exact)
    standard_error = max(np.sqrt(expected * (1 - expected) / num_pairs), 1 / num_pairs)
    assert hits / num_pairs == pytest.approx(expected, abs=3 * standard_error)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12))
def test_exact_duplicates_point_at_the_first_with_the_same_hash(hashes):
    expected = [hashes.index(one) if hashes.index(one) < i else -1 for i, one in enumerate(hashes)]
    assert exact_duplicates(np.array(hashes, np.uint64).reshape(-1, 2)).tolist() == expected


def test_a_copy_of_a_dropped_near_duplicate_points_at_the_kept_document():
    # Documents 0..3: 2 is an exact copy of 1, and 1 is a near-duplicate of 0.
    near = NearDuplicates(
        np.array([-1, 0, -1]), np.float32([np.nan, 0.9, np.nan]), np.float32([np.nan, 0.95, np.nan]), 0
    )
    names = np.array([b"a", b"b", b"c", b"d"], "S32")
    verdicts = combine(np.array([-1, -1, 1, -1]), np.array([0, 1, 3]), near, names)
    assert verdicts.duplicate_of.tolist() == [-1, 0, 0, -1]
    assert verdicts.exact.tolist() == [False, False, True, False]
    assert verdicts.near.tolist() == [False, True, False, False]
    np.testing.assert_array_equal(verdicts.jaccard, np.float32([np.nan, 0.9, 0.9, np.nan]))
    assert verdicts.cluster.tolist() == [b"a", b"a", b"a", b"d"]


def test_a_cluster_is_named_by_its_smallest_id_whatever_the_numbering():
    ids = np.array([b"c", b"a", b"d", b"b"], "S32")
    assert cluster_names(np.array([0, 1, 0, 0]), ids).tolist() == [b"b", b"a", b"b", b"b"]


@pytest.mark.parametrize("budget_bytes", [1, 64, 1 << 20])
def test_overlaps_do_not_depend_on_the_memory_budget(budget_bytes):
    rng = np.random.default_rng(2)
    sets = [np.unique(rng.integers(0, 40, 12).astype(np.uint64)) for _ in range(9)]

    def read(documents):
        return np.cumsum([0, *(len(sets[d]) for d in documents)]), np.concatenate([sets[d] for d in documents])

    store = ShingleStore(read, np.array([len(one) for one in sets]), budget_bytes)
    left, right = np.array(list(itertools.combinations(range(9), 2))).T
    expected = [len(set(sets[a]) & set(sets[b])) for a, b in zip(left, right, strict=True)]
    assert store.overlaps(left, right).tolist() == expected
    assert store.sizes(np.arange(9)).tolist() == [len(one) for one in sets]
    assert store.num_read == 9 if budget_bytes == 1 << 20 else store.num_read > 9


def test_pairs_without_shingles_have_similarity_0():
    zero = np.zeros(1, np.int64)
    pairs = Pairs(zero, zero + 1, zero, zero, zero)
    assert pairs.jaccard.tolist() == [0]
    assert pairs.containment.tolist() == [0]
