"""Learning rates as pure functions of the phase-local training step, in float64.

`cosine` and `exponential` are MAP-Neo's two (arXiv 2405.19327): the first for the fundamental phase, the second, with a
half-life, for the decay phase. `wsd` (MiniCPM, Hu et al. 2024, arXiv 2404.06395) holds the peak and then decays;
`wsd_exponential` is the form of it in MAP-Neo's training code.

In MAP-Neo's words, with t in training steps, a0 = 2e-5, a = 2e-4, b = 2e-5, ta = 2,000 and tb about 365,000:
    t <= ta         a0 + (a - a0) t / ta
    ta < t <= tb    b + (a - b) / 2 (1 + cos(pi (t - ta) / (tb - ta)))
    t > tb          b
and in the decay phase, with c = 2e-4, half-life T = t_decay / 2 and floor 2e-5: max(floor, c 0.5^(t / T)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from diglot.core.errors import ConfigError

Shape = Literal["constant", "linear", "cosine", "exponential", "inverse_sqrt", "wsd", "wsd_exponential"]
SHAPES: tuple[Shape, ...] = (
    "constant",
    "linear",
    "cosine",
    "exponential",
    "inverse_sqrt",
    "wsd",
    "wsd_exponential",
)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """One phase's learning rate, relative to the peak where it is a share.

    shape:
        constant      peak after the warm-up
        linear        straight from the peak to the floor
        cosine        floor + (peak - floor) / 2 * (1 + cos(pi * progress))
        exponential   peak * 0.5^(steps since the warm-up / half-life), never below the floor
        inverse_sqrt  peak * sqrt(warm-up / step), never below the floor (Vaswani et al. 2017, arXiv 1706.03762)
        wsd           peak until `decay_share` of the phase is left, then straight to the floor
        wsd_exponential  peak until then, then peak * 0.5^(steps since / half-life), never below the floor
    warmup_share: share of the phase's steps spent on the straight way from `start_share * peak` to the peak.
    floor_share: floor / peak. MAP-Neo: 0.1.
    start_share: first learning rate / peak. MAP-Neo's paper: 0.1.
    half_life_share: half-life / number of steps of the phase, for `exponential`. MAP-Neo: 0.5, so the end is peak / 4.
        For `wsd_exponential` / number of steps of the decay.
    decay_share: share of the phase's steps that `wsd` and `wsd_exponential` decay in. MAP-Neo's code: 1 / 11 (stable
        until D / (1 + 0.1)) and a half-life of half the decay. It counts samples and adds one to the half-life, which
        is left out here.
    end_share: share of the phase's steps at which `linear` and `cosine` have reached the floor, where they stay.
    """

    shape: Shape = "cosine"
    warmup_share: float = 0.02
    floor_share: float = 0.1
    start_share: float = 0.1
    half_life_share: float = 0.5
    decay_share: float = 0.2
    end_share: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ConfigError(f"schedule shape '{self.shape}' is not known. Known: {', '.join(SHAPES)}.")
        for name in ("warmup_share", "floor_share", "start_share", "decay_share", "end_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} = {getattr(self, name)} is no share; it lies in [0, 1].")
        if self.half_life_share <= 0:
            raise ConfigError(f"half_life_share = {self.half_life_share}, but a half-life is longer than nothing.")
        if self.end_share < self.warmup_share or self.end_share == 0:
            raise ConfigError(
                f"end_share = {self.end_share} lies before the end of the warm-up ({self.warmup_share}). Raise it."
            )


def schedule(config: ScheduleConfig, peak: float, num_train_steps: int) -> Callable[[int], float]:
    """The learning rate by phase-local training step 0 .. num_train_steps - 1."""
    warmup = round(config.warmup_share * num_train_steps)
    floor, start = config.floor_share * peak, config.start_share * peak

    def learning_rate(train_step: int) -> float:
        if train_step < warmup:
            return start + (peak - start) * train_step / warmup
        return _after_warmup(config, train_step - warmup, warmup, peak, floor, num_train_steps)

    return learning_rate


def _after_warmup(config: ScheduleConfig, step: int, warmup: int, peak: float, floor: float, whole: int) -> float:
    """step: counted from the end of the warm-up."""
    length = whole - warmup
    progress = min(1.0, step / max(1, round(config.end_share * whole) - warmup))
    decay = min(config.decay_share * whole, float(length))
    into_decay = step - (length - decay)
    match config.shape:
        case "constant":
            return peak
        case "linear":
            return peak + (floor - peak) * progress
        case "cosine":
            return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))
        case "exponential":
            return max(floor, peak * math.pow(0.5, step / (config.half_life_share * whole)))
        case "inverse_sqrt":
            start = max(1, warmup)
            return max(floor, peak * math.sqrt(start / (start + step)))
        case "wsd":
            return peak if into_decay <= 0 else peak + (floor - peak) * min(1.0, into_decay / decay)
        case "wsd_exponential":
            if into_decay > decay:
                return floor
            return (
                peak if into_decay <= 0 else max(floor, peak * 0.5 ** (into_decay / (config.half_life_share * decay)))
            )
