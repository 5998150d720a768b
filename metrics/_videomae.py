"""VideoMAE-v2 ViT-g/14 feature extractor, fine-tuned on Something-Something v2: features of the motion-sensitive FVD.

Wang et al., arXiv 2303.16727; Ge et al., CVPR 2024, arXiv 2404.12391. Follows their package cd-fvd exactly: input / 255
without normalisation, half-pixel bilinear squash to 224 x 224, `fc_norm` of the mean of all tokens. cd-fvd divides
covariances by N: its distance is `fvd(ddof=0)` of these features.

Tensor names are those of the published file, `vit_g_hybrid_pt_1200e_ssv2_ft.pth` (under its key `module`):
patch_embed.proj, blocks.<n>.{norm1, attn.{q_bias, v_bias, qkv, proj}, norm2, mlp.{fc1, fc2}}, fc_norm, head. Its
2,023,804,201 bytes are the 1,011,855,918 parameters of `VideoMAE()` in half precision plus 92 kB. The file was not
available for a comparison of features with cd-fvd: only the network was compared, with random weights at smaller width.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vfbench import video
from vfbench.errors import UserError
from vfbench.interfaces import Clips, Features, Request
from vfbench.metrics._resize import bilinear
from vfbench.utils import text
from vfbench.utils.device import DeviceConstant, exact_float32, to_device
from vfbench.weights.load import WeightInfo, load_weights

BATCH_SIZE = 4  # clips per forward pass: 2048 tokens each, 50 MB in the widest layer
LAYER_NORM_EPS = 1e-6  # of every layer norm


def build(device: torch.device, *, weights: str = "default") -> VideoMAEExtractor:
    """Extractor with ViT-g/14 in float32, 4 GB; `weights` as in `vfbench.weights.load`."""
    with torch.device("meta"):  # skips the initialisation of a billion parameters
        network = VideoMAE()
    network.to_empty(device="cpu")
    weight_info = load_weights(network, "videomae", weights)
    return VideoMAEExtractor(network, weight_info, device)


class VideoMAEExtractor:
    """VideoMAE as an `Extractor`; `features` (1408) are the normalised mean of the tokens."""

    name = "videomae"

    def __init__(self, network: VideoMAE, weight_info: WeightInfo, device: torch.device) -> None:
        self.network, self.device, self.weight_status = network.to(device).eval(), device, weight_info.weight_status
        self.outputs: Mapping[str, int] = {"features": network.fc_norm.normalized_shape[0]}
        self.fingerprint = hashlib.sha256(json.dumps(["videomae", weight_info.digest]).encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Features, float32 (B, D) on the CPU; raises `UserError` for an odd number of frames."""
        self.require_frames(video.require_byte_range(clips).shape[1], outputs)
        with exact_float32(self.device):
            parts = [self.network(self.network_input(part)) for part in torch.split(clips, BATCH_SIZE)]
        features = torch.cat(parts).cpu()
        return dict.fromkeys(outputs, features)

    def require_frames(self, frames: int, outputs: Sequence[str]) -> None:
        """Raise `UserError` for an odd number of frames; see `vfbench.interfaces.FrameLimits`."""
        if frames % self.network.tubelet:
            raise UserError(
                f"clips have {text.count(frames, 'frame')}, and VideoMAE reads {self.network.tubelet} at a time: "
                f"use a multiple of {self.network.tubelet}"
            )

    def network_input(self, clips: Clips) -> Float[Tensor, "batch 3 frames side side"]:
        """Preprocessed clips, in 0..1."""
        frames = to_device(clips, self.device).flatten(0, 1).float()
        squashed = bilinear(frames, self.network.side, self.network.side)
        return squashed.div(255).reshape(*clips.shape[:3], *squashed.shape[2:]).transpose(1, 2)


class VideoMAE(nn.Module):
    """Network from clips (B, 3, T, side, side) in 0..1 to features (B, dim); defaults are the sizes of ViT-g/14.

    `frames` is the length of the training clips. For other even lengths, position embeddings are interpolated as in
    cd-fvd. `head` is the classifier, which the features do not use.
    """

    def __init__(
        self,
        *,
        side: int = 224,
        patch: int = 14,
        frames: int = 16,
        tubelet: int = 2,
        dim: int = 1408,
        depth: int = 40,
        heads: int = 16,
        hidden: int = 6144,
        classes: int = 174,
    ) -> None:
        super().__init__()
        self.side, self.tubelet = side, tubelet
        self.grid = (frames // tubelet, side // patch, side // patch)
        patch_size = (tubelet, patch, patch)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, dim, patch_size, patch_size)})
        self.blocks = nn.ModuleList([Block(dim, heads, hidden) for _ in range(depth)])
        self.fc_norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.head = nn.Linear(dim, classes)
        self.positions = sinusoidal_positions(math.prod(self.grid), dim)
        self._tables: dict[int, DeviceConstant] = {}  # position embeddings by length in tokens

    def forward(self, x: Float[Tensor, "batch 3 t side side"]) -> Float[Tensor, "batch dim"]:
        """Features (B, dim); T must be a multiple of `tubelet`."""
        tokens = self.patch_embed["proj"](x)
        length = tokens.shape[2]
        if length not in self._tables:
            self._tables[length] = DeviceConstant(self._positions(length).to)
        tokens = tokens.flatten(2).transpose(1, 2) + self._tables[length].like(x)
        for block in self.blocks:
            tokens = block(tokens)
        features: Tensor = self.fc_norm(tokens.mean(1))
        return features

    def _positions(self, length: int) -> Float[Tensor, "1 tokens dim"]:
        """Position embeddings for clips of `length` tokens in time."""
        if length == self.grid[0]:
            return self.positions
        # The 0.1 guards against rounding the size down, as in cd-fvd.
        scale = ((length + 0.1) / self.grid[0], 1.0, 1.0)
        grid = self.positions.transpose(1, 2).reshape(1, -1, *self.grid)
        return F.interpolate(grid, scale_factor=scale, mode="trilinear").flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, LAYER_NORM_EPS), nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.attn = Attention(dim, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Output tokens, same shape as the input."""
        x = x + self.attn(self.norm1(x))
        update: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + update


class Attention(nn.Module):
    """Self-attention with a bias for queries and values, none for keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Output tokens, same shape as the input."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).reshape(*x.shape[:2], 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        output: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return output


def sinusoidal_positions(count: int, dim: int) -> Float[Tensor, "1 {count} {dim}"]:
    """Fixed sinusoidal position embedding by token index (time, rows, columns); sine and cosine alternate."""
    channel, position = (torch.arange(size, dtype=torch.float64, device="cpu") for size in (dim, count))
    angle = position[:, None] / 10000 ** (2 * (channel // 2) / dim)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]
