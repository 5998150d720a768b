"""Which rules a measurement follows: a protocol that the dataset's file names, or a preset of the field.

The dataset does what it can of the rules, as options of its `build`; what it settles itself it says in `SETTLED`. What
its user says goes before both, and the protocol records what is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from vfbench import plugins
from vfbench.errors import UserError
from vfbench.plugins import Spec
from vfbench.protocol import presets
from vfbench.protocol.protocol import SEVERAL, SMOKE

STRICT = "strict"  # the preset of a dataset that names no protocol of its own
WAYS = ("seeded", "windows")  # selections that draw by a seed
CUTTING = ("start", "geometry", "filter", "antialias")  # fields that are `own` where a dataset takes no such option
CUT = ("frames", "height", "width", "stride", "drop_first", *CUTTING)  # fields that are options of a dataset


def protocols(dataset: str) -> Mapping[str, Mapping[str, Any]]:
    """The protocols that a dataset's file names, the first being its default."""
    offered: Mapping[str, Mapping[str, Any]] = getattr(plugins.module("dataset", dataset), "PROTOCOLS", {})
    return offered


def rules(spec: Spec, name: str | None, *, smoke: bool) -> dict[str, Any]:
    """The fields of the protocol called `name` on a dataset, as far as they can be known before it is built.

    Without a name: the dataset's first that is comparable (any, in a smoke run), else the preset `strict`. Raises
    `UserError` with the nearest name, for a protocol of plumbing outside a smoke run, or options that contradict it.
    """
    own = protocols(spec.name)
    usable = {key: fields for key, fields in own.items() if smoke or fields.get("comparable", True)}
    if name is None and not usable and smoke:
        return {"name": "smoke", **SMOKE}
    chosen = name or next(iter(usable), STRICT)
    if chosen in own and chosen not in usable:
        raise UserError(f"protocol {chosen} of {spec.name} is not comparable: add --smoke to try the path with it")
    if chosen not in usable and chosen not in presets.available() and (theirs := _owners(chosen)):
        raise UserError(f"protocol {chosen} is of dataset {', '.join(theirs)}, not of {spec.name}: see `ls protocols`")
    fields = usable[chosen] if chosen in usable else _preset(presets.load(chosen, *usable), spec)
    said = {key: value for key, value in spec.options.items() if key in fields}
    return _selected({"name": chosen, **fields, **said}, spec)


def _owners(name: str) -> list[str]:
    """The datasets that name a protocol of their own so."""
    found = []
    for dataset in plugins.names("dataset"):
        with contextlib.suppress(UserError):  # one that cannot be imported is nothing to this one
            found += [dataset] if name in protocols(dataset) else []
    return found


def cut(spec: Spec, fields: Mapping[str, Any]) -> Spec:
    """The dataset as the rules want its clips, as far as it has such options; those of the user stay."""
    takes = plugins.options("dataset", spec.name)
    wanted = {name: fields[name] for name in CUT if name in takes and fields.get(name, "own") != "own"}
    return Spec(spec.name, {**wanted, **spec.options})


def departures(fields: Mapping[str, Any], spec: Spec) -> str:
    """What of a preset the dataset does in its own way; empty where the rules are no preset's, or nothing is."""
    if fields["name"] in protocols(spec.name) or fields["name"] not in presets.available():
        return ""
    wanted = presets.for_dataset(presets.load(fields["name"]), spec.name)
    own = [f"{field} {fields[field]}" for field in CUT if fields[field] != wanted[field]]
    return f"{fields['name']}, but {', '.join(own)}" if own else ""


def _preset(preset: presets.Preset, spec: Spec) -> dict[str, Any]:
    """A preset on a dataset: what the dataset settles goes first."""
    takes = plugins.options("dataset", spec.name)
    settled: Mapping[str, Any] = getattr(plugins.module("dataset", spec.name), "SETTLED", {})
    owned = {field: "own" for field in CUTTING if field not in takes}
    return presets.for_dataset(preset, spec.name, {**owned, **settled})


def _selected(fields: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """The fields with the selection that is made: of videos, or of windows where a video gives several clips."""
    selection = fields.get("selection", "seeded")
    several = fields["start"] in SEVERAL
    if several and selection in ("sorted", "all"):
        raise UserError(
            f"{spec} gives several clips of a video, and protocol {fields['name']} takes one of each ({selection}): "
            "leave out start, or choose a protocol that draws windows"
        )
    if several != (selection == "windows"):
        # Where each video is one clip, to draw windows is to draw videos.
        return {**fields, "selection": "windows" if several else "seeded"} if selection in WAYS else fields
    return fields
