"""Hashes of bands: the kernel against its definition, and that no repeated key is overlooked."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.kernels.bands import band_keys, band_keys_oracle, may_repeat


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=7, max_size=7), max_size=5))
def test_band_hashes_equal_the_definition(rows):
    signature = np.array(rows, np.uint32).reshape(-1, 7)
    expected = [band_keys_oracle(row, 3, 2) for row in rows]
    assert band_keys(signature, 3, 2).T.tolist() == expected


def test_equal_places_in_two_bands_have_different_hashes():
    keys = band_keys(np.full((1, 8), 7, np.uint32), 4, 2).ravel()
    assert len(set(keys.tolist())) == 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.lists(st.integers(0, 29), max_size=10))
def test_every_key_that_repeats_is_found(values, again):
    keys = np.array([*values, *(values[i] for i in again if i < len(values))], np.uint64)
    found = may_repeat(keys)
    for position, key in enumerate(keys.tolist()):
        assert found[position] or keys.tolist().count(key) == 1


def test_few_keys_that_occur_once_are_taken_along():
    keys = np.random.default_rng(3).integers(0, 2**64, 10_000, np.uint64)
    assert may_repeat(keys).mean() < 0.25
