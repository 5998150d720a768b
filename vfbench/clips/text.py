"""File names for output: natural order, shortened lists, escaped control characters."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

NUMBER = re.compile("[0-9]+")
DIGITS_TO_ZERO = str.maketrans("123456789", "0" * 9)


def natural_key(name: str) -> tuple[tuple[list[Any], str], ...]:
    """Sort key of a path: part by part, with runs of digits compared as numbers."""
    return tuple(
        ([int(piece) if i % 2 else piece for i, piece in enumerate(re.split("([0-9]+)", part))], part)
        for part in name.split("/")
    )


def class_caption(name: str) -> str:
    """Class name as a caption: `apply eye makeup` for `ApplyEyeMakeup` or `apply_eye_makeup`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").split()
    return " ".join(words).lower() or name


def printable(text: str) -> str:
    """Text on one line: characters that no terminal shows, such as a line break, become escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def first_few(names: Collection[str], limit: int = 3) -> str:
    """The first `limit` names, joined by commas, and the number of the others."""
    first = printable(", ".join(list(names)[:limit]))
    return f"{first} and {len(names) - limit:,} more" if len(names) > limit else first
