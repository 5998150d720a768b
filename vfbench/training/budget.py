"""What training would take, told before anything is done: the preset for a dataset's clips, the command, GPU-hours.

FLOPs are counted (`vfbench.training.match_flops`). How many of them a GPU does in a second, how many steps a preset
needs and how many clips a step are assumptions of ours, all of them here: the papers do not say.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from vfbench import plugins
from vfbench.diffusion import sampler
from vfbench.diffusion.model import ModelConfig
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Dataset
from vfbench.plugins import Spec
from vfbench.protocol.resolve import cut, rules
from vfbench.training import match_flops
from vfbench.training.match_flops import Size
from vfbench.utils import checkpoint

TFLOPS = 100  # TFLOP/s a GPU: a third of what an A100 could do in bfloat16, a tenth of an H100


@dataclass(frozen=True)
class Recipe:
    """Optimiser steps and clips a step, for clips whose frames have sides of up to `side` pixels."""

    steps: int
    batch_size: int
    side: int


RECIPES: Mapping[str, Recipe] = {  # by the first word of a preset's name
    "tiny": Recipe(10_000, 8, side=32),  # how the shipped checkpoints were trained
    "small": Recipe(100_000, 64, side=64),
    "base": Recipe(300_000, 64, side=128),
    "paper": Recipe(500_000, 64, side=128),
}
OTHER = Recipe(100_000, 64, side=64)  # for a preset of another name
SMOKE = Recipe(20, 4, side=0)  # to try the path


def recipe(preset: str) -> Recipe:
    """How long to train a preset."""
    return RECIPES.get(preset.partition("-")[0], OTHER)


def gpu_hours(flops: int, steps: int, batch_size: int) -> float:
    """Hours of one GPU at `TFLOPS` for that many steps of that many clips, each of `flops`, forward and backward."""
    return flops * steps * batch_size / (TFLOPS * 1e12) / 3600


def told_hours(flops: int, steps: int, batch_size: int) -> str:
    """Hours as they are told, with the rate that they stand on."""
    hours = gpu_hours(flops, steps, batch_size)
    return f"{f'about {hours:,.1f}' if hours >= 0.1 else 'less than 0.1'} GPU-hours at {TFLOPS} TFLOP/s a GPU"


def require_trained(model: Spec, dataset: Spec, root: str | None, protocol: str | None, *, smoke: bool) -> None:
    """Raise `MissingData` where no checkpoint of a model comes with vfbench for the clips that a protocol scores.

    Says how to train one, and what that takes; where the dataset itself is missing, both. Only for models that are
    sampled by `vfbench.diffusion.sampler`: others may bring their own weights. No clip is read and no network loaded.
    """
    if not _sampled_by_us(model):
        return
    asked = cut(dataset, rules(dataset, protocol, smoke=smoke))
    wanted = _training(dataset, asked)
    try:
        data: Dataset = plugins.load("dataset", asked.merged({"root": root}))
    except MissingData as error:
        if (stand_in := _as_large(asked)) is None or checkpoint.shipped(dataset.name, model.name):
            raise
        advice = _advice(model, stand_in, wanted, root or "DIR", smoke=smoke)
        raise MissingData(
            f"{error}\n'{model.name}' needs a checkpoint as well: none comes with vfbench for {dataset.name}. {advice}"
        ) from error
    require_trained_on(data, model, wanted, root, smoke=smoke)


def require_trained_on(data: Dataset, model: Spec, dataset: Spec, root: str | None, *, smoke: bool = False) -> None:
    """The same for the clips of a dataset that is there, as `dataset` and `root` name it."""
    if not _sampled_by_us(model):
        return
    shipped = checkpoint.shipped(data.name, model.name)
    if shipped and _shape(model, data, ModelConfig.read(shipped / "config.json", model.name).shape) == data.shape:
        return
    raise MissingData(
        f"no checkpoint of '{model.name}' for {data.name} at {data.shape}: none comes with vfbench, and --checkpoint "
        f"is not given. {_advice(model, data, dataset, root, smoke=smoke)}"
    )


def _sampled_by_us(model: Spec) -> bool:
    module = plugins.module("model", model.name)
    return hasattr(module, "create") and module.build.__module__ == sampler.__name__


def _shape(model: Spec, data: Dataset, trained: ClipShape) -> ClipShape:
    """What a checkpoint makes: clips of its own shape, or as long as the model is asked for."""
    return replace(trained, frames=data.shape.frames) if "frames" in model.options else trained


def _training(dataset: Spec, asked: Spec) -> Spec:
    """The dataset as it is to be trained on: clips like those of the protocol, drawn where training draws them."""
    usual = plugins.options("dataset", dataset.name)
    needed = {name: value for name, value in asked.options.items() if value != usual.get(name) and name != "start"}
    return Spec(dataset.name, {**needed, **dataset.options})


def _as_large(asked: Spec) -> Dataset | None:
    """Clips of the size of a dataset that is not there, which cost as much; None where that size is not known."""
    known = {**plugins.options("dataset", asked.name), **asked.options}
    size = {name: known.get(name) for name in ("frames", "height", "width")}
    return plugins.load("dataset", Spec("shapes", size)) if all(size.values()) else None


def _advice(model: Spec, data: Dataset, dataset: Spec, root: str | None, *, smoke: bool) -> str:
    known = plugins.options("model", model.name, "create")
    wanted = Spec(model.name, {name: value for name, value in model.options.items() if name in known})
    size = next(_fitting(wanted, data), None)
    if size is None:
        return f"None of its presets takes clips of that shape: see python -m vfbench show model {model.name}"
    chosen = SMOKE if smoke else recipe(size.preset)
    output = f"runs/train-{model.name}-{dataset.name}"
    told: dict[str, Any] = {"model": wanted, "dataset": dataset, **({"data-root": root} if root else {})}
    told |= {"preset": size.preset, "steps": chosen.steps, "batch-size": chosen.batch_size, "output": output}
    flags = [str(word) for name, value in told.items() for word in (f"--{name}", value)]
    command = shlex.join(["python", "-m", "vfbench", "train", *flags])
    return (
        f"Train one, {told_hours(size.training_flops, chosen.steps, chosen.batch_size)}:\n  {command}\n"
        f"and repeat this command with --checkpoint {output} ({size.training_flops / 1e9:,.1f} GFLOP a clip and step, "
        "counted; how many steps and clips are needed is our assumption)"
    )


def _fitting(model: Spec, data: Dataset) -> Iterator[Size]:
    """The presets that take these clips: first those made for frames as large, then the larger ones, then the rest."""
    side = max(data.shape.height, data.shape.width)
    presets = plugins.module("model", model.name).PRESETS
    for preset in sorted(presets, key=lambda name: _distance(recipe(name).side, side)):  # else as they are listed
        with suppress(UserError):
            yield match_flops.describe(model.name, preset, data, model.options)


def _distance(made_for: int, side: int) -> tuple[bool, int]:
    return made_for < side, abs(made_for - side)
