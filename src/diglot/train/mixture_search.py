"""Which mixture to train on, from small runs: candidates, a regression of their losses on their weights, a proposal.

After RegMix (Liu et al. 2024, arXiv 2407.01492) and the mixture designs of statistics (Scheffe 1958, "Experiments with
mixtures"): losses of proxy models, in held-out bits per byte of each group of streams, are fitted as functions of the
weights, and the fitted functions are minimised over the simplex. Three forms are tried, and leave-one-out error says
which is used:

    linear      sum_i b_i w_i
    quadratic   sum_i b_i w_i + sum_{i<j} b_ij w_i w_j
    log         b_0 + sum_i b_i log(w_i + 0.02): more of a source helps ever less, as in scaling laws

RegMix fits trees on hundreds of runs; with ten there is nothing for trees to see. Legend: R runs, K groups, F features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diglot.core.errors import ConfigError

Floats = NDArray[np.float64]
Aim = Literal["mean", "worst"]
RIDGE = 1e-4  # of the mean squared feature: steadies fits with as many features as runs, and is lost in the noise else
LOG_OFFSET = 0.02
NUM_TRIED = 20_000  # points of the simplex among which the proposal is sought
MAX_GRID = 512


def grid(num_groups: int, parts: int) -> Floats:
    """Every weighting whose weights are multiples of 1 / parts: [R, K], R = C(parts + K - 1, K - 1)."""
    num_runs = math.comb(parts + num_groups - 1, num_groups - 1)
    if num_runs > MAX_GRID:
        raise ConfigError(
            f"a grid of {parts} parts over {num_groups} groups has {num_runs:,} runs, more than {MAX_GRID}. Lower "
            "grid_parts, or set candidates: dirichlet."
        )
    bars = itertools.combinations(range(parts + num_groups - 1), num_groups - 1)
    counts = [np.diff([-1, *bar, parts + num_groups - 1]) - 1 for bar in bars]
    return np.array(counts, np.float64) / parts


def draws(num_groups: int, number: int, concentration: float, seed: int) -> Floats:
    """Dirichlet draws, [number, K]; a concentration of 1 is uniform over the simplex, above it nearer to the middle."""
    return np.random.default_rng(seed).dirichlet(np.full(num_groups, concentration), number)


FORMS: Mapping[str, Callable[[Floats], Floats]] = {
    "linear": lambda weights: weights,
    "quadratic": lambda weights: np.hstack([weights, _products(weights)]),
    "log": lambda weights: np.hstack([np.ones((len(weights), 1)), np.log(weights + LOG_OFFSET)]),
}


@dataclass(frozen=True)
class Fit:
    """Losses as functions of weights. coefficients [F, K]; leave_one_out [K], root mean square in bits per byte."""

    form: str
    coefficients: Floats
    leave_one_out: Floats

    def predict(self, weights: Floats) -> Floats:
        """[R, K] weights -> [R, K] losses."""
        return FORMS[self.form](weights) @ self.coefficients


def fit(weights: Floats, losses: Floats, form: str | None = None) -> Fit:
    """The form with the smallest leave-one-out error, or the one that is named.

    Args:
        weights: [R, K], rows sum to 1. losses: [R, K], bits per byte of each group.
    Raises: ConfigError with fewer than three runs.
    """
    if len(weights) < 3:
        raise ConfigError(f"{len(weights)} runs are too few to fit a mixture to. Raise num_candidates to 8 or more.")
    fits = [_fit(name, weights, losses) for name in ([form] if form else FORMS)]
    return min(fits, key=lambda one: float(np.sum(one.leave_one_out**2)))


def proposal(fitted: Fit, weights: Floats, losses: Floats, loss_weights: Floats, aim: Aim, seed: int) -> Floats:
    """The weights, [K], that minimise the fitted aim among many points between those that were tried.

    Args:
        weights, losses: [R, K], what was tried: no weight is proposed outside its range there.
        loss_weights: [K], sum 1; for `mean`.
        aim: `mean`: the weighted mean of the groups' losses. `worst`: the largest ratio of a group's loss to the
            lowest that was measured for it.
    """
    low, high = weights.min(axis=0), weights.max(axis=0)
    tried = np.vstack([weights, draws(weights.shape[1], NUM_TRIED, 1.0, seed)])
    tried = tried[((tried >= low - 1e-9) & (tried <= high + 1e-9)).all(axis=1)]
    best: Floats = tried[int(np.argmin(aim_of(fitted.predict(tried), losses.min(axis=0), loss_weights, aim)))]
    return best


def aim_of(losses: Floats, lowest: Floats, loss_weights: Floats, aim: Aim) -> Floats:
    """What is minimised, [R], of losses [R, K]; smaller is better. lowest: [K], the best measured loss of a group."""
    value: Floats = losses @ loss_weights if aim == "mean" else (losses / lowest).max(axis=1)
    return value


def _fit(form: str, weights: Floats, losses: Floats) -> Fit:
    features = FORMS[form](weights)
    penalty = RIDGE * np.mean(features**2) * len(features) * np.eye(features.shape[1])
    inverse = np.linalg.inv(features.T @ features + penalty)
    coefficients = inverse @ features.T @ losses
    leverage = np.einsum("rf,fg,rg->r", features, inverse, features)
    residuals = (losses - features @ coefficients) / np.maximum(1 - leverage, 1e-6)[:, None]
    return Fit(form, coefficients, np.sqrt(np.mean(residuals**2, axis=0)))


def _products(weights: Floats) -> Floats:
    pairs = list(itertools.combinations(range(weights.shape[1]), 2))
    columns: Any = [weights[:, i] * weights[:, j] for i, j in pairs]
    return np.stack(columns, axis=1) if pairs else np.empty((len(weights), 0))
