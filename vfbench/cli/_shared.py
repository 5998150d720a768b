"""What the files of commands share: options that the environment can give, batch sizes, and the next command."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any, Literal

import typer

from vfbench.errors import UserError

if TYPE_CHECKING:
    from typer import Context as Context
else:
    Context = typer.Context.__base__  # typer takes a parameter of its own class, and passes one of this


def option(*flags: str, help: str, **more: Any) -> Any:  # typer's own word
    """An option that can also be given as VFBENCH_<FLAG>."""
    name = next(flag for flag in flags if flag.startswith("--")).lstrip("-").replace("-", "_").upper()
    return typer.Option(*flags, help=help, envvar=f"VFBENCH_{name}", show_envvar=False, **more)


def whole(text: str) -> int | Literal["auto"]:
    """The value of --batch-size; raises `UserError` for what is neither a whole number nor auto."""
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"--batch-size {text}: a whole number, or auto") from error


def next_command(*words: object) -> None:
    """Say which command looks at what was made."""
    print(f"next: {shlex.join(['python', '-m', 'vfbench', *map(str, words)])}", file=sys.stderr)
