"""Progress of long work on stderr: amount, rate and time left.

A terminal shows a bar that moves; a log gets a plain line every minute, and one at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from vfbench.utils import console

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LOG_SECONDS = 60.0  # between two lines of a log


class Progress:
    """Context manager: progress counter. `done` starts above 0 for resumed work; the rate counts only new work.

    `partial` counts the units under way, and `on_move` is called with each change.
    """

    def __init__(
        self, title: str, total: int, unit: str, *, done: int = 0, on_move: Callable[[], None] | None = None
    ) -> None:
        self.title, self.total, self.unit, self.done, self._on_move = title, total, unit, done, on_move
        self.partial = 0.0
        self._first, self._start = self.done, time.monotonic()
        self._printed = self._start
        self._bar: RichProgress | None = None

    def __enter__(self) -> Progress:
        self._start = self._printed = time.monotonic()
        return self

    def _start_bar(self) -> RichProgress:
        """Bar on the terminal, drawn once there is work: a finished one would say nothing."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        title, state = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[state]}", markup=False)
        bar = RichProgress(title, BarColumn(20), state, console=Console(stderr=True), redirect_stdout=False)
        bar.add_task(self.title, total=self.total, completed=self.done, state="")
        bar.start()
        return bar

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, amount: int, note: str = "") -> None:
        """Count `amount` more finished units."""
        self.done, self.partial = self.done + amount, 0.0
        self._show(note, ends=self.done >= self.total > self.done - amount)

    def partly(self, amount: float, note: str = "") -> None:
        """Show that units to come, `amount` of them in all, are made: whole ones or parts of them."""
        self.partial = amount
        self._show(note, ends=False)

    def _show(self, note: str, *, ends: bool) -> None:
        if self._on_move:
            self._on_move()
        now = time.monotonic()
        if self._bar is None and self.total and console.is_terminal() and not console.is_quiet():
            self._bar = self._start_bar()
        if self._bar is not None:
            completed = self.done + self.partial
            self._bar.update(self._bar.task_ids[0], completed=completed, state=self._state(note))
        elif (ends or now - self._printed >= LOG_SECONDS) and not console.is_quiet():
            self._printed = now
            console.info(f"{self.title}: {self._state(note)}")

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done + self.partial - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _state(self, note: str) -> str:
        seconds_left = max(self.total - self.done - self.partial, 0) / max(self.rate, 1e-9)
        count = f"{self.done}/{self.total} {self.unit}" if self.total else f"{self.done} {self.unit}"
        left = f"{format_duration(seconds_left)} left" if self.rate else ""
        return ", ".join(filter(None, [count, f"{format_rate(self.rate)} {self.unit}/s", left, note]))


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
