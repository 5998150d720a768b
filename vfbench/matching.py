"""Equal compute: what a preset costs before anything is trained, and presets widened until they cost what others do.

Nothing is computed: the networks are made of torch's meta tensors, which have shapes and no values, so that the largest
preset is counted in a fraction of a second. What is counted is what the ledger (`vfbench.cost`) says of a run.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vfbench import plugins
from vfbench.cost import counting
from vfbench.diffusion.guidance import guided
from vfbench.diffusion.model import DiffusionModel
from vfbench.errors import UserError
from vfbench.interfaces import Conditioning, Dataset

TOLERANCE = 0.03  # of the reference's FLOPs a clip: what counts as equal
LARGEST = 16.0  # times as wide as the preset, and the smallest that part of it: another preset would be meant
LEEWAY = 0.25  # of a width: how far a single one may be moved from its proportion
UNIT = 8  # group norms have eight groups, and kernels like multiples of eight

_Widths = tuple[int, ...]
_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Size:
    """A model of given options: parameters, and FLOPs a clip with the sampling steps it takes unless told otherwise.

    A multiply-add counts two FLOPs. `reference` names the model whose FLOPs a preset was scaled to, if it was.
    """

    model: str
    preset: str
    options: Mapping[str, Any]
    parameters: int
    flops_per_clip: int
    reference: str = ""

    @property
    def label(self) -> str:
        """The preset, and what it was scaled to."""
        return f"{self.preset} at the FLOPs of {self.reference}" if self.reference else self.preset


def describe(model: str, preset: str, dataset: Dataset) -> Size:
    """The size of a preset for a dataset's clips.

    Raises `UserError` for an unknown name, a model that has no presets, and a preset that clips of this shape do not
    fit.
    """
    return _size(_bare(model, preset, dataset))


def match(model: str, preset: str, dataset: Dataset, reference: Size, *, tolerance: float = TOLERANCE) -> Size:
    """The preset with its widths scaled until its FLOPs a clip differ from the reference's by at most `tolerance`.

    Widths are the numbers in an option `channels` (a list), `width` or `hidden`, at any depth. All are multiplied by
    one factor and rounded to multiples of eight (a `width` beside `heads` so that each head has a multiple of eight);
    where that is too coarse, single widths then move step by step, by a quarter at most. Depths, patches and the
    condition's embedding stay. A third of the tolerance is aimed at, so that two models matched with a third one are
    equal as well. Raises `UserError` where the tolerance cannot be kept, telling how near it comes.
    """
    bare = _bare(model, preset, dataset)
    options = bare.config.options
    steps = _steps(options)
    if not steps:
        raise UserError(f"preset '{preset}' of {model} has no `channels`, `width` or `hidden` that could be scaled")

    @functools.cache
    def of(widths: _Widths) -> Size:
        changed = _with(options, dict(zip(steps, widths, strict=True)))
        with torch.device("meta"):
            return _size(type(bare)(replace(bare.config, options=changed)))

    @functools.cache
    def error(widths: _Widths) -> float:
        return math.log(of(widths).flops_per_clip / reference.flops_per_clip)

    before = {path: int(_at(options, path)) for path in steps}
    size = of(_nearest(before, steps, error, math.log1p(tolerance / 3)))
    if abs(size.flops_per_clip / reference.flops_per_clip - 1) > tolerance:
        raise UserError(
            f"{model} {preset} cannot be scaled to the {reference.flops_per_clip / 1e9:,.2f} GFLOP a clip of "
            f"{reference.model} {reference.label} within {tolerance:.1%}: the nearest is "
            f"{size.flops_per_clip / 1e9:,.2f}; choose another preset"
        )
    return replace(size, reference=f"{reference.model} {reference.label}")


def create(size: Size, dataset: Dataset) -> DiffusionModel:
    """The untrained model of that size, its initial weights drawn from torch's global generator."""
    bare = _bare(size.model, size.preset, dataset)
    model: DiffusionModel = type(bare)(replace(bare.config, preset=size.label, options=size.options))
    return model


# Counting.


def _bare(model: str, preset: str, dataset: Dataset) -> DiffusionModel:
    """A model without values."""
    module = plugins.module("model", model)
    if not hasattr(module, "create"):
        known = [name for name in plugins.names("model") if hasattr(plugins.module("model", name), "create")]
        raise UserError(f"'{model}' has no presets to count; these have: {', '.join(known)}")
    try:
        with torch.device("meta"):
            bare: DiffusionModel = module.create(dataset, preset)
    except ValueError as error:
        raise UserError(f"{model} preset '{preset}' does not fit {dataset.name}: {error}") from error
    return bare


def _size(bare: DiffusionModel) -> Size:
    config, options = bare.config, plugins.options("model", bare.config.model)
    networks = [bare.condition, *bare.networks().values()]
    parameters = {id(p): p.numel() for network in networks for p in network.parameters()}
    said = ([0], list(config.words[:1]) or [""])
    mode: Conditioning = "text" if config.words else "none"
    shape = config.shape
    with torch.device("meta"), torch.no_grad():
        with counting() as once:
            condition, null = bare.condition(*said, [mode]), bare.condition(*said, ["none"])
        z, t = torch.empty(1, shape.frames, 3, shape.height, shape.width), torch.zeros(1, dtype=torch.long)
        try:
            with counting() as each:
                guided(bare.predict, z, t, condition, null, options["guidance"])
        except RuntimeError as error:
            raise UserError(f"{config.model} {config.preset} does not take clips of {shape}: {error}") from error
    flops = once.get_total_flops() + options["steps"] * each.get_total_flops()
    return Size(config.model, config.preset, config.options, sum(parameters.values()), flops)


# Widths, by their paths in the options.


def _steps(options: Mapping[str, Any], path: _Path = ()) -> dict[_Path, int]:
    """Where widths stand, and the numbers they must be multiples of."""
    found: dict[_Path, int] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= _steps(value, (*path, name))
        elif name == "channels":
            found |= {(*path, name, i): UNIT for i in range(len(value))}
        elif name == "width":
            found[*path, name] = UNIT * options.get("heads", 1)
        elif name == "hidden":
            found[*path, name] = UNIT
    return found


def _at(options: Any, path: _Path) -> Any:
    return functools.reduce(lambda node, key: node[key], path, options)


def _with(options: Mapping[str, Any], widths: Mapping[_Path, int]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(options))
    for path, width in widths.items():
        _at(changed, path[:-1])[path[-1]] = width
    return changed


# Searching.


def _nearest(
    before: Mapping[_Path, int], steps: Mapping[_Path, int], error: Callable[[_Widths], float], enough: float
) -> _Widths:
    """The widths of almost no error: as they are, else all by one factor, else single ones step by step."""

    def scaled(factor: float) -> _Widths:
        return tuple(max(round(factor * width / steps[path]), 1) * steps[path] for path, width in before.items())

    def distance(widths: _Widths) -> float:
        return abs(error(widths))

    best = tuple(before.values())
    if distance(best) <= enough:
        return best
    low, high = 1 / LARGEST, LARGEST
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if error(scaled(middle)) > 0 else (middle, high)
    best = min(scaled(low), scaled(high), key=distance)
    if low == 1 / LARGEST or high == LARGEST:  # what is wanted lies beyond, and single steps will not get there
        return best
    proportion = [low * width for width in before.values()]
    while distance(best) > enough:
        nearer = min(_neighbours(best, proportion, list(steps.values())), key=distance, default=best)
        if distance(nearer) >= distance(best):
            break
        best = nearer
    return best


def _neighbours(widths: _Widths, proportion: Sequence[float], steps: Sequence[int]) -> Iterator[_Widths]:
    """Each width one step up and down, as far as it stays near its proportion."""
    for i, step in enumerate(steps):
        for width in (widths[i] - step, widths[i] + step):
            if width > 0 and abs(width / proportion[i] - 1) <= LEEWAY:
                yield (*widths[:i], width, *widths[i + 1 :])
