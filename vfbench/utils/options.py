"""Fields of options dataclasses that are also flags of the command line: each is declared once, with its help."""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any

REQUIRED: Any = object()  # default of a field that must be given


def flag(default: Any, help: str, *names: str, repeat: bool = False, env: bool = True) -> Any:
    """Field of an options dataclass with its help text.

    The flag is called like the field, or has the given `names` (`-n`, `--num-samples`). A sequence is typed with
    commas, or with one flag an item where `repeat` is set. `REQUIRED` as the default makes a required field. `env` is
    False for a flag that no environment variable sets.
    """
    metadata = {"help": help, "names": names, "repeat": repeat, "env": env}
    return field(metadata=metadata) if default is REQUIRED else field(default=default, metadata=metadata)


def flags(options: type) -> list[Field[Any]]:
    """The fields of an options dataclass that have a flag."""
    return [each for each in fields(options) if "help" in each.metadata]
