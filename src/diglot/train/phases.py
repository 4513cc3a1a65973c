"""The phases of a pre-training run: how long each is, what it reads in batches of what size, and on which schedule.

`map_neo_phases` are the two of MAP-Neo (Zhang et al. 2024, arXiv 2405.19327), in shares of their training steps, so
that a miniature has the same shape.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from diglot.core.errors import ConfigError, unknown
from diglot.train.mixture import Budget, Counts
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.schedules import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class BatchStretch:
    """Training steps of `tokens` each, until a share of the phase's tokens or so many of its tokens are read.

    The last stretch of a phase has neither and goes to the phase's end.
    """

    tokens: int
    until_share: float | None = None
    until_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.tokens < 1 or (self.until_tokens or 1) < 1 or not 0 < (self.until_share or 0.5) < 1:
            raise ConfigError("a stretch of batch_tokens needs tokens and until_tokens from 1, until_share in (0, 1).")
        if self.until_share is not None and self.until_tokens is not None:
            raise ConfigError("a stretch of batch_tokens ends at until_share or at until_tokens, not at both.")


class Batches(NamedTuple):
    """Whole training steps: fields as of `train.order.OrderPhase`."""

    num_train_steps: int
    sequences_per_train_step: int
    ramp: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One phase. Its length is `tokens`, or `epochs` of all training tokens, or what the budgets of its mixture sum to.

    mixture: pattern of stream names -> weight or budget (`train/mixture.py`); empty reads every stream by its tokens.
    weights_count: what a weight counts: a share of the phase's `tokens`, or `epochs` relative to the other streams.
    batch_tokens: tokens of one training step, or stretches of several sizes.
    sequence_length: None takes the step's. The longest of a run is a multiple of every other.
    optimizer: None takes the step's.
    """

    name: str
    tokens: int | None = None
    epochs: float | None = None
    mixture: Mapping[str, float | Budget] = field(default_factory=dict)
    weights_count: Counts = "tokens"
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    learning_rate: float = 2e-4
    batch_tokens: int | tuple[BatchStretch, ...] = 8192
    sequence_length: int | None = None
    optimizer: OptimizerConfig | None = None
    reset_optimizer: bool = True

    def __post_init__(self) -> None:
        self._check_rates()
        if self.budgeted_tokens is not None:
            return
        if (self.tokens is None) == (self.epochs is None):
            raise ConfigError(f"phase '{self.name}' needs either tokens or epochs, and not both.")
        if (self.tokens or 0) < 0 or (self.epochs or 0) < 0 or not (self.tokens or self.epochs):
            raise ConfigError(
                f"phase '{self.name}' has no length. Set tokens or epochs above 0, or leave the phase out."
            )

    @property
    def budgeted_tokens(self) -> int | None:
        """The phase's length where neither tokens nor epochs say it: every pattern has a budget in tokens."""
        budgets = [entry for entry in self.mixture.values() if isinstance(entry, Budget) and entry.tokens is not None]
        if self.tokens is not None or self.epochs is not None or not budgets or len(budgets) < len(self.mixture):
            return None
        return sum(budget.num_tokens for budget in budgets) or None

    def num_tokens(self, available: int) -> float:
        """The phase's length, before it is rounded to whole training steps. available: all training tokens."""
        return self.tokens or self.budgeted_tokens or (self.epochs or 0) * available

    @property
    def stretches(self) -> tuple[BatchStretch, ...]:
        """`batch_tokens` as stretches."""
        return (BatchStretch(tokens=self.batch_tokens),) if isinstance(self.batch_tokens, int) else self.batch_tokens

    def batches(self, num_tokens: float, sequence_length: int) -> Batches:
        """The whole training steps nearest to `num_tokens`, in sequences; every stretch ends nearest to its border."""
        *growing, last = self.stretches
        ramp, read = [], 0
        for stretch in growing:
            border = (
                stretch.until_tokens if stretch.until_tokens is not None else num_tokens * (stretch.until_share or 0)
            )
            steps = max(0, round((min(border, num_tokens) - read) / stretch.tokens))
            if steps:
                ramp.append((steps, stretch.tokens // sequence_length))
            read += steps * stretch.tokens
        steps = max(0 if ramp else 1, round((num_tokens - read) / last.tokens))
        num_train_steps = sum(steps for steps, _ in ramp) + steps
        return Batches(num_train_steps, last.tokens // sequence_length, tuple(ramp))

    def check_lengths(self, sequence_length: int) -> None:
        """Raises ConfigError when a training step is no whole number of sequences."""
        for stretch in self.stretches:
            if stretch.tokens % sequence_length:
                nearest = max(1, stretch.tokens // sequence_length) * sequence_length
                raise ConfigError(
                    f"phase '{self.name}': batch_tokens = {stretch.tokens} is no multiple of sequence_length = "
                    f"{sequence_length}. Set {nearest}."
                )

    def _check_rates(self) -> None:
        if self.batch_tokens == () or min(stretch.tokens for stretch in self.stretches) < 1 or self.learning_rate <= 0:
            raise ConfigError(f"phase '{self.name}': batch_tokens is at least 1 and learning_rate above 0.")
        *growing, last = [s.until_share is None and s.until_tokens is None for s in self.stretches]
        if any(growing) or not last:
            raise ConfigError(
                f"phase '{self.name}': every stretch of batch_tokens but the last has until_share or until_tokens, "
                "e.g. [{until_share: 0.1, tokens: 4096}, {tokens: 8192}]."
            )


# The published run: 3.73 T tokens in training steps of 1,024 sequences of 8,192, then 776 B in steps of 640.
FUNDAMENTAL_TOKENS, DECAY_TOKENS = 3.73e12, 776e9
FUNDAMENTAL_STEPS = FUNDAMENTAL_TOKENS / (1024 * 8192)  # about 444,700
WARMUP_STEPS, COSINE_END = 2_000, 365_000
DECAY_BATCH = 640 / 1024


def map_neo_phases(
    *,
    tokens: int | None = None,
    epochs: float | None = None,
    batch_tokens: int = 8192,
    learning_rate: float = 2e-4,
    mixture: Mapping[str, float | Budget] | None = None,
    decay_mixture: Mapping[str, float | Budget] | None = None,
    sequence_length: int | None = None,
) -> tuple[PhaseConfig, ...]:
    """MAP-Neo's two phases, of `tokens` or `epochs` (1 without either) together.

    fundamental  83 % of the tokens. Warm-up over 2,000 of 444,700 steps from a tenth of the peak, a cosine that reaches
                 a tenth of the peak at step 365,000, the floor from there on. (Paper and code give the cosine; that the
                 rest of the 3.73 T tokens ran at the floor is what the two numbers leave.)
    decay        17 % of the tokens, batches of 5/8, a fresh optimizer, no warm-up, peak * 0.5^(t / T) with T half the
                 phase, so that it ends at a quarter of the peak and its floor of a tenth never binds.

    Both shares hold for any length: a run of 4.5 T tokens in batches of 8.39 M takes the published training steps.

    Args:
        learning_rate: the peak of both phases; 2e-4 in the paper.
    """
    share = FUNDAMENTAL_TOKENS / (FUNDAMENTAL_TOKENS + DECAY_TOKENS)
    lengths: list[dict[str, Any]] = [
        {"epochs": part * (1.0 if epochs is None else epochs)} for part in (share, 1 - share)
    ]
    if tokens is not None:
        if epochs is not None:
            raise ConfigError("the map-neo phases take either tokens or epochs, and not both.")
        lengths = [{"tokens": max(1, round(part * tokens))} for part in (share, 1 - share)]
    fundamental = PhaseConfig(
        name="fundamental",
        **lengths[0],
        mixture=mixture or {},
        batch_tokens=batch_tokens,
        learning_rate=learning_rate,
        sequence_length=sequence_length,
        schedule=ScheduleConfig(
            shape="cosine",
            warmup_share=WARMUP_STEPS / FUNDAMENTAL_STEPS,
            start_share=0.1,
            floor_share=0.1,
            end_share=COSINE_END / FUNDAMENTAL_STEPS,
        ),
    )
    decay = replace(
        fundamental,
        name="decay",
        **{"tokens": None, "epochs": None, **lengths[1]},
        mixture=decay_mixture or mixture or {},
        batch_tokens=round(batch_tokens * DECAY_BATCH),
        schedule=ScheduleConfig(shape="exponential", warmup_share=0.0, half_life_share=0.5, floor_share=0.1),
    )
    return fundamental, decay


PRESETS = {"map-neo": map_neo_phases}


def expand_phases(written: Any) -> Any:
    """What a recipe writes for phases: a list stays; `map-neo` and `{preset: map-neo, epochs: 2, ...}` become one."""
    if isinstance(written, str):
        written = {"preset": written}
    if not isinstance(written, Mapping):
        return written
    settings = dict(written)
    preset = settings.pop("preset", None)
    if preset not in PRESETS:
        raise unknown("preset", str(preset), PRESETS, "phases")
    known = list(inspect.signature(PRESETS[preset]).parameters)
    for name in settings:
        if name not in known:
            raise unknown("setting", name, known, f"phases of preset {preset}")
    settings = {name: _setting(name, value, preset) for name, value in settings.items() if value is not None}
    return [asdict(phase) for phase in PRESETS[preset](**settings)]  # plain, so that they are checked as if written out


WHOLE_NUMBERS, NUMBERS = ("tokens", "batch_tokens", "sequence_length"), ("epochs", "learning_rate")


def _setting(name: str, value: Any, preset: str) -> Any:
    """A preset's setting as its function takes it; numbers may be text, as YAML reads 2e-4."""
    where = f"phases of preset {preset}: {name} = {value!r}"
    if name not in (*WHOLE_NUMBERS, *NUMBERS):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is no mapping of stream patterns to weights. Write {{'*.en': 0.5, ...}}.")
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{where} is no number. Give one, or write the phases out as a list, where batch_tokens may grow."
        ) from None
    if name in NUMBERS:
        return number
    if not number.is_integer():
        raise ConfigError(f"{where} counts tokens. Give a whole number.")
    return int(number)
