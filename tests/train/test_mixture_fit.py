"""Candidates cover the simplex; a fit finds the law that made the losses, and the proposal its minimum."""

from __future__ import annotations

import numpy as np
import pytest

from diglot.core.errors import ConfigError
from diglot.train.mixture_search import FORMS, aim_of, draws, fit, grid, proposal

EQUAL = np.full(3, 1 / 3)


def law(weights: np.ndarray) -> np.ndarray:
    """Bits per byte that fall with the logarithm of a group's own weight and a little with the first one's."""
    own = 1.5 - 0.12 * np.log(weights + 0.02)
    return own - 0.02 * np.log(weights[:, :1] + 0.02)


def test_a_grid_has_every_weighting_once():
    points = grid(3, 4)
    assert len(points) == 15
    assert len({tuple(row) for row in points}) == 15
    assert (points.sum(axis=1) == 1).all()
    with pytest.raises(ConfigError, match="Lower grid_parts"):
        grid(6, 20)


def test_the_fit_finds_the_form_and_predicts_runs_it_has_not_seen():
    weights = draws(3, 14, 1.0, seed=0)
    fitted = fit(weights, law(weights))
    assert fitted.form == "log"
    fresh = draws(3, 50, 1.0, seed=1)
    assert np.abs(fitted.predict(fresh) - law(fresh)).max() < 0.01
    quadratic = fit(weights, law(weights), form="quadratic")
    assert (quadratic.leave_one_out > fitted.leave_one_out).all()


@pytest.mark.parametrize("form", FORMS)
def test_leave_one_out_error_equals_refitting_without_each_run(form, monkeypatch):
    monkeypatch.setattr("diglot.train.mixture_search.RIDGE", 0.0)
    weights = draws(3, 11, 1.0, seed=2)
    losses = law(weights) + 0.01 * np.random.default_rng(3).standard_normal(weights.shape)
    errors = []
    for left_out in range(len(weights)):
        rest = np.arange(len(weights)) != left_out
        errors.append(fit(weights[rest], losses[rest], form).predict(weights[[left_out]])[0] - losses[left_out])
    np.testing.assert_allclose(fit(weights, losses, form).leave_one_out, np.sqrt(np.mean(np.square(errors), axis=0)))


def test_the_proposal_minimises_the_aim_within_what_was_tried():
    weights = draws(3, 30, 1.0, seed=0)
    losses = law(weights)
    fitted = fit(weights, losses)
    chosen = proposal(fitted, weights, losses, EQUAL, "mean", seed=5)
    dense = draws(3, 20_000, 1.0, seed=9)
    np.testing.assert_allclose(chosen, dense[np.argmin(law(dense) @ EQUAL)], atol=0.03)
    assert chosen[0] > chosen[1]  # the first group helps the others too
    only_last = proposal(fitted, weights, losses, np.array([0.0, 0.0, 1.0]), "mean", seed=5)
    assert only_last[2] == pytest.approx(weights[:, 2].max(), abs=0.05)
    assert (only_last <= weights.max(axis=0) + 1e-9).all()
    worst = proposal(fitted, weights, losses, EQUAL, "worst", seed=5)
    lowest = losses.min(axis=0)
    assert aim_of(law(worst[None]), lowest, EQUAL, "worst") <= aim_of(law(chosen[None]), lowest, EQUAL, "worst") + 1e-3


def test_too_few_runs_are_refused():
    with pytest.raises(ConfigError, match="2 runs are too few"):
        fit(draws(3, 2, 1.0, seed=0), np.ones((2, 3)))
