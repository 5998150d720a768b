"""C3D feature extractor of the video Inception Score: 101 logits of UCF-101, or the 4096 features of `fc7`.

Tran et al., arXiv 1412.0767 (v1.0, fine-tuned on UCF-101); for generated video: Saito et al., TGAN, arXiv 1611.06624,
and TGANv2, arXiv 1811.09245. The two preprocess frames differently, and their scores are not comparable:

    tgan2   bilinear to 112 x 112 with aligned corners, minus columns 8..120 of the mean clip
    tgan    OpenCV's bicubic to 128 x 128, its rows and columns 8..120, minus columns 29..141 of the mean clip

Both use rows 8..120 of the mean clip, and BGR. Choices made here:

- Bytes are used unchanged. Both papers read real clips as (byte - 128) / 128 and feed the network 128 x + 128. Their
  model output of 1 became 256; here it is the byte 255.
- Bicubic overshoot beyond 0..255 is kept, as in TGAN, which resizes floats.
- Pools keep partial windows at the edge, as TGANv2's `cover_all`; only the last pool, of 7 x 7 cells, has any.
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
from vfbench.utils import text
from vfbench.utils.device import exact_float32, to_device
from vfbench.weights.load import WeightInfo, load_weights

FRAMES = 16
SIDE = 112  # pixels
BATCH_SIZE = {"cuda": 32}  # clips per forward pass; 51 MB each in the widest layer
DEFAULT_BATCH_SIZE = 2
CROP_LEFT = {"tgan2": 8, "tgan": 29}  # first column used of the mean clip
CROP_TOP = 8
CHANNELS_LAST = torch.channels_last_3d


def build(device: torch.device, *, preprocess: str = "tgan2", weights: str = "default") -> C3DExtractor:
    """Extractor with C3D in float32, on the first 16 frames of a clip.

    `preprocess`: `tgan2` or `tgan`, see the module docstring. `weights` as in `vfbench.weights.load`. Raises
    `UserError` for any other value.
    """
    if preprocess not in CROP_LEFT:
        raise unknown("option preprocess of extractor c3d", preprocess, CROP_LEFT)
    with torch.device("meta"):  # skips the initialisation of 78 million parameters
        network = C3D()
    weight_info = load_weights(network.to_empty(device="cpu"), "c3d", weights)
    return C3DExtractor(network, weight_info, device, preprocess=preprocess)


class C3DExtractor:
    """C3D as an `Extractor`: `logits` (101), before softmax; `fc7` (4096), after its ReLU."""

    name = "c3d"
    outputs: Mapping[str, int] = {"logits": 101, "fc7": 4096}

    def __init__(
        self, network: C3D, weight_info: WeightInfo, device: torch.device, *, preprocess: str = "tgan2"
    ) -> None:
        self.network, self.device, self.weight_status = network.to(device).eval(), device, weight_info.weight_status
        self.preprocess = preprocess
        self.fingerprint = hashlib.sha256(json.dumps(["c3d", weight_info.digest, preprocess]).encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Requested outputs, float32 (B, D) on the CPU; raises `UserError` for clips of fewer than 16 frames."""
        self.require_frames(video.require_byte_range(clips).shape[1], outputs)
        parts = torch.split(clips[:, :FRAMES], BATCH_SIZE.get(self.device.type, DEFAULT_BATCH_SIZE))
        with exact_float32(self.device):
            results = [self.network(self.network_input(part)) for part in parts]
        return {output: torch.cat([result[output] for result in results]).cpu() for output in outputs}

    def require_frames(self, frames: int, outputs: Sequence[str]) -> None:
        """Raise `UserError` for fewer than 16 frames; see `vfbench.interfaces.FrameLimits`."""
        if frames < FRAMES:
            raise UserError(
                f"clips have {text.count(frames, 'frame')}, and C3D needs at least {FRAMES}: make longer clips"
            )

    def network_input(self, clips: Clips) -> Float[Tensor, "batch 3 16 112 112"]:
        """Preprocessed clips (B, 16, 3, H, W): resized, BGR, minus the mean clip."""
        frames = to_device(clips, self.device).flatten(0, 1).flip(1).float()
        frames = (resize_align_corners if self.preprocess == "tgan2" else resize_bicubic_crop)(frames)
        left = CROP_LEFT[self.preprocess]
        mean = self.network.mean[:, :, CROP_TOP : CROP_TOP + SIDE, left : left + SIDE]
        return frames.reshape(*clips.shape[:3], SIDE, SIDE).transpose(1, 2) - mean


def resize_align_corners(frames: Float[Tensor, "n 3 _ _"]) -> Float[Tensor, "n 3 112 112"]:
    """Bilinear resize with aligned corners, as Chainer's `resize_images`."""
    return F.interpolate(frames, (SIDE, SIDE), mode="bilinear", align_corners=True)


def resize_bicubic_crop(frames: Float[Tensor, "n 3 _ _"]) -> Float[Tensor, "n 3 112 112"]:
    """Centre crop of 128 x 128, resized as OpenCV's `INTER_CUBIC`: A = -0.75, half-pixel centres, no antialias."""
    resized = F.interpolate(frames, (128, 128), mode="bicubic", align_corners=False)
    return resized[..., CROP_TOP : CROP_TOP + SIDE, CROP_TOP : CROP_TOP + SIDE]


class C3D(nn.Module):
    """C3D v1.0 with Caffe's layer names, on clips (B, 3, 16, 112, 112), BGR, 0..255 minus the mean clip.

    The buffer `mean` (3, 16, 128, 171) is the mean clip of the training data.
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
        """Outputs `logits` (B, 101) and `fc7` (B, 4096)."""
        fc6 = F.relu(self.fc6(self.conv_features(x).flatten(1)))  # order: channels, frames, rows, columns
        fc7 = F.relu(self.fc7(fc6))
        return {"logits": self.fc8(fc7), "fc7": fc7}

    def conv_features(self, x: Float[Tensor, "batch 3 16 112 112"]) -> Float[Tensor, "batch 512 1 4 4"]:
        """Output of the last convolution block after pooling."""
        x = x.contiguous(memory_format=CHANNELS_LAST)  # pools are ten times faster on a CPU
        x = _max_pool(F.relu(self.conv1a(x)), frames=1)
        x = _max_pool(F.relu(self.conv2a(x)))
        x = _max_pool(F.relu(self.conv3b(F.relu(self.conv3a(x)))))
        x = _max_pool(F.relu(self.conv4b(F.relu(self.conv4a(x)))))
        return _max_pool(F.relu(self.conv5b(F.relu(self.conv5a(x)))))


def _convolution(inputs: int, outputs: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, 3, padding=1).to(memory_format=CHANNELS_LAST)


def _max_pool(x: Float[Tensor, "_ _ _ _ _"], frames: int = 2) -> Float[Tensor, "_ _ _ _ _"]:
    """Max pool over `frames` x 2 x 2 cells, including partial windows at the right and lower edge."""
    return F.max_pool3d(x, (frames, 2, 2), ceil_mode=True)
