"""Options of a plug-in as text and as JSON: default, type or choices, and purpose.

A plug-in annotates an option with `Annotated[str, ("zero", "hashed"), "First frame of a clip."]`: the choices, any
collection of words, and the purpose, one short line. A `Literal` has its choices in itself. Both parts may be left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vfbench import plugins

Options = Mapping[str, inspect.Parameter]
WIDEST = 45  # characters of a cell that is aligned; a longer one pushes the rest of its line to the right


def choices(annotation: Any) -> list[Any]:
    """Values that an option may have; empty where its type alone limits them."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return list(arguments)
    if get_origin(annotation) in (Union, UnionType):
        return [choice for member in arguments for choice in choices(member)]
    if get_origin(annotation) is not Annotated:
        return []
    collections = [item for item in arguments[1:] if isinstance(item, Collection) and not isinstance(item, str)]
    return [*choices(arguments[0]), *(choice for collection in collections for choice in collection)]


def purpose(annotation: Any) -> str:
    """Line on what an option does; empty where the plug-in gives none."""
    if get_origin(annotation) is Annotated:
        texts = [item for item in get_args(annotation)[1:] if isinstance(item, str)]
        return texts[-1] if texts else purpose(get_args(annotation)[0])
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    return next((text for member in members if (text := purpose(member))), "")


def defaults(options: Options) -> dict[str, Any]:
    """Defaults by name, without options that must be given."""
    return {name: p.default for name, p in options.items() if p.default is not inspect.Parameter.empty}


def records(options: Options) -> dict[str, dict[str, Any]]:
    """Type, choices and purpose of each option, for JSON."""
    return {
        name: {
            "type": plugins.describe_type(parameter.annotation),
            "choices": choices(parameter.annotation),
            "purpose": purpose(parameter.annotation),
        }
        for name, parameter in options.items()
    }


def lines(options: Options) -> list[str]:
    """One line per option, with aligned columns: name and default, type or choices, purpose."""
    return _align([_row(name, parameter) for name, parameter in options.items()])


def _row(name: str, parameter: inspect.Parameter) -> tuple[str, str, str]:
    annotation = parameter.annotation
    kind = plugins.describe_type(annotation, choices(annotation))
    default = "(required)" if parameter.default is inspect.Parameter.empty else f"= {parameter.default!r}"
    return f"{name} {default}", kind, purpose(annotation)


def _align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [
        max((len(cell) for cell in column if len(cell) <= WIDEST), default=0) for column in zip(*rows, strict=True)
    ]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
