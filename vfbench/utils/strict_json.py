"""JSON that somebody else may have written: objects of finite numbers, unique keys, whole characters and few levels."""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST, LARGEST_INTEGER = 32, 2**63  # nested brackets, and absolute value


def parse(text: str) -> dict[str, Any]:
    """Parse a JSON object that somebody else may have written.

    Raises ValueError for anything else, a repeated key, NaN, a number too large for 64 bits, and deep nesting.
    """
    try:
        content = json.loads(
            text,
            object_pairs_hook=_without_repeated_keys,
            parse_constant=_refuse_number,
            parse_float=_finite,
            parse_int=_small_integer,
        )
    except RecursionError:
        raise ValueError(f"brackets are nested more than {DEEPEST} deep") from None
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, not a JSON object")
    _require_shallow(content)
    if "\\ud" in text.lower():
        _require_whole_characters(content)
    return content


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in content if keys.count(key) > 1)!r} is given twice")
    return content


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text[:24]} is not a finite number of 64 bits; write null for a number that is not known")


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _refuse_number(text)


def _small_integer(text: str) -> int | float:
    return number if len(text) < 24 and abs(number := int(text)) < LARGEST_INTEGER else _refuse_number(text)


def _require_whole_characters(content: object) -> None:
    """Raise ValueError for half a surrogate pair; one that stands for a byte of a file name passes."""
    try:
        json.dumps(content, ensure_ascii=False).encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.object[error.start]!a} is half a character") from None


def _require_shallow(content: object) -> None:
    level = [content]
    for _ in range(DEEPEST):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return
    raise ValueError(f"brackets are nested more than {DEEPEST} deep")
