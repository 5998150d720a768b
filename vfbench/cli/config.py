"""Arguments and configuration file of the command line, and the origin of each value.

[run]                 --config file.toml: one table per command, one key per flag
steps = 50

[data.verify]         one table for each command of a group
full = true
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vfbench.errors import MissingData, UserError, nearest, unknown
from vfbench.utils.files import read_text

# fmt: off
_PATH_FLAGS = (
    "--output", "-o", "--checkpoint", "--init-from", "--base-from", "--data-root",
    "--real", "--fake", "--manifest", "--prompts", "--list",
    "--baseline", "--history", "--benchmark", "--junit", "--csv", "--plot", "--mean",
)
# fmt: on
_SWITCHES = ("--version", "--quiet", "--verbose")  # of every command
PREFIX = "VFBENCH_"  # of the variable of a flag
_NO_FLAGS = ("CACHE", "DATA", "WEIGHTS", "TEST_DATA")  # variables that no flag has, without the prefix
ORIGINS = {"COMMANDLINE": "command line", "ENVIRONMENT": "environment", "DEFAULT_MAP": "configuration file"}


def normalise_arguments(arguments: Sequence[str]) -> list[str]:
    """Replace `_` by `-` in flags, and move the flags that all commands share before the command.

    Raises `UserError` for an empty path, such as an unset variable of the shell: it would be read as `.`.
    """
    flags = [_kebab(argument) for argument in arguments]
    for flag, value in itertools.chain((f.split("=", 1) for f in flags if "=" in f), itertools.pairwise(flags)):
        if flag in _PATH_FLAGS and not value:
            raise UserError(f"{flag} is empty: give a path, or leave the flag out")
    switches = [flag for flag in flags if flag in _SWITCHES]
    flags = [flag for flag in flags if flag not in _SWITCHES]
    start = next((i for i, flag in enumerate(flags) if flag.partition("=")[0] == "--config"), None)
    if start is None:
        return [*switches, *flags]
    end = start + (1 if "=" in flags[start] else 2)
    return [*switches, *flags[start:end], *flags[:start], *flags[end:]]


def _kebab(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument


def split_list(text: str) -> list[str]:
    """Split text at commas outside brackets: `fvd,kvd(degree=2, coef0=0.0)` has two parts."""
    parts = re.split(r",(?![^()]*\))", text)
    return [part.strip() for part in parts if part.strip()]


def rejoin(items: Sequence[str]) -> list[str]:
    """Items of a repeated flag, put together again where a blank within brackets has split one."""
    whole: list[str] = []
    for item in items:
        if whole and whole[-1].count("(") > whole[-1].count(")"):
            whole[-1] += f" {item}"
        else:
            whole.append(item)
    return whole


def parse_weights(text: str, flag: str) -> dict[str, float]:
    """Parse `text=0.8,none=0.2` to numbers by name; raises `UserError` naming the flag for anything else."""
    pairs = [part.partition("=") for part in split_list(text)]
    try:
        weights = {name.strip(): float(number) for name, _, number in pairs}
    except ValueError:
        weights = {}
    if not weights or len(weights) < len(pairs):
        raise UserError(f"{flag} '{text}': give each name once with a number, such as class=0.9,none=0.1")
    return weights


def load_defaults(config: Path, commands: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read a configuration file as defaults of each command; raises `UserError` for an unknown table or key."""
    if config.exists() and not config.is_file():  # reading a pipe would wait for ever
        raise UserError(f"--config {config} is not a file: give a TOML file")
    try:
        content = tomllib.loads(read_text(config))
    except (MissingData, RecursionError, ValueError) as error:
        raise UserError(f"--config {config}: {error}") from error
    return _group_defaults(f"in {config}", "", commands, content)


def _group_defaults(where: str, prefix: str, commands: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of several commands; a group such as `data` has one table per command: `[data.verify]`."""
    defaults: dict[str, Any] = {}
    for name, values in content.items():
        if name not in commands or not isinstance(values, dict):
            known = [f"{prefix}{command}" for command in commands]
            raise unknown(f"table (one per command) {where}", f"{prefix}{name}", known)
        if subcommands := getattr(commands[name], "commands", None):
            defaults[name] = _group_defaults(where, f"{name}.", subcommands, values)
        else:
            defaults[name] = _command_defaults(f"[{prefix}{name}] {where}", commands[name], values)
    return defaults


def _command_defaults(table: str, command: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        flag.lstrip("-").replace("-", "_"): parameter
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--")
    }
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        if (flag := key.replace("-", "_")) not in known:
            raise unknown(f"key of {table}", key, known)
        # Text, so that values are parsed as on the command line.
        texts = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        defaults[known[flag].name] = texts if known[flag].multiple else ",".join(texts)
    return defaults


def require_known_variables(group: Any, variables: Iterable[str]) -> None:
    """Raise `UserError` for a variable `VFBENCH_...` that no flag of any command has, with the nearest one that has."""
    ours = sorted(name for name in variables if name.startswith(PREFIX))
    known = {*_NO_FLAGS, *_variables(group)} if ours else set()
    for name in (name.removeprefix(PREFIX) for name in ours):
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {PREFIX}{near}? Else " if near else ""
            raise UserError(f"environment variable {PREFIX}{name}: no command has a flag of this name; {hint}unset it")


def _variables(command: Any) -> Iterator[str]:
    """Variables of the flags of a command and of those below it, without their prefix."""
    for parameter in command.params:
        if parameter.envvar:
            yield parameter.envvar.removeprefix(PREFIX)
    for below in getattr(command, "commands", {}).values():
        yield from _variables(below)


def origins(context: Any) -> dict[str, str]:
    """Origin of each parameter's value: command line, environment, configuration file or default."""
    sources = {p.name: context.get_parameter_source(p.name) for p in context.command.params}
    return {name: ORIGINS.get(source.name, "default") for name, source in sources.items() if source}


def value_source(error: Any) -> str:
    """Source of a value that typer cannot parse, for its message; empty where it was typed on the command line."""
    source = error.ctx.get_parameter_source(error.param.name) if error.ctx and error.param else None
    places = {"ENVIRONMENT": getattr(error.param, "envvar", None), "DEFAULT_MAP": "the configuration file"}
    where = places.get(source.name) if source else None
    return f" (from {where})" if where else ""
