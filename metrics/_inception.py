"""Inception-v3 on frames, as FID uses it: the 2048 numbers before the classifier of TensorFlow's network of 2015-12-05.

Heusel et al., arXiv 1706.08500. The structure is pytorch-fid's, which differs from torchvision's in its pools. Frames
of one clip are nearly copies of each other: the sample of a frame FID are the clips, and one frame of each is the
default.
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
from vfbench.utils.device import exact_float32
from vfbench.weights import Filled, fill

DIM = 2048
SIDE = 299  # pixels
BATCH = 32  # frames in one pass of the network: its widest layer holds 5.5 MB a frame
OPTIONS = {"frames": ("random", "middle", "all"), "resize": ("half_pixel", "tf1")}


def build(
    device: torch.device,
    *,
    frames: str = "random",
    count: int = 16,
    resize: str = "half_pixel",
    weights: str = "default",
) -> InceptionExtractor:
    """Inception-v3 in float32.

    `frames` of a clip: `random`, one that its request's seed and index choose; `middle`, frame T // 2; `all`, each of
    the `count` frames that a clip then must have, side by side in one row of count * 2048 numbers, for
    `fid(frames=<count>)` to take apart again.
    `resize`: `half_pixel` is the input of pytorch-fid (half-pixel bilinear without antialias, 2 x / 255 - 1), `tf1`
    that of torch-fidelity and of TensorFlow (the legacy grid, (x - 128) / 128); both squash a frame to 299 x 299.
    `weights` as in `vfbench.weights.fill`. Raises `UserError` for any other option.
    """
    for option, value in {"frames": frames, "resize": resize}.items():
        if value not in OPTIONS[option]:
            raise unknown(f"option {option} of extractor inception", value, OPTIONS[option])
    if count < 1:
        raise UserError(f"option count={count} of extractor inception: give the number of frames of a clip")
    network = create()
    filled = fill(network, "inception", weights)
    return InceptionExtractor(network, filled, device, frames=frames, count=count, resize=resize)


def create() -> Any:
    """The network of pytorch-fid with its classifier of 1008 classes, as its published file names the tensors.

    Its numbers are torch's initial ones; the global random state is left as it was.
    """
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models import Inception3

    with torch.random.fork_rng(devices=[]):
        network = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
        for name, inputs, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            setattr(network, f"Mixed_{name}", FIDInceptionA(inputs, pool_features=pooled))
        for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(network, f"Mixed_{name}", FIDInceptionC(768, channels_7x7=inner))
        network.Mixed_7b, network.Mixed_7c = FIDInceptionE_1(1280), FIDInceptionE_2(2048)
    return network


class InceptionExtractor:
    """Inception-v3 behind the common interface; `features` (2048, or count * 2048) are the pooled activations."""

    name = "inception"

    def __init__(
        self,
        network: Any,
        filled: Filled,
        device: torch.device,
        *,
        frames: str = "random",
        count: int = 16,
        resize: str = "half_pixel",
    ) -> None:
        network.fc = nn.Identity()  # what is pooled comes out
        self.network, self.device, self.weight_status = network.to(device).eval(), device, filled.weight_status
        self.frames, self.count, self.resize = frames, count if frames == "all" else 1, resize
        self.outputs: Mapping[str, int] = {"features": self.count * DIM}
        settings = ["inception", filled.digest, frames, self.count, resize]
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """The features, float32 (B, D) on the CPU; raises `UserError` where `all` meets another number of frames."""
        chosen = self._chosen(video.checked(clips), requests)
        with exact_float32(self.device):
            features = torch.cat([self.network(self.prepared(part)) for part in torch.split(chosen, BATCH)])
        return {output: features.reshape(len(clips), -1).cpu() for output in outputs}

    def _chosen(self, clips: Clips, requests: Sequence[Request]) -> UInt8[Tensor, "n 3 h w"]:
        """The frames that count: those of the first clip, those of the second, ..."""
        length = clips.shape[1]
        if self.frames == "middle":
            return clips[:, length // 2]
        if self.frames == "random":
            places = [derive_seed(request.seed, request.index, "frame") % length for request in requests]
            return clips[range(len(clips)), places]
        if length != self.count:
            raise UserError(
                f"clips have {length} frames, and extractor inception was told {self.count}: "
                f"use inception(frames='all', count={length}) and fid(frames={length})"
            )
        return clips.flatten(0, 1)

    def prepared(self, frames: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 299 299"]:
        """What the network sees of frames, in about -1..1."""
        pixels = frames.to(self.device).float()
        if self.resize == "tf1":
            return tf1_bilinear(pixels, SIDE, SIDE).sub(128).div(128)
        return bilinear(pixels, SIDE, SIDE).div(127.5).sub(1)
