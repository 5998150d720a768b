"""Messages on stderr: what a command does, and what went wrong. Results go to stdout."""

from __future__ import annotations

import os
import sys
from typing import Literal, TextIO

Verbosity = Literal["quiet", "normal", "verbose"]
_verbosity: Verbosity = "normal"


def set_verbosity(verbosity: Verbosity) -> None:
    """Choose what is printed: `quiet` prints warnings alone, `verbose` also prints details."""
    global _verbosity
    _verbosity = verbosity


def is_quiet() -> bool:
    """True where only warnings are wanted."""
    return _verbosity == "quiet"


def info(text: str) -> None:
    """Print a message, unless quiet."""
    if _verbosity != "quiet":
        print(text, file=sys.stderr)


def detail(text: str) -> None:
    """Print a message for those who look closely."""
    if _verbosity == "verbose":
        print(text, file=sys.stderr)


def warn(text: str) -> None:
    """Print a warning."""
    print(f"warning: {text}", file=sys.stderr)


def is_terminal(stream: TextIO | None = None) -> bool:
    """True where a stream, by default stderr, is a terminal that may show colours and redraw lines."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return (stream or sys.stderr).isatty() and not plain
