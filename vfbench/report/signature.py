"""Signature of a result: a hash of its content, by which an edited `results.json` is noticed.

It guards against slips, not against forgers: whoever edits a file can also write its hash anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfbench.utils.files import json_digest

UNSIGNED_FIELDS = ("signature", "run_dir")  # a run may be moved


def of(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a result: indentation, order of keys and the spelling of a number are free."""
    return json_digest({key: _canonical(value) for key, value in content.items() if key not in UNSIGNED_FIELDS})


def _canonical(value: Any) -> Any:
    """A JSON value with whole numbers as integers: some programs write 1.0 as 1."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {key: _canonical(each) for key, each in value.items()}
    return [_canonical(each) for each in value] if isinstance(value, list) else value
