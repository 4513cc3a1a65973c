"""Choosing tokens: what each filter keeps, and that draws follow the probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.core.errors import ConfigError
from diglot.generate.sampling import GREEDY, Sampling, choose, repeated, uniforms

PROBS = [0.1, 0.4, 0.05, 0.25, 0.2]  # by falling probability: ids 1, 3, 4, 0, 2


def drawable(sampling: Sampling, probs=PROBS) -> set[int]:
    """Ids that some uniform number leads to."""
    grid = torch.linspace(0, 1 - 1e-12, 2001, dtype=torch.float64)
    logits = torch.tensor(probs).log().repeat(len(grid), 1)
    return set(choose(logits, grid, sampling).tolist())


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), {0, 1, 2, 3, 4}),
        (GREEDY, {1}),
        (Sampling(top_k=2), {1, 3}),
        (Sampling(top_p=0.4), {1}),
        (Sampling(top_p=0.41), {1, 3}),
        (Sampling(top_p=0.86), {1, 3, 4, 0}),
        (Sampling(min_p=0.49), {1, 3, 4}),
        (Sampling(min_p=0.51), {1, 3}),
        (Sampling(top_k=4, top_p=0.85), {1, 3, 4}),  # top-p of what top-k left: .42 + .26 + .21 + .11
        (Sampling(temperature=1e-3), {1}),
    ],
)
def test_filters_keep_exactly_these_tokens(sampling, expected):
    assert drawable(sampling) == expected


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_probabilities(temperature):
    grid = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    chosen = choose(torch.tensor(PROBS).log().repeat(len(grid), 1), grid, Sampling(temperature=temperature))
    expected = np.asarray(PROBS) ** (1 / temperature)
    np.testing.assert_allclose(np.bincount(chosen, minlength=5) / 1e5, expected / expected.sum(), atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([0, 3]), st.sampled_from([1.0, 0.8]))
def test_a_row_does_not_depend_on_the_rows_beside_it(seed, rows, top_k, top_p):
    generator = torch.Generator().manual_seed(seed)
    logits, numbers = torch.randn(rows, 11, generator=generator), torch.rand(rows, generator=generator).double()
    sampling = Sampling(top_k=top_k, top_p=top_p, min_p=0.05)
    alone = [choose(logits[i : i + 1], numbers[i : i + 1], sampling).item() for i in range(rows)]
    assert choose(logits, numbers, sampling).tolist() == alone


def test_tokens_of_no_probability_are_never_drawn():
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf]] * 3)
    assert choose(logits, torch.tensor([0.0, 0.5, 1 - 2**-53]), Sampling()).tolist() == [0, 0, 0]


def test_uniform_numbers_are_a_function_of_the_seed_and_a_prefix_stays():
    np.testing.assert_array_equal(uniforms(5, 8), uniforms(5, 20)[:8])
    assert not np.array_equal(uniforms(5, 8), uniforms(6, 8))


def test_repeated_names_what_would_complete_an_ngram():
    assert repeated([5, 6, 7, 5, 6], 3) == [7]
    assert repeated([5, 6, 7, 5, 6], 2) == [7]
    assert repeated([5, 6], 3) == []
    assert sorted(repeated([5, 6, 5], 1)) == [5, 5, 6]


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"min_p": 2}, {"top_k": -1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)
