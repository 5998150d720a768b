"""Options declared once, as fields of a dataclass: flags of the command line, and keyword arguments in Python."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, field, fields
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
Options = TypeVar("Options")
Returned = TypeVar("Returned")

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float32", "bfloat16")
DECODERS = ("auto", "pyav", "decord", "torchcodec")  # of video files
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


def keywords(options: Callable[P, Options]) -> Callable[[Callable[[Options], Returned]], Callable[P, Returned]]:
    """Decorator: a function of an options dataclass becomes one of keyword arguments, with the same names and types."""

    def decorate(function: Callable[[Options], Returned]) -> Callable[P, Returned]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Returned:
            return function(options(*args, **kwargs))

        returns = inspect.signature(function).return_annotation
        call.__signature__ = inspect.signature(options).replace(return_annotation=returns)  # type: ignore[attr-defined]
        return call

    return decorate


def values_of(options: object) -> dict[str, Any]:
    """Fields of an options dataclass by name, to pass them on as keyword arguments."""
    return {each.name: getattr(options, each.name) for each in fields(options)}  # type: ignore[arg-type]
