"""The embedding of one frame as a condition of a clip, and the prior that draws it where there is no frame yet.

VideoFusion (arXiv 2303.08320) shows both of its generators the CLIP embedding of the centre frame. At test a prior
network, as in DALL-E 2 (arXiv 2204.06125), draws it from the caption or class, or from an empty caption. The sizes of
that prior are not known. Assumed here:

- the embedding is added to class and caption rather than put in their place: one frame does not tell how things move;
- the encoder is a small one that is trained with the model, or a CLIP that stays as it is;
- a training clip of which nothing is said loses the embedding, too, every second time: a learnt vector stands in for
  it, and guidance leads away from there. The other times teach the generators what the unconditional model shows them:
  an embedding that was drawn from nothing;
- the prior predicts the clean embedding and is sampled by DDIM. Its loss teaches the embedding of class and caption,
  too, but not the encoder, which would otherwise make itself easy to predict.

Any model can have it (`vfbench.diffusion.model`), so that a comparison gives it to all or to none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vfbench.diffusion.priors import Normal
from vfbench.diffusion.schedule import Prediction, Schedule
from vfbench.diffusion.solvers import solve
from vfbench.errors import unknown
from vfbench.interfaces import ClipShape, Conditioning
from vfbench.nets import frame_encoder
from vfbench.nets.embedding_prior import EmbeddingPrior
from vfbench.nets.frame_encoder import ClipEncoder, FrameEncoder, scaled

LEARNT = "learnt"
DROPPED = 0.5  # of the training clips of which nothing is said: how many lose the embedding as well


@dataclass(frozen=True)
class EmbeddingConfig:
    """Where the embedding comes from, and the sizes of its prior.

    `encoder` is `learnt`, or the CLIP whose weights have the hash `sha256`, by its folder or its id on the hub. `size`
    is the length of an embedding, `inner` the width of the prior and `depth` the number of its blocks; `steps` are
    those of DDIM. (None is called a width: what scales the widths of a preset leaves the condition alone.)
    """

    encoder: str = LEARNT
    size: int = 64
    inner: int = 128
    depth: int = 3
    steps: int = 10
    sha256: str = ""

    @classmethod
    def of(cls, name: str) -> EmbeddingConfig:
        """Of a learnt encoder, or of CLIP by its folder or id.

        Raises `MissingData` where CLIP cannot be read, and `UserError` for a word that is neither a folder nor an id.
        """
        if name == LEARNT:
            return cls()
        if "/" not in name and not os.path.isdir(name):  # noqa: PTH112  # which takes names that no file can have
            raise unknown("embedding", name, (LEARNT, "none", "the folder or hub id OWNER/NAME of a CLIP"))
        found = frame_encoder.find(name)
        return cls(name, found.size, inner=2 * found.size, depth=6, sha256=found.sha256)


class FrameEmbedding(nn.Module):
    """Encoder, prior and the projection onto a model's condition, of width `width`."""

    def __init__(self, config: EmbeddingConfig, shape: ClipShape, width: int) -> None:
        super().__init__()
        self.config, self.schedule = config, Schedule()
        learnt = config.encoder == LEARNT
        self.encoder: FrameEncoder | ClipEncoder = (
            FrameEncoder(shape, config.size) if learnt else ClipEncoder(config.encoder, config.sha256)
        )
        self.prior = EmbeddingPrior(config.size, width, config.inner, config.depth)
        self.projection = Projection(config.size, width)

    def networks(self) -> dict[str, nn.Module]:
        """What making a clip calls: no encoder, for there is no frame yet."""
        return {"prior": self.prior, "projection": self.projection}

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """What `kept` and `loss` leave to chance, for `DiffusionModel.draw`."""
        return {
            "chance": torch.rand(count, generator=generator),
            "prior_t": torch.randint(self.schedule.steps, (count,), generator=generator),
            "prior_noise": torch.randn((count, self.config.size), generator=generator),
        }

    def shown(self, frames: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """What frames (B, P, 3, H, W) add to the conditions of their clips, (B, P, width), and embeddings (B, P, size).

        `kept` (B,) says of which clips it is known.
        """
        embeddings = self.encoder(frames.flatten(0, 1))
        added = self.projection(embeddings, kept.repeat_interleave(frames.shape[1]))
        first = frames.shape[:2]
        return added.view(*first, -1), embeddings.view(*first, -1)

    def loss(self, embedding: Tensor, condition: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error of the prior for embeddings (B, size), at the times and with the noise of `draw`."""
        clean, t = embedding.detach(), drawn["prior_t"]
        noise = drawn["prior_noise"].to(clean)
        alpha_bar = self.schedule.at(t, clean)
        found = self.prior(alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise, t, condition).to(clean)
        error: Tensor = ((found - clean) ** 2).mean()
        return error

    def drawn(self, condition: Tensor, normal: Normal) -> Tensor:
        """An embedding for each condition (B, width) from the prior, and what it adds to it, (B, width)."""

        def denoise(z: Tensor, t: int) -> Prediction:
            times = torch.full((len(z),), t, device=z.device)
            x0, alpha_bar = self.prior(z, times, condition).to(z), self.schedule.at(times, z)
            return Prediction(x0, (z - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt())

        noise = normal((self.config.size,))
        found = solve(
            denoise, noise, self.schedule, steps=self.config.steps, solver="ddim", fresh=lambda: torch.zeros_like(noise)
        )
        known = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
        added: Tensor = self.projection(scaled(found), known)
        return added


class Projection(nn.Module):
    """Embeddings (B, size) to what they add to a condition, (B, width); where they are not known, a learnt vector.

    It begins at zero, so that a base generator that was trained without the embedding answers as it did.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, width)
        self.unknown = nn.Parameter(torch.zeros(width))
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, embedding: Tensor, known: Tensor) -> Tensor:
        """`known` (B,) says of which."""
        return torch.where(known[:, None], self.layer(embedding), self.unknown)


def kept(modes: Sequence[Conditioning], chance: Tensor) -> Tensor:
    """Which training clips keep the embedding, (B,): those of which something is said, and by `chance` some others."""
    return torch.tensor([mode != "none" for mode in modes], device=chance.device) | (chance >= DROPPED)
