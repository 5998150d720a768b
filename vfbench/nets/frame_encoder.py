"""What turns a frame into one vector, for models that are conditioned on it: a network of ours, or CLIP's.

Both give vectors of length sqrt(size), whose entries are of the order of 1, so that a diffusion prior over them
(`vfbench.nets.embedding_prior`) finds the scale it expects, whatever the encoder has learnt.
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

COARSEST = 4  # pixels: a picture is halved until its longer side has no more
WIDTHS = (32, 64, 128)  # of the first layers; later ones are as wide as the last
FILES = ("config.json", "model.safetensors")


def scaled(vectors: Tensor) -> Tensor:
    """Vectors (B, size) brought to the length sqrt(size), in float32."""
    unit: Tensor = F.normalize(vectors.float(), dim=1)
    return unit * float(vectors.shape[1] ** 0.5)


class FrameEncoder(nn.Module):
    """A small convolutional network that is trained with its model: (B, 3, H, W) in [-1, 1] to (B, size)."""

    def __init__(self, shape: ClipShape, size: int) -> None:
        super().__init__()
        height, width, channels = shape.height, shape.width, 3
        layers: list[nn.Module] = []
        while max(height, width) > COARSEST:
            wider = WIDTHS[min(len(layers) // 3, len(WIDTHS) - 1)]
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.GroupNorm(8, wider), nn.SiLU()]
            height, width, channels = (height + 1) // 2, (width + 1) // 2, wider
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, size))

    def forward(self, frames: Tensor) -> Tensor:
        """Vectors of length sqrt(size)."""
        return scaled(self.layers(frames))


class ClipEncoder:
    """CLIP's image network with its projection (arXiv 2103.00020), frozen: (B, 3, H, W) in [-1, 1] to (B, size).

    No module, for it is no part of the model: a clip is made without it, from the embedding that the prior draws, so
    checkpoints hold its `name` and the SHA-256 of its weights, and it is read when the first frame is to be encoded.
    """

    def __init__(self, name: str, sha256: str) -> None:
        self.name, self.sha256 = name, sha256
        self._network: nn.Module | None = None

    def __call__(self, frames: Tensor) -> Tensor:
        """Vectors of length sqrt(size); frames are squashed to CLIP's square, so that nothing is cut off.

        Raises `MissingData` as `find` does, where the weights cannot be read or lack a tensor, and where they are
        others than those that the model began with.
        """
        if self._network is None:
            self._network = self._read()
        network: Any = self._network.to(frames.device)
        side = network.config.image_size
        with torch.no_grad():
            fitted = F.interpolate(frames.float(), (side, side), mode="bicubic", align_corners=False, antialias=True)
            vectors: Tensor = network(_normalised(fitted.clamp(-1, 1))).image_embeds
        return scaled(vectors)

    def _read(self) -> nn.Module:
        found = find(self.name)
        if found.sha256 != self.sha256:
            raise MissingData(
                f"{found.folder / FILES[1]} is another CLIP than the one that this training began with: "
                f"its SHA-256 is {found.sha256}, expected {self.sha256}"
            )
        return _loaded(found.folder)


class FoundClip(NamedTuple):
    """Where CLIP's image network was found, the SHA-256 of its weights and the size of its vectors."""

    folder: Path
    sha256: str
    size: int


def find(name: str) -> FoundClip:
    """CLIP's image network in a folder, or else in the hub's cache or on the hub by its id.

    Raises `MissingData` where it is not there.
    """
    from transformers import CLIPVisionConfig

    folder = hf_hub.folder(name, FILES)
    if lacking := [file for file in FILES if not (folder / file).is_file()]:
        raise MissingData(f"{folder} holds no CLIP model: {', '.join(lacking)} is not there")
    try:
        size: int = CLIPVisionConfig.from_pretrained(folder, local_files_only=True).projection_dim
    except (OSError, ValueError, TypeError) as error:
        raise MissingData(f"{folder / FILES[0]} does not describe a CLIP model ({error})") from error
    return FoundClip(folder, file_sha256(folder / FILES[1]), size)


def _loaded(folder: Path) -> nn.Module:
    from transformers import CLIPVisionModelWithProjection

    found: Any
    told: Any
    try:
        with memory.needed(str(folder)):
            found, told = CLIPVisionModelWithProjection.from_pretrained(  # type: ignore[misc]  # a pair, with the info
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingData(f"{folder} holds no CLIP model that can be read ({error})") from error
    if told["missing_keys"]:
        raise MissingData(f"{folder / FILES[1]} does not fit CLIP: '{min(told['missing_keys'])}' is missing")
    network: nn.Module = found.eval().requires_grad_(False)
    return network


def _normalised(frames: Tensor) -> Tensor:
    """Frames in [-1, 1] with the mean and deviation of CLIP's training."""
    from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    mean, std = (frames.new_tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    normalised: Tensor = (frames / 2 + 0.5 - mean) / std
    return normalised
