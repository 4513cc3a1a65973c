"""Skip the update of a training step whose gradient stands far above those before it.

A few broken documents in one batch can throw a run back by days. The guard compares a step's gradient norm (or loss)
with the median of the last accepted ones; above `factor` times that, the weights and the optimizer stay as they are and
the run goes on with the next batch. PaLM (Chowdhery et al. 2022, arXiv 2204.02311) went back and skipped batches by
hand. The window lies in the checkpoint, so that a resumed run decides as an undisturbed one.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from diglot.core.errors import ConfigError, DiglotError


@dataclass(frozen=True, kw_only=True)
class SpikeGuardConfig:
    """window: accepted training steps that the median is over; until there are so many in a phase, all are accepted.
    factor: how many medians are too many.
    watch: what is compared, before clipping.
    max_in_a_row: stop the run after so many skipped updates in a row; a level that stays is no spike.
    """

    window: int = 100
    factor: float = 5.0
    watch: Literal["grad_norm", "loss"] = "grad_norm"
    max_in_a_row: int = 20

    def __post_init__(self) -> None:
        if self.window < 1 or self.max_in_a_row < 1 or self.factor <= 1:
            raise ConfigError("spike_guard needs window and max_in_a_row from 1 and a factor above 1.")
        if self.watch not in ("grad_norm", "loss"):
            raise ConfigError(f"spike_guard watch '{self.watch}' is not known. Known: grad_norm, loss.")


class SpikeGuard:
    """Asked once a training step. `num_skipped` counts the whole run."""

    def __init__(self, config: SpikeGuardConfig) -> None:
        self.config = config
        self.num_skipped, self._in_a_row = 0, 0
        self._accepted: deque[float] = deque(maxlen=config.window)

    def begin_phase(self) -> None:
        """Forget what was accepted: another mixture, batch or learning rate has another level."""
        self._accepted.clear()
        self._in_a_row = 0

    def objection(self, values: Mapping[str, float], train_step: int) -> str | None:
        """Why this training step's update must be skipped, or None; remembers the answer.

        Raises: DiglotError when too many in a row were skipped.
        """
        value = values[self.config.watch]
        if len(self._accepted) < self.config.window:
            self._accepted.append(value)
            return None
        median = statistics.median(self._accepted)
        if value <= self.config.factor * median:
            self._accepted.append(value)
            self._in_a_row = 0
            return None
        self.num_skipped += 1
        self._in_a_row += 1
        why = (
            f"{self.config.watch} {value:.4g} is above {self.config.factor:g} x {median:.4g}, the median of the last "
            f"{self.config.window} accepted training steps"
        )
        if self._in_a_row > self.config.max_in_a_row:
            raise DiglotError(
                f"training step {train_step}: {why}, and so were the {self.config.max_in_a_row} before it. Go back to "
                "a checkpoint and lower the learning rate, or raise spike_guard's factor."
            )
        return why

    def state(self) -> dict[str, list[float]]:
        """Lists whose lengths never change, for a checkpoint's tensors; NaN where nothing is accepted yet."""
        missing = self.config.window - len(self._accepted)
        return {
            "accepted": [float("nan")] * missing + list(self._accepted),
            "counts": [float(self.num_skipped), float(self._in_a_row)],
        }

    def load_state(self, state: Mapping[str, Sequence[float]]) -> None:
        self._accepted.clear()
        self._accepted.extend(value for value in state["accepted"] if value == value)
        self.num_skipped, self._in_a_row = map(int, state["counts"])
