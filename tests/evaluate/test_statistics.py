"""Bootstrap intervals against cases where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from diglot.evaluate.statistics import ratio_of_sums


def documents(num, seed):
    rng = np.random.default_rng(seed)
    num_bytes = rng.integers(500, 1500, size=num).astype(float)
    return num_bytes * rng.normal(2.0, 0.3, size=num), num_bytes


def test_the_value_is_the_ratio_of_sums_and_not_the_mean_of_ratios():
    estimate = ratio_of_sums([10.0, 1.0], [10.0, 2.0], ["a", "b"], seed=0)
    assert estimate.value == pytest.approx(11 / 12)
    assert (estimate.num_items, estimate.num_clusters) == (2, 2)


def test_the_interval_has_the_width_of_the_normal_approximation():
    bits, num_bytes = documents(400, seed=0)
    estimate = ratio_of_sums(bits, num_bytes, [str(i) for i in range(400)], seed=1)
    # delta method: standard error of a ratio of sums
    residual = bits - estimate.value * num_bytes
    error = np.sqrt((residual**2).sum()) / num_bytes.sum()
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert estimate.low < estimate.value < estimate.high


def test_nineteen_of_twenty_intervals_cover_the_truth():
    covered = 0
    for seed in range(200):
        estimate = ratio_of_sums(*documents(60, seed), [str(i) for i in range(60)], seed=seed, num_resamples=500)
        covered += estimate.low <= 2.0 <= estimate.high
    assert 180 <= covered <= 198


def test_copies_of_the_same_documents_do_not_narrow_the_interval():
    bits, num_bytes = documents(50, seed=3)
    names = [str(i) for i in range(50)]
    once = ratio_of_sums(bits, num_bytes, names, seed=4)
    copied = ratio_of_sums(np.tile(bits, 10), np.tile(num_bytes, 10), names * 10, seed=4)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert copied.num_items == 500
    assert copied.num_clusters == 50


def test_a_paired_difference_is_narrower_than_either_score():
    bits, num_bytes = documents(100, seed=5)
    better = bits - 0.05 * num_bytes  # always the same 0.05 bits per byte better
    names = [str(i) for i in range(100)]
    difference = ratio_of_sums(better - bits, num_bytes, names, seed=0)
    assert (difference.low, difference.high) == pytest.approx((-0.05, -0.05))


def test_the_interval_is_a_pure_function_of_the_seed_and_not_of_document_order():
    bits, num_bytes = documents(30, seed=6)
    names = [f"{i:02}" for i in range(30)]
    order = np.random.default_rng(0).permutation(30)
    first = ratio_of_sums(bits, num_bytes, names, seed=9)
    again = ratio_of_sums(bits[order], num_bytes[order], [names[i] for i in order], seed=9)
    assert (first.low, first.high) == pytest.approx((again.low, again.high), rel=1e-12)


def test_one_cluster_gets_no_interval():
    estimate = ratio_of_sums([3.0, 4.0], [1.0, 1.0], ["a", "a"], seed=0)
    assert (estimate.value, estimate.low, estimate.high) == (3.5, None, None)


def test_no_bytes_are_refused():
    with pytest.raises(ValueError, match="at least one byte"):
        ratio_of_sums([], [], [], seed=0)
