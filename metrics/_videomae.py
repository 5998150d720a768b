"""VideoMAE-v2 ViT-g/14, fine-tuned on Something-Something v2: the features of VideoMAE-FVD, which sees motion better.

Wang et al., arXiv 2303.16727; Ge et al., CVPR 2024, arXiv 2404.12391, whose package cd-fvd this follows to the float:
input / 255 without mean and deviation, half-pixel bilinear squash to 224 x 224, the mean of all tokens after `fc_norm`.
cd-fvd divides covariances by N: its distance is `fvd(ddof=0)` of these features.

The tensors bear the names of the published file, `vit_g_hybrid_pt_1200e_ssv2_ft.pth` (there below the key `module`):
patch_embed.proj, blocks.<n>.{norm1, attn.{q_bias, v_bias, qkv, proj}, norm2, mlp.{fc1, fc2}}, fc_norm, head. Its
2,023,804,201 bytes are the 1,011,855,918 numbers of `VideoMAE()` in half precision and 92 kB around them. Its features
were never compared with cd-fvd's for want of the file: only the network was, with random numbers at a smaller width.
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
from vfbench.utils.device import exact_float32
from vfbench.weights import Filled, fill

BATCH = 4  # clips in one pass of the network: 2048 tokens each, 50 MB in its widest layer
EPS = 1e-6  # of every layer norm


def build(device: torch.device, *, weights: str = "default") -> VideoMAEExtractor:
    """ViT-g/14 in float32, 4 GB; `weights` as in `vfbench.weights.fill`."""
    with torch.device("meta"):  # a billion first numbers would only be thrown away
        network = VideoMAE()
    network.to_empty(device="cpu")
    filled = fill(network, "videomae", weights)
    return VideoMAEExtractor(network, filled, device)


class VideoMAEExtractor:
    """VideoMAE behind the common interface; `features` (1408) are the normalised mean of its tokens."""

    name = "videomae"

    def __init__(self, network: VideoMAE, filled: Filled, device: torch.device) -> None:
        self.network, self.device, self.weight_status = network.to(device).eval(), device, filled.weight_status
        self.outputs: Mapping[str, int] = {"features": network.fc_norm.normalized_shape[0]}
        self.fingerprint = hashlib.sha256(json.dumps(["videomae", filled.digest]).encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """The features, float32 (B, D) on the CPU; raises `UserError` for an odd number of frames."""
        with exact_float32(self.device):
            parts = [self.network(self.prepared(part)) for part in torch.split(video.checked(clips), BATCH)]
        features = torch.cat(parts).cpu()
        return dict.fromkeys(outputs, features)

    def prepared(self, clips: Clips) -> Float[Tensor, "batch 3 frames side side"]:
        """What the network sees of clips, in 0..1."""
        frames = clips.to(self.device).flatten(0, 1).float()
        squashed = bilinear(frames, self.network.side, self.network.side)
        return squashed.div(255).reshape(*clips.shape[:3], *squashed.shape[2:]).transpose(1, 2)


class VideoMAE(nn.Module):
    """Clips (B, 3, T, side, side) in 0..1 to features (B, dim); by default the sizes of ViT-g/14.

    `frames` is the length of the training clips. Another even length is taken too, with its positions interpolated
    between theirs as cd-fvd does. `head` classifies, and is no part of the features.
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
        step = (tubelet, patch, patch)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, dim, step, step)})
        self.blocks = nn.ModuleList([Block(dim, heads, hidden) for _ in range(depth)])
        self.fc_norm = nn.LayerNorm(dim, EPS)
        self.head = nn.Linear(dim, classes)
        self.positions = sinusoids(math.prod(self.grid), dim)

    def forward(self, x: Float[Tensor, "batch 3 t side side"]) -> Float[Tensor, "batch dim"]:
        """The features."""
        if x.shape[2] % self.tubelet:
            raise UserError(
                f"clips have {x.shape[2]} frames, and VideoMAE reads {self.tubelet} at a time: "
                "use an even number, so that none is left out"
            )
        tokens = self.patch_embed["proj"](x)
        tokens = tokens.flatten(2).transpose(1, 2) + self._positions(tokens.shape[2]).to(x.device)
        for block in self.blocks:
            tokens = block(tokens)
        features: Tensor = self.fc_norm(tokens.mean(1))
        return features

    def _positions(self, length: int) -> Float[Tensor, "1 tokens dim"]:
        """The positions of clips that are `length` tokens long."""
        if length == self.grid[0]:
            return self.positions
        # The tenth guards the size against rounding down, and cd-fvd's scale has it too.
        scale = ((length + 0.1) / self.grid[0], 1.0, 1.0)
        laid_out = self.positions.transpose(1, 2).reshape(1, -1, *self.grid)
        return F.interpolate(laid_out, scale_factor=scale, mode="trilinear").flatten(2).transpose(1, 2)


class Block(nn.Module):
    """A transformer block, normalised before attention and before the two layers; keys have no bias."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, EPS), nn.LayerNorm(dim, EPS)
        self.attn = Attention(dim, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Tokens to tokens."""
        x = x + self.attn(self.norm1(x))
        added: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + added


class Attention(nn.Module):
    """Self-attention whose queries and values alone have a bias."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Tokens to tokens."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        mixed = F.linear(x, self.qkv.weight, bias).reshape(*x.shape[:2], 3, self.heads, -1)
        q, k, v = mixed.permute(2, 0, 3, 1, 4)
        seen: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return seen


def sinusoids(count: int, dim: int) -> Float[Tensor, "1 {count} {dim}"]:
    """The fixed position of each token, counted through time, rows and columns: sine and cosine side by side."""
    channel, place = (torch.arange(size, dtype=torch.float64, device="cpu") for size in (dim, count))
    angle = place[:, None] / 10000 ** (2 * (channel // 2) / dim)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]
