"""FLOPs and parameters of presets before training, and presets widened to equal compute.

Networks are built from meta tensors, which have shapes and no values, so the largest preset is counted in a fraction of
a second. The counts equal those of the cost ledger (`vfbench.pipeline.cost`) for a run.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vfbench import plugins
from vfbench.diffusion.flops import cached_count, count_flops, training_flops_or_none
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.sampler import preset_sampling
from vfbench.diffusion.solvers import guided
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape, Conditioning, Dataset
from vfbench.plugins import Spec
from vfbench.training import width_search
from vfbench.training.width_search import Widths

MATCHED = " at the FLOPs of "  # in the recorded preset name of a scaled preset: saved in checkpoints
TOLERANCE = 0.03  # relative difference of FLOPs a clip that counts as equal
_PRETRAINED_OPTION = "base_from"  # model option that names a pretrained part


@dataclass(frozen=True)
class Size:
    """Cost of a preset for clips of one shape.

    `spec` is the model with the options that the user gave. `flops_per_clip` and `evaluations` of the network are for
    the default sampling steps and guidance; a multiply-add counts two FLOPs. `config` has all options. `reference`
    names the model and preset whose FLOPs a scaled preset matches. `meta_model` is the model on the meta device.
    """

    spec: Spec
    preset: str
    config: ModelConfig
    parameters: int
    flops_per_clip: int
    evaluations: int
    meta_model: DiffusionModel = field(repr=False, compare=False)
    reference: str = ""

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.spec.name

    @property
    def shape(self) -> ClipShape:
        """Shape of the clips."""
        return self.config.shape

    @functools.cached_property
    def training_flops(self) -> int:
        """FLOPs of one clip in one training step, forward and backward; raises `UserError` if not countable."""
        if (flops := training_flops_or_none(self.meta_model)) is None:
            raise UserError(
                f"{self.model} {self.preset}: training FLOPs cannot be counted, its loss reads tensor values"
            )
        return flops

    @property
    def label(self) -> str:
        """Name of the preset, with the reference of a scaled one: `tiny at the FLOPs of vdm small`."""
        return f"{self.preset}{MATCHED}{self.reference}" if self.reference else self.preset


def describe(model: Spec | str, preset: str, dataset: Dataset) -> Size:
    """Size of a preset of a model, such as `videofusion(lam=0.3)`, for a dataset's clips.

    Raises `UserError` for an unknown name, a model without presets, or a preset that clips of this shape do not fit.
    With a pretrained part it also raises the errors of reading that.
    """
    spec = plugins.parse(model) if isinstance(model, str) else model
    return _measure(spec, _meta_model(spec, preset, dataset))


def reference(text: str, dataset: Dataset, preset: str) -> Size:
    """Size of a reference such as `vdm`, `vdm:small` or `pyoco(alpha=2):small`; `preset` is the default preset.

    Raises `UserError` with the text, and the nearest known name where one is unknown.
    """
    named = re.fullmatch(r"(?P<model>.*[^:]):(?P<preset>[\w.-]+)", text.strip(), re.DOTALL)
    try:
        spec = plugins.parse(named["model"] if named else text)
        return describe(spec, named["preset"] if named else preset, dataset)
    except UserError as error:
        raise type(error)(f"reference '{text}': {error} (write MODEL or MODEL:PRESET, such as vdm:small)") from error


def match(model: Spec | str, preset: str, dataset: Dataset, reference: Size, *, tolerance: float = TOLERANCE) -> Size:
    """Preset with its widths scaled until its FLOPs a clip differ from the reference's by at most `tolerance`.

    Widths are the numbers in an option `channels` (a list), `width` or `hidden`, at any depth. All are multiplied by
    one factor and rounded to multiples of eight; a `width` beside `heads` gives each head a multiple of eight. Where
    that is too coarse, single widths then move step by step, by a quarter at most. Depths, patches and the size of the
    conditioning embedding stay. The search aims at a third of the tolerance, so that two models matched to the
    same reference are equal as well.

    Raises `UserError` with the nearest FLOPs where the tolerance is out of reach, and for a model with a pretrained
    part, whose widths are fixed.
    """
    spec = plugins.parse(model) if isinstance(model, str) else model
    if (pretrained := spec.options.get(_PRETRAINED_OPTION)) is not None:
        raise UserError(
            f"{spec.name} has a pretrained part, {pretrained}, whose widths cannot be scaled: "
            f"leave out {_PRETRAINED_OPTION}, or compare without --match-flops"
        )
    meta_model = _meta_model(spec, preset, dataset)
    multiples = width_search.width_multiples(meta_model.config.options)
    if not multiples:
        raise UserError(f"preset '{preset}' of {spec.name} has no `channels`, `width` or `hidden` that could be scaled")

    def scaled(widths: Widths) -> DiffusionModel:
        options = width_search.with_widths(meta_model.config.options, dict(zip(multiples, widths, strict=True)))
        return _build_meta(type(meta_model), replace(meta_model.config, options=options))

    @functools.cache
    def error(widths: Widths) -> float:
        return math.log(_sampling_cost(spec.name, scaled(widths))[0] / reference.flops_per_clip)

    before = {path: int(width_search.get_option(meta_model.config.options, path)) for path in multiples}
    widths = width_search.search(before, multiples, error, math.log1p(tolerance / 3))
    size = _measure(spec, scaled(widths))
    if abs(size.flops_per_clip / reference.flops_per_clip - 1) > tolerance:
        raise UserError(
            f"{spec.name} {preset} cannot be scaled to the {reference.flops_per_clip / 1e9:,.2f} GFLOP a clip of "
            f"{reference.model} {reference.label} within {tolerance:.1%}: the nearest is "
            f"{size.flops_per_clip / 1e9:,.2f}; choose another preset"
        )
    return replace(size, reference=f"{reference.model} {reference.label}")


def create(size: Size, dataset: Dataset) -> DiffusionModel:
    """Untrained model of that size; torch's global generator draws its initial weights."""
    if not size.reference:
        options = plugins.validated_options("model", size.spec, "create")
        return _require_diffusion_model(size.model, _create_function(size.model)(dataset, size.preset, **options))
    return type(size.meta_model)(replace(size.config, preset=size.label))


def dataset_for(model: str, preset: str, dataset: str | None = None, root: Path | str | None = None) -> Dataset:
    """Dataset of that name below `root`, or by default Moving Shapes with the clip shape of the preset.

    A preset for clips of one shape has it in its option `clips`.
    """
    if dataset is None:
        shape = _presets(model).get(preset, {}).get("clips", ())
        spec = Spec("shapes", dict(zip(("frames", "height", "width"), shape, strict=False)))
    else:
        spec = plugins.parse(dataset).merged({"root": str(root) if root else None})
    data: Dataset = plugins.load("dataset", spec)
    return data


def _presets(model: str) -> Mapping[str, Mapping[str, Any]]:
    _create_function(model)  # raises where there is none
    return plugins.constants("model", model).presets


# Counting.


def _meta_model(spec: Spec, preset: str, dataset: Dataset) -> DiffusionModel:
    """Model of a preset on the meta device; raises `UserError` where the preset does not fit the dataset."""
    model, create_model = spec.name, _create_function(spec.name)
    options = plugins.validated_options("model", spec, "create")
    try:
        if spec.options.get(_PRETRAINED_OPTION) is None:
            with _meta_weights():
                return _require_diffusion_model(model, create_model(dataset, preset, **options)).to("meta")
        with torch.random.fork_rng(devices=[]):  # reads the pretrained weights, which no meta tensor can hold
            loaded = _require_diffusion_model(model, create_model(dataset, preset, **options))
        return _build_meta(type(loaded), loaded.config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{model} preset '{preset}' does not fit {dataset.name}: {error}") from error


def _create_function(model: str) -> Callable[..., object]:
    if not plugins.defines("model", model, "create"):
        raise UserError(f"'{model}' has no presets to count; these have: {', '.join(plugins.trainable())}")
    return plugins.plugin_function("model", model, "create")


def _require_diffusion_model(model: str, created: object) -> DiffusionModel:
    if not isinstance(created, DiffusionModel):
        raise UserError(f"'{model}' creates a {type(created).__name__}: only a DiffusionModel can be counted")
    return created


def _build_meta(kind: type[DiffusionModel], config: ModelConfig) -> DiffusionModel:
    with _meta_weights():
        return kind(config).to("meta")


@contextmanager
def _meta_weights() -> Iterator[None]:
    """Context manager: put new parameters on the meta device, and restore the CPU random state at the end."""
    from accelerate import init_empty_weights

    with torch.random.fork_rng(devices=[]), init_empty_weights():
        yield


def _measure(spec: Spec, meta_model: DiffusionModel) -> Size:
    networks = [meta_model.condition, *meta_model.networks().values()]
    parameters = {id(p): p.numel() for network in networks for p in network.parameters()}
    flops, evaluations = _sampling_cost(spec.name, meta_model)
    counts = (sum(parameters.values()), flops, evaluations)
    return Size(spec, meta_model.config.preset, meta_model.config, *counts, meta_model)


def _sampling_cost(model: str, meta_model: DiffusionModel) -> tuple[int, int]:
    """FLOPs to sample a clip, and evaluations of the network, at the preset's steps and guidance."""
    options = plugins.options("model", model)
    if missing := [name for name in ("steps", "guidance") if name not in options]:
        raise UserError(f"'{model}' takes no option '{missing[0]}': its FLOPs a clip cannot be counted before a run")
    steps, guidance = preset_sampling(meta_model.config)
    steps = steps if options["steps"] is None else options["steps"]  # a third party's own defaults
    guidance = guidance if options["guidance"] is None else options["guidance"]
    per_clip, per_step = cached_count(
        f"sampling with guidance {guidance}", meta_model, lambda: _sampling_flops(meta_model, guidance)
    )
    return per_clip + steps * per_step, steps * (1 if guidance == 1.0 else 2)


def _sampling_flops(meta_model: DiffusionModel, guidance: float) -> tuple[int, int]:
    """FLOPs of the conditioning of a clip, and of one sampling step."""
    config = meta_model.config
    labels, captions = [0], list(config.words[:1]) or [""]
    conditioning: list[Conditioning] = ["text" if config.words else "none"]
    shape, meta = config.shape, torch.device("meta")
    z = torch.empty(1, shape.frames, 3, shape.height, shape.width, device=meta)
    t = torch.zeros(1, dtype=torch.long, device=meta)
    with torch.no_grad():
        with count_flops() as per_clip:
            condition = meta_model.conditioning_vectors(labels, captions, conditioning, _meta_noise)
            null = meta_model.null_conditioning(1)
        try:
            with count_flops() as per_step:
                guided(meta_model.predict, z, t, condition, null, guidance)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{config.model} {config.preset} does not take clips of {shape}: {error}") from error
    return per_clip.get_total_flops(), per_step.get_total_flops()


def _meta_noise(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty((1, *shape), device="meta")
