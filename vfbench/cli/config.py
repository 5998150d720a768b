"""What the user typed and configured, before and beside the commands: spelling, configuration file, origins.

[run]                 --config file.toml: one table per command, one key per flag
steps = 50

[data.verify]         one for each command of a group
full = true
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vfbench.errors import UserError, unknown

_PLACES = ("--output", "--checkpoint", "--init-from", "--base-from", "--data-root")
ORIGINS = {"COMMANDLINE": "command line", "ENVIRONMENT": "environment", "DEFAULT_MAP": "configuration file"}


def normal(arguments: Sequence[str]) -> list[str]:
    """--num_samples=8 is --num-samples=8, and --config may stand behind the command, too.

    Raises `UserError` for an empty place, such as a variable of the shell that is not set: it would be taken for `.`.
    """
    flags = [_kebab(argument) for argument in arguments]
    for flag, value in itertools.chain((f.split("=", 1) for f in flags if "=" in f), itertools.pairwise(flags)):
        if flag in _PLACES and not value:
            raise UserError(f"{flag} is empty: name a place, or leave it out")
    place = next((i for i, flag in enumerate(flags) if flag.partition("=")[0] == "--config"), None)
    if place is None:
        return flags
    end = place + (1 if "=" in flags[place] else 2)
    return [*flags[place:end], *flags[:place], *flags[end:]]


def _kebab(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument


def listed(text: str) -> list[str]:
    """`fvd,kvd(degree=2, coef0=0.0)` as its two parts: commas within brackets belong to a part."""
    parts = re.split(r",(?![^()]*\))", text)
    return [part.strip() for part in parts if part.strip()]


def weighted(text: str, flag: str) -> dict[str, float]:
    """`text=0.8,none=0.2` as numbers by name; raises `UserError` naming the flag for anything else."""
    pairs = [part.partition("=") for part in listed(text)]
    try:
        found = {name.strip(): float(number) for name, _, number in pairs}
    except ValueError:
        found = {}
    if not found or len(found) < len(pairs):
        raise UserError(f"{flag} '{text}': give each name once with a number, such as class=0.9,none=0.1")
    return found


def defaults(config: Path, commands: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A configuration file as the defaults of each command; raises `UserError` for what no command takes."""
    try:
        content = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--config {config}: {error}") from error
    return _of_commands(f"in {config}", "", commands, content)


def _of_commands(where: str, above: str, commands: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of commands; a group of commands, such as `data`, has a table for each: `[data.verify]`."""
    found: dict[str, Any] = {}
    for verb, values in content.items():
        if verb not in commands or not isinstance(values, dict):
            raise unknown(f"table (one per command) {where}", f"{above}{verb}", [f"{above}{name}" for name in commands])
        if inner := getattr(commands[verb], "commands", None):
            found[verb] = _of_commands(where, f"{verb}.", inner, values)
        else:
            found[verb] = _of_command(f"[{above}{verb}] {where}", commands[verb], values)
    return found


def _of_command(place: str, command: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        flag.lstrip("-").replace("-", "_"): parameter
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--")
    }
    found: dict[str, Any] = {}
    for key, value in values.items():
        if (flag := key.replace("-", "_")) not in known:
            raise unknown(f"key of {place}", key, known)
        # As text, so that it is read just as on the command line: 1.5 is no whole number there either.
        texts = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        found[known[flag].name] = texts if known[flag].multiple else ",".join(texts)
    return found


def origins(context: Any) -> dict[str, str]:
    """Where the value of each parameter of a command came from, for the record."""
    sources = {p.name: context.get_parameter_source(p.name) for p in context.command.params}
    return {name: ORIGINS.get(source.name, "default") for name, source in sources.items() if source}


def place(error: Any) -> str:
    """For the message of a value that cannot be read, where it stands if it was not typed."""
    source = error.ctx.get_parameter_source(error.param.name) if error.ctx and error.param else None
    places = {"ENVIRONMENT": getattr(error.param, "envvar", None), "DEFAULT_MAP": "the configuration file"}
    where = places.get(source.name) if source else None
    return f" (from {where})" if where else ""
