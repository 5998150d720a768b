"""Dataset, untrained model and initial weights of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vfbench import plugins
from vfbench.diffusion import hub
from vfbench.diffusion.flops import training_flops_or_none
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig, require_unchanged
from vfbench.errors import UserError
from vfbench.interfaces import Dataset
from vfbench.nets.unet import FRAME_CONDITIONS, FRAME_EMBEDDING, FRAME_MIXERS
from vfbench.plugins import Spec
from vfbench.training import match_flops as equal_compute
from vfbench.training.distributed import is_main_process
from vfbench.training.options import require_trainable
from vfbench.utils import checkpoint, console, tensor_files


def prepare_training(
    model: str,
    dataset: str,
    preset: str,
    *,
    seed: int = 0,
    data_root: Path | str | None = None,
    match_flops: str | None = None,
    base_init: str | None = None,
    base_from: str | None = None,
) -> tuple[DiffusionModel, Dataset]:
    """Untrained model and dataset by name; the initial weights depend on `seed` alone.

    `model` may have options of its `create`, such as `videofusion(lam=0.3)`; `base_init` and `base_from` are two of
    them. `match_flops` names a reference (`vdm` or `vdm:small`): the preset's widths are scaled until a clip costs as
    many FLOPs. Raises `UserError` for an unknown name or option, or a clip shape that the model cannot take.
    """
    spec = plugins.parse(model)
    require_trainable(spec.name)
    spec = _with_flags(spec, {"base_init": base_init, "base_from": base_from})
    data: Dataset = plugins.load(
        "dataset", plugins.parse(dataset).merged({"root": str(data_root) if data_root else None})
    )
    size = equal_compute.describe(spec, preset, data)
    if match_flops is not None:
        before, reference = size, equal_compute.reference(match_flops, data, preset)
        size = equal_compute.match(spec, preset, data, reference)
        _print_match(before, size, reference)
    torch.manual_seed(seed)
    return equal_compute.create(size, data), data


def _with_flags(spec: Spec, flags: dict[str, str | None]) -> Spec:
    """Model with the options of the command line added, checked before the dataset is read."""
    known = plugins.options("model", spec.name, "create")
    for name, value in flags.items():
        if value is not None and name not in known:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} {value}: {spec.name} has no option {name}; it has {', '.join(known) or 'none'}")
    return Spec(spec.name, plugins.validated_options("model", spec.merged(flags), "create"))


def _print_match(before: equal_compute.Size, after: equal_compute.Size, reference: equal_compute.Size) -> None:
    """Print the cost of the preset, the matched preset and the reference to stderr, in the main process."""
    sizes = {"preset": before, "matched": after, f"{reference.model} {reference.preset}": reference}
    width = max(map(len, sizes))
    for name, size in sizes.items() if is_main_process() else ():
        training_flops = training_flops_or_none(size.meta_model)
        training = "not counted" if training_flops is None else f"{training_flops / 1e9:,.2f}"
        cost = f"{size.flops_per_clip / 1e9:,.2f} GFLOP to sample a clip, {training} to train on one"
        console.info(f"{name:<{width}}  {cost}, {size.parameters:,} parameters")


def load_initial_weights(model: DiffusionModel, source: Path | str) -> str:
    """Load the weights of a vfbench checkpoint, a folder or `hub:owner/name`, into `model`; returns their SHA-256.

    The checkpoint may be of another model with the same networks (PYoCo's are VDM's). Tensors that it lacks keep their
    initial values: those of a `FrameCondition`, and for an image model those of the layers that mix frames. These
    layers change nothing at first.

    Raises `UserError` where the checkpoint differs in frames, classes, words or an option that the weights depend on.
    Raises `MissingData` where it is damaged, or a tensor is missing or of another shape.
    """
    folder = hub.resolve_checkpoint(source)
    config = hub.read_config(folder)
    inflated = config.shape.frames == 1 < model.config.shape.frames
    for name, (saved, current) in _required_equal(config, model.config).items():
        if saved != current and not (name == "frames" and inflated):
            raise UserError(f"--init-from {source} was trained with {name} {saved}, this model has {current}")
    names, parts = model.state_dict(), (*FRAME_CONDITIONS, *(FRAME_MIXERS if inflated else ()))
    digest = tensor_files.load_into(
        model,
        folder / checkpoint.TENSORS,
        config.sha256,
        optional=[name for name in names if any(part in name for part in parts)],
        repeated=[name for name in names if inflated and name.endswith(FRAME_EMBEDDING)],
    )
    require_unchanged(folder)
    return digest


def _required_equal(saved: ModelConfig, current: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Saved and current value of each setting that must be equal for the saved weights to be usable."""
    names = ("form", "schedule", "parametrisation", "embedding", "text_encoder", "base_init", "base_sha256")
    return {
        "frames": (saved.shape.frames, current.shape.frames),
        "classes": (saved.classes, current.classes),
        "words": (saved.words, current.words),
        **{name: (saved.options.get(name), current.options.get(name)) for name in names},
    }
