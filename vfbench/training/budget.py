"""Estimated cost of training a missing checkpoint: preset for a dataset's clips, training command and GPU-hours.

FLOPs are counted (`vfbench.training.match_flops`). The throughput of a GPU and the steps and batch size of a preset are
assumptions of vfbench, all made in this file: the papers do not state them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vfbench import plugins
from vfbench.diffusion import build_sampler
from vfbench.errors import MissingCheckpoint, MissingData, UserError
from vfbench.interfaces import Dataset
from vfbench.plugins import Spec
from vfbench.protocol.resolve import dataset_spec, resolve_rules
from vfbench.training import match_flops
from vfbench.training.match_flops import Size
from vfbench.utils.checkpoint import shipped

ASSUMED_TFLOPS = 100  # TFLOP/s per GPU: a third of an A100's bfloat16 peak, a tenth of an H100's


@dataclass(frozen=True)
class Recipe:
    """Optimiser steps and batch size, for frames of up to `side` pixels on the longer side."""

    steps: int
    batch_size: int
    side: int


RECIPES: Mapping[str, Recipe] = {  # by the part of a preset's name before the first "-"
    "tiny": Recipe(10_000, 8, side=32),  # as the shipped checkpoints were trained
    "small": Recipe(100_000, 64, side=64),
    "base": Recipe(300_000, 64, side=128),
    "paper": Recipe(500_000, 64, side=128),
}
DEFAULT_RECIPE = Recipe(100_000, 64, side=64)
SMOKE_RECIPE = Recipe(20, 4, side=0)


def recipe(preset: str) -> Recipe:
    """Training recipe of a preset, by the part of its name before the first "-"."""
    return RECIPES.get(preset.partition("-")[0], DEFAULT_RECIPE)


def gpu_hours(flops: int, steps: int, batch_size: int) -> float:
    """Hours on one GPU at `ASSUMED_TFLOPS`; `flops` of one clip in one step, forward and backward."""
    return flops * steps * batch_size / (ASSUMED_TFLOPS * 1e12) / 3600


def format_gpu_hours(flops: int, steps: int, batch_size: int) -> str:
    """GPU-hours and the assumed throughput, such as `about 1.5 GPU-hours at 100 TFLOP/s a GPU`."""
    hours = gpu_hours(flops, steps, batch_size)
    return f"{f'about {hours:,.1f}' if hours >= 0.1 else 'less than 0.1'} GPU-hours at {ASSUMED_TFLOPS} TFLOP/s a GPU"


@contextmanager
def training_advice(
    model: str,
    dataset: str,
    data_root: Path | str | None,
    checkpoint: Path | str | None,
    protocol: str | None = None,
    *,
    smoke: bool = False,
    scored: bool = True,
) -> Iterator[None]:
    """Context manager: add the training command and its cost to a `MissingData` error that ends the block.

    Adds it where the model has no checkpoint, given or shipped, for clips as the protocol needs them; with
    `scored=False`, for the dataset's own clips. Leaves out models that may bring their own weights.
    """
    try:
        yield
    except MissingData as error:
        if checkpoint is not None:
            raise
        advice = _advice_on(error, plugins.parse(model), plugins.parse(dataset), data_root, protocol, smoke, scored)
        if not advice:
            raise
        raise MissingData(f"{error}{advice}") from error


def _advice_on(
    error: MissingData,
    model: Spec,
    dataset: Spec,
    data_root: Path | str | None,
    protocol: str | None,
    smoke: bool,
    scored: bool,
) -> str:
    """Text to add to the error; empty where no checkpoint is missing or the clip shape is not known."""
    if not _uses_diffusion_sampler(model):
        return ""
    protocol_dataset = dataset_spec(dataset, resolve_rules(dataset, protocol, smoke=smoke)) if scored else dataset
    training_dataset = _training_dataset(dataset, protocol_dataset)
    if isinstance(error, MissingCheckpoint) and isinstance(error.dataset, Dataset):
        root = str(data_root) if data_root else None
        return f". {_train_command(model, error.dataset, training_dataset, root, smoke=smoke)}"
    stand_in = _stand_in(protocol_dataset)
    if stand_in is None or shipped(dataset.name, model.name):
        return ""
    advice = _train_command(model, stand_in, training_dataset, str(data_root or "DIR"), smoke=smoke)
    return f"\n'{model.name}' also needs a checkpoint: vfbench ships none for {dataset.name}. {advice}"


def _uses_diffusion_sampler(model: Spec) -> bool:
    build = plugins.plugin_function("model", model.name, "build")
    return plugins.defines("model", model.name, "create") and build.__module__ == build_sampler.__name__


def _training_dataset(dataset: Spec, protocol_dataset: Spec) -> Spec:
    """Dataset to train on: clips shaped like the protocol's, but with training's own choice of `start`."""
    defaults = plugins.options("dataset", dataset.name)
    changed = {n: value for n, value in protocol_dataset.options.items() if value != defaults.get(n) and n != "start"}
    return Spec(dataset.name, {**changed, **dataset.options})


def _stand_in(dataset: Spec) -> Dataset | None:
    """Moving Shapes with the clip shape of a dataset that is missing; None where that shape is not known."""
    options = {**plugins.options("dataset", dataset.name), **dataset.options}
    shape = {name: options.get(name) for name in ("frames", "height", "width")}
    return plugins.load("dataset", Spec("shapes", shape)) if all(shape.values()) else None


def _train_command(model: Spec, data: Dataset, dataset: Spec, root: str | None, *, smoke: bool) -> str:
    known = plugins.options("model", model.name, "create")
    trained_model = Spec(model.name, {name: value for name, value in model.options.items() if name in known})
    size = next(_fitting_presets(trained_model, data), None)
    if size is None:
        return f"None of its presets fits clips of that shape: see python -m vfbench show model {model.name}"
    chosen = SMOKE_RECIPE if smoke else recipe(size.preset)
    output = f"runs/train-{model.name}-{dataset.name}"
    options: dict[str, object] = {"model": trained_model, "dataset": dataset, **({"data-root": root} if root else {})}
    options |= {"preset": size.preset, "steps": chosen.steps, "batch-size": chosen.batch_size, "output": output}
    flags = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = shlex.join(["python", "-m", "vfbench", "train", *flags])
    return (
        f"Train one, {format_gpu_hours(size.training_flops, chosen.steps, chosen.batch_size)}:\n  {command}\n"
        f"and repeat this command with --checkpoint {output} ({size.training_flops / 1e9:,.1f} GFLOP a clip and step, "
        "counted; the number of steps and clips is an assumption)"
    )


def _fitting_presets(model: Spec, data: Dataset) -> Iterator[Size]:
    """Presets that fit the dataset's clips; nearest recipe `side` first, those for smaller frames last."""
    side = max(data.shape.height, data.shape.width)
    presets = plugins.constants("model", model.name).presets
    for preset in sorted(presets, key=lambda name: _side_distance(recipe(name).side, side)):
        with suppress(UserError):
            yield match_flops.describe(model, preset, data)


def _side_distance(preset_side: int, side: int) -> tuple[bool, int]:
    return preset_side < side, abs(preset_side - side)
