"""I3D feature extractor of FVD and KVD: 400 logits of Kinetics-400, or 1024 pooled features.

Carreira and Zisserman, arXiv 1705.07750 (inflated Inception-v1; the RGB stream, trained from scratch); for FVD:
Unterthiner et al., arXiv 1812.01717. Implementations differ in the resize rule, see `vfbench.metrics._resize`, and in
the epsilon of batch norm: 1e-3 in the original, StyleGAN-V and MAGVIT, 1e-5 in VideoGPT, DIGAN, TATS, PVDM, LVDM and
cd-fvd. Both change every feature, so both are options, and part of the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vfbench import video
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Clips, Features, Request
from vfbench.metrics._i3d_network import CHANNELS_LAST, I3D, FoldedI3D
from vfbench.metrics._resize import bilinear, short_side_crop, tf1_bilinear
from vfbench.utils import text
from vfbench.utils.device import exact_float32, to_device
from vfbench.utils.options import DTYPES
from vfbench.weights.load import WeightInfo, load_weights

SIDE = 224  # pixels
MIN_FRAMES = 9  # 8 frames leave one cell in time for the last pool, which needs 2
FRAMES_PER_PASS = {"cuda": 512}  # per forward pass; 1.6 MB each in the widest layer
DEFAULT_FRAMES_PER_PASS = 32  # two clips: some PyTorch layers are slower with a batch of one
RESIZES = ("squash", "tf1", "crop")


def build(
    device: torch.device,
    *,
    resize: str = "squash",
    bn_eps: float = 1e-3,
    weights: str = "default",
    dtype: str = "float32",
) -> I3DExtractor:
    """Extractor with I3D, for clips of at least 9 frames.

    `resize` to 224 x 224: `squash` (half-pixel bilinear, any aspect), `tf1` (the legacy grid of TensorFlow 1) or `crop`
    (short side, then the centre square); never antialiased. `bn_eps`: epsilon of batch norm. `weights` as in
    `vfbench.weights.load`. `dtype` `bfloat16` runs the convolutions under autocast: faster, other features.
    Raises `UserError` for any other value.
    """
    for option, value, known in (("resize", resize, RESIZES), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise unknown(f"option {option} of extractor i3d", value, known)
    if not 0 < bn_eps < 1:
        raise UserError(f"option bn_eps={bn_eps} of extractor i3d: published networks have 1e-3 or 1e-5")
    with torch.device("meta"):  # skips the initialisation of the parameters
        network = I3D(bn_eps)
    weight_info = load_weights(network.to_empty(device="cpu"), "i3d", weights)
    return I3DExtractor(network.fold(), weight_info, device, resize=resize, bn_eps=bn_eps, dtype=dtype)


class I3DExtractor:
    """I3D as an `Extractor`.

    `pool` (1024): the last block, averaged over windows of 2 x 7 x 7 cells (stride 1, no padding) and then over time;
    9 to 16 frames give one window. `logits` (400): classifier outputs before softmax, averaged over the same windows,
    which equals the classifier applied to `pool`. FVD uses `logits`.
    """

    name = "i3d"
    outputs: Mapping[str, int] = {"logits": 400, "pool": 1024}

    def __init__(
        self,
        network: FoldedI3D,
        weight_info: WeightInfo,
        device: torch.device,
        *,
        resize: str = "squash",
        bn_eps: float = 1e-3,
        dtype: str = "float32",
    ) -> None:
        self.network, self.device, self.weight_status = network.to(device), device, weight_info.weight_status
        self.resize, self.dtype = resize, dtype
        settings = ["i3d", weight_info.digest, resize, bn_eps, dtype]
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Requested outputs, float32 (B, D) on the CPU; raises `UserError` for clips of fewer than 9 frames."""
        frames = video.require_byte_range(clips).shape[1]
        self.require_frames(frames, outputs)
        parts = torch.split(clips, max(1, FRAMES_PER_PASS.get(self.device.type, DEFAULT_FRAMES_PER_PASS) // frames))
        with exact_float32(self.device):
            results = [self._run(self.network_input(part)) for part in parts]
        return {output: torch.cat([result[output] for result in results]).cpu() for output in outputs}

    def require_frames(self, frames: int, outputs: Sequence[str]) -> None:
        """Raise `UserError` for fewer than 9 frames; see `vfbench.interfaces.FrameLimits`."""
        if frames < MIN_FRAMES:
            raise UserError(
                f"clips have {text.count(frames, 'frame')}, and I3D needs at least {MIN_FRAMES}: make longer clips"
            )

    def network_input(self, clips: Clips) -> Float[Tensor, "batch 3 frames 224 224"]:
        """Preprocessed clips, in -1..1."""
        frames = to_device(clips, self.device).flatten(0, 1).float()
        if self.resize == "crop":
            frames = short_side_crop(frames, SIDE)
        else:
            frames = (bilinear if self.resize == "squash" else tf1_bilinear)(frames, SIDE, SIDE)
        return frames.div(127.5).sub(1).reshape(*clips.shape[:3], SIDE, SIDE).transpose(1, 2)

    def _run(self, x: Float[Tensor, "batch 3 frames 224 224"]) -> dict[str, Features]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            block = self.network.trunk(x.contiguous(memory_format=CHANNELS_LAST))
        return self.network.heads(block.float())
