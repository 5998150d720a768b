"""What a command prints: results on stdout; on stderr what it does, and what went wrong.

Names and texts of files reach a terminal only through these functions, which escape control characters. A message that
cannot be written is dropped: a closed terminal or a full disk must not end hours of work.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal, TextIO, cast

from vfbench.errors import BadEnvironment
from vfbench.utils import escape

Verbosity = Literal["quiet", "normal", "verbose"]
_verbosity: Verbosity = "normal"


def set_verbosity(verbosity: Verbosity) -> None:
    """Choose what is printed: `quiet` prints warnings alone, `verbose` also prints details."""
    global _verbosity
    _verbosity = verbosity


def is_quiet() -> bool:
    """True where only warnings are wanted."""
    return _verbosity == "quiet"


def result(text: str, end: str = "\n") -> None:
    """Print a result on stdout."""
    print(escape.message(text), end=end)


def error(text: str) -> None:
    """Print a message that no flag silences."""
    with contextlib.suppress(OSError, ValueError):  # full, closed or gone
        print(escape.message(text), file=sys.stderr, flush=True)


def info(text: str) -> None:
    """Print a message, unless quiet."""
    if _verbosity != "quiet":
        error(text)


def detail(text: str) -> None:
    """Print a message with --verbose only."""
    if _verbosity == "verbose":
        error(text)


def warn(text: str) -> None:
    """Print a warning."""
    error(f"warning: {text}")


def is_terminal(stream: TextIO | None = None) -> bool:
    """True where a stream, by default stderr, is a terminal that may show colours and redraw lines."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return (stream or sys.stderr).isatty() and not plain


class Lines(io.TextIOBase):
    """A stream that keeps what one thread writes until another takes it, line by line."""

    def __init__(self) -> None:
        self._text, self._lock = "", threading.Lock()

    def write(self, text: str) -> int:
        """Append a text to what is kept."""
        with self._lock:
            self._text += text
        return len(text)

    def taken(self) -> list[str]:
        """The whole lines written since the last call."""
        with self._lock:
            whole, _, self._text = self._text.rpartition("\n")
        return whole.splitlines()


@contextlib.contextmanager
def robust_streams() -> Iterator[None]:
    """Context manager: keep a command working when a standard stream is closed, full or lacks a character.

    A closed stream is replaced by the null device: else the next opened file would get its number, and all printed
    text. Characters that stdout cannot encode become question marks. Raises `BadEnvironment` where stdout cannot be
    written, as on a full disk, and BrokenPipeError for a pipe without a reader.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  # open to the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    out, err = cast(TextIO, _Stdout(sys.stdout)), cast(TextIO, _Stderr(sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


def discard(stream: TextIO) -> None:
    """Send all later output to nowhere: Python would try again at exit, fail, and print a traceback."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Stderr:
    """A stream that drops what cannot be written, and all that follows."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        del error
        discard(self._stream)


class _Stdout(_Stderr):
    """A stream that raises `BadEnvironment` where it cannot be written, and passes on a pipe without a reader."""

    def _fail(self, error: OSError) -> None:
        discard(self._stream)
        if isinstance(error, BrokenPipeError):
            raise error
        raise BadEnvironment(
            f"cannot write to stdout ({error.strerror}): finished work is kept, print it again with "
            "python -m vfbench table, or send stdout to another place"
        ) from error
