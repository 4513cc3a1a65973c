"""Progress for anything longer than two seconds: a live bar on a terminal, one plain line now and then in a log.

Lines go to standard error, results to standard output.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LOG_LINES = 10.0


class Bar:
    """One task's progress. `advance` after each unit, `note` for the text behind it (`loss 3.21  5,400 tokens/s`).

    total_bytes: of all units, when they differ in size: the share done and the time left count bytes then, and the line
        tells the speed.
    """

    def __init__(
        self, label: str, total: int | None, unit: str, emit: Callable[[str], None], live: bool, total_bytes: int = 0
    ) -> None:
        self.label, self.total, self.unit, self.total_bytes = label, total, unit, total_bytes
        self.done, self.done_bytes, self.text = 0, 0, ""
        self._emit, self._live = emit, live
        self._start = self._last = time.monotonic()

    def advance(self, amount: int = 1, note: str | None = None, num_bytes: int = 0) -> None:
        self.done += amount
        self.done_bytes += num_bytes
        if note is not None:
            self.text = note
        now = time.monotonic()
        if now - self._last >= (0.2 if self._live else SECONDS_BETWEEN_LOG_LINES):
            self._last = now
            self._emit(self.line(now))

    def line(self, now: float) -> str:
        elapsed = now - self._start
        head = f"{self.label}: {self.done:,}"
        if self.total:
            share = self.done_bytes / self.total_bytes if self.total_bytes else self.done / self.total
            left = elapsed / share - elapsed if share > 0 else float("inf")
            size = f" of {self.total_bytes / 1e6:,.0f} MB" if self.total_bytes else ""
            head += f"/{self.total:,} {self.unit} ({share:.0%}{size}, {_clock(left)} left)"
            if self.total_bytes and elapsed > 0:
                head += f"  {self.done_bytes / 1e6 / elapsed:,.1f} MB/s"
        else:
            head += f" {self.unit} ({_clock(elapsed)})"
        return f"{head}  {self.text}" if self.text else head


class Progress:
    """Where progress is shown. `Progress(quiet=True)` shows nothing (tests, `--json`)."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()

    @contextmanager
    def bar(self, label: str, total: int | None = None, unit: str = "items", total_bytes: int = 0) -> Iterator[Bar]:
        """`with progress.bar("ingest", 120, "shards") as bar: ... bar.advance()`."""
        bar = Bar(label, total, unit, self._emit, self.live, total_bytes)
        try:
            yield bar
        finally:
            if self.live:
                sys.stderr.write("\r\x1b[2K")
                sys.stderr.flush()

    def say(self, text: str) -> None:
        """One lasting line."""
        if not self.quiet:
            sys.stderr.write(("\r\x1b[2K" if self.live else "") + text + "\n")
            sys.stderr.flush()

    def _emit(self, text: str) -> None:
        if self.quiet:
            return
        sys.stderr.write(f"\r\x1b[2K{text}" if self.live else f"{text}\n")
        sys.stderr.flush()


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
