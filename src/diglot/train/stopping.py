"""Stopping a run early without losing anything: after a training step, with a checkpoint, and on all ranks at once.

A signal may reach one rank alone, and the clock is rank 0's: after every training step the ranks agree on what to do.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from diglot.core.errors import DiglotError
from diglot.train.checkpoints import Checkpoint
from diglot.train.clock import NOTHING, STOP, Clock
from diglot.train.parallel.ranks import Ranks
from diglot.train.types import LoopSettings


class Stopping:
    """Asked after every training step, on all ranks. say: tells the user."""

    def __init__(self, settings: LoopSettings, ranks: Ranks, say: Callable[[str], None]) -> None:
        self.ranks, self.say = ranks, say
        self.clock = Clock(settings.checkpoint_every_minutes, settings.time_limit_minutes)
        self._signal: int | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While training steps run. A first SIGINT or SIGTERM lets one finish and saves; a second one acts as usual."""
        self.clock.begin()
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers
            return

        def note(number: int, frame: FrameType | None) -> None:
            self._signal = number
            for which, handler in before.items():
                signal.signal(which, handler)
            self.say("stopping after this training step; a second signal stops at once.")

        before = {which: signal.signal(which, note) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    def asked(self, checkpoint_seconds: float) -> int:
        """NOTHING, SAVE or STOP of `clock.py`, or STOP plus the number of a signal; the same on all ranks.

        checkpoint_seconds: what the longest took so far; 0 before there is one.
        """
        asked = self.clock.asks(checkpoint_seconds) if self.ranks.is_main else NOTHING
        return self.ranks.largest(asked if self._signal is None else STOP + self._signal)

    def error(self, asked: int, train_steps_done: int, num_train_steps: int, checkpoint: Checkpoint) -> DiglotError:
        """With which the run ends that was asked to stop, `checkpoint` being saved."""
        why = f"by {signal.Signals(asked - STOP).name}" if asked > STOP else f"before {self.clock.limit}"
        return DiglotError(
            f"stopped {why} after training step {train_steps_done:,} of {num_train_steps:,}; checkpoint "
            f"{checkpoint.name} is saved. Run the same command again to go on from it."
        )
