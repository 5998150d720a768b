"""Rules of an evaluation: a protocol that the dataset declares, or a published preset, applied to a dataset.

The dataset follows the rules through options of its `build`; its `SETTLED` lists the fields that it fixes itself. The
user's options override both, and the protocol records the result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from vfbench import plugins
from vfbench.errors import UserError
from vfbench.interfaces import Quantise, Split
from vfbench.plugins import Spec
from vfbench.protocol import presets
from vfbench.protocol.protocol import MULTI_CLIP_STARTS, SMOKE, Measure, Protocol, RealSplit

STRICT = "strict"  # the preset of a dataset that declares no protocol
SEEDED_SELECTIONS = ("seeded", "windows")  # drawn by a seed
OWN_BY_DEFAULT = ("start", "geometry", "filter", "antialias")  # `own` where a dataset lacks the option
DATASET_OPTIONS = ("frames", "height", "width", "stride", "drop_first", *OWN_BY_DEFAULT)  # also dataset options


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Fields of a `Protocol` that are known before its dataset is loaded; None where the dataset decides.

    `Protocol` checks the values. `n_real` is `all` where every real video is scored.
    """

    name: str
    comparable: bool = True
    split: RealSplit = "train"
    prompts: Split = "test"
    selection: str = "seeded"
    selection_seed: int = 0
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
    fake_stride: int = 1
    drop_first: int | None = None
    start: str
    geometry: str
    filter: str
    antialias: bool | Literal["own"]
    quantise: Quantise = "round"
    n_real: int | Literal["all"]
    n_fake: int | None = None
    repeats: int = 1
    measures: Mapping[str, Measure]
    extractors: Mapping[str, str] = field(default_factory=dict)

    def protocol(self, **known: Any) -> Protocol:
        """Protocol with the `known` fields of dataset, user and networks added; None leaves a field at its default."""
        return Protocol(**{**{name: value for name, value in asdict(self).items() if value is not None}, **known})


def protocols(dataset: str) -> Mapping[str, Mapping[str, Any]]:
    """Protocols that a dataset's file declares; the first is its default."""
    return plugins.constants("dataset", dataset).protocols


def resolve_rules(spec: Spec, name: str | None, *, smoke: bool) -> Rules:
    """Rules of the protocol `name` on a dataset, as far as they are known before it is loaded.

    Without a name: the dataset's first comparable protocol (any, in a smoke run), else the preset `strict`. Raises
    `UserError` for an unknown name, for a protocol that is not comparable outside a smoke run, and for options that
    contradict the protocol.
    """
    declared = protocols(spec.name)
    usable = {key: values for key, values in declared.items() if smoke or values.get("comparable", True)}
    if name is None and not usable and smoke:
        return _rules({"name": "smoke", **SMOKE})
    chosen = name or next(iter(usable), STRICT)
    if chosen in declared and chosen not in usable:
        raise UserError(f"protocol {chosen} of {spec.name} is not comparable: add --smoke to run it")
    if chosen not in usable and chosen not in presets.available() and (owners := _owners(chosen)):
        raise UserError(f"protocol {chosen} belongs to {', '.join(owners)}, not to {spec.name}: see `ls protocols`")
    values = usable[chosen] if chosen in usable else _preset_fields(presets.load(chosen, *usable), spec)
    overridden = {key: value for key, value in spec.options.items() if key in values}
    try:
        return _with_clip_selection(_rules({"name": chosen, **values, **overridden}), spec)
    except (TypeError, ValueError) as error:  # an unknown or missing field in PROTOCOLS of the dataset's file
        raise UserError(f"PROTOCOLS of {spec.name}: protocol {chosen} is invalid: {error}") from error


def require_known(name: str) -> None:
    """Raise `UserError` with the nearest name for a protocol that is no preset and that no dataset declares."""
    declared = [each for dataset in plugins.names("dataset") for each in _declared(dataset)]
    if name not in declared:
        presets.load(name, *declared)


def _rules(values: Mapping[str, Any]) -> Rules:
    measures = {name: Measure.model_validate(measure) for name, measure in values["measures"].items()}
    return Rules(**{**values, "measures": measures})


def _owners(name: str) -> list[str]:
    """Datasets that declare a protocol of this name."""
    return [dataset for dataset in plugins.names("dataset") if name in _declared(dataset)]


def _declared(dataset: str) -> Mapping[str, Mapping[str, Any]]:
    """Protocols that a dataset declares; none for a plug-in that cannot be imported."""
    with contextlib.suppress(UserError):
        return protocols(dataset)
    return {}


def dataset_spec(spec: Spec, rules: Rules) -> Spec:
    """Dataset spec with the options that follow the rules; the user's options take precedence."""
    known = plugins.options("dataset", spec.name)
    values = {name: getattr(rules, name) for name in DATASET_OPTIONS if name in known}
    return Spec(spec.name, {**{k: v for k, v in values.items() if v not in (None, "own")}, **spec.options})


def departures(rules: Rules, spec: Spec) -> str:
    """Fields in which the rules depart from their preset, as text; empty where they follow it."""
    if rules.name in protocols(spec.name) or rules.name not in presets.available():
        return ""
    preset = presets.for_dataset(presets.load(rules.name), spec.name)
    actual = {name: getattr(rules, name) for name in DATASET_OPTIONS}
    changed = [f"{name} {value}" for name, value in actual.items() if value != preset[name]]
    return f"{rules.name}, but {', '.join(changed)}" if changed else ""


def _preset_fields(preset: presets.Preset, spec: Spec) -> dict[str, Any]:
    """Fields of a preset on a dataset; fields that the dataset settles override the preset."""
    known = plugins.options("dataset", spec.name)
    unsupported = {name: "own" for name in OWN_BY_DEFAULT if name not in known}
    return presets.for_dataset(preset, spec.name, {**unsupported, **plugins.constants("dataset", spec.name).settled})


def _with_clip_selection(rules: Rules, spec: Spec) -> Rules:
    """Rules with the selection that fits `start`: windows where a video gives several clips, else videos."""
    multi_clip = rules.start in MULTI_CLIP_STARTS
    if multi_clip and rules.selection not in SEEDED_SELECTIONS:
        raise UserError(
            f"{spec} gives several clips per video, and protocol {rules.name} takes one ({rules.selection}): "
            "leave out start, or choose a --protocol that draws windows"
        )
    if multi_clip == (rules.selection == "windows") or rules.selection not in SEEDED_SELECTIONS:
        return rules
    return replace(rules, selection="windows" if multi_clip else "seeded")
