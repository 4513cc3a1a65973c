"""The spike guard compares with the median of what it accepted, and continues from its state."""

from __future__ import annotations

import numpy as np
import pytest

from diglot.core.errors import ConfigError, DiglotError
from diglot.train.spike_guard import SpikeGuard, SpikeGuardConfig


def verdicts(guard: SpikeGuard, norms: list[float]) -> list[bool]:
    return [guard.objection({"grad_norm": norm, "loss": 1.0}, n) is not None for n, norm in enumerate(norms)]


def noisy(num: int) -> list[float]:
    """Norms about 1, every seventh one far above."""
    norms = np.random.default_rng(0).lognormal(0, 0.3, num)
    norms[6::7] *= 30
    return norms.tolist()


def test_verdicts_are_those_of_the_definition() -> None:
    config, norms = SpikeGuardConfig(window=5, factor=4.0), noisy(70)
    accepted: list[float] = []
    expected = []
    for norm in norms:
        spike = len(accepted) >= 5 and norm > 4 * float(np.median(accepted[-5:]))
        expected.append(spike)
        accepted += [] if spike else [norm]
    guard = SpikeGuard(config)
    assert verdicts(guard, norms) == expected
    assert guard.num_skipped == sum(expected) == 10


@pytest.mark.parametrize("stop", [2, 5, 6, 7, 20, 35])
def test_a_restored_guard_decides_as_the_one_it_was_saved_from(stop: int) -> None:
    config, norms = SpikeGuardConfig(window=5, factor=4.0), noisy(70)
    whole, first, second = SpikeGuard(config), SpikeGuard(config), SpikeGuard(config)
    expected = verdicts(whole, norms)
    verdicts(first, norms[:stop])
    second.load_state(first.state())
    assert verdicts(second, norms[stop:]) == expected[stop:]
    assert second.num_skipped == whole.num_skipped


def test_the_state_has_one_shape_at_every_moment() -> None:
    guard = SpikeGuard(SpikeGuardConfig(window=4))
    lengths = set()
    for norm in noisy(9):
        guard.objection({"grad_norm": norm, "loss": 1.0}, 0)
        lengths.add(tuple(len(values) for values in guard.state().values()))
    assert lengths == {(4, 2)}


def test_a_level_that_stays_stops_the_run() -> None:
    guard = SpikeGuard(SpikeGuardConfig(window=2, factor=2.0, max_in_a_row=3))
    assert verdicts(guard, [1, 1, 9, 9, 9, 1, 9, 9, 9]) == [False, False, True, True, True, False, True, True, True]
    with pytest.raises(DiglotError, match=r"training step 7: grad_norm 9 is above 2 x 1.*the 3 before it"):
        guard.objection({"grad_norm": 9.0, "loss": 1.0}, 7)


def test_a_phase_begins_with_an_empty_window_and_the_loss_can_be_watched() -> None:
    guard = SpikeGuard(SpikeGuardConfig(window=2, factor=2.0, watch="loss"))
    for loss in (1.0, 1.0):
        assert guard.objection({"grad_norm": 50 * loss, "loss": loss}, 0) is None
    assert guard.objection({"grad_norm": 1.0, "loss": 2.1}, 0) is not None
    guard.begin_phase()
    assert guard.objection({"grad_norm": 1.0, "loss": 2.1}, 0) is None
    assert guard.num_skipped == 1


@pytest.mark.parametrize("change", [{"window": 0}, {"factor": 1.0}, {"max_in_a_row": 0}, {"watch": "lr"}])
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SpikeGuardConfig(**change)  # type: ignore[arg-type]
