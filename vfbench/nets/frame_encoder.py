"""Encoders from a frame to one vector, for models conditioned on a frame: a small trained network, or CLIP.

Both give vectors of length sqrt(size), so their entries are of order 1. A diffusion prior over the vectors
(`vfbench.nets.embedding_prior`) then meets the scale it expects, whatever the encoder has learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from vfbench.errors import MissingData
from vfbench.interfaces import ClipShape
from vfbench.utils import hf_hub, memory
from vfbench.utils.files import file_sha256

FINAL_SIDE = 4  # pixels: frames are halved until their longer side is at most this
WIDTHS = (32, 64, 128)  # of the first layers; later ones are as wide as the last
WEIGHT_FILES = ("config.json", "model.safetensors")


def normalise_vectors(vectors: Tensor) -> Tensor:
    """Vectors (B, size) scaled to the length sqrt(size), in float32."""
    unit: Tensor = F.normalize(vectors.float(), dim=1)
    return unit * float(vectors.shape[1] ** 0.5)


class FrameEncoder(nn.Module):
    """Small convolutional network trained with its model, from frames (B, 3, H, W) in [-1, 1] to (B, size)."""

    def __init__(self, shape: ClipShape, size: int) -> None:
        super().__init__()
        height, width, channels = shape.height, shape.width, 3
        layers: list[nn.Module] = []
        while max(height, width) > FINAL_SIDE:
            outputs = WIDTHS[min(len(layers) // 3, len(WIDTHS) - 1)]
            layers += [nn.Conv2d(channels, outputs, 3, stride=2, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
            height, width, channels = (height + 1) // 2, (width + 1) // 2, outputs
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, size))

    def forward(self, frames: Tensor) -> Tensor:
        """Vectors (B, size) of length sqrt(size)."""
        return normalise_vectors(self.layers(frames))


class CLIPEncoder:
    """CLIP's image network with its projection (arXiv 2103.00020), frozen: (B, 3, H, W) in [-1, 1] to (B, size).

    It is no module, because sampling does not need it and checkpoints do not contain it: they record its `name` and the
    SHA-256 of its weights. The weights are read when the first frame is encoded.
    """

    def __init__(self, name: str, sha256: str) -> None:
        self.name, self.sha256 = name, sha256
        self._network: nn.Module | None = None

    def __call__(self, frames: Tensor) -> Tensor:
        """Vectors (B, size) of length sqrt(size); frames are resized to CLIP's square without cropping.

        Raises `MissingData` as `find_clip` does, where the weights cannot be read or lack a tensor, and where they do
        not have the recorded SHA-256.
        """
        if self._network is None:
            self._network = self._read()
        network: Any = self._network.to(frames.device)
        side = network.config.image_size
        with torch.no_grad():
            resized = F.interpolate(frames.float(), (side, side), mode="bicubic", align_corners=False, antialias=True)
            vectors: Tensor = network(_clip_normalised(resized.clamp(-1, 1))).image_embeds
        return normalise_vectors(vectors)

    def _read(self) -> nn.Module:
        clip = find_clip(self.name)
        if clip.sha256 != self.sha256:
            raise MissingData(
                f"{clip.folder / WEIGHT_FILES[1]} is not the CLIP that this training began with: "
                f"its SHA-256 is {clip.sha256}, expected {self.sha256}"
            )
        return _load_clip(clip.folder)


class CLIPFiles(NamedTuple):
    """Folder of CLIP's image network, SHA-256 of its weights and size of its vectors."""

    folder: Path
    sha256: str
    size: int


def find_clip(name: str) -> CLIPFiles:
    """CLIP's image network in the folder `name`, or of the hub id `name` (cached or downloaded).

    Raises `MissingData` where there is none.
    """
    from transformers import CLIPVisionConfig

    folder = hf_hub.resolve_folder(name, WEIGHT_FILES)
    if missing := [file for file in WEIGHT_FILES if not (folder / file).is_file()]:
        raise MissingData(f"{folder} holds no CLIP model: {', '.join(missing)} is missing")
    try:
        size: int = CLIPVisionConfig.from_pretrained(folder, local_files_only=True).projection_dim
    except (OSError, ValueError, TypeError) as error:
        raise MissingData(f"{folder / WEIGHT_FILES[0]} does not describe a CLIP model ({error})") from error
    return CLIPFiles(folder, file_sha256(folder / WEIGHT_FILES[1]), size)


def _load_clip(folder: Path) -> nn.Module:
    from transformers import CLIPVisionModelWithProjection

    loaded: Any
    info: Any
    try:
        with memory.require_memory(str(folder)):
            loaded, info = CLIPVisionModelWithProjection.from_pretrained(  # type: ignore[misc]  # a pair, with the info
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingData(f"{folder} holds no readable CLIP model ({error})") from error
    if info["missing_keys"]:
        raise MissingData(f"{folder / WEIGHT_FILES[1]} does not fit CLIP: '{min(info['missing_keys'])}' is missing")
    network: nn.Module = loaded.eval().requires_grad_(False)
    return network


def _clip_normalised(frames: Tensor) -> Tensor:
    """Frames in [-1, 1], normalised by the mean and standard deviation of CLIP's training images."""
    from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    mean, std = (frames.new_tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    normalised: Tensor = (frames / 2 + 0.5 - mean) / std
    return normalised
