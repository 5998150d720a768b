"""C3D on clips, as the video Inception Score uses it: 101 logits of UCF-101, or the 4096 numbers of the layer before.

Tran et al., arXiv 1412.0767 (v1.0, fine-tuned on UCF-101); for generated video: Saito et al., TGAN, arXiv 1611.06624,
and TGANv2, arXiv 1811.09245. The two prepare frames differently, and scores of the one do not compare with the other's:

    tgan2   bilinear to 112 x 112 from corner to corner, less columns 8..120 of the mean clip
    tgan    OpenCV's bicubic to 128 x 128, the rows and columns 8..120 of it, less columns 29..141 of the mean clip

Both take rows 8..120 of the mean clip, blue first. What neither settles is decided here:

- A byte enters as it is. Both papers read real clips as (byte - 128) / 128 and give the network 128 x + 128. A model's
  output of 1 was 256 to them, and is the byte 255 here.
- Bicubic overshoot beyond 0..255 stays, as it does in TGAN, which resizes floats.
- TGANv2's `cover_all` pools keep what hangs over the edge; that matters in the last one alone, of 7 x 7 cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vfbench import video
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Clips, Features, Request
from vfbench.utils.device import exact_float32
from vfbench.weights import Filled, fill

FRAMES = 16
SIDE = 112  # pixels
BATCH = {"cuda": 32}  # clips in one pass of the network, 51 MB each in its widest layer
BATCH_ELSEWHERE = 2
LEFT = {"tgan2": 8, "tgan": 29}  # the first column of the mean clip that is used
TOP = 8
LAST = torch.channels_last_3d


def build(device: torch.device, *, preprocess: str = "tgan2", weights: str = "default") -> C3DExtractor:
    """C3D in float32 on the first 16 frames of a clip.

    `preprocess`: `tgan2` or `tgan`, above. `weights` as in `vfbench.weights.fill`. Raises `UserError` for any other.
    """
    if preprocess not in LEFT:
        raise unknown("option preprocess of extractor c3d", preprocess, LEFT)
    with torch.device("meta"):  # 78 million first numbers would only be thrown away
        network = C3D()
    filled = fill(network.to_empty(device="cpu"), "c3d", weights)
    return C3DExtractor(network, filled, device, preprocess=preprocess)


class C3DExtractor:
    """C3D behind the common interface: `logits` (101), before softmax; `fc7` (4096), after its ReLU."""

    name = "c3d"
    outputs: Mapping[str, int] = {"logits": 101, "fc7": 4096}

    def __init__(self, network: C3D, filled: Filled, device: torch.device, *, preprocess: str = "tgan2") -> None:
        self.network, self.device, self.weight_status = network.to(device).eval(), device, filled.weight_status
        self.preprocess = preprocess
        self.fingerprint = hashlib.sha256(json.dumps(["c3d", filled.digest, preprocess]).encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """The asked outputs, float32 (B, D) on the CPU; raises `UserError` for clips of fewer than 16 frames."""
        frames = video.checked(clips).shape[1]
        if frames < FRAMES:
            raise UserError(f"clips have {frames} frames, and C3D reads exactly {FRAMES}: make longer clips")
        parts = torch.split(clips[:, :FRAMES], BATCH.get(self.device.type, BATCH_ELSEWHERE))
        with exact_float32(self.device):
            told = [self.network(self.prepared(part)) for part in parts]
        return {output: torch.cat([one[output].cpu() for one in told]) for output in outputs}

    def prepared(self, clips: Clips) -> Float[Tensor, "batch 3 16 112 112"]:
        """What the network sees of clips (B, 16, 3, H, W): blue first, and less the mean clip."""
        frames = clips.to(self.device).flatten(0, 1).flip(1).float()
        frames = (corner_to_corner if self.preprocess == "tgan2" else bicubic_centre)(frames)
        left = LEFT[self.preprocess]
        mean = self.network.mean[:, :, TOP : TOP + SIDE, left : left + SIDE]
        return frames.reshape(*clips.shape[:3], SIDE, SIDE).transpose(1, 2) - mean


def corner_to_corner(frames: Float[Tensor, "n 3 _ _"]) -> Float[Tensor, "n 3 112 112"]:
    """Resize so that the centres of the corner pixels stay corners, as Chainer's `resize_images` does."""
    return F.interpolate(frames, (SIDE, SIDE), mode="bilinear", align_corners=True)


def bicubic_centre(frames: Float[Tensor, "n 3 _ _"]) -> Float[Tensor, "n 3 112 112"]:
    """The middle of 128 x 128 pixels by OpenCV's `INTER_CUBIC`: A = -0.75, half-pixel centres, never antialiased."""
    large = F.interpolate(frames, (128, 128), mode="bicubic", align_corners=False)
    return large[..., TOP : TOP + SIDE, TOP : TOP + SIDE]


class C3D(nn.Module):
    """C3D v1.0 under the names of Caffe: clips (B, 3, 16, 112, 112), blue first, 0..255 less the mean clip.

    The buffer `mean` (3, 16, 128, 171) is that mean clip, of the frames that the network was trained on.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, FRAMES, 128, 171))
        self.conv1a, self.conv2a = _convolution(3, 64), _convolution(64, 128)
        self.conv3a, self.conv3b = _convolution(128, 256), _convolution(256, 256)
        self.conv4a, self.conv4b = _convolution(256, 512), _convolution(512, 512)
        self.conv5a, self.conv5b = _convolution(512, 512), _convolution(512, 512)
        self.fc6, self.fc7, self.fc8 = nn.Linear(512 * 4 * 4, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 101)

    def forward(self, x: Float[Tensor, "batch 3 16 112 112"]) -> dict[str, Features]:
        """`logits` (B, 101) and `fc7` (B, 4096)."""
        fc6 = F.relu(self.fc6(self.blocks(x).flatten(1)))  # channels, frames, rows, columns
        fc7 = F.relu(self.fc7(fc6))
        return {"logits": self.fc8(fc7), "fc7": fc7}

    def blocks(self, x: Float[Tensor, "batch 3 16 112 112"]) -> Float[Tensor, "batch 512 1 4 4"]:
        """The last block, pooled."""
        x = x.contiguous(memory_format=LAST)  # on a CPU, pools are ten times faster
        x = _pooled(F.relu(self.conv1a(x)), frames=1)
        x = _pooled(F.relu(self.conv2a(x)))
        x = _pooled(F.relu(self.conv3b(F.relu(self.conv3a(x)))))
        x = _pooled(F.relu(self.conv4b(F.relu(self.conv4a(x)))))
        return _pooled(F.relu(self.conv5b(F.relu(self.conv5a(x)))))


def _convolution(inputs: int, outputs: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, 3, padding=1).to(memory_format=LAST)


def _pooled(x: Float[Tensor, "_ _ _ _ _"], frames: int = 2) -> Float[Tensor, "_ _ _ _ _"]:
    """The largest of each 2 x 2 cells of `frames` frames; what hangs over the right or lower edge counts, too."""
    return F.max_pool3d(x, (frames, 2, 2), ceil_mode=True)
