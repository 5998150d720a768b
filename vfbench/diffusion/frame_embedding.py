"""Conditioning on the embedding of one frame, and the embedding prior that draws it at test time.

VideoFusion (arXiv 2303.08320) conditions both of its generators on the CLIP embedding of the centre frame. At test time
a prior network, as in DALL-E 2 (arXiv 2204.06125), draws the embedding from the caption or class, or from an empty
caption. The paper does not give the sizes of that network. Assumptions made here:

- The embedding is added to class and caption and does not replace them: one frame does not show the motion.
- The encoder is a small network trained with the model, or a frozen CLIP.
- A training clip without class or caption loses its embedding half of the time. A learnt vector takes its place, and is
  the null conditioning of guidance. In the other half the generators learn the unconditional case at test time: an
  embedding drawn without class or caption.
- The embedding prior predicts the clean embedding and is sampled by DDIM. Its loss also trains the embedding of class
  and caption. It does not train the encoder, whose embeddings would become trivial to predict.

Every model of `vfbench.diffusion.model` supports this, so that a comparison can give it to all models or to none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from vfbench.diffusion.priors import Normal
from vfbench.diffusion.schedule import Prediction, Schedule
from vfbench.diffusion.solvers import solve
from vfbench.errors import unknown
from vfbench.interfaces import ClipShape, Conditioning
from vfbench.nets import frame_encoder
from vfbench.nets.embedding_prior import EmbeddingPrior
from vfbench.nets.frame_encoder import CLIPEncoder, FrameEncoder, normalise_vectors
from vfbench.utils.device import to_device
from vfbench.utils.records import STRICT, Hash, Layers, Size, Text

LEARNT = "learnt"
# Option of `create` in several models; None is the preset's.
EmbeddingOption: TypeAlias = Annotated[
    str | None, "Frame embedding to condition on: none, learnt, or the folder or hub id of a CLIP."
]
DROP_PROBABILITY = 0.5  # of the embedding, for a training clip without class or caption


@dataclass(frozen=True, config=STRICT)
class EmbeddingConfig:
    """Encoder of the frame embedding and sizes of its prior.

    `encoder` is `learnt`, or a folder or hub id of the CLIP whose weights have the hash `sha256`. `size` is the length
    of an embedding, `inner` the width of the prior and `depth` the number of its blocks; `steps` are DDIM steps. (No
    field is called a width, because matching FLOPs scales the widths of a preset and must leave these alone.)
    """

    encoder: Text = LEARNT
    size: Size = 64
    inner: Size = 128
    depth: Layers = 3
    steps: Size = 10
    sha256: Hash = ""

    @classmethod
    def from_name(cls, name: str) -> EmbeddingConfig:
        """The configuration for `learnt`, or for CLIP by its folder or hub id.

        Raises `MissingData` where CLIP cannot be read, and `UserError` for a name that is neither.
        """
        if name == LEARNT:
            return cls()
        if "/" not in name and not os.path.isdir(name):  # noqa: PTH112  # Path.is_dir raises for impossible file names
            raise unknown("embedding", name, (LEARNT, "none", "the folder or hub id OWNER/NAME of a CLIP"))
        clip = frame_encoder.find_clip(name)
        return cls(name, clip.size, inner=2 * clip.size, depth=6, sha256=clip.sha256)


class FrameEmbedding(nn.Module):
    """Frame encoder, embedding prior, and the projection onto a model's conditioning vector of width `width`."""

    def __init__(self, config: EmbeddingConfig, shape: ClipShape, width: int) -> None:
        super().__init__()
        self.config, self.schedule = config, Schedule()
        learnt = config.encoder == LEARNT
        self.encoder: FrameEncoder | CLIPEncoder = (
            FrameEncoder(shape, config.size) if learnt else CLIPEncoder(config.encoder, config.sha256)
        )
        self.prior = EmbeddingPrior(config.size, width, config.inner, config.depth)
        self.projection = Projection(config.size, width)

    def networks(self) -> dict[str, nn.Module]:
        """The networks that sampling calls; the encoder is none of them."""
        return {"prior": self.prior, "projection": self.projection}

    def draw(self, count: int, generator: torch.Generator, normal: Normal) -> dict[str, Tensor]:
        """Random tensors of a training step, for `keep_embedding` and `loss`; part of `DiffusionModel.draw`."""
        return {
            "chance": torch.rand(count, generator=generator),
            "prior_t": torch.randint(self.schedule.steps, (count,), generator=generator),
            "prior_noise": normal((self.config.size,)),
        }

    def encode_frames(self, frames: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Conditioning vectors (B, P, width) and embeddings (B, P, size) of frames (B, P, 3, H, W).

        Clips with `known` (B,) False get the learnt vector of an unknown embedding.
        """
        embeddings = self.encoder(frames.flatten(0, 1))
        cond = self.projection(embeddings, known.repeat_interleave(frames.shape[1]))
        leading = frames.shape[:2]
        return cond.view(*leading, -1), embeddings.view(*leading, -1)

    def loss(self, embedding: Tensor, cond: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error of the embedding prior for embeddings (B, size), at the times and noise of `draw`."""
        clean, t = embedding.detach(), draws["prior_t"]
        noise = draws["prior_noise"].to(clean)
        alpha_bar = self.schedule.at(t, clean)
        predicted = self.prior(alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise, t, cond).to(clean)
        error: Tensor = ((predicted - clean) ** 2).mean()
        return error

    def sample_conditioning(self, cond: Tensor, normal: Normal) -> Tensor:
        """Conditioning vectors (B, width) of embeddings drawn by the prior for class or caption `cond` (B, width)."""

        def denoise(z: Tensor, t: int) -> Prediction:
            times = torch.full((len(z),), t, device=z.device)
            x0, alpha_bar = self.prior(z, times, cond).to(z), self.schedule.at(times, z)
            return Prediction(x0, (z - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt())

        noise = normal((self.config.size,))
        steps = self.config.steps
        embeddings = solve(
            denoise, noise, self.schedule, steps=steps, solver="ddim", fresh_noise=lambda: torch.zeros_like(noise)
        )
        known = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
        vectors: Tensor = self.projection(normalise_vectors(embeddings), known)
        return vectors


class Projection(nn.Module):
    """Linear map from embeddings (B, size) to conditioning vectors (B, width), with a learnt vector for unknown ones.

    All weights start at zero, so that a base generator trained without the embedding is unchanged at first.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, width)
        self.unknown = nn.Parameter(torch.zeros(width))
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, embedding: Tensor, known: Tensor) -> Tensor:
        """Vectors (B, width); rows with `known` (B,) False get the learnt vector."""
        return torch.where(known[:, None], self.layer(embedding), self.unknown)


def keep_embedding(conditioning: Sequence[Conditioning], chance: Tensor) -> Tensor:
    """Mask (B,) of training clips that keep their embedding: all with class or caption, of the others a random part.

    `chance` (B,) is uniform in [0, 1).
    """
    conditional = to_device(torch.tensor([kind != "none" for kind in conditioning]), chance.device)
    return conditional | (chance >= DROP_PROBABILITY)
