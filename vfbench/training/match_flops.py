"""Equal compute: what a preset costs before anything is trained, and presets widened until they cost what others do.

Nothing is computed: the networks are made of torch's meta tensors, which have shapes and no values, so that the largest
preset is counted in a fraction of a second. What is counted is what the ledger (`vfbench.pipeline.cost`) says of a run.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from vfbench import plugins
from vfbench.diffusion.flops import counting, training_flops_or_none
from vfbench.diffusion.model import DiffusionModel, ModelConfig
from vfbench.diffusion.solvers import guided
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape, Conditioning, Dataset
from vfbench.plugins import Spec
from vfbench.training import width_search
from vfbench.training.width_search import Widths

MATCHED = " at the FLOPs of "  # in the name of a preset that was scaled
TOLERANCE = 0.03  # of the reference's FLOPs a clip: what counts as equal
_PRETRAINED = "base_from"  # the option of a model that names a part trained before


@dataclass(frozen=True)
class Size:
    """A preset for clips of one shape: what it costs to sample and to learn a clip of it.

    `options` are all of the model's own, `given` those that its user said. `flops_per_clip` and `evaluations` (of the
    network) are those of the sampling steps and the guidance it takes unless told otherwise. A multiply-add counts two
    FLOPs. `reference` names the model whose FLOPs a preset was scaled to, if it was; `bare` is it without values.
    """

    model: str
    preset: str
    options: Mapping[str, Any]
    shape: ClipShape
    parameters: int
    flops_per_clip: int
    evaluations: int
    bare: DiffusionModel = field(repr=False, compare=False)
    given: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""

    @functools.cached_property
    def training_flops(self) -> int:
        """FLOPs of one clip in one training step, forward and backward; raises `UserError` where nobody can count."""
        if (found := training_flops_or_none(self.bare)) is None:
            raise UserError(f"{self.model} {self.preset}: its loss looks at values, so that it cannot be counted")
        return found

    @property
    def label(self) -> str:
        """The preset, and what it was scaled to."""
        return f"{self.preset}{MATCHED}{self.reference}" if self.reference else self.preset


def trainable() -> list[str]:
    """The models that can be trained, and so have presets: those with a function `create`."""
    return [name for name in plugins.names("model") if hasattr(plugins.module("model", name), "create")]


def describe(model: str, preset: str, dataset: Dataset, options: Mapping[str, Any] | None = None) -> Size:
    """The size of a preset for a dataset's clips, with `options` of the model, such as `{"lam": 0.3}`.

    Raises `UserError` for an unknown name, a model that has no presets, and a preset that clips of this shape do not
    fit; with a pretrained part also what reading it does.
    """
    given = dict(options or {})
    return _size(model, _bare(model, preset, dataset, given), given)


def reference(text: str, dataset: Dataset, preset: str) -> Size:
    """The size that `vdm`, `vdm:small` or `pyoco(alpha=2):small` names for a dataset; `preset` where it names none.

    Raises `UserError` with the text, and the nearest name to one that is unknown.
    """
    named = re.fullmatch(r"(?P<model>.*[^:]):(?P<preset>[\w.-]+)", text.strip(), re.DOTALL)
    try:
        spec = plugins.parse(named["model"] if named else text)
        return describe(spec.name, named["preset"] if named else preset, dataset, spec.options)
    except UserError as error:
        raise type(error)(f"reference '{text}': {error} (write MODEL or MODEL:PRESET, such as vdm:small)") from error


def match(
    model: str,
    preset: str,
    dataset: Dataset,
    reference: Size,
    *,
    tolerance: float = TOLERANCE,
    options: Mapping[str, Any] | None = None,
) -> Size:
    """The preset with its widths scaled until its FLOPs a clip differ from the reference's by at most `tolerance`.

    Widths are the numbers in an option `channels` (a list), `width` or `hidden`, at any depth. All are multiplied by
    one factor and rounded to multiples of eight (a `width` beside `heads` so that each head has a multiple of eight);
    where that is too coarse, single widths then move step by step, by a quarter at most. Depths, patches and the
    condition's embedding stay. A third of the tolerance is aimed at, so that two models matched with a third one are
    equal as well. `options` are of the model, as in `describe`. Raises `UserError` where the tolerance cannot be kept,
    telling how near it comes, and for a model with a pretrained part, whose widths are given.
    """
    given = dict(options or {})
    if given.get(_PRETRAINED) is not None:
        raise UserError(
            f"{model} begins with {given[_PRETRAINED]}, whose widths are what they are, and cannot be scaled: "
            f"leave out {_PRETRAINED}, or compare without matching"
        )
    bare = _bare(model, preset, dataset, given)
    steps = width_search.steps(bare.config.options)
    if not steps:
        raise UserError(f"preset '{preset}' of {model} has no `channels`, `width` or `hidden` that could be scaled")

    def scaled(found: Widths) -> DiffusionModel:
        options = width_search.changed(bare.config.options, dict(zip(steps, found, strict=True)))
        return _built(type(bare), replace(bare.config, options=options))

    @functools.cache
    def error(found: Widths) -> float:
        return math.log(_sampling(model, scaled(found))[0] / reference.flops_per_clip)

    before = {place: int(width_search.at(bare.config.options, place)) for place in steps}
    size = _size(model, scaled(width_search.nearest(before, steps, error, math.log1p(tolerance / 3))), given)
    if abs(size.flops_per_clip / reference.flops_per_clip - 1) > tolerance:
        raise UserError(
            f"{model} {preset} cannot be scaled to the {reference.flops_per_clip / 1e9:,.2f} GFLOP a clip of "
            f"{reference.model} {reference.label} within {tolerance:.1%}: the nearest is "
            f"{size.flops_per_clip / 1e9:,.2f}; choose another preset"
        )
    return replace(size, reference=f"{reference.model} {reference.label}")


def create(size: Size, dataset: Dataset) -> DiffusionModel:
    """The untrained model of that size, its initial weights drawn from torch's global generator."""
    if not size.reference:
        options = plugins.accepted("model", Spec(size.model, size.given), "create")
        return _checked(size.model, _module(size.model).create(dataset, size.preset, **options))
    bare = _bare(size.model, size.preset, dataset, size.given)
    return type(bare)(replace(bare.config, preset=size.label, options=size.options))


def clips_for(model: str, preset: str, dataset: str | None = None, root: Path | str | None = None) -> Dataset:
    """The dataset of that name, its files below `root`; without one Moving Shapes as large as the preset is made for.

    A preset that is made for clips of one shape says so in its option `clips`.
    """
    if dataset is None:
        made_for = _presets(model).get(preset, {}).get("clips", ())
        spec = Spec("shapes", dict(zip(("frames", "height", "width"), made_for, strict=False)))
    else:
        spec = plugins.parse(dataset).merged({"root": str(root) if root else None})
    data: Dataset = plugins.load("dataset", spec)
    return data


def _presets(model: str) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = getattr(_module(model), "PRESETS", {})
    return found


# Counting.


def _bare(model: str, preset: str, dataset: Dataset, given: Mapping[str, Any]) -> DiffusionModel:
    """A model without values."""
    module = _module(model)
    options = plugins.accepted("model", Spec(model, given), "create")
    try:
        if given.get(_PRETRAINED) is None:
            with _empty():
                return _checked(model, module.create(dataset, preset, **options)).to("meta")
        with torch.random.fork_rng(devices=[]):  # its weights are read, which no meta tensor can hold
            whole = _checked(model, module.create(dataset, preset, **options))
        return _built(type(whole), whole.config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{model} preset '{preset}' does not fit {dataset.name}: {error}") from error


def _module(model: str) -> ModuleType:
    """The file of a model that can be trained."""
    module = plugins.module("model", model)
    if not hasattr(module, "create"):
        raise UserError(f"'{model}' has no presets to count; these have: {', '.join(trainable())}")
    return module


def _checked(model: str, made: Any) -> DiffusionModel:
    if not isinstance(made, DiffusionModel):
        raise UserError(f"'{model}' makes a {type(made).__name__}: only a DiffusionModel can be counted")
    return made


def _built(kind: type[DiffusionModel], config: ModelConfig) -> DiffusionModel:
    with _empty():
        return kind(config).to("meta")


@contextmanager
def _empty() -> Iterator[None]:
    """Within, parameters of modules have no values, and nothing that is drawn counts."""
    from accelerate import init_empty_weights

    with torch.random.fork_rng(devices=[]), init_empty_weights():
        yield


def _size(model: str, bare: DiffusionModel, given: Mapping[str, Any]) -> Size:
    config = bare.config
    networks = [bare.condition, *bare.networks().values()]
    parameters = {id(p): p.numel() for network in networks for p in network.parameters()}
    flops, evaluations = _sampling(model, bare)
    counted = (sum(parameters.values()), flops, evaluations)
    return Size(model, config.preset, config.options, config.shape, *counted, bare, given)


def _sampling(model: str, bare: DiffusionModel) -> tuple[int, int]:
    """FLOPs a clip, and evaluations of the network."""
    config, options = bare.config, plugins.options("model", model)
    if missing := [name for name in ("steps", "guidance") if name not in options]:
        raise UserError(f"'{model}' takes no option '{missing[0]}': the FLOPs of a clip cannot be counted beforehand")
    said = ([0], list(config.words[:1]) or [""])
    mode: Conditioning = "text" if config.words else "none"
    shape, meta = config.shape, torch.device("meta")
    z = torch.empty(1, shape.frames, 3, shape.height, shape.width, device=meta)
    t = torch.zeros(1, dtype=torch.long, device=meta)
    with torch.no_grad():
        with counting() as once:
            condition, null = bare.conditioned(*said, [mode], _normal), bare.unconditioned(1)
        try:
            with counting() as each:
                guided(bare.predict, z, t, condition, null, options["guidance"])
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{config.model} {config.preset} does not take clips of {shape}: {error}") from error
    evaluations = options["steps"] * (1 if options["guidance"] == 1.0 else 2)
    return once.get_total_flops() + options["steps"] * each.get_total_flops(), evaluations


def _normal(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty((1, *shape), device="meta")
