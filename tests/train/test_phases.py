"""Phases become whole training steps, and MAP-Neo's two follow the paper's formulas at any length."""

from __future__ import annotations

import math

import pytest

from diglot.core.errors import ConfigError
from diglot.train.phases import BatchStretch, PhaseConfig, map_neo_phases
from diglot.train.schedules import schedule

SEQUENCE = 8192
A0, A, B = 2e-5, 2e-4, 2e-5


def fundamental_rate(t: float, warmup: float, cosine_end: float) -> float:
    """MAP-Neo's formula (methods section of arXiv 2405.19327), with its own names."""
    if t <= warmup:
        return A0 + (A - A0) * t / warmup
    if t <= cosine_end:
        return B + 0.5 * (A - B) * (1 + math.cos(math.pi * (t - warmup) / (cosine_end - warmup)))
    return B


def test_map_neo_at_its_published_length_takes_the_published_steps_and_rates() -> None:
    fundamental, decay = map_neo_phases(tokens=round(3.73e12 + 776e9), batch_tokens=1024 * SEQUENCE)
    first = fundamental.batches(fundamental.num_tokens(0), SEQUENCE)
    second = decay.batches(decay.num_tokens(0), SEQUENCE)
    assert (first.sequences_per_train_step, second.sequences_per_train_step) == (1024, 640)
    assert first.num_train_steps == round(3.73e12 / (1024 * SEQUENCE)) == 444_651
    assert second.num_train_steps == pytest.approx(148_000, rel=1e-3)

    at = schedule(fundamental.schedule, fundamental.learning_rate, first.num_train_steps)
    for t in [*range(0, 2100, 50), *range(2100, 444_000, 997), 364_999, 365_000, 365_001, 444_650]:
        assert at(t) == pytest.approx(fundamental_rate(t, 2_000, 365_000), rel=1e-9)
    at = schedule(decay.schedule, decay.learning_rate, second.num_train_steps)
    half_life = 0.5 * second.num_train_steps
    for t in range(0, second.num_train_steps, 997):
        assert at(t) == pytest.approx(max(2e-5, A * 0.5 ** (t / half_life)), rel=1e-9)
    assert at(second.num_train_steps) == pytest.approx(5e-5, rel=1e-9)  # the floor never binds
    assert decay.reset_optimizer


def test_a_miniature_of_map_neo_has_the_same_shape() -> None:
    fundamental, decay = map_neo_phases(tokens=1_000_000, batch_tokens=8 * 64)
    first, second = (phase.batches(phase.num_tokens(0), 64) for phase in (fundamental, decay))
    assert (first.num_train_steps, second.num_train_steps) == (1617, 538)
    at = schedule(fundamental.schedule, A, first.num_train_steps)
    scale = 1617 / 444_651
    warmup, cosine_end = round(2_000 * scale), round(365_000 * scale)
    assert (warmup, cosine_end) == (7, 1327)
    for t in range(1617):
        assert at(t) == pytest.approx(fundamental_rate(t, warmup, cosine_end), rel=1e-9)
    at = schedule(decay.schedule, A, 538)
    assert [at(t) / A for t in (0, 269, 538)] == pytest.approx([1.0, 0.5, 0.25])


def test_stretches_end_nearest_to_their_borders_and_the_phase_at_its_length() -> None:
    phase = PhaseConfig(
        name="one",
        tokens=10_000,
        batch_tokens=(
            BatchStretch(tokens=64, until_share=0.1),
            BatchStretch(tokens=128, until_tokens=3000),
            BatchStretch(tokens=256),
        ),
    )
    found = phase.batches(10_000, 32)
    assert found.ramp == ((16, 2), (15, 4))  # 16 * 64 = 1,024; with 15 * 128 it is 2,944
    assert found.sequences_per_train_step == 8
    assert found.num_train_steps == 16 + 15 + 28  # 28 * 256 = 7,168 fit best into the 7,056 left


def test_a_phase_shorter_than_its_ramp_ends_in_it() -> None:
    stretches = (BatchStretch(tokens=64, until_tokens=3000), BatchStretch(tokens=128))
    found = PhaseConfig(name="one", tokens=640, batch_tokens=stretches).batches(640, 32)
    assert found.ramp == ((10, 2),)
    assert found.num_train_steps == 10


def test_impossible_stretches_are_refused() -> None:
    with pytest.raises(ConfigError, match="every stretch of batch_tokens but the last"):
        PhaseConfig(name="one", tokens=5, batch_tokens=(BatchStretch(tokens=4), BatchStretch(tokens=8)))
    with pytest.raises(ConfigError, match="but the last"):
        PhaseConfig(name="one", tokens=5, batch_tokens=(BatchStretch(tokens=4, until_share=0.5),))
    with pytest.raises(ConfigError, match="not at both"):
        BatchStretch(tokens=4, until_share=0.5, until_tokens=7)
    with pytest.raises(ConfigError, match="from 1"):
        BatchStretch(tokens=0)
    with pytest.raises(ConfigError, match="batch_tokens is at least 1"):
        PhaseConfig(name="one", tokens=5, batch_tokens=())
    with pytest.raises(ConfigError, match="either tokens or epochs"):
        map_neo_phases(tokens=5, epochs=1.0)
    with pytest.raises(ConfigError, match=r"batch_tokens = 48 is no multiple.*Set 32"):
        PhaseConfig(name="one", tokens=5, batch_tokens=48).check_lengths(32)
