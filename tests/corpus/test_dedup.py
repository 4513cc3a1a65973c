"""Deduplication's parts: exact groups, the S-curve, linking inside buckets, and who is dropped for whom."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.core.progress import Progress
from diglot.corpus.dedup.against import among, near_fixed
from diglot.corpus.dedup.clusters import cluster_names
from diglot.corpus.dedup.exact import exact_duplicates
from diglot.corpus.dedup.linking import Comparisons, Pairs, link
from diglot.corpus.dedup.lsh import PRESETS, Bands, Buckets, curve, search_bands
from diglot.corpus.dedup.near import NearDuplicates, Similar, near_duplicates
from diglot.corpus.dedup.overlap import ShingleStore
from diglot.corpus.dedup.signatures import InMemory, ShardSignatures, partitions_for, write
from diglot.corpus.dedup.survivors import SurvivorRule, instants, survival_order
from diglot.corpus.dedup.verdicts import combine
from diglot.kernels.union_find import components_oracle


def comparisons_of(sets: list[set[int]]) -> Comparisons:
    """Exact comparisons of explicit shingle sets."""
    return Comparisons(
        len(sets),
        lambda left, right: np.array([len(sets[a] & sets[b]) for a, b in zip(left, right, strict=True)], np.int64),
        lambda documents: np.array([len(sets[d]) for d in documents], np.int64),
    )


def all_buckets(signature, bands: Bands) -> Buckets:
    """Of documents numbered as the rows of their signatures."""
    numbers = np.arange(len(signature))
    return InMemory(signature, numbers).buckets("near", bands, numbers)


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
    found = all_buckets(signature, Bands(3, 2))
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


def test_the_preset_of_map_neo_proposes_two_pairs_of_five_at_its_limit():
    assert PRESETS["map-neo"] == Bands(9, 13)
    assert curve(PRESETS["map-neo"])["probability"]["0.80"] == pytest.approx(0.399, abs=5e-4)
    assert list(curve(Bands(14, 8))["probability"])[-1] == "0.99"


def weighted_area(bands: Bands, threshold: float, weight: float) -> float:
    """The cost that `search_bands` minimises, as an integral by an independent rule."""
    area = 0.0
    for step in range(2000):
        s = (step + 0.5) / 2000
        p = bands.probability(s)
        area += weight * (1 - p) if s >= threshold else (1 - weight) * p
    return area / 2000


@pytest.mark.parametrize("threshold", [0.3, 0.55, 0.8, 0.95])
@pytest.mark.parametrize("weight", [0.5, 0.95])
def test_searched_bands_cost_less_than_all_others(threshold, weight):
    best = search_bands(threshold, 24, weight)
    assert best.num_bands * best.rows_per_band <= 24
    lowest = weighted_area(best, threshold, weight)
    others = [Bands(b, r) for r in range(1, 25) for b in range(1, 24 // r + 1)]
    assert lowest == pytest.approx(min(weighted_area(one, threshold, weight) for one in others), abs=1e-4)


def test_the_usual_bands_are_found_by_search():
    assert search_bands(0.8, 112) == Bands(14, 8)
    assert search_bands(0.8, 128, 0.5) == PRESETS["map-neo"]  # also datasketch's answer, with its equal weights


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
    found = all_buckets(signature, Bands(14, 8))
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
        for some in (documents[::2], documents[1::2]):
            sizes = [len(sets[d]) for d in some]
            yield some, np.cumsum([0, *sizes]), np.concatenate([np.zeros(0, np.uint64), *(sets[d] for d in some)])

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


@settings(max_examples=100, deadline=None)
@given(grouped, st.sampled_from([Similar(0.5), Similar(0.6, 0.9)]), st.integers(0, 5))
def test_new_documents_that_share_a_bucket_with_a_similar_old_one_are_dropped_for_it(example, similar, num_fixed):
    sets, groups = example
    comparisons = comparisons_of(sets)
    result = near_fixed(buckets_of(groups), comparisons, similar, num_fixed, max_rounds=99)

    def is_similar(old: int, new: int) -> bool:
        common = len(sets[old] & sets[new])
        enough = common / len(sets[new]) >= (similar.containment or 2)
        return enough or common / len(sets[old] | sets[new]) >= similar.jaccard

    for document in range(len(sets)):
        mates = {m for group in groups if document in group for m in group if m < num_fixed}
        found = int(result.duplicate_of[document])
        if document < num_fixed or not any(is_similar(old, document) for old in mates):
            assert found == -1
        else:
            assert found in mates
            assert is_similar(found, document)
    assert result.num_uncompared == 0
    assert all(left < num_fixed <= right for left, right in zip(*comparisons.all()[:2], strict=True))


def test_rounds_against_an_older_corpus_are_limited_and_what_is_left_out_is_counted():
    sets = [{10 * d, 10 * d + 1} for d in range(20)]
    result = near_fixed(buckets_of([set(range(20))]), comparisons_of(sets), Similar(0.8), 12, max_rounds=3)
    assert (result.duplicate_of == -1).all()
    assert result.num_uncompared == (12 - 3) * 8


@given(st.lists(st.sets(st.integers(0, 9)), max_size=6), st.sets(st.integers(0, 9)))
def test_buckets_among_some_documents_are_those_documents_of_each(groups, some):
    found = among(buckets_of(groups), np.array([d in some for d in range(10)]))
    parts = [found.members[a:b].tolist() for a, b in itertools.pairwise(found.starts)]
    assert parts == [sorted(one & some) for one in groups if len(one & some) > 1]


@pytest.mark.parametrize(("seed", "num_partitions"), [(0, 2), (1, 3), (2, 7), (3, 2), (4, 5)])
def test_partitions_give_the_buckets_of_the_signatures_in_memory(tmp_path, seed, num_partitions):
    draw = random.Random(seed)
    sizes = [draw.randint(10, 16), 0, draw.randint(10, 16)] if seed else [0, 1]
    parts = [np.array([draw.randint(0, 3) for _ in range(6 * n)], np.uint32).reshape(n, 6) for n in sizes]
    signature = np.concatenate(parts)
    row = np.array(draw.sample(range(len(signature)), len(signature)), np.int64)
    documents = np.array(sorted(draw.sample(range(len(row)), len(row) - len(row) // 4)), np.int64)
    tasks = [
        ShardSignatures(
            read=lambda part=part: part,
            key="",
            folder=tmp_path,
            number=number,
            bands=(("near", Bands(3, 2)), ("cluster", Bands(2, 3))),
            num_partitions=num_partitions,
        )
        for number, part in enumerate(parts)
    ]
    on_disk = write(tasks, row=row, workers=1, progress=Progress(quiet=True), label="test")
    in_memory = InMemory(signature, row)
    for name, bands in (("near", Bands(3, 2)), ("cluster", Bands(2, 3))):
        found = [one.buckets(name, bands, documents) for one in (on_disk, in_memory)]
        groups = [
            sorted(one.members[a:b].tolist() for a, b in itertools.pairwise(one.starts.tolist())) for one in found
        ]
        assert groups[0] == groups[1]
        assert seed == 0 or name != "near" or len(groups[0]) > 1
    left, right = np.array([(draw.randrange(len(row)), draw.randrange(len(row))) for _ in range(9)]).T
    expected = [(signature[row[a]] == signature[row[b]]).sum() for a, b in zip(left, right, strict=True)]
    assert on_disk.agreements(left, right).tolist() == in_memory.agreements(left, right).tolist() == expected


def test_more_documents_or_less_memory_take_more_partitions():
    assert partitions_for(10_000, 112, 42, 512 << 20) == 1
    few, many = (partitions_for(n, 112, 42, 512 << 20) for n in (10**6, 10**7))
    assert 1 < few < many
    assert many * (128 << 20) >= 10**7 * 42 * 48


SURVIVOR_CASES = [
    (SurvivorRule(rule="first"), "abcd"),
    (SurvivorRule(rule="longest"), "bdac"),
    (SurvivorRule(rule="declared"), "dacb"),
    (SurvivorRule(rule="newest"), "cabd"),
    (SurvivorRule(rule="oldest"), "acbd"),
    (SurvivorRule(rule="signal", signal="lang_score"), "cabd"),
    (SurvivorRule(rule="signal", signal="lang_score", highest=False), "acbd"),
    (SurvivorRule(rule="longest", prefer_sources=("two",)), "cbda"),
    (SurvivorRule(rule="longest", prefer_sources=("three", "two")), "dcba"),
]


@pytest.mark.parametrize(("rule", "expected"), SURVIVOR_CASES)
def test_documents_are_ordered_by_the_survivor_rule_and_then_by_id(rule, expected):
    order = survival_order(
        rule,
        ids=np.array([b"a", b"b", b"c", b"d"]),
        num_bytes=np.array([5, 9, 5, 9]),
        estranged=np.int8([1, 2, 1, 0]),
        merit=np.array([1.0, np.nan, 7.0, np.nan]),
        sources=["one", "two", "three"],
        source=np.array([0, 0, 1, 2]),
    )
    assert "".join("abcd"[number] for number in order) == expected


def test_dates_are_compared_across_their_ways_of_writing():
    written = ["2024", "2024-03", "2024-03-05", "2024-03-05T10:00:00+02:00", "Tue, 05 Mar 2024 09:00:00 GMT"]
    found = instants(written)
    assert (np.diff(found) > 0).all()
    assert found[2] == instants(["2024-03-05T00:00:00Z"])[0]
    assert np.isnan(instants([None, "", "yesterday", "2024-13-01", "March"])).all()
