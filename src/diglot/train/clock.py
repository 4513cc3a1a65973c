"""What the wall clock asks of a run: a checkpoint now and then, and to stop before its time is over.

The time is over `time_limit_minutes` after `train` was called in this process, or when the Slurm job ends. A run stops
early enough for one more training step and for the checkpoint, by what those took so far.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping

NOTHING, SAVE, STOP = 0, 1, 2  # what is asked for; of several, the largest stands
JOB_END = "SLURM_JOB_END_TIME"  # seconds since 1970; set by Slurm for jobs with a limit
NUM_STEPS = 100  # training steps whose longest is expected of the next
RESERVE_SECONDS = 60.0  # for the checkpoint, while none was timed ...
RESERVE_SHARE = 0.1  # ... but no more than this share of the whole time


class Clock:
    """Asked once after every training step; on rank 0, whose answer goes for all."""

    def __init__(
        self,
        every_minutes: float | None,
        limit_minutes: float | None,
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now, self._start = now, now()
        self._every = None if every_minutes is None else 60 * every_minutes
        self._saved = self._asked = self._start
        self._steps: deque[float] = deque(maxlen=NUM_STEPS)
        self._num_steps = 0
        ends = []
        if limit_minutes is not None:
            ends.append((self._start + 60 * limit_minutes, f"time_limit_minutes = {limit_minutes:g}"))
        if (end := environment.get(JOB_END, "")).isdigit() and float(end) > self._start:  # else of another job
            ends.append((float(end), f"the end of the Slurm job, {JOB_END}"))
        self._end, self.limit = min(ends, default=(float("inf"), "no limit"))

    def begin(self) -> None:
        """The first training step begins: what was done before it, reading a checkpoint say, is no part of it."""
        self._asked = self._now()

    def asks(self, checkpoint_seconds: float) -> int:
        """NOTHING, SAVE or STOP. checkpoint_seconds: what the longest took so far; 0 before there is one."""
        now = self._now()
        if self._num_steps == 1:
            self._steps.clear()  # the first one compiled: it foretells nothing once there is another
        self._num_steps += 1
        self._steps.append(now - self._asked)
        self._asked = now
        reserve = max(2 * checkpoint_seconds, min(RESERVE_SECONDS, RESERVE_SHARE * (self._end - self._start)))
        if now + max(self._steps) + reserve >= self._end:
            return STOP
        return SAVE if self._every is not None and now - self._saved >= self._every else NOTHING

    def saved(self) -> None:
        """A checkpoint was begun, for whatever reason."""
        self._saved = self._now()
