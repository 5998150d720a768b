"""A sampler from a checkpoint: read its configuration, check that it fits the dataset, and load its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch

from vfbench import plugins
from vfbench.diffusion import solver_options
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig, require_unchanged
from vfbench.diffusion.sampler import DiffusionSampler, SamplerOptions
from vfbench.diffusion.super_resolution import real_small_clips
from vfbench.errors import MissingCheckpoint, MissingData, UserError
from vfbench.interfaces import BuildContext, ClipShape, Conditioning, Dataset
from vfbench.nets.unet import place
from vfbench.utils import checkpoint, tensor_files


def builder(model: str, create: Callable[[ModelConfig], DiffusionModel]) -> Callable[..., DiffusionSampler]:
    """The function `build` of a model's file: load a trained model and return its sampler.

    `create` makes the model of a configuration. The options of `build` are those of `SamplerOptions`. The model comes
    from `context.checkpoint`, or is the one shipped for the dataset. `build` raises `MissingData` where there is none,
    and for one that is damaged or of another model, dataset or shape; `UserError` for options out of range.
    """

    def build(
        context: BuildContext,
        *,
        steps: Annotated[int | None, "Sampling steps; by default those of the preset, or 16."] = None,
        solver: Annotated[str, solver_options.SOLVERS, "Sampling algorithm."] = "dpm++2m",
        guidance: Annotated[
            float | None, "Classifier-free guidance weight; 1 is none; by default the preset's, or 1."
        ] = None,
        condition: Annotated[
            Conditioning | None,
            "Conditioning; by default the first of text, class, none that it was trained with.",
        ] = None,
        eta: Annotated[float | None, "Fresh noise of ddim: 0 is none, 1 as much as ddpm."] = None,
        threshold: Annotated[float | None, "Dynamic thresholding: a quantile of each clip, e.g. 0.995."] = None,
        frames: Annotated[int | None, "Frames of a clip, more than the model's own."] = None,
        overlap: Annotated[int, "Frames that neighbouring windows of a long clip share."] = 0,
        preset: Annotated[str | None, "Preset whose shipped checkpoint is taken, where there are several."] = None,
    ) -> DiffusionSampler:
        sampling = SamplerOptions(steps, solver, guidance, condition, eta, threshold, frames, overlap)
        network, sha256 = _load_model(model, create, context, preset, any_length=frames is not None)
        place(network.eval(), context.device)
        small_clips = real_small_clips(network, context.dataset)
        settings = (context.device, context.dtype, sampling, context.quantise)
        return DiffusionSampler(network, sha256, *settings, small_clips=small_clips)

    return build


def _load_model(
    model: str,
    create: Callable[[ModelConfig], DiffusionModel],
    context: BuildContext,
    preset: str | None,
    *,
    any_length: bool,
) -> tuple[DiffusionModel, str]:
    """A trained model and the SHA-256 of its weights; `any_length` allows another clip length than the dataset's."""
    dataset = context.dataset
    if preset and context.checkpoint:
        raise UserError(f"preset='{preset}' names a shipped checkpoint: leave it out, or leave out --checkpoint")
    folder = context.checkpoint or _shipped(model, dataset, preset, any_length=any_length)
    if folder is None and preset:
        raise MissingData(
            f"no checkpoint of '{model}' with preset '{preset}' is shipped for {dataset.name} at {dataset.shape}: "
            "leave out preset, or train one with `train --preset` and give --checkpoint"
        )
    if folder is None:
        raise MissingCheckpoint(
            f"no checkpoint of '{model}' for {dataset.name} at {dataset.shape}: vfbench ships none, and --checkpoint "
            "is not given",
            model,
            dataset,
        )
    checkpoint.require_checkpoint(folder, model)
    path = folder / checkpoint.CONFIG
    config = ModelConfig.read(path, model)
    _require_fit(folder, config, dataset, any_length=any_length)
    if not config.sha256:
        raise MissingData(f"{path} records no SHA-256 of its weights: train or copy it again")
    with checkpoint.config_errors(path, model):
        _check_options(model, config)
        _require_plausible_size(create, config, folder / checkpoint.TENSORS)
        network = create(config)
    sha256 = tensor_files.load_into(network, folder / checkpoint.TENSORS, config.sha256)
    require_unchanged(folder)
    return network, sha256


def _check_options(model: str, config: ModelConfig) -> None:
    """Raise `UserError` for a saved option of another type than that of the model's `create`, or of sampling."""
    if plugins.is_built_in("model", model):
        known = plugins.options("model", model, "create").keys() - {
            "embedding",
            "text_encoder",
        }  # given as names, saved as sizes
        saved = {name: value for name, value in config.options.items() if name in known}
        plugins.validated_options("model", plugins.Spec(model, saved), "create")
    sampling = config.options.get("sampling", {})
    types: Mapping[str, tuple[type, ...]] = {"steps": (int,), "guidance": (int, float)}
    if not isinstance(sampling, Mapping) or any(
        type(each) not in types.get(name, ()) for name, each in sampling.items()
    ):
        raise UserError(f"sampling {sampling}: a preset sets steps, a whole number, and guidance, a number")
    SamplerOptions(**sampling)


def _require_plausible_size(
    create: Callable[[ModelConfig], DiffusionModel], config: ModelConfig, weights: Path
) -> None:
    """Raise `MissingData` if a configuration has more parameters than its weights file has bytes.

    They are counted on the meta device, so that a damaged configuration allocates no memory.
    """
    with torch.device("meta"):
        parameters = sum(each.numel() for each in create(config).parameters())
    if weights.is_file() and parameters > (size := weights.stat().st_size):
        raise MissingData(
            f"{weights} is damaged or does not fit this model: it has {size:,} bytes, {checkpoint.CONFIG} describes "
            f"{parameters:,} parameters"
        )


def _shipped(model: str, dataset: Dataset, preset: str | None, *, any_length: bool) -> Path | None:
    """The shipped checkpoint of a model for clips of the dataset's shape, None where there is none."""
    folder = checkpoint.shipped(dataset.name, model, preset)
    if folder is None:
        return None
    shape = ModelConfig.read(folder / checkpoint.CONFIG, model).shape
    return folder if shape == _trained_shape(dataset, shape, any_length=any_length) else None


def _trained_shape(dataset: Dataset, trained: ClipShape, *, any_length: bool) -> ClipShape:
    """Clip shape that a checkpoint for the dataset must have been trained on."""
    return replace(dataset.shape, frames=trained.frames) if any_length else dataset.shape


def _require_fit(folder: Path, config: ModelConfig, dataset: Dataset, *, any_length: bool) -> None:
    """Raise `MissingData` for a checkpoint trained on another dataset, clip shape, classes or vocabulary."""
    shape = _trained_shape(dataset, config.shape, any_length=any_length)
    if (config.dataset, config.shape) != (dataset.name, shape):
        raise MissingData(
            f"{folder} was trained on {config.dataset} at {config.shape}, this run uses {dataset.name} at "
            f"{dataset.shape}: give --dataset '{config.dataset}({config.shape.options})', or another checkpoint"
        )
    if (config.classes, config.words) != (dataset.classes, dataset.words):
        raise MissingData(
            f"{folder} was trained with other classes or words than {dataset.name} has: give another checkpoint, or "
            "train again"
        )
