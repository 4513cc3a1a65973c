"""Learning rates equal the formulas worked out by hand."""

from __future__ import annotations

import math

import pytest

from diglot.core.errors import ConfigError
from diglot.train.schedules import SHAPES, ScheduleConfig, schedule

PEAK = 2e-4


def test_cosine_is_map_neos_formula() -> None:
    steps, warmup, start, floor = 1000, 20, 2e-5, 2e-5
    at = schedule(ScheduleConfig(shape="cosine", warmup_share=0.02), PEAK, steps)
    for t in range(steps):
        if t <= warmup:
            expected = start + (PEAK - start) * t / warmup
        else:
            expected = floor + 0.5 * (PEAK - floor) * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup)))
        assert at(t) == pytest.approx(expected, rel=0, abs=1e-9 * PEAK)
    assert at(0) == pytest.approx(2e-5, abs=1e-15)
    assert at(warmup) == pytest.approx(2e-4, abs=1e-15)
    assert at(steps) == pytest.approx(2e-5, abs=1e-15)
    assert at(10 * steps) == pytest.approx(2e-5, abs=1e-15)


def test_exponential_halves_every_half_life_and_ends_at_a_quarter() -> None:
    at = schedule(ScheduleConfig(shape="exponential", warmup_share=0.0, half_life_share=0.5), PEAK, 1000)
    for t in range(1001):
        assert at(t) == pytest.approx(PEAK * 0.5 ** (t / 500), rel=1e-12)
    assert at(500) == pytest.approx(1e-4, rel=1e-12)
    assert at(1000) == pytest.approx(5e-5, rel=1e-12)


def test_exponential_never_falls_below_the_floor() -> None:
    config = ScheduleConfig(shape="exponential", warmup_share=0.0, half_life_share=0.1, floor_share=0.1)
    at = schedule(config, PEAK, 100)
    assert at(40) == pytest.approx(2e-5, rel=1e-12)  # 2^-4 = 0.0625 lies below the floor of 0.1
    assert at(30) == pytest.approx(PEAK / 8, rel=1e-12)


def test_wsd_holds_the_peak_and_goes_straight_down() -> None:
    config = ScheduleConfig(shape="wsd", warmup_share=0.1, start_share=0.0, decay_share=0.2, floor_share=0.0)
    at = schedule(config, PEAK, 100)
    assert at(5) == pytest.approx(PEAK / 2, rel=1e-12)
    assert {at(t) for t in range(10, 81)} == {PEAK}
    assert at(90) == pytest.approx(PEAK / 2, rel=1e-12)
    assert at(95) == pytest.approx(PEAK / 4, rel=1e-12)
    assert at(100) == pytest.approx(0.0, abs=1e-18)


def test_cosine_may_reach_the_floor_before_the_phase_ends() -> None:
    at = schedule(ScheduleConfig(shape="cosine", warmup_share=0.1, end_share=0.6), PEAK, 100)
    for t in range(10, 61):
        expected = 2e-5 + 0.5 * (PEAK - 2e-5) * (1 + math.cos(math.pi * (t - 10) / 50))
        assert at(t) == pytest.approx(expected, rel=1e-12)
    assert [at(t) for t in (60, 61, 99)] == pytest.approx([2e-5] * 3, rel=1e-12)


def test_wsd_exponential_is_the_form_of_map_neos_code() -> None:
    # In samples: stable S, end D, ratio 0.1, S = D / (1 + ratio), half-life H = 0.5 (D - S) + 1.
    steps, batch, low = 1100, 640, 2e-5
    end, ratio = steps * batch, 0.1
    stable = end / (1 + ratio)
    half_life = 0.5 * (end - stable) + 1
    config = ScheduleConfig(
        shape="wsd_exponential", warmup_share=0.0, decay_share=ratio / (1 + ratio), half_life_share=0.5, floor_share=0.1
    )
    at = schedule(config, PEAK, steps)
    for t in range(steps + 1):
        s = t * batch
        expected = PEAK if s <= stable else max(low, PEAK * 0.5 ** ((s - stable) / half_life))
        assert at(t) == pytest.approx(expected, rel=1e-4)  # the one sample in the half-life is left out
    assert at(1000) == PEAK > at(1001)
    assert at(steps) == pytest.approx(PEAK / 4, rel=1e-12)
    assert at(steps + 1) == low  # min after D


def test_inverse_square_root_continues_the_warm_up() -> None:
    at = schedule(ScheduleConfig(shape="inverse_sqrt", warmup_share=0.1, start_share=0.0, floor_share=0.0), PEAK, 1000)
    for t in range(1000):
        expected = PEAK * t / 100 if t < 100 else PEAK * math.sqrt(100 / t)
        assert at(t) == pytest.approx(expected, rel=1e-12)
    floored = schedule(ScheduleConfig(shape="inverse_sqrt", warmup_share=0.001, floor_share=0.1), PEAK, 1000)
    assert floored(999) == pytest.approx(PEAK / 10, rel=1e-12)


def test_linear_and_constant() -> None:
    linear = schedule(ScheduleConfig(shape="linear", warmup_share=0.0, floor_share=0.5), PEAK, 10)
    assert [linear(t) for t in (0, 4, 10)] == pytest.approx([PEAK, 0.8 * PEAK, 0.5 * PEAK], rel=1e-12)
    constant = schedule(ScheduleConfig(shape="constant", warmup_share=0.5), PEAK, 10)
    assert [constant(t) for t in (5, 9)] == [PEAK, PEAK]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_shape_stays_between_floor_and_peak_even_on_short_phases(shape: str, steps: int) -> None:
    at = schedule(ScheduleConfig(shape=shape, warmup_share=0.3), PEAK, steps)  # type: ignore[arg-type]
    for t in range(steps):
        assert 0.1 * PEAK * (1 - 1e-12) <= at(t) <= PEAK


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="Known: constant"):
        ScheduleConfig(shape="cosinus")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no share"):
        ScheduleConfig(floor_share=1.5)
    with pytest.raises(ConfigError, match="before the end of the warm-up"):
        ScheduleConfig(warmup_share=0.5, end_share=0.4)
    with pytest.raises(ConfigError, match="half-life"):
        ScheduleConfig(half_life_share=0.0)
