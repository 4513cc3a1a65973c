"""How fast a run goes: tokens a second, MFU against the measured peak of this machine, memory.

MFU (model FLOP utilisation, Chowdhery et al. 2022, arXiv 2204.02311) is what the model's products need by
`model/accounting.py`, whatever is computed besides, over what the machine was measured to reach in the same precision
with the same threads. Without a measurement there is no MFU.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from diglot.core.hardware import resident_peak_bytes
from diglot.core.peaks import Peak

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_MEMORY = 1.0  # asking the kernel takes longer than the rest of a tick
SMOOTHING = 0.1  # weight of the last training step in the speed that the progress bar shows


class Speedometer:
    """Counts tokens and operations of training steps; `tick` after each one.

    The first training step waits for the compiler and for memory, so speeds leave it out. What runs under `paused`,
    as evaluation does, counts in no speed.
    """

    def __init__(
        self,
        peak: Peak | None,
        clock: Callable[[], float] = time.perf_counter,
        device_peak_bytes: Callable[[], int] | None = None,
    ) -> None:
        """device_peak_bytes: the most that training took of a GPU's memory so far; None on a CPU."""
        self.peak, self._clock, self._device_peak_bytes = peak, clock, device_peak_bytes
        self._start = self._last = clock()
        self._since_first = _Stretch()
        self._since_line = _Stretch()
        self._num_ticks = 0
        self._shown = 0.0
        self._written = self._start
        self.first_seconds = 0.0
        self.paused_seconds = 0.0
        self._paused_since_tick = 0.0
        self._memory, self._memory_read = resident_peak_bytes(), self._start

    def tick(self, num_tokens: int, flops: float | None) -> None:
        """A training step is done. flops: that its products need; None where nobody counted them."""
        now = self._clock()
        seconds = max(now - self._last - self._paused_since_tick, 1e-9)
        self._last, self._paused_since_tick = now, 0.0
        self._num_ticks += 1
        if now - self._memory_read >= SECONDS_BETWEEN_MEMORY:
            self._memory, self._memory_read = resident_peak_bytes(), now
        if self._num_ticks == 1:
            self.first_seconds = seconds
            self._shown = num_tokens / seconds
            return
        for stretch in (self._since_first, self._since_line):
            stretch.add(num_tokens, flops, seconds)
        speed = num_tokens / seconds
        self._shown = speed if self._num_ticks == 2 else (1 - SMOOTHING) * self._shown + SMOOTHING * speed

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        started = self._clock()
        try:
            yield
        finally:
            self._paused_since_tick += self._clock() - started
            self.paused_seconds += self._clock() - started

    @property
    def mfu(self) -> float | None:
        """Of all training steps but the first."""
        return self._since_first.mfu(self.peak)

    @property
    def tokens_per_second(self) -> float:
        """Of all training steps but the first; of the first where it is the only one."""
        return self._since_first.tokens_per_second or self._shown

    def note(self) -> str:
        """For the progress bar: `5,400/s, MFU 41 %, 0.8 GB`, and on a GPU `, 61.2 GB of the GPU`."""
        mfu = self._since_line.mfu(self.peak) or self.mfu
        share = f", MFU {mfu:.0%}" if mfu is not None else ""
        device = f", {self._device_peak_bytes() / 1e9:.1f} GB of the GPU" if self._device_peak_bytes else ""
        return f"{self._shown:,.0f}/s{share}, {self._memory / 1e9:.1f} GB{device}"

    def line(self, *, last: bool = False) -> dict[str, Any] | None:
        """For timing.jsonl, of the training steps since the line before; None while it is not due.

        The second training step has one, so that whoever watches a slow run need not wait long, and the last.
        """
        due = self._num_ticks == 2 or self._last - self._written >= SECONDS_BETWEEN_LINES or last
        if not due or (self._num_ticks == 1 and not last):
            return None
        stretch, self._since_line, self._written = self._since_line, _Stretch(), self._last
        mfu = stretch.mfu(self.peak)
        return {
            "tokens_per_second": round(stretch.tokens_per_second or self._shown, 1),
            **({"mfu": round(mfu, 4)} if mfu is not None else {}),
            "resident_peak_bytes": resident_peak_bytes(),
            **({"device_peak_bytes": self._device_peak_bytes()} if self._device_peak_bytes else {}),
            "seconds": round(self._last - self._start, 3),
            **({"paused_seconds": round(self.paused_seconds, 3)} if self.paused_seconds else {}),
        }


def no_peak(precision: str, num_threads: int, device: str = "cpu") -> str:
    """Why a run tells no MFU, and what to do."""
    threads = f"with {num_threads} thread{'' if num_threads == 1 else 's'}" if device == "cpu" else f"on {device}"
    return f"no peak of {precision} {threads} was measured on this machine; `diglot doctor --peak` measures it."


class _Stretch:
    """Sums over training steps."""

    def __init__(self) -> None:
        self.num_tokens, self.seconds = 0, 0.0
        self.flops: float | None = 0.0

    def add(self, num_tokens: int, flops: float | None, seconds: float) -> None:
        self.num_tokens += num_tokens
        self.seconds += seconds
        self.flops = None if flops is None or self.flops is None else self.flops + flops

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / self.seconds if self.seconds else 0.0

    def mfu(self, peak: Peak | None) -> float | None:
        if peak is None or self.flops is None or not self.seconds:
            return None
        return self.flops / self.seconds / peak.median
