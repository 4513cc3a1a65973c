"""Which sequences each training step reads: a pure function of the streams, the mixture, the seed and the step.

Any step can be asked for without replaying those before it, and the question can be turned round: which steps read this
sequence. Neither needs torch, so `diglot batch` and `diglot seen` answer at once from a run's plan.json.

Three rules, each exact and reversible:
1. A phase reads a whole number of sequences of each stream (`train/mixture.py`). Draw j of a stream with Q of them
sits at
   place (j + 1/2) / Q of the phase; the draws of all streams, sorted by place and then by stream, fill the phase's
   slots. So every stretch of a phase has nearly the mixture of the whole.
2. Draws are counted through all phases: draw g of a stream with n sequences is number g mod n of epoch g // n.
3. An epoch of a stream is a seeded permutation of its sequences (`train/permutation.py`).

Training steps are numbered from 0 through all phases.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lcm
from typing import Any

import numpy as np

from diglot.core.errors import ConfigError
from diglot.core.seeds import derive_seed
from diglot.ledger.fingerprint import fingerprint
from diglot.train.mixture import Counts, Entry, epochs_read, quotas
from diglot.train.permutation import permute, permute_back


@dataclass(frozen=True, kw_only=True)
class OrderPhase:
    """One phase: how long it is and how many sequences of each stream it reads."""

    name: str
    num_train_steps: int
    sequences_per_train_step: int
    quotas: Mapping[str, int]  # stream -> sequences; the sum fills the phase

    @property
    def num_sequences(self) -> int:
        return self.num_train_steps * self.sequences_per_train_step

    @cached_property
    def names(self) -> list[str]:
        return sorted(name for name, quota in self.quotas.items() if quota)

    @cached_property
    def _place_unit(self) -> int:
        """Places are whole multiples of 1 / (2 * this): exact integers instead of fractions."""
        return lcm(*(self.quotas[name] for name in self.names))

    def _place(self, name: str, draw: int) -> int:
        return (2 * draw + 1) * (self._place_unit // self.quotas[name])

    def _draws_before(self, name: str, place: int) -> int:
        """How many draws of a stream sit before `place`."""
        gap = self._place_unit // self.quotas[name]
        return min(max(0, -(-(place - gap) // (2 * gap))), self.quotas[name])

    def slots(self, start: int, stop: int) -> list[tuple[str, int]]:
        """Which (stream, draw) fills each of the slots start..stop-1."""
        # Counting draws before slot / num_sequences is off by at most half a draw a stream, so this margin is enough.
        margin, whole = len(self.names) + 1, 2 * self._place_unit
        low = max(0, (start - margin) * whole // self.num_sequences)
        high = (stop + margin) * whole // self.num_sequences
        first = {name: self._draws_before(name, low) for name in self.names}
        around = sorted(
            (self._place(name, draw), name, draw)
            for name in self.names
            for draw in range(first[name], self._draws_before(name, high))
        )
        skip = start - sum(first.values())
        return [(name, draw) for _, name, draw in around[skip : skip + stop - start]]

    def slot(self, name: str, draw: int) -> int:
        """The slot that a draw fills: the inverse of `slots`."""
        place = self._place(name, draw)
        return sum(self._draws_before(other, place + (other < name)) for other in self.names)


@dataclass(frozen=True, kw_only=True)
class DataOrder:
    """The order of a whole pre-training run. `sizes`: stream -> number of sequences it holds."""

    seed: int
    sizes: Mapping[str, int]
    phases: tuple[OrderPhase, ...]

    def __post_init__(self) -> None:
        for phase in self.phases:
            if phase.num_sequences < 1 or sum(phase.quotas.values()) != phase.num_sequences:
                raise ConfigError(
                    f"phase '{phase.name}' has {phase.num_sequences} places for {sum(phase.quotas.values())} "
                    "sequences. A phase has at least one training step, and its quotas fill it."
                )
            if absent := [name for name in phase.names if self.sizes.get(name, 0) < 1]:
                raise ConfigError(f"phase '{phase.name}' reads {absent}, which hold no sequences.")

    @property
    def num_train_steps(self) -> int:
        return self._phase_starts[-1]

    @property
    def mixture_fingerprint(self) -> str:
        """Names everything that determines the order."""
        return fingerprint("data_order", 1, self.to_plan(), {}, self.seed)

    def sequences(self, train_step: int) -> list[tuple[str, int]]:
        """(stream, sequence index) of each sequence that this training step reads."""
        if not 0 <= train_step < self.num_train_steps:
            raise ConfigError(f"train step {train_step} is outside this run's 0..{self.num_train_steps - 1}.")
        index = bisect_right(self._phase_starts, train_step) - 1
        phase, local = self.phases[index], train_step - self._phase_starts[index]
        size = phase.sequences_per_train_step
        slots = phase.slots(local * size, (local + 1) * size)
        draws = [self._draws_before_phase[index][name] + draw for name, draw in slots]
        found = np.empty(size, dtype=np.int64)
        # Draws of one epoch of one stream go through its permutation together.
        groups: dict[tuple[str, int], list[int]] = {}
        for slot, ((name, _), draw) in enumerate(zip(slots, draws, strict=True)):
            groups.setdefault((name, draw // self.sizes[name]), []).append(slot)
        for (name, epoch), members in groups.items():
            places = np.array([draws[slot] for slot in members]) - epoch * self.sizes[name]
            found[members] = permute(places, self.sizes[name], self._epoch_seed(name, epoch))
        return [(name, int(sequence)) for (name, _), sequence in zip(slots, found, strict=True)]

    def train_steps(self, stream: str, sequence_index: int) -> list[int]:
        """Every training step that reads this sequence, in order."""
        size = self.sizes.get(stream, 0)
        if not 0 <= sequence_index < size:
            raise ConfigError(f"stream '{stream}' has sequences 0..{size - 1}, not {sequence_index}.")
        found = []
        total = sum(phase.quotas.get(stream, 0) for phase in self.phases)
        for epoch in range(-(-total // size)):
            draw = epoch * size + int(
                permute_back(np.array([sequence_index]), size, self._epoch_seed(stream, epoch))[0]
            )
            for index, phase in enumerate(self.phases):
                local = draw - self._draws_before_phase[index][stream]
                if 0 <= local < phase.quotas.get(stream, 0):
                    found.append(
                        self._phase_starts[index] + phase.slot(stream, local) // phase.sequences_per_train_step
                    )
        return found

    def to_plan(self) -> dict[str, Any]:
        """Plain values for plan.json; `from_plan` reads them back."""
        return {
            "seed": self.seed,
            "sizes": dict(sorted(self.sizes.items())),
            "phases": [
                {
                    "name": phase.name,
                    "num_train_steps": phase.num_train_steps,
                    "sequences_per_train_step": phase.sequences_per_train_step,
                    "quotas": dict(sorted(phase.quotas.items())),
                }
                for phase in self.phases
            ],
        }

    @classmethod
    def from_plan(cls, plan: Mapping[str, Any]) -> DataOrder:
        """Read `to_plan()`'s value, or a whole plan.json, which holds it under `order`."""
        order = plan.get("order", plan)
        return cls(
            seed=order["seed"], sizes=order["sizes"], phases=tuple(OrderPhase(**phase) for phase in order["phases"])
        )

    @cached_property
    def _phase_starts(self) -> list[int]:
        return [sum(p.num_train_steps for p in self.phases[:i]) for i in range(len(self.phases) + 1)]

    @cached_property
    def _draws_before_phase(self) -> list[dict[str, int]]:
        return [
            {name: sum(p.quotas.get(name, 0) for p in self.phases[:i]) for name in self.sizes}
            for i in range(len(self.phases))
        ]

    def _epoch_seed(self, stream: str, epoch: int) -> int:
        return derive_seed(self.seed, "order", stream, epoch)


@dataclass(frozen=True, kw_only=True)
class PhaseMix:
    """What a phase is asked to read, before it is turned into whole numbers."""

    name: str
    num_train_steps: int
    sequences_per_train_step: int
    mixture: Mapping[str, Entry]
    counts: Counts = "tokens"
    sequence_length: int = 1  # tokens, for budgets in tokens


def plan_order(phases: Sequence[PhaseMix], sizes: Mapping[str, int], seed: int, max_epochs: float | None) -> DataOrder:
    """Turn weights into quotas. Raises ConfigError when a stream would be read more than `max_epochs` times."""
    planned = tuple(
        OrderPhase(
            name=phase.name,
            num_train_steps=phase.num_train_steps,
            sequences_per_train_step=phase.sequences_per_train_step,
            quotas=quotas(
                phase.mixture,
                sizes,
                phase.num_train_steps * phase.sequences_per_train_step,
                counts=phase.counts,
                sequence_length=phase.sequence_length,
                slack=phase.sequences_per_train_step,
            ),
        )
        for phase in phases
    )
    if max_epochs is not None:
        epochs = epochs_read([phase.quotas for phase in planned], sizes)
        # Quotas are whole numbers: a stream of a few sequences may land one sequence above its share.
        over = {name: e for name, e in epochs.items() if e * sizes[name] > max_epochs * sizes[name] + len(planned)}
        if over:
            worst = max(over, key=lambda name: over[name])
            raise ConfigError(
                f"the mixture reads '{worst}' {over[worst]:.2f} times, more than max_epochs = {max_epochs:g}. "
                "Lower its weight, train on fewer tokens, or raise max_epochs."
            )
    return DataOrder(seed=seed, sizes=dict(sizes), phases=planned)
