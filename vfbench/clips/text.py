"""File names and lists of them, made fit to print: sorted, shortened, escaped."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

_NUMBER = re.compile("[0-9]+")


_ONE_DIGIT = str.maketrans("123456789", "0" * 9)


def natural(name: str) -> tuple[tuple[list[Any], str], ...]:
    """The key that sorts paths by their parts, and digits in these by their value."""
    return tuple(
        ([int(piece) if i % 2 else piece for i, piece in enumerate(re.split("([0-9]+)", part))], part)
        for part in name.split("/")
    )


def in_words(name: str) -> str:
    """A class as a caption: `apply eye makeup` for `ApplyEyeMakeup` or `apply_eye_makeup`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").split()
    return " ".join(words).lower() or name


def printable(text: str) -> str:
    """A name as one line to read: what no terminal shows, such as a line break, is written as an escape."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def few(names: Collection[str], limit: int = 3) -> str:
    """The first names, and how many more there are."""
    shown = printable(", ".join(list(names)[:limit]))
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown
