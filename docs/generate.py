"""Pages made from the code: commands, protocols, options, and the table that a notebook shows.

`conf.py` writes them to docs/_generated before each build. Markdown files are pages, text files are parts of pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import typer.main

import vfbench
from vfbench.cli import app
from vfbench.pipeline.options import RunOptions
from vfbench.protocol import presets
from vfbench.scoring.options import ScoreOptions
from vfbench.training.options import TrainJob

ROOT = Path(__file__).parent.parent
RECORDS = ("vdm", "videofusion", "frozen", "noise", "real")  # in the order of the README's table
OPTIONS = {"run": RunOptions, "score": ScoreOptions, "train": TrainJob}


def write(folder: Path) -> None:
    """Write all files below `folder`, delete stale ones, and leave those as they are that have not changed."""
    made = {folder / name: text for name, text in files().items()}
    for path in folder.rglob("*.*"):
        if path not in made:
            path.unlink()
    for path, text in made.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def files() -> dict[str, str]:
    """Content of every generated file by its path."""
    group = typer.main.get_command(app)
    return {
        **{f"commands/{name}.md": command_page(name, command) for name, command in _children(group).items()},
        **{f"protocols/{name}.md": protocol_page(preset) for name, preset in presets.available().items()},
        **{f"options-{name}.txt": options_table(options) for name, options in OPTIONS.items()},
        "commands.txt": _table(["command", "what it does"], _summaries(group)),
        "global-flags.txt": _flags(group),
        "protocols.txt": _table(
            ["protocol", "what it is"],
            [(f"[{name}](_generated/protocols/{name}.md)", p.summary) for name, p in presets.available().items()],
        ),
        "notebook.txt": vfbench.table([ROOT / f"results/records/{name}.json" for name in RECORDS])._repr_html_(),
    }


# Commands.


class Sections:
    """Formatter of a help page that keeps the headings and their rows."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[str, str]]] = {}
        self._heading = ""

    @contextmanager
    def section(self, heading: str) -> Iterator[None]:
        """Put the rows to come below a heading."""
        self._heading = heading
        yield

    def write_dl(self, rows: Sequence[tuple[str, str]], *_: Any, **__: Any) -> None:
        """Keep rows of flag and help."""
        self.rows.setdefault(self._heading, []).extend(rows)


def _children(group: Any) -> Mapping[str, Any]:
    return getattr(group, "commands", {})


def _summaries(group: Any) -> list[tuple[str, str]]:
    return [
        (f"[{name}](_generated/commands/{name}.md)", (command.help or "").split("\n\n")[0].replace("\n", " "))
        for name, command in _children(group).items()
    ]


def command_page(name: str, command: Any, level: int = 1) -> str:
    """Usage, description and flags of a command in their groups; of each command below it as well."""
    parts = [f"{'#' * level} {name}", _prose(command.help or "")]
    if children := _children(command):
        parts += [command_page(f"{name} {child}", each, level + 1) for child, each in children.items()]
    else:
        usage = " ".join(command.collect_usage_pieces(command.context_class(command, info_name=name)))
        parts += [f"```text\npython -m vfbench {name} {usage}\n```", _flags(command)]
    return "\n\n".join(parts) + "\n"


def _flags(command: Any) -> str:
    context, sections = command.context_class(command, info_name=command.name), Sections()
    if _children(command):
        found = [each.get_help_record(context) for each in command.get_params(context)]
        sections.write_dl([record for record in found if record])
    else:
        command.format_options(context, sections)
    parts = []
    for heading, records in sections.rows.items():
        rows = [(flag, text) for flag, text in records if not flag.endswith("--help")]
        if not rows:
            continue
        table = _table(["flag", "meaning"], [(f"`{flag}`", _meaning(text)) for flag, text in rows])
        parts.append(f"**{heading}**\n\n{table}" if heading else table)
    return "\n".join(parts)


def _meaning(text: str) -> str:
    """Help of a flag, with its default as a sentence."""
    text = re.sub(r"\s*\[default: (.*?)\]$", r" Default: `\1`.", text.strip())
    return _prose(re.sub(r"\s*\[required\]$", " Required.", text))


def _prose(text: str) -> str:
    """Help as Markdown: angle brackets and asterisks outside of code are text."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else re.sub(r"([<>*_\[\]])", r"\\\1", piece) for piece in pieces)


# Protocols.


def protocol_page(preset: presets.Preset) -> str:
    """Every field of a protocol with value and source, its exceptions on some datasets, and what is not reproduced."""
    parts = [
        f"# {preset.name}",
        _prose(preset.summary) + ".",
        f"Sources are in {preset.home} unless they name another place." if "://" in preset.home else "",
        _protocol_fields(preset),
    ]
    for dataset, exceptions in preset.datasets.items():
        parts += [f"## On {dataset}", _protocol_fields(exceptions)]
    if preset.deviations:
        parts += ["## What vfbench does not reproduce", "\n".join(f"- {_prose(text)}" for text in preset.deviations)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _protocol_fields(table: presets.SourcedFields) -> str:
    rows = []
    for field, value in table.values.items():
        source = _prose(table.sources[field])
        for name, text in presets.flatten({field: value}):
            unknown = f"unknown; here `{table.instead[field]}`" if field in table.instead else f"`{text}`"
            rows.append((f"`{name}`", unknown, source))
            source = "as above"
    return _table(["field", "value", "source"], rows)


# Python.


def options_table(options: type) -> str:
    """Name, type, default and meaning of every option that has a flag."""
    rows = []
    for field in fields(options):
        if help := field.metadata.get("help"):
            default = "required" if field.default is MISSING else f"`{field.default!r}`"
            rows.append((f"`{field.name}`", f"`{field.type}`", default, _prose(help)))
    return _table(["argument", "type", "default", "meaning"], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, [":--"] * len(header), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
