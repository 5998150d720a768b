"""Pretrained base generators for VideoFusion: read from a folder or the hub, check, and load into the model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn

from vfbench.clips.inventory import inventory_of
from vfbench.diffusion.model_config import ModelConfig, conditions_flag, require_unchanged
from vfbench.diffusion.schedule import check_parametrisation
from vfbench.diffusion.single_network import SIZES
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Conditioning, Dataset
from vfbench.models import _hub_base, _unclip_base
from vfbench.models._hub_base import HubBaseCheckpoint
from vfbench.nets.unet import UNetConfig
from vfbench.utils import checkpoint, files, hf_hub, tensor_files

BaseInit = Literal["scratch", "finetune", "frozen"]
_IMAGE_MODELS = ("vdm", "pyoco")  # with one frame, their U-Net is the image U-Net of B


class BaseCheckpoint(NamedTuple):
    """Folder and configuration of the vfbench checkpoint that a base generator comes from."""

    folder: Path
    config: ModelConfig

    def require_conditioning(self, weights: Mapping[Conditioning, float]) -> None:
        """Raise `UserError` where a training uses conditioning that the base generator was not trained with."""
        trained = self.config.trained_conditioning
        if new := [kind for kind, weight in weights.items() if weight and kind not in trained]:
            flag = conditions_flag(self.config.conditions)
            raise UserError(
                f"{self.folder} was trained with the conditions {flag}, this training has {' and '.join(new)} too, "
                f"which a frozen base generator cannot learn: give --conditions {flag}, or --base-init finetune"
            )


class PretrainedBase(NamedTuple):
    """Options for the VideoFusion that uses the base generator, its weights by name, and its vfbench checkpoint."""

    options: Mapping[str, Any]
    state: Mapping[str, Tensor]
    checkpoint: BaseCheckpoint | None = None

    def load_into(self, model: nn.Module) -> None:
        """Load the weights into `model`, built with `self.options`; raises `MissingData` naming a missing weight."""
        state = model.state_dict()
        needed = [n for n in state if n.startswith("base.") and not n.startswith(_hub_base.CONDITIONING_PREFIX)]
        if missing := [name for name in needed if name not in self.state]:
            raise MissingData(f"the pretrained base generator lacks '{missing[0].removeprefix('base.')}'")
        model.load_state_dict({**state, **self.state})


def require_consistent(
    config: ModelConfig,
    init: BaseInit,
    source: Path | str | None,
    rate: float | None,
    images: int | None,
    stop_gradient: bool | None,
) -> None:
    """Raise `UserError` where the options of the base generator contradict each other."""
    if init not in get_args(BaseInit):
        raise unknown("base init", init, get_args(BaseInit))
    has_base_options = init != "scratch" or any(option is not None for option in (source, rate, images, stop_gradient))
    if config.options.get("form") == "one" and has_base_options:
        raise UserError(
            f"preset {config.preset} has one network and no base generator: choose a preset with two, or leave out "
            "base_init, base_from, base_lr, images and stop_gradient"
        )
    if init == "scratch" and source is not None:
        raise UserError(f"base init 'scratch' does not read {source}: choose finetune or frozen, or leave it out")
    if init != "scratch" and source is None:
        raise UserError(f"base init '{init}' needs base_from: the folder of a pretrained base generator, or its hub id")
    if rate is not None and init == "frozen":
        raise UserError(f"base_lr {rate}: a frozen base generator does not learn, leave the option out")
    if rate is not None and not 0 < rate < math.inf:
        raise UserError(f"base_lr {rate}: choose a finite number above 0")
    if images is not None and not 0 <= images <= config.shape.frames:
        raise UserError(f"images {images}: choose 0 (the paper's loss) to {config.shape.frames} (all frames of a clip)")
    if stop_gradient is False and init == "frozen":
        raise UserError("stop_gradient False: a frozen base generator does not learn, leave the option out")
    if images and init == "frozen":
        raise UserError(f"images {images}: a frozen base generator does not learn, leave the option out")


def read(source: Path | str, config: ModelConfig, dataset: Dataset) -> PretrainedBase:
    """The base generator in a folder, or of a hub id, for the VideoFusion of `config` trained on `dataset`.

    Raises `UserError` where the two do not fit, also for another image size: a U-Net runs at any size, but has learnt
    objects of its training size. Raises `MissingData` where the base generator cannot be read.
    """
    folder = hf_hub.resolve_folder(source, [*_hub_base.FILES, *_unclip_base.FILES])
    path = folder / "config.json"
    if path.is_file() and "model" in files.read_json(path):
        return _from_checkpoint(folder, str(files.read_json(path)["model"]), config, dataset)
    if _unclip_base.is_pipeline(folder):
        return _from_diffusers(folder, _unclip_base.load(folder, config.shape), config)
    if not path.is_file() and not (folder / "unet" / "config.json").is_file():
        problem = "holds no config.json" if any(folder.iterdir()) else "is empty"
        raise MissingData(
            f"{folder} {problem}: give the --output of a `python -m vfbench train` that has saved, or a UNet2DModel or "
            "unCLIP pipeline of diffusers"
        )
    return _from_diffusers(folder, _hub_base.load(folder, config.shape), config)


def _from_diffusers(folder: Path, pretrained: HubBaseCheckpoint, config: ModelConfig) -> PretrainedBase:
    _require_same_embedding(folder, None, config)
    state = {f"base.{name}": tensor for name, tensor in pretrained.state.items()}
    return PretrainedBase(
        {"base": dict(pretrained.options), "base_sha256": _state_sha256(state), "new_condition": True}, state
    )


def _from_checkpoint(folder: Path, model: str, config: ModelConfig, dataset: Dataset) -> PretrainedBase:
    """The base generator of a vfbench checkpoint, with its conditioning modules."""
    if model not in (*_IMAGE_MODELS, "videofusion"):
        raise UserError(
            f"{folder} is a checkpoint of '{model}': choose one of {', '.join((*_IMAGE_MODELS, 'videofusion'))}"
        )
    base_config = ModelConfig.read(folder / "config.json", model)
    part = "network" if "network" in base_config.options else "base"
    if part == "network" and base_config.shape.frames != 1:
        size = config.preset.partition("-")[0]
        preset = f"{size if f'{size}-image' in SIZES else 'small'}-image"
        frames = base_config.shape.frames
        raise UserError(
            f"{folder} makes clips of {frames} frames, a base generator makes images: train one with\n"
            f"  python -m vfbench train --model vdm --preset {preset} {_dataset_flags(dataset, 1)} --output DIR"
        )
    with checkpoint.config_errors(folder / checkpoint.CONFIG, model):
        base = dict(base_config.options[part])
        embedding = UNetConfig(**base_config.options.get("residual", base)).embedding
        _ = base_config.options["schedule"], base_config.options["parametrisation"]
    _require_compatible(folder, base_config, config, embedding)
    _require_size(folder, base_config, dataset)
    prefixes = {f"{part}.": "base.", "condition.": "condition.", "frame_embedding.": "frame_embedding."}
    tensors = tensor_files.read(folder / checkpoint.TENSORS)
    tensor_files.verify_sha256(folder / checkpoint.TENSORS, base_config.sha256)
    require_unchanged(folder)
    state = {
        new + name.removeprefix(old): tensor.float()
        for name, tensor in tensors.items()
        for old, new in prefixes.items()
        if name.startswith(old)
    }
    options: dict[str, Any] = {"base": base, "base_sha256": _state_sha256(state)}
    if "embedding" in base_config.options:
        options["new_embedding"] = False
    return PretrainedBase(options, state, BaseCheckpoint(folder, base_config))


def _require_compatible(folder: Path, base_config: ModelConfig, config: ModelConfig, embedding: int) -> None:
    """Raise `UserError` naming the first setting in which the base generator differs from `config`."""
    base_options, options = base_config.options, config.options
    pairs = {
        "classes": (base_config.classes, config.classes),
        "words": (base_config.words, config.words),
        "schedule": (base_options["schedule"], options["schedule"]),
        "parametrisation": (base_options["parametrisation"], check_parametrisation(options["parametrisation"])),
        "embedding": (embedding, UNetConfig(**options["residual"]).embedding),
        "text_encoder": (base_options.get("text_encoder"), options.get("text_encoder")),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            is_option = name in ("schedule", "parametrisation")
            advice = f": choose --model \"videofusion({name}='{theirs}')\"" if is_option else ""
            raise UserError(f"{folder} was trained with {name} {theirs}, preset {config.preset} has {ours}{advice}")
    _require_same_embedding(folder, base_config.options.get("embedding"), config)


def _require_same_embedding(folder: Path, theirs: Mapping[str, Any] | None, config: ModelConfig) -> None:
    """Raise `UserError` where the base generator reads another frame embedding, or is frozen and reads none."""
    ours = config.options.get("embedding")
    if theirs and theirs != ours:  # without one, training adds ours, which starts at zero
        raise UserError(f"{folder} was trained with the embedding {theirs}, preset {config.preset} has {ours}")
    if ours and not theirs and config.options["base_init"] == "frozen":
        raise UserError(
            f"{folder} was trained without the embedding of preset {config.preset}, which a frozen base generator "
            "cannot learn to read: choose finetune, or embedding none"
        )


def _require_size(folder: Path, base_config: ModelConfig, dataset: Dataset) -> None:
    """Raise `UserError` where the base generator makes images of another height or width than the clips."""
    theirs, ours = (f"{shape.height}x{shape.width}" for shape in (base_config.shape, dataset.shape))
    if theirs != ours:
        # A frame encoder has weights for each position of a frame, so it fits one size only.
        init = "" if "embedding" in base_config.options else f", which may start from this one: --init-from {folder}"
        raise UserError(
            f"{folder} makes images of {theirs}, the dataset has {ours}: train one with "
            f"{_dataset_flags(dataset, base_config.shape.frames)}{init}"
        )


def _dataset_flags(dataset: Dataset, frames: int) -> str:
    """The flags for clips of `frames` frames in a dataset's height and width; DATA stands for the root of its files."""
    size = replace(dataset.shape, frames=frames).options
    on_disk = inventory_of(dataset) is not None
    return f"--dataset '{dataset.name}({size})'{' --data-root DATA' * on_disk}"


def _state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and values of weights; checkpoints record it as `base_sha256`."""
    sha256 = hashlib.sha256()
    for name in sorted(state):
        sha256.update(name.encode())
        sha256.update(state[name].contiguous().cpu().numpy().tobytes())
    return sha256.hexdigest()
