"""Which sequences each training step reads: a pure function of the streams, the mixture, the seed and the step.

Any step can be asked for without replaying those before it, and the question can be turned round: which steps read this
sequence. Neither needs torch, so `diglot batch` and `diglot seen` answer at once from a run's plan.json.

Four rules, each exact and reversible:
1. A phase reads a whole number of sequences of each stream (`train/mixture.py`). Draw j of a stream with Q of them
sits at
   place (j + 1/2) / Q of the phase; the draws of all streams, sorted by place and then by stream, fill the phase's
   slots. So every stretch of a phase has nearly the mixture of the whole.
2. Draws are counted through all phases: draw g of a stream with n sequences is number g mod n of epoch g // n.
3. An epoch of a stream is a seeded permutation of its sequences (`train/permutation.py`).
4. Where phases have sequences of several lengths, draws count blocks of the longest one. A phase of shorter sequences
   cuts its blocks into pieces and reads the pieces of one epoch in an order of their own; it begins with a block that
   no phase has begun, so that nothing is read twice before all else was read once. Of each stream at most one block a
   phase stays partly unread.

Training steps are numbered from 0 through all phases; a phase's batches may grow (`ramp`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import lcm
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diglot.core.errors import ConfigError
from diglot.core.seeds import derive_seed
from diglot.ledger.fingerprint import fingerprint
from diglot.train.mixture import Counts, Entry, quotas
from diglot.train.permutation import permute, permute_back


@dataclass(frozen=True, kw_only=True)
class OrderPhase:
    """One phase: how long it is and how many sequences of each stream it reads.

    ramp: (training steps, sequences of each) of the stretches before the one with `sequences_per_train_step`; their
        training steps are part of `num_train_steps`.
    pieces_per_block: how many of its sequences make one of the longest; short: the same for streams that do not fill
        one.
    """

    name: str
    num_train_steps: int
    sequences_per_train_step: int
    quotas: Mapping[str, int]  # stream -> sequences; the sum fills the phase
    ramp: tuple[tuple[int, int], ...] = ()
    pieces_per_block: int = 1
    short: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def _stretches(self) -> list[tuple[int, int, int]]:
        """(first training step, first slot, sequences per training step) of each stretch, and the end."""
        last = (self.num_train_steps - sum(steps for steps, _ in self.ramp), self.sequences_per_train_step)
        found, step, slot = [], 0, 0
        for steps, size in (*self.ramp, last):
            found.append((step, slot, size))
            step, slot = step + steps, slot + steps * size
        return [*found, (step, slot, 0)]

    @property
    def num_sequences(self) -> int:
        return self._stretches[-1][1]

    def slots_of(self, train_step: int) -> tuple[int, int]:
        """The first slot of a phase-local training step, and the first behind it."""
        first, slot, size = self._stretches[bisect_right(self._stretches, train_step, key=itemgetter(0)) - 1]
        return slot + (train_step - first) * size, slot + (train_step - first + 1) * size

    def train_step_of(self, slot: int) -> int:
        """The phase-local training step that reads a slot: the inverse of `slots_of`."""
        first, start, size = self._stretches[bisect_right(self._stretches, slot, key=itemgetter(1)) - 1]
        return first + (slot - start) // size

    def pieces(self, stream: str) -> int:
        """Sequences of this phase in one block of a stream."""
        return self.short.get(stream, self.pieces_per_block)

    def num_blocks(self, stream: str) -> int:
        """Blocks that the phase begins of a stream."""
        return -(-self.quotas.get(stream, 0) // self.pieces(stream))

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
    """The order of a whole pre-training run. `sizes`: stream -> number of blocks it holds, sequences of the longest
    length."""

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
    def stream_names(self) -> tuple[str, ...]:
        """Every stream, in the order that batches number them."""
        return tuple(sorted(self.sizes))

    @property
    def mixture_fingerprint(self) -> str:
        """Names everything that determines the order."""
        return fingerprint("data_order", 1, self.to_plan(), {}, self.seed)

    def sequences(self, train_step: int) -> list[tuple[str, int]]:
        """(stream, sequence index) of each sequence that this training step reads."""
        if not 0 <= train_step < self.num_train_steps:
            raise ConfigError(f"train step {train_step} is outside this run's 0..{self.num_train_steps - 1}.")
        index = self.phase_index(train_step)
        phase = self.phases[index]
        slots = phase.slots(*phase.slots_of(train_step - self._phase_starts[index]))
        found = np.empty(len(slots), dtype=np.int64)
        # Draws of one epoch of one stream go through its permutations together.
        groups: dict[tuple[str, int], list[int]] = {}
        for slot, (name, draw) in enumerate(slots):
            groups.setdefault((name, self._epoch(name, draw, index)), []).append(slot)
        for (name, epoch), members in groups.items():
            draws = np.array([slots[slot][1] for slot in members])
            found[members] = self._sequences(name, epoch, draws, index)
        return [(name, int(sequence)) for (name, _), sequence in zip(slots, found, strict=True)]

    def train_steps(self, stream: str, sequence_index: int, phase: int | None = None) -> list[int]:
        """Every training step that reads this sequence, in order; named twice where it reads it twice.

        Args:
            phase: only this phase's training steps; the index then counts sequences of its length. Without one it
                counts blocks, and a training step that reads any piece of it is named.
        """
        size = self.num_sequences(stream, phase)
        if not 0 <= sequence_index < size:
            raise ConfigError(f"stream '{stream}' has sequences 0..{size - 1}, not {sequence_index}.")
        if phase is not None:
            return sorted(self._train_steps_of_piece(stream, sequence_index, phase))
        found: list[int] = []
        for index, one in enumerate(self.phases):
            pieces = one.pieces(stream)
            for piece in range(sequence_index * pieces, (sequence_index + 1) * pieces):
                found += self._train_steps_of_piece(stream, piece, index)
        return sorted(found)

    def num_sequences(self, stream: str, phase: int | None = None) -> int:
        """Sequences of a phase's length that a stream holds; blocks without a phase."""
        return self.sizes.get(stream, 0) * (1 if phase is None else self.phases[phase].pieces(stream))

    def phase_index(self, train_step: int) -> int:
        """The phase, counted from 0, that a training step belongs to."""
        return bisect_right(self._phase_starts, train_step) - 1

    def epochs(self) -> dict[str, float]:
        """How many times each stream is read over all phases."""
        return {
            name: sum(phase.quotas.get(name, 0) / (size * phase.pieces(name)) for phase in self.phases)
            for name, size in self.sizes.items()
            if size > 0
        }

    def _epoch(self, name: str, draw: int, phase: int) -> int:
        pieces = self.phases[phase].pieces(name)
        return (self._draws_before_phase[phase][name] + draw // pieces) // self.sizes[name]

    def _sequences(self, name: str, epoch: int, draws: NDArray[np.int64], phase: int) -> NDArray[np.int64]:
        """The sequences that draws of one epoch of one stream read."""
        pieces = self.phases[phase].pieces(name)
        draws = draws + self._draws_before_phase[phase][name] * pieces
        if pieces > 1:
            start, stop, seed = self._pieces_of(name, epoch, phase)
            draws = start + permute(draws - start, stop - start, seed)
        blocks, piece = np.divmod(draws, pieces)
        blocks = permute(blocks - epoch * self.sizes[name], self.sizes[name], self._epoch_seed(name, epoch))
        return blocks * pieces + piece

    def _train_steps_of_piece(self, name: str, sequence: int, phase: int) -> Iterator[int]:
        """The inverse of `_sequences`: the training steps of one phase that read a sequence of its length."""
        one, size, before = self.phases[phase], self.sizes[name], self._draws_before_phase[phase][name]
        pieces = one.pieces(name)
        block, piece = divmod(sequence, pieces)
        for epoch in range(before // size, -(-(before + one.num_blocks(name)) // size)):
            place = permute_back(np.array([block]), size, self._epoch_seed(name, epoch))[0]
            draw = (epoch * size + int(place)) * pieces + piece
            start, stop, seed = self._pieces_of(name, epoch, phase)
            if not start <= draw < stop:
                continue
            if pieces > 1:
                draw = start + int(permute_back(np.array([draw - start]), stop - start, seed)[0])
            yield self._phase_starts[phase] + one.train_step_of(one.slot(name, draw - before * pieces))

    def _pieces_of(self, name: str, epoch: int, phase: int) -> tuple[int, int, int]:
        """The draws, counted in pieces, that fall to a phase in an epoch of a stream, and the seed of their order."""
        one, before = self.phases[phase], self._draws_before_phase[phase][name]
        pieces = one.pieces(name)
        start = max(before, epoch * self.sizes[name]) * pieces
        stop = min(before * pieces + one.quotas.get(name, 0), (epoch + 1) * self.sizes[name] * pieces)
        return start, stop, derive_seed(self.seed, "pieces", phase, name, epoch)

    def to_plan(self) -> dict[str, Any]:
        """Plain values for plan.json; `from_plan` reads them back. What is as usual is left out."""
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
                | ({"ramp": [list(stretch) for stretch in phase.ramp]} if phase.ramp else {})
                | ({"pieces_per_block": phase.pieces_per_block} if phase.pieces_per_block > 1 else {})
                | ({"short": dict(sorted(phase.short.items()))} if phase.short else {})
                for phase in self.phases
            ],
        }

    @classmethod
    def from_plan(cls, plan: Mapping[str, Any]) -> DataOrder:
        """Read `to_plan()`'s value, or a whole plan.json, which holds it under `order`."""
        order = plan.get("order", plan)
        phases = [{**phase, "ramp": tuple(map(tuple, phase.get("ramp", ())))} for phase in order["phases"]]
        return cls(seed=order["seed"], sizes=order["sizes"], phases=tuple(OrderPhase(**phase) for phase in phases))

    @cached_property
    def _phase_starts(self) -> list[int]:
        return [sum(p.num_train_steps for p in self.phases[:i]) for i in range(len(self.phases) + 1)]

    @cached_property
    def _draws_before_phase(self) -> list[dict[str, int]]:
        return [
            {name: sum(p.num_blocks(name) for p in self.phases[:i]) for name in self.sizes}
            for i in range(len(self.phases))
        ]

    def _epoch_seed(self, stream: str, epoch: int) -> int:
        return derive_seed(self.seed, "order", stream, epoch)


@dataclass(frozen=True, kw_only=True)
class PhaseMix:
    """What a phase is asked to read, before it is turned into whole numbers. Fields as of `OrderPhase`."""

    name: str
    num_train_steps: int
    sequences_per_train_step: int
    mixture: Mapping[str, Entry]
    counts: Counts = "tokens"
    sequence_length: int = 1  # tokens, for budgets in tokens
    ramp: tuple[tuple[int, int], ...] = ()
    pieces_per_block: int = 1
    short: Mapping[str, int] = field(default_factory=dict)


def plan_order(phases: Sequence[PhaseMix], sizes: Mapping[str, int], seed: int, max_epochs: float | None) -> DataOrder:
    """Turn weights into quotas. Raises ConfigError when a stream would be read more than `max_epochs` times.

    sizes: stream -> number of blocks, sequences of the longest length.
    """
    order = DataOrder(seed=seed, sizes=dict(sizes), phases=tuple(_with_quotas(phase, sizes) for phase in phases))
    if max_epochs is not None:
        # Quotas are whole numbers: a stream of a few sequences may land one sequence above its share.
        epochs = order.epochs()
        over = {n: e for n, e in epochs.items() if e * sizes[n] > max_epochs * sizes[n] + len(order.phases)}
        if over:
            worst = max(over, key=lambda name: over[name])
            raise ConfigError(
                f"the mixture reads '{worst}' {over[worst]:.2f} times, more than max_epochs = {max_epochs:g}. "
                "Lower its weight, train on fewer tokens, or raise max_epochs."
            )
    return order


def _with_quotas(phase: PhaseMix, sizes: Mapping[str, int]) -> OrderPhase:
    empty = OrderPhase(
        name=phase.name,
        num_train_steps=phase.num_train_steps,
        sequences_per_train_step=phase.sequences_per_train_step,
        quotas={},
        ramp=phase.ramp,
        pieces_per_block=phase.pieces_per_block,
        short=phase.short,
    )
    found = quotas(
        phase.mixture,
        {name: size * empty.pieces(name) for name, size in sizes.items()},
        empty.num_sequences,
        counts=phase.counts,
        sequence_length=phase.sequence_length,
        slack=phase.sequences_per_train_step,
    )
    return replace(empty, quotas=found)
