"""Type annotations of options: whether a value that was typed fits one, and what one says in words."""

from __future__ import annotations

import inspect
from collections import abc
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

MISFIT = object()  # no value of an annotation


def fitted(value: Any, annotation: Any) -> Any:
    """The value as the annotation has it, or `MISFIT`; what cannot be told of a literal fits."""
    kinds = _alternatives(annotation)
    if annotation in (Any, inspect.Parameter.empty) or type(value) in kinds:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) is bool:  # an int to Python, and to nobody else
        return MISFIT
    for kind in kinds:
        plain = get_origin(kind) or kind
        if plain is abc.Sequence:
            if isinstance(value, list | tuple):
                items = [fitted(item, get_args(kind)[0]) for item in value]
                return MISFIT if MISFIT in items else type(value)(items)
        elif isinstance(plain, type) and isinstance(value, plain):
            return value
    return MISFIT


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union; of a `Literal`, the types of its words."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [kind for member in get_args(annotation) for kind in _alternatives(member)]
    return list({type(word): 0 for word in get_args(annotation)}) if origin is Literal else [annotation]


def in_words(annotation: Any) -> str:
    """An annotation in words: `float, a list of float or None`."""
    names = [_word(kind) for kind in _alternatives(annotation) if kind is not Path]  # which nobody can type
    return " or ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _word(kind: Any) -> str:
    if get_origin(kind) is abc.Sequence:
        return f"a list of {in_words(get_args(kind)[0])}"
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind))
