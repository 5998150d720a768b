"""Inception-v3 feature extractor of FID: 2048 pooled activations of TensorFlow's network of 2015-12-05.

Heusel et al., arXiv 1706.08500. The architecture is that of pytorch-fid, whose pools differ from torchvision's. Frames
of one clip are nearly identical, so a frame FID samples clips, by default one frame of each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vfbench import video
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Clips, Features, Request, derive_seed
from vfbench.metrics._resize import bilinear, tf1_bilinear
from vfbench.utils import text
from vfbench.utils.device import exact_float32, to_device
from vfbench.weights.load import WeightInfo, load_weights

DIM = 2048
SIDE = 299  # pixels
BATCH_SIZE = 32  # frames per forward pass; 5.5 MB each in the widest layer
OPTIONS = {"frames": ("random", "middle", "all"), "resize": ("half_pixel", "tf1")}


def build(
    device: torch.device,
    *,
    frames: str = "random",
    count: int = 16,
    resize: str = "half_pixel",
    weights: str = "default",
) -> InceptionExtractor:
    """Extractor with Inception-v3 in float32.

    `frames` of a clip: `random`, one frame chosen by the seed and index of its request; `middle`, frame T // 2; `all`,
    all `count` frames, concatenated to one row of count * 2048 values, as `fid(frames=<count>)` expects.
    `resize`: `half_pixel` as in pytorch-fid (half-pixel bilinear without antialias, 2 x / 255 - 1), `tf1` as in
    torch-fidelity and TensorFlow (the legacy grid, (x - 128) / 128); both squash a frame to 299 x 299.
    `weights` as in `vfbench.weights.load`. Raises `UserError` for any other value.
    """
    for option, value in {"frames": frames, "resize": resize}.items():
        if value not in OPTIONS[option]:
            raise unknown(f"option {option} of extractor inception", value, OPTIONS[option])
    if count < 1:
        raise UserError(f"option count={count} of extractor inception: give the number of frames of a clip, at least 1")
    network = create()
    weight_info = load_weights(network, "inception", weights)
    return InceptionExtractor(network, weight_info, device, frames=frames, count=count, resize=resize)


def create() -> Any:
    """Network of pytorch-fid with its classifier of 1008 classes and the tensor names of the published file.

    The weights are torch's initial ones; the global random state is restored.
    """
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models import Inception3

    with torch.random.fork_rng(devices=[]):
        network = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
        for name, inputs, pool_features in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            setattr(network, f"Mixed_{name}", FIDInceptionA(inputs, pool_features=pool_features))
        for name, channels in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(network, f"Mixed_{name}", FIDInceptionC(768, channels_7x7=channels))
        network.Mixed_7b, network.Mixed_7c = FIDInceptionE_1(1280), FIDInceptionE_2(2048)
    return network


class InceptionExtractor:
    """Inception-v3 as an `Extractor`; `features` (2048, or count * 2048) are the pooled activations."""

    name = "inception"

    def __init__(
        self,
        network: Any,
        weight_info: WeightInfo,
        device: torch.device,
        *,
        frames: str = "random",
        count: int = 16,
        resize: str = "half_pixel",
    ) -> None:
        network.fc = nn.Identity()  # output the pooled activations
        self.network, self.device, self.weight_status = network.to(device).eval(), device, weight_info.weight_status
        self.frames, self.count, self.resize = frames, count if frames == "all" else 1, resize
        self.outputs: Mapping[str, int] = {"features": self.count * DIM}
        settings = ["inception", weight_info.digest, frames, self.count, resize]
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Features, float32 (B, D) on the CPU; with frames='all' raises `UserError` unless T = `count`."""
        self.require_frames(video.require_byte_range(clips).shape[1], outputs)
        selected = self._select_frames(clips, requests)
        with exact_float32(self.device):
            features = torch.cat([self.network(self.network_input(part)) for part in torch.split(selected, BATCH_SIZE)])
        return {output: features.reshape(len(clips), -1).cpu() for output in outputs}

    def require_frames(self, frames: int, outputs: Sequence[str]) -> None:
        """Raise `UserError` for another number of frames than `count`, where all are read."""
        if self.frames == "all" and frames != self.count:
            raise UserError(
                f"clips have {text.count(frames, 'frame')}, but extractor inception has count={self.count}: "
                f"use inception(frames='all', count={frames}) and fid(frames={frames})"
            )

    def _select_frames(self, clips: Clips, requests: Sequence[Request]) -> UInt8[Tensor, "n 3 h w"]:
        """Frames to extract features from, clip by clip."""
        length = clips.shape[1]
        if self.frames == "middle":
            return clips[:, length // 2]
        if self.frames == "random":
            positions = [derive_seed(request.seed, request.index, "frame") % length for request in requests]
            return clips[range(len(clips)), positions]
        return clips.flatten(0, 1)

    def network_input(self, frames: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 299 299"]:
        """Frames resized to 299 x 299: `half_pixel` scales 0..255 to -1..1, `tf1` to -1..0.992."""
        pixels = to_device(frames, self.device).float()
        if self.resize == "tf1":
            return tf1_bilinear(pixels, SIDE, SIDE).sub(128).div(128)
        return bilinear(pixels, SIDE, SIDE).div(127.5).sub(1)
