"""Progress of long work on stderr: how far, how fast, how long still. One line that renews itself on a terminal, a
plain line now and then in a log."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts units of work. `done` may start above 0 when work is resumed; the rate counts this process's work only."""

    def __init__(self, title: str, total: int, unit: str, *, done: int = 0, every: float = 15.0) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._first, self._start = done, time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._every, self._shown = (0.2 if self._terminal else every), self._start

    def advance(self, amount: int, note: str = "") -> None:
        """Count `amount` more units; prints when it is time, and always at the end."""
        self.done += amount
        now = time.monotonic()
        if now - self._shown >= self._every or self.done >= self.total:
            self._shown = now
            self._print(now - self._start, note)

    @property
    def rate(self) -> float:
        """Units a second since this object was made."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _print(self, seconds: float, note: str) -> None:
        left = (self.total - self.done) / max(self.rate, 1e-9)
        line = (
            f"{self.title}: {self.done}/{self.total} {self.unit}, {plain(self.rate)} {self.unit}/s, {clock(left)} left"
        )
        line = f"{line}, {note}" if note else line
        end = "\n" if not self._terminal or self.done >= self.total else ""
        print(f"\r\x1b[2K{line}" if self._terminal else line, end=end, file=sys.stderr, flush=True)


def plain(rate: float) -> str:
    """A rate in three digits, or all that stand before the point: `0.25`, `12.5`, `1,910`."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def clock(seconds: float) -> str:
    """Seconds as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
