"""What a training begins with: a dataset, a model of a size, and its first weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vfbench import plugins
from vfbench.diffusion import hub
from vfbench.diffusion.flops import training_flops_or_none
from vfbench.diffusion.model import DiffusionModel, ModelConfig, require_unchanged
from vfbench.errors import UserError
from vfbench.interfaces import Dataset
from vfbench.plugins import Spec
from vfbench.training import match_flops as matching
from vfbench.training.distributed import first
from vfbench.utils import checkpoint, tensor_files


def prepare(
    model: str,
    dataset: str,
    preset: str,
    *,
    seed: int = 0,
    data_root: Path | None = None,
    match_flops: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[DiffusionModel, Dataset]:
    """An untrained model and its dataset by name; the initial weights follow from `seed` alone.

    `model` may have options, those of `create` in its file, such as `videofusion(lam=0.3)`; `options` are more of them,
    and None is not given. `match_flops` names a reference (`vdm` or `vdm:small`), to whose FLOPs a clip the preset is
    widened. Raises `UserError` for a name, an option or a clip shape that the model does not take.
    """
    wanted = plugins.parse(model)
    if not hasattr(plugins.module("model", wanted.name), "create"):
        raise UserError(f"'{wanted.name}' cannot be trained; these can: {', '.join(matching.trainable())}")
    given = _given(wanted, options or {})
    spec = plugins.parse(dataset).merged({"root": str(data_root) if data_root else None})
    data: Dataset = plugins.load("dataset", spec)
    size = matching.describe(wanted.name, preset, data, given)
    if match_flops is not None:
        before, reference = size, matching.reference(match_flops, data, preset)
        size = matching.match(wanted.name, preset, data, reference, options=given)
        _tell(before, size, reference)
    torch.manual_seed(seed)
    return matching.create(size, data), data


def _given(wanted: Spec, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model, checked before a dataset is looked for."""
    known = plugins.options("model", wanted.name, "create")
    for name, value in flags.items():
        if value is not None and name not in known:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} {value}: {wanted.name} has no option {name}; it has {', '.join(known) or 'none'}")
    return plugins.accepted("model", wanted.merged(flags), "create")


def _tell(before: matching.Size, after: matching.Size, reference: matching.Size) -> None:
    """Say what matching has changed."""
    lines = {"preset": before, "matched": after, f"{reference.model} {reference.preset}": reference}
    width = max(map(len, lines))
    for name, size in lines.items() if first() else ():
        learning = training_flops_or_none(size.bare)
        learn = "not counted" if learning is None else f"{learning / 1e9:,.2f}"
        cost = f"{size.flops_per_clip / 1e9:,.2f} GFLOP to make a clip, {learn} to learn from one"
        print(f"{name:<{width}}  {cost}, {size.parameters:,} parameters", file=sys.stderr)


def start_from(model: DiffusionModel, source: Path | str) -> str:
    """Fill `model` with the weights of a checkpoint of ours, a folder or `hub:owner/name`; returns their SHA-256.

    Raises `UserError` where its clips, words or prediction are others by intention, and `MissingData` where it is
    damaged, of another model, or a tensor does not fit, named with both shapes.
    """
    folder = hub.checkpoint(source)
    checkpoint.require_checkpoint(folder, model.config.model)
    config = ModelConfig.read(folder / checkpoint.CONFIG, model.config.model)
    for name, (theirs, ours) in _understood(config, model.config).items():
        if theirs != ours:
            raise UserError(f"--init-from {source} was trained with {name} {theirs}, this model has {ours}")
    digest = tensor_files.load_into(model, folder / checkpoint.TENSORS, config.sha256)
    require_unchanged(folder)
    return digest


def _understood(theirs: ModelConfig, ours: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """What both must mean alike for weights of one to make sense in the other."""
    same = ("form", "schedule", "parametrisation", "embedding", "base_init", "base_sha256")
    return {
        "frames": (theirs.shape.frames, ours.shape.frames),
        "classes": (theirs.classes, ours.classes),
        "words": (theirs.words, ours.words),
        **{name: (theirs.options.get(name), ours.options.get(name)) for name in same},
    }
