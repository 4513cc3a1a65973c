"""Drawing held-out clusters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.corpus.splits import draw, lot


def test_lots_are_uniform_and_depend_on_seed_and_name():
    lots = np.array([lot(7, f"{n:032x}") for n in range(20_000)])
    assert ((lots >= 0) & (lots < 1)).all()
    counts = np.histogram(lots, bins=10, range=(0, 1))[0]
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000 * 0.9)
    assert lot(7, "a") != lot(8, "a") != lot(8, "b")


def test_the_share_alone_decides_where_every_stratum_has_enough():
    rng = np.random.default_rng(0)
    lots = rng.random(5000)
    chosen = draw(lots, np.arange(5000), np.arange(5000) % 2, share=0.03, at_least=10, at_most_share=0.2)
    assert (chosen.held_out == (lots < 0.03)).all()


def test_a_stratum_with_too_few_takes_its_next_lots():
    lots = np.array([0.9, 0.5, 0.7, 0.6, 0.8, 0.95, 0.99, 0.4, 0.45, 0.3])
    stratum = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    chosen = draw(lots, np.arange(10), stratum, share=0.1, at_least=2, at_most_share=0.34)
    assert np.flatnonzero(chosen.held_out).tolist() == [1, 3, 9]  # two of seven, one of three: the limit is 34 %


def test_a_cluster_that_is_most_of_a_stratum_is_trained_on():
    cluster = np.array([0] * 8 + [1, 2, 3, 4])
    chosen = draw(
        np.array([0.0, 0.9, 0.8, 0.7, 0.6]), cluster, np.zeros(12, int), share=0.1, at_least=2, at_most_share=0.2
    )
    assert chosen.too_large.tolist() == [True, False, False, False, False]
    assert np.flatnonzero(chosen.held_out).tolist() == [3, 4]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 14), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.05, 0.2]),
    st.integers(0, 5),
)
def test_no_stratum_is_emptied_and_relabelling_changes_nothing(documents, seed, share, at_least):
    cluster, stratum = (np.array(side) for side in zip(*documents, strict=True))
    names, cluster = np.unique(cluster, return_inverse=True)
    lots = np.random.default_rng(seed).random(len(names))
    chosen = draw(lots, cluster, stratum, share=share, at_least=at_least, at_most_share=0.2)
    assert not (chosen.held_out & chosen.too_large).any()
    order = np.random.default_rng(seed + 1).permutation(len(cluster))
    again = draw(lots, cluster[order], stratum[order], share=share, at_least=at_least, at_most_share=0.2)
    assert (again.held_out == chosen.held_out).all()
    for one in np.unique(stratum):
        mine = stratum == one
        held = chosen.held_out[cluster[mine]].sum()
        if share == 0 and at_least == 0:
            assert held == 0
        wanted = min(at_least, int(0.2 * mine.sum()))
        alone = np.bincount(cluster[mine]).max() == 1 and len(np.unique(stratum)) == 1
        if alone and len(names) == len(cluster):
            assert held >= wanted


def test_an_empty_corpus_draws_nothing():
    nothing = np.zeros(0, np.int64)
    assert draw(np.zeros(0), nothing, nothing, share=0.1, at_least=1, at_most_share=0.2).held_out.tolist() == []


@pytest.mark.parametrize("at_least", [0, 3])
def test_clusters_across_strata_are_held_out_in_all_of_them(at_least):
    cluster, stratum = np.arange(40) // 2, np.arange(40) % 2
    chosen = draw(np.arange(20) / 20, cluster, stratum, share=0.08, at_least=at_least, at_most_share=0.2)
    assert np.flatnonzero(chosen.held_out).tolist() == list(range(max(2, at_least)))
