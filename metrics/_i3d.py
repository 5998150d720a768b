"""I3D on clips, as FVD and KVD use it: 400 logits of Kinetics-400, or the 1024 numbers before them.

Carreira and Zisserman, arXiv 1705.07750 (Inception-v1, inflated; the RGB stream, trained from scratch); for FVD:
Unterthiner et al., arXiv 1812.01717. Implementations differ in how they resize (`vfbench.metrics._resize` says who
does what)
and in the epsilon of batch norm: 1e-3 in the original, StyleGAN-V and MAGVIT, 1e-5 in VideoGPT, DIGAN, TATS, PVDM,
LVDM and cd-fvd. Both move every feature, so both are options, and part of the fingerprint.
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
from vfbench.metrics._i3d_network import I3D, LAST, Folded
from vfbench.metrics._resize import bilinear, short_side_crop, tf1_bilinear
from vfbench.utils.device import DTYPES, exact_float32
from vfbench.weights import Filled, fill

SIDE = 224  # pixels
LEAST = 9  # frames: 8 leave the last pool, which is 2 long, a single cell
FRAMES = {"cuda": 512}  # in one pass of the network, 1.6 MB each in its widest layer
FRAMES_ELSEWHERE = 32  # two clips: PyTorch takes a slower way for some layers when it sees one alone
RESIZES = ("squash", "tf1", "crop")


def build(
    device: torch.device,
    *,
    resize: str = "squash",
    bn_eps: float = 1e-3,
    weights: str = "default",
    dtype: str = "float32",
) -> I3DExtractor:
    """I3D on clips of at least 9 frames.

    `resize` to 224 x 224: `squash` (half-pixel bilinear, any aspect), `tf1` (the legacy grid of TensorFlow 1) or `crop`
    (short side, then the centre square); never antialiased. `bn_eps`: the epsilon of batch norm. `weights` as in
    `vfbench.weights.fill`. `dtype` `bfloat16` computes the convolutions by autocast: faster, and another number.
    Raises `UserError` for any other option.
    """
    for option, value, known in (("resize", resize, RESIZES), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise unknown(f"option {option} of extractor i3d", value, known)
    if not 0 < bn_eps < 1:
        raise UserError(f"option bn_eps={bn_eps} of extractor i3d: published networks have 1e-3 or 1e-5")
    with torch.device("meta"):  # first numbers would only be thrown away
        network = I3D(bn_eps)
    filled = fill(network.to_empty(device="cpu"), "i3d", weights)
    return I3DExtractor(network.folded(), filled, device, resize=resize, bn_eps=bn_eps, dtype=dtype)


class I3DExtractor:
    """I3D behind the common interface.

    `pool` (1024): the last block, averaged over windows of 2 x 7 x 7 cells (stride 1, no padding), and these over time;
    with 9 to 16 frames there is one window, the whole block. `logits` (400): the classifier's, before softmax, averaged
    over the same windows. This is the feature of FVD, the matrix of the classifier times `pool` plus its bias.
    """

    name = "i3d"
    outputs: Mapping[str, int] = {"logits": 400, "pool": 1024}

    def __init__(
        self,
        network: Folded,
        filled: Filled,
        device: torch.device,
        *,
        resize: str = "squash",
        bn_eps: float = 1e-3,
        dtype: str = "float32",
    ) -> None:
        self.network, self.device, self.weight_status = network.to(device), device, filled.weight_status
        self.resize, self.dtype = resize, dtype
        settings = ["i3d", filled.digest, resize, bn_eps, dtype]
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """The asked outputs, float32 (B, D) on the CPU; raises `UserError` for clips of fewer than 9 frames."""
        frames = video.checked(clips).shape[1]
        if frames < LEAST:
            raise UserError(f"clips have {frames} frames, and I3D reads no fewer than {LEAST}: make longer clips")
        parts = torch.split(clips, max(1, FRAMES.get(self.device.type, FRAMES_ELSEWHERE) // frames))
        with exact_float32(self.device):
            told = [self._told(self.prepared(part)) for part in parts]
        return {output: torch.cat([one[output] for one in told]) for output in outputs}

    def prepared(self, clips: Clips) -> Float[Tensor, "batch 3 frames 224 224"]:
        """What the network sees of clips, in -1..1."""
        frames = clips.to(self.device).flatten(0, 1).float()
        if self.resize == "crop":
            frames = short_side_crop(frames, SIDE)
        else:
            frames = (bilinear if self.resize == "squash" else tf1_bilinear)(frames, SIDE, SIDE)
        return frames.div(127.5).sub(1).reshape(*clips.shape[:3], SIDE, SIDE).transpose(1, 2)

    def _told(self, x: Float[Tensor, "batch 3 frames 224 224"]) -> dict[str, Features]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            block = self.network.trunk(x.contiguous(memory_format=LAST))
        return {output: values.cpu() for output, values in self.network.heads(block.float()).items()}
