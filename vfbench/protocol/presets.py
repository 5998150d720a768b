"""Published evaluation protocols, one TOML file each: every field of `Protocol` with its source.

summary, home     one line, and the default repository of the sources
deviations        parts that vfbench does not reproduce, a sentence each
[values]          every field of a protocol; `unknown` where the source is silent
[instead]         value that vfbench uses for each `unknown`
[sources]         file, issue or reason for every field
[datasets.NAME.*] these three tables for fields that differ on a dataset
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
from vfbench.utils.escape import printable

UNKNOWN = "unknown"
# Fields that only a dataset and a run determine.
RUN_FIELDS = frozenset({"name", "comparable", "dataset", "data_fingerprint", "manifest"})
PRESET_FIELDS = frozenset(Protocol.model_fields) - RUN_FIELDS
DEFAULTS = {name: field.default for name, field in Protocol.model_fields.items() if not field.is_required()}


class SourcedFields(BaseModel):
    """Fields of a protocol, each with its source; `instead` has the value that vfbench uses for each `unknown`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: Mapping[str, Any]
    instead: Mapping[str, Any] = {}
    sources: Mapping[str, str]

    @model_validator(mode="after")
    def _complete(self) -> SourcedFields:
        if extra := set(self.values) - PRESET_FIELDS:
            raise ValueError(f"no field of a protocol: {', '.join(sorted(extra))}")
        silent = {field for field, value in self.values.items() if value == UNKNOWN}
        for table, fields, expected in (("sources", self.sources, self.values), ("instead", self.instead, silent)):
            if mismatch := set(fields) ^ set(expected):
                raise ValueError(f"values and {table} do not agree in {', '.join(sorted(mismatch))}")
        return self


class Preset(SourcedFields):
    """Published protocol: every field, exceptions for some datasets, and deviations of vfbench."""

    name: str
    summary: str
    home: str
    deviations: tuple[str, ...]
    datasets: Mapping[str, SourcedFields] = {}

    @model_validator(mode="after")
    def _all_fields(self) -> Preset:
        if missing := PRESET_FIELDS - set(self.values):
            raise ValueError(f"no value for {', '.join(sorted(missing))}")
        return self

    def describe(self) -> str:
        """Text that lists every field with value and source, and the deviations."""
        lines = [f"{self.name}: {self.summary}", f"Sources are in {self.home} unless they name another place.", ""]
        lines += _field_lines(self)
        for dataset, fields in self.datasets.items():
            lines += ["", f"On {dataset}:", *_field_lines(fields)]
        if self.deviations:
            lines += ["", "Not reproduced:", *(f"- {deviation}" for deviation in self.deviations)]
        return "\n".join(lines)


@cache
def available() -> Mapping[str, Preset]:
    """All presets by name, the stem of their file."""
    files = sorted(Path(__file__).parent.glob("*.toml"))
    return {file.stem: Preset(name=file.stem, **tomllib.loads(file.read_text(encoding="utf-8"))) for file in files}


def load(name: str, *other_names: str) -> Preset:
    """Preset called `name`; raises `UserError` with the nearest name among the presets and `other_names`."""
    if name not in available():
        raise unknown("protocol", name, [*available(), *other_names])
    return available()[name]


def for_dataset(preset: Preset, dataset: str, settled: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fields of a `Protocol` that follows a preset on a dataset: all but `RUN_FIELDS`.

    `settled` are fields that the dataset fixes and that override the preset: Moving Shapes has nothing to crop.
    `n_real` is `all` where the preset takes every video; the caller counts them.
    """
    exceptions = preset.datasets.get(dataset)
    overrides = {**exceptions.values, **exceptions.instead} if exceptions else {}
    return {**preset.values, **preset.instead, **overrides, **(settled or {})}


def different_fields(
    ours: Preset | Mapping[str, Any], theirs: Preset | Mapping[str, Any]
) -> dict[str, tuple[str, str]]:
    """Fields in which two protocols differ, each with both values as text; only fields that both have are compared.

    A protocol is a preset, or the fields of a protocol such as a result records. A preset is compared with fields on
    their dataset. Two presets are compared in general, then on each dataset that either names: `ucf101: split`.
    """
    if isinstance(ours, Preset) and isinstance(theirs, Preset):
        pairs = _different_fields(for_dataset(ours, ""), for_dataset(theirs, ""))
        for dataset in sorted({*ours.datasets, *theirs.datasets}):
            on_dataset = _different_fields(for_dataset(ours, dataset), for_dataset(theirs, dataset))
            pairs |= {f"{dataset}: {field}": pair for field, pair in on_dataset.items() if pairs.get(field) != pair}
        return pairs
    sides = (ours, theirs)
    dataset = next(str(side.get("dataset", "")) for side in sides if not isinstance(side, Preset))
    return _different_fields(*(for_dataset(side, dataset) if isinstance(side, Preset) else side for side in sides))


def _different_fields(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    ours, theirs = {**DEFAULTS, **ours}, {**DEFAULTS, **theirs}  # older results lack some fields
    shared = [field for field in ours if field in theirs]
    left, right = (dict(flatten({field: fields[field] for field in shared})) for fields in (ours, theirs))
    pairs = {field: (left.get(field, "-"), right.get(field, "-")) for field in {**left, **right}}
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


def flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Fields and their values as text without line breaks; nested fields have dotted names: `measures.fvd.metric`."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield printable(f"{prefix}{name}"), printable(_sort_options(str(value)))


def _sort_options(text: str) -> str:
    """Sort the options of a spec: `name(b=2, a=1)` becomes `name(a=1, b=2)`."""
    name, bracket, inside = text.partition("(")
    if not (bracket and inside.endswith(")")):
        return text
    return f"{name}({', '.join(sorted(inside[:-1].split(', ')))})"


def align_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of text, one per row, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _field_lines(fields: SourcedFields) -> list[str]:
    rows = []
    for field, value in fields.values.items():
        text = f"{UNKNOWN}, here {fields.instead[field]}" if field in fields.instead else value
        parts = list(flatten({field: text}))
        rows += [(*part, fields.sources[field] if part is parts[0] else "") for part in parts]
    return align_columns(rows)
