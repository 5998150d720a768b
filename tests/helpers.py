"""Tiny models and datasets; one training step takes milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vfbench.baselines import vdm
from vfbench.baselines.vdm import VDM
from vfbench.datasets import shapes
from vfbench.datasets.shapes import Shapes
from vfbench.diffusion import schedule
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.diffusion.schedule import Prediction
from vfbench.diffusion.solvers import Denoiser
from vfbench.interfaces import BuildContext, Clips, Conditioning, Features, Request, Split, WeightStatus
from vfbench.models import videofusion
from vfbench.models.videofusion import OneNetworkVideoFusion, VideoFusion

Model = TypeVar("Model", bound=DiffusionModel)

CPU = torch.device("cpu")
UNET: dict[str, Any] = {"channels": [8, 16], "blocks": 1, "patch": 2, "attention": [1], "embedding": 16}
NO_TIME = {**UNET, "attention": []}


def tiny_dataset(frames: int = 4, side: int = 8) -> Shapes:
    return shapes.build(frames=frames, height=side, width=side)


class OneClip(Shapes):
    """Dataset whose train split repeats one clip."""

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        return super().clips(split, [0] * len(indices) if split == "train" else indices, device)


def tiny_videofusion(frames: int = 4, *, perturbed: bool = True, **options: Any) -> VideoFusion:
    config = ModelConfig.from_preset("videofusion", "tiny", videofusion.PRESETS, tiny_dataset(frames))
    return _tiny(VideoFusion, config, perturbed, {"base": NO_TIME, "residual": UNET, "base_update": "paper", **options})


def tiny_one_network(**options: Any) -> OneNetworkVideoFusion:
    """VideoFusion with a single network."""
    config = ModelConfig.from_preset("videofusion", "tiny-one", videofusion.PRESETS, tiny_dataset())
    return _tiny(OneNetworkVideoFusion, config, True, {"network": UNET, **options})


def tiny_vdm(frames: int = 4, *, perturbed: bool = True, **options: Any) -> VDM:
    config = ModelConfig.from_preset("vdm", "tiny", vdm.PRESETS, tiny_dataset(frames))
    return _tiny(VDM, config, perturbed, {"network": UNET, **options})


def _tiny(kind: type[Model], config: ModelConfig, perturbed: bool, options: Mapping[str, Any]) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(replace(config, options={**config.options, "time_shift": 1.0, **options}))
    if perturbed:
        perturb(model)
    return model


def perturb(module: nn.Module, scale: float = 0.1) -> None:
    """Add noise to every weight: zero-initialised heads and residual paths would hide differences."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def clips_of(model: DiffusionModel, batch: int = 2, seed: int = 0) -> Tensor:
    """Normal noise in the shape of the model's clips."""
    shape = model.config.shape
    return randn(batch, shape.frames, 3, shape.height, shape.width, seed=seed)


def embed(model: DiffusionModel, conditioning: Conditioning = "none", batch: int = 2) -> Tensor:
    """Conditioning vectors (batch, width) of one label and caption, equal for every clip."""
    caption = "a small red circle moves left over blue stripes"
    vectors: Tensor = model.condition([3] * batch, [caption] * batch, [conditioning] * batch)
    return vectors


def denoiser_of(model: DiffusionModel, condition: Tensor) -> Denoiser:
    """Denoiser that the sampler passes to a solver, at guidance 1."""

    def denoise(z: Tensor, t: int) -> Prediction:
        times = torch.full((len(z),), t)
        return schedule.clip_x0(model.predict(z, times, condition), z, model.schedule.at(times, z))

    return denoise


def requests(*indices: int) -> list[Request]:
    """Requests with the labels and captions of the tiny dataset's test clips."""
    data = tiny_dataset()
    rows = zip(indices, data.labels("test", indices), data.captions("test", indices), strict=True)
    return [Request(index, 1000 + index, label, caption) for index, label, caption in rows]


def build_context(checkpoint: Path, frames: int = 4) -> BuildContext:
    return BuildContext(tiny_dataset(frames), CPU, checkpoint=checkpoint)


def sampler(folder: Path, **options: Any) -> DiffusionSampler:
    """Sampler of a tiny VideoFusion checkpoint, with 3 steps."""
    return videofusion.build(build_context(folder), **{"steps": 3, **options})


class Colour:
    """Extractor that replaces a large network: every output is the mean colour of a clip, (B, 3)."""

    name = "colour"
    fingerprint = "ab" * 32

    def __init__(self, weight_status: WeightStatus, outputs: Sequence[str]) -> None:
        self.weight_status = weight_status
        self.outputs: Mapping[str, int] = dict.fromkeys(outputs, 3)

    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        return {output: clips.float().mean((1, 3, 4)) / 255 for output in outputs}
