"""Numbers in messages."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """A number with its noun: `1 chunk`, `2,048 clips`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
