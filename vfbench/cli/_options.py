"""Flags of commands: derived from an options dataclass, or declared here where several commands share them."""

from __future__ import annotations

import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import typer

from vfbench.cli import config
from vfbench.errors import UserError
from vfbench.utils import console, escape
from vfbench.utils.options import flags

if TYPE_CHECKING:
    from typer import Context as Context

    from vfbench.report.render import Table
    from vfbench.report.results import Result
else:
    Context = typer.Context.__base__  # typer accepts this annotation, and passes an instance of the base class


def option(*names: str, help: str, env: bool = True, **extra: Any) -> Any:
    """Typer option whose value may also come from the environment, as VFBENCH_<FLAG>."""
    long_name = next(name for name in names if name.startswith("--")).partition("/")[0]
    name = long_name.lstrip("-").replace("-", "_").upper()
    return typer.Option(*names, help=help, envvar=f"{config.PREFIX}{name}" if env else None, show_envvar=False, **extra)


def flags_from(
    *options: type, only: Collection[str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: give a command one flag per field of each dataclass, and pass it an instance of each.

    `only` names the fields that get a flag. The command's own parameters follow these flags.
    """
    parameters = [inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Context)]
    converters: list[dict[str, Callable[[Any], Any]]] = []
    for kind in options:
        hints, fields = get_type_hints(kind), [field for field in flags(kind) if only is None or field.name in only]
        flag_types = {field.name: _flag_type(hints[field.name], field) for field in fields}
        parameters += [flag_type.parameter for flag_type in flag_types.values()]
        converters.append({name: flag_type.convert for name, flag_type in flag_types.items()})
    parameters.sort(key=lambda parameter: parameter.default is not parameter.empty)  # required ones first

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        command_parameters = list(inspect.signature(command, eval_str=True).parameters.values())[len(options) :]

        @functools.wraps(command)
        def wrapper(context: Any, **values: Any) -> None:
            instances = []
            for kind, convert in zip(options, converters, strict=True):
                fields = {name: to_field(values.pop(name)) for name, to_field in convert.items()}
                if "origins" in get_type_hints(kind):
                    fields["origins"] = config.origins(context)
                instances.append(kind(**fields))
            command(*instances, **values)

        command_parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in command_parameters]
        wrapper.__signature__ = inspect.Signature([*parameters, *command_parameters])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {each.name: each.annotation for each in [*parameters, *command_parameters]}
        del wrapper.__wrapped__  # typer would read its signature
        return wrapper

    return decorate


class _FlagType(NamedTuple):
    """Parameter of a command that typer turns into a flag, and the conversion of its value to that of the field."""

    parameter: inspect.Parameter
    convert: Callable[[Any], Any]


def _flag_type(hint: Any, field: Field[Any]) -> _FlagType:
    names = field.metadata["names"] or (f"--{field.name.replace('_', '-')}",)
    metavar: dict[str, Any] = {"metavar": "PATH"} if Path in get_args(hint) else {}
    declared = option(*names, help=field.metadata["help"], env=field.metadata["env"], **metavar)
    kind, default, convert = _typer_type(hint, field.default, names[-1], field.metadata["repeat"])
    annotation = Annotated.__class_getitem__((kind, declared))  # type: ignore[attr-defined]
    parameter = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    return _FlagType(parameter, convert)


def _typer_type(hint: Any, default: Any, flag: str, repeat: bool) -> tuple[Any, Any, Callable[[Any], Any]]:
    """Type and default of a flag for typer, and the conversion from its value to that of the field."""
    members = get_args(hint) if get_origin(hint) is not Literal else ()
    if get_origin(hint) is Sequence:
        if repeat:  # the environment's value is split at blanks, also within brackets
            return list[str] | None, None, lambda items: tuple(config.rejoin(items or ()))
        return str, "", lambda text: tuple(config.split_list(text))
    if any(get_origin(member) is Mapping for member in members):
        return str | None, None, lambda text: config.parse_weights(text, flag) if text else None
    if int in members and type(None) not in members:  # a number or a word
        return str, str(default), parse_batch_size
    if Path in members:  # kept as text, which may also be a name on the hub
        is_required = default is MISSING
        return (
            (str if is_required else str | None),
            (inspect.Parameter.empty if is_required else None),
            lambda text: text,
        )
    return hint, inspect.Parameter.empty if default is MISSING else default, lambda value: value


def parse_batch_size(text: str) -> int | Literal["auto"]:
    """Value of --batch-size; raises `UserError` for text that is neither an integer nor auto."""
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"--batch-size {text} is invalid: give a whole number or auto") from error


def print_plans(plans: Iterable[tuple[Any, Any]], as_json: bool) -> None:
    """Print plans of `run` or `score`, each with the estimate of its time or None; several as a JSON list.

    Each plan, which holds a model, is dropped before the next is made.
    """
    from vfbench.utils import files

    contents = []
    for plan, estimate in plans:
        if as_json:
            measured = {} if estimate is None else {"estimate": estimate.to_json()}
            contents.append({**plan.specification.to_json(), **measured})
        else:
            console.result("\n".join(each.describe() for each in (plan, estimate) if each is not None))
    if as_json:
        console.result(files.as_json(contents if len(contents) > 1 else contents[0]))


def print_result(result: Result, as_json: bool) -> None:
    """Print a result as a table with one row, or as JSON."""
    from vfbench.report import table
    from vfbench.utils import files

    if as_json:
        print(files.as_json(result.to_json()), end="")
    else:
        print_table(table.build([result], allow_mixed=True))


def print_table(table: Table) -> None:
    """Print a table: drawn on a terminal, as Markdown elsewhere."""
    from vfbench.report import render

    if not console.is_terminal(sys.stdout):
        console.result(table.to_markdown(), end="")
        return
    from rich.console import Console

    terminal = Console()
    if render.grid_width(table) <= terminal.width:
        terminal.print(render.to_rich(table))
    else:  # rich would cut numbers off
        console.result(table.to_markdown(terminal.width), end="")


def next_command(*words: object) -> None:
    """Print the command to continue with, on stderr."""
    command = shlex.join(["python", "-m", "vfbench", *map(str, words)])
    console.info(f"next: {escape.printable(command)}")


DataRoot = Annotated[Path | None, option("--data-root", help="Folder of the dataset's files; VFBENCH_DATA by default.")]
AsJson = Annotated[bool, option("--json", help="Print JSON instead of text.")]
DryRun = Annotated[bool, option("--dry-run", help="Print the plan and stop.")]
