"""Progress of long work on stderr: amount, rate and time left.

A terminal shows one line that updates itself, a log a plain line every few seconds.
"""

from __future__ import annotations

import sys
import time


class Progress:
    """Progress counter. `done` starts above 0 for resumed work; the rate counts only the work of this object."""

    def __init__(self, title: str, total: int, unit: str, *, done: int = 0, every: float = 15.0) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._first, self._start = done, time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._every, self._printed = (0.2 if self._terminal else every), self._start

    def advance(self, amount: int, note: str = "") -> None:
        """Count `amount` more units; prints every few seconds, and always at the end."""
        self.done += amount
        now = time.monotonic()
        if now - self._printed >= self._every or self.done >= self.total:
            self._printed = now
            self._print(note)

    @property
    def rate(self) -> float:
        """Units per second since this object was created."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _print(self, note: str) -> None:
        seconds_left = (self.total - self.done) / max(self.rate, 1e-9)
        rate = f"{format_rate(self.rate)} {self.unit}/s"
        line = f"{self.title}: {self.done}/{self.total} {self.unit}, {rate}, {format_duration(seconds_left)} left"
        line = f"{line}, {note}" if note else line
        end = "\n" if not self._terminal or self.done >= self.total else ""
        print(f"\r\x1b[2K{line}" if self._terminal else line, end=end, file=sys.stderr, flush=True)


def format_rate(rate: float) -> str:
    """Rate with three significant digits, or as a whole number from 100: `0.25`, `12.5`, `1,910`."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def format_duration(seconds: float) -> str:
    """Duration as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"
