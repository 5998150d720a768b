"""A base generator that was trained before: found in a folder or on the hub, checked, and put into VideoFusion."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn

from vfbench.clips.inventory import Inventory
from vfbench.diffusion.model import ModelConfig, flag_of, require_unchanged
from vfbench.diffusion.schedule import parametrisation
from vfbench.diffusion.single_network import SIZES
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Conditioning, Dataset
from vfbench.models import _hub_base
from vfbench.nets.unet import UNetConfig
from vfbench.utils import checkpoint, files, hf_hub, tensor_files

BaseInit = Literal["scratch", "finetune", "frozen"]
_IMAGES = ("vdm", "pyoco")  # their U-Net of one frame is the image U-Net that B is


class Told(NamedTuple):
    """What a base generator of ours, from a folder, was told of the images that it learnt."""

    folder: Path
    config: ModelConfig

    def require(self, conditions: Mapping[Conditioning, float]) -> None:
        """Raise `UserError` where clips are to be shown, by these weights, with what it was never told."""
        if new := [way for way, weight in conditions.items() if weight and way not in self.config.ways]:
            was = flag_of(self.config.conditions)
            raise UserError(
                f"{self.folder} was trained with the conditions {was}, this training has {' and '.join(new)} too, "
                f"which a frozen base generator cannot learn: give --conditions {was}, or --base-init finetune"
            )


class Pretrained(NamedTuple):
    """What to add to the options of a VideoFusion, weights by their names in it, and what B was told, if anything."""

    options: Mapping[str, Any]
    state: Mapping[str, Tensor]
    told: Told | None = None

    def fill(self, model: nn.Module) -> None:
        """Put the weights into a model that was built with the options; raises `MissingData` where one is missing."""
        state = model.state_dict()
        wanted = [n for n in state if n.startswith("base.") and not n.startswith(_hub_base.ADDED)]
        if missing := [name for name in wanted if name not in self.state]:
            raise MissingData(f"the pretrained base generator lacks '{missing[0].removeprefix('base.')}'")
        model.load_state_dict({**state, **self.state})


def require_consistent(
    config: ModelConfig, init: BaseInit, source: Path | str | None, rate: float | None, images: int | None
) -> None:
    """Raise `UserError` where what is said of the base generator, and of how it learns, contradicts itself."""
    if init not in get_args(BaseInit):
        raise unknown("base init", init, get_args(BaseInit))
    said = init != "scratch" or any(one is not None for one in (source, rate, images))
    if config.options.get("form") == "one" and said:
        raise UserError(
            f"preset {config.preset} has one network and no base generator, which base_init, base_from, base_lr and "
            "images are about: choose a preset with two"
        )
    if init == "scratch" and source is not None:
        raise UserError(f"base init 'scratch' does not read {source}: choose finetune or frozen, or leave it out")
    if init != "scratch" and source is None:
        raise UserError(f"base init '{init}' needs base_from: the folder of a pretrained base generator, or its hub id")
    if rate is not None and (init == "frozen" or not 0 < rate < math.inf):
        raise UserError(f"base_lr {rate}: a finite number above 0, and none for a frozen base generator")
    if images is not None and not 0 <= images <= config.shape.frames:
        raise UserError(f"images {images}: choose 0, the paper's loss alone, to {config.shape.frames}, all of a clip")
    if images and init == "frozen":
        raise UserError(f"images {images}: a frozen base generator learns nothing from them, leave the option out")


def read(source: Path | str, config: ModelConfig, dataset: Dataset) -> Pretrained:
    """The base generator in a folder, or else of the hub by its id, for the VideoFusion that `config` describes.

    `dataset` is what that will be trained on. Raises `UserError` where the two would not understand each other or make
    pictures of other sizes: a U-Net runs at any, but what it learnt of things is as large as they were. Raises
    `MissingData` where it cannot be read.
    """
    folder = hf_hub.folder(source, _hub_base.FILES)
    path = folder / "config.json"
    if path.is_file() and "model" in files.read_json(path):
        return _ours(folder, str(files.read_json(path)["model"]), config, dataset)
    if not path.is_file() and not (folder / "unet" / "config.json").is_file():
        what = "holds no config.json" if any(folder.iterdir()) else "is empty"
        raise MissingData(
            f"{folder} {what}: a base generator is the --output of a `python -m vfbench train` that has saved, or a "
            "UNet2DModel of diffusers"
        )
    return _of_hub(folder, config)


def _of_hub(folder: Path, config: ModelConfig) -> Pretrained:
    found = _hub_base.load(folder, config.shape)
    _require_embedding(folder, None, config)
    base = {"hub": dict(found.model), "scheduler": dict(found.scheduler)}
    state = {f"base.network.{name}": tensor for name, tensor in found.state.items()}
    return Pretrained({"base": base, "base_sha256": _digest(state), "new_condition": True}, state)


def _ours(folder: Path, model: str, config: ModelConfig, dataset: Dataset) -> Pretrained:
    """From a checkpoint of ours, with the condition, and the embedding, that it was trained with."""
    if model not in (*_IMAGES, "videofusion"):
        raise UserError(f"{folder} is a checkpoint of '{model}': a base generator is one of {', '.join(_IMAGES)}")
    found = ModelConfig.read(folder / "config.json", model)
    part = "network" if "network" in found.options else "base"
    if part == "network" and found.shape.frames != 1:
        size = config.preset.partition("-")[0]
        preset = f"{size if f'{size}-image' in SIZES else 'small'}-image"
        raise UserError(
            f"{folder} makes clips of {found.shape.frames} frames, a base generator images: train it with\n"
            f"  python -m vfbench train --model vdm --preset {preset} {_clips(dataset, 1)} --output DIR"
        )
    base = found.options[part]
    _require_alike(folder, found, config, UNetConfig(**found.options.get("residual", base)).embedding)
    _require_size(folder, found, dataset)
    names = {f"{part}.": "base.", "condition.": "condition.", "frame_embedding.": "frame_embedding."}
    tensors = tensor_files.read(folder / checkpoint.TENSORS)
    tensor_files.verified(folder / checkpoint.TENSORS, found.sha256)
    require_unchanged(folder)
    state = {
        new + name.removeprefix(old): tensor.float()
        for name, tensor in tensors.items()
        for old, new in names.items()
        if name.startswith(old)
    }
    brought = {"new_embedding": False} if "embedding" in found.options else {}
    return Pretrained({"base": base, "base_sha256": _digest(state), **brought}, state, Told(folder, found))


def _require_alike(folder: Path, found: ModelConfig, config: ModelConfig, embedding: int) -> None:
    """Raise `UserError` naming the first thing in which the base generator and R would not understand each other."""
    pairs = {
        "classes": (found.classes, config.classes),
        "words": (found.words, config.words),
        "schedule": (found.options["schedule"], config.options["schedule"]),
        "parametrisation": (found.options["parametrisation"], parametrisation(config.options["parametrisation"])),
        "embedding": (embedding, UNetConfig(**config.options["residual"]).embedding),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            option = name in ("schedule", "parametrisation")
            mend = f": choose --model \"videofusion({name}='{theirs}')\"" if option else ""
            raise UserError(f"{folder} was trained with {name} {theirs}, preset {config.preset} here has {ours}{mend}")
    _require_embedding(folder, found.options.get("embedding"), config)


def _require_embedding(folder: Path, theirs: Mapping[str, Any] | None, config: ModelConfig) -> None:
    """Raise `UserError` where the base generator reads another embedding than ours, or none and cannot learn to."""
    ours = config.options.get("embedding")
    if theirs and theirs != ours:  # without one it learns to read ours, which begins at zero
        raise UserError(f"{folder} was trained with the embedding {theirs}, preset {config.preset} here has {ours}")
    if ours and not theirs and config.options["base_init"] == "frozen":
        raise UserError(
            f"{folder} was trained without the embedding that preset {config.preset} here has, which a frozen base "
            "generator cannot learn to read: choose finetune, or embedding none"
        )


def _require_size(folder: Path, found: ModelConfig, dataset: Dataset) -> None:
    """Raise `UserError` where the base generator makes images of another height or width than those of the clips."""
    theirs, ours = (f"{shape.height}x{shape.width}" for shape in (found.shape, dataset.shape))
    if theirs != ours:
        # The encoder of an embedding has weights for each place of a frame.
        begin = "" if "embedding" in found.options else f", which may begin with it: --init-from {folder}"
        raise UserError(
            f"{folder} makes images of {theirs}, the dataset has {ours}: train one with "
            f"{_clips(dataset, found.shape.frames)}{begin}"
        )


def _clips(dataset: Dataset, frames: int) -> str:
    """The flags for clips of that many frames as large as a dataset's; where its files are, the user knows."""
    size = replace(dataset.shape, frames=frames).options
    on_disk = isinstance(getattr(dataset, "inventory", None), Inventory)
    return f"--dataset '{dataset.name}({size})'{' --data-root DATA' * on_disk}"


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and values, which a checkpoint records."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].contiguous().cpu().numpy().tobytes())
    return found.hexdigest()
