"""The field's evaluation protocols as data, one TOML file each: every field of `Protocol`, and where it comes from.

summary, home     one line, and the repository that sources are in unless they name another
deviations        what vfbench does not reproduce, a sentence each
[values]          every field of a protocol; `unknown` where the source is silent ...
[instead]         ... and what vfbench does there
[sources]         the file, issue or reason of every field
[datasets.NAME.*] the same three for fields that differ on a dataset
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from vfbench.errors import unknown
from vfbench.protocol.protocol import Protocol

UNKNOWN = "unknown"
# What only a dataset and a run can say.
OF_DATA = frozenset({"name", "comparable", "dataset", "data_fingerprint", "manifest"})
RULES = frozenset(Protocol.model_fields) - OF_DATA
DEFAULTS = {name: field.default for name, field in Protocol.model_fields.items() if not field.is_required()}


class Rules(BaseModel):
    """Fields of a protocol, each with its source; `instead` says what vfbench does where a value is `unknown`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: Mapping[str, Any]
    instead: Mapping[str, Any] = {}
    sources: Mapping[str, str]

    @model_validator(mode="after")
    def _complete(self) -> Rules:
        if strange := set(self.values) - RULES:
            raise ValueError(f"no field of a protocol: {', '.join(sorted(strange))}")
        silent = {field for field, value in self.values.items() if value == UNKNOWN}
        for what, has, due in (("sources", self.sources, self.values), ("instead", self.instead, silent)):
            if wrong := set(has) ^ set(due):
                raise ValueError(f"values and {what} do not agree in {', '.join(sorted(wrong))}")
        return self


class Preset(Rules):
    """A protocol of the field: rules for every field, what differs on some datasets, what is not reproduced."""

    name: str
    summary: str
    home: str
    deviations: tuple[str, ...]
    datasets: Mapping[str, Rules] = {}

    @model_validator(mode="after")
    def _whole(self) -> Preset:
        if missing := RULES - set(self.values):
            raise ValueError(f"no value for {', '.join(sorted(missing))}")
        return self

    def describe(self) -> str:
        """Every field with value and source, and the deviations, as lines to read."""
        lines = [f"{self.name}: {self.summary}", f"Sources are in {self.home} unless they name another place.", ""]
        lines += _table(self)
        for dataset, rules in self.datasets.items():
            lines += ["", f"On {dataset}:", *_table(rules)]
        if self.deviations:
            lines += ["", "Not reproduced:", *(f"- {deviation}" for deviation in self.deviations)]
        return "\n".join(lines)


@cache
def available() -> Mapping[str, Preset]:
    """Every preset by its name, that of its file."""
    files = sorted(Path(__file__).parent.glob("*.toml"))
    return {file.stem: Preset(name=file.stem, **tomllib.loads(file.read_text(encoding="utf-8"))) for file in files}


def load(name: str, *others: str) -> Preset:
    """The preset called `name`; raises `UserError` with the nearest name, of presets and of `others` that there are."""
    if name not in available():
        raise unknown("protocol", name, [*available(), *others])
    return available()[name]


def for_dataset(preset: Preset, dataset: str, does: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields that a preset gives to a `Protocol` on a dataset: all but those of `OF_DATA`.

    `does` are fields that the dataset settles, whatever the preset wants: Moving Shapes has nothing to crop.
    `n_real` is `all` where the preset takes every video: the caller counts them.
    """
    there = preset.datasets.get(dataset)
    special = {**there.values, **there.instead} if there else {}
    return {**preset.values, **preset.instead, **special, **(does or {})}


def differences(ours: Preset | Mapping[str, Any], theirs: Preset | Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The fields in which two protocols differ, each with both values as text; fields that one lacks are not compared.

    Each is a preset or the fields of a protocol, such as a result records. A preset beside fields is taken on their
    dataset. Two presets are compared in general, then on each dataset that one of them names: `ucf101: split`.
    """
    if isinstance(ours, Preset) and isinstance(theirs, Preset):
        found = _differing(for_dataset(ours, ""), for_dataset(theirs, ""))
        for dataset in sorted({*ours.datasets, *theirs.datasets}):
            there = _differing(for_dataset(ours, dataset), for_dataset(theirs, dataset))
            found |= {f"{dataset}: {field}": pair for field, pair in there.items() if found.get(field) != pair}
        return found
    dataset = next(str(one["dataset"]) for one in (ours, theirs) if not isinstance(one, Preset))
    return _differing(*(for_dataset(one, dataset) if isinstance(one, Preset) else one for one in (ours, theirs)))


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    ours, theirs = {**DEFAULTS, **ours}, {**DEFAULTS, **theirs}  # a result may be older than a field
    shared = [field for field in ours if field in theirs]
    mine, other = (dict(flat({field: fields[field] for field in shared})) for fields in (ours, theirs))
    pairs = {field: (mine.get(field, "-"), other.get(field, "-")) for field in {**mine, **other}}
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


def flat(fields: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Fields and their values as text, in order; what holds several is told apart by dots: `measures.fvd.metric`."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", _ordered(str(value))


def _ordered(text: str) -> str:
    """`name(b=2, a=1)` with its options in order, so that two spellings of one spec are one text."""
    name, bracket, inside = text.partition("(")
    if not (bracket and inside.endswith(")")):
        return text
    return f"{name}({', '.join(sorted(inside[:-1].split(', ')))})"


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines, their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _table(rules: Rules) -> list[str]:
    rows = []
    for field, value in rules.values.items():
        said = f"{UNKNOWN}, here {rules.instead[field]}" if field in rules.instead else value
        parts = list(flat({field: said}))
        rows += [(*part, rules.sources[field] if part is parts[0] else "") for part in parts]
    return columns(rows)
