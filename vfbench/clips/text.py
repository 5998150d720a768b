"""File names: natural order, names in another form than on disk, and short, escaped text for output."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath
from typing import Any

from vfbench.utils.escape import printable

NUMBER = re.compile("[0-9]+")
MAX_SHOWN = 300  # characters of a name in a message; file systems allow 255 for a part of a path
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


def names_on_disk(written: Iterable[str], present: Collection[str]) -> dict[str, str]:
    """Name on disk of each written path that has one: itself, or the only one that differs in form alone.

    Forms of one name: `./a/b`, backslashes as Windows writes them, and composed or decomposed Unicode (macOS).
    """
    by_form: dict[str, list[str]] = {}
    for name in present:
        by_form.setdefault(_form(name), []).append(name)
    exact, found = set(present), {}
    for path in written:
        same = [path] if path in exact else by_form.get(_form(path), [])
        if len(same) == 1:
            found[path] = same[0]
    return found


def _form(path: str) -> str:
    return str(PurePosixPath(unicodedata.normalize("NFC", path).replace("\\", "/")))


def shortened(text: str, limit: int = 80) -> str:
    """The first `limit` characters of a text, escaped as by `printable`."""
    return printable(text if len(text) <= limit else f"{text[:limit]}…")


def first_few(names: Collection[str], limit: int = 3) -> str:
    """The first `limit` names, joined by commas, and the number of the others."""
    first = ", ".join(shortened(name, MAX_SHOWN) for name in list(names)[:limit])
    return f"{first} and {len(names) - limit:,} more" if len(names) > limit else first
