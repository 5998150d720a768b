"""Base class of the built-in diffusion models: conditioning, losses, and checkpoint files."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfbench.diffusion.frame_embedding import EmbeddingConfig, FrameEmbedding, keep_embedding
from vfbench.diffusion.model_config import SAVED_WITH, ModelConfig, without_hash
from vfbench.diffusion.priors import Decomposed, Independent, NoisePrior, Normal, normal_per_batch
from vfbench.diffusion.schedule import AUTO, Prediction, Schedule, natural_time_shift
from vfbench.interfaces import Conditioning
from vfbench.nets.embedding import ConditioningEmbedding
from vfbench.nets.text_encoder import PretrainedCaptionEncoder, TextEncoderConfig
from vfbench.utils import checkpoint, files, tensor_files
from vfbench.utils.device import to_device
from vfbench.utils.files import file_sha256


def select_frames(clips: Tensor, frames: Sequence[int]) -> Tensor:
    """Frames of clips (B, T, ...) by index. Indexing with a list would copy it to a GPU, and the host would wait."""
    return torch.stack([clips[:, frame] for frame in frames], dim=1)


class DiffusionModel(nn.Module, ABC):
    """A noise prior, networks and a loss.

    A subclass creates its networks, calls `_build_conditioning`, and implements `networks`, `predict` and `losses`, and
    `make_noise_prior` where noise is not independent. The option `embedding` adds the embedding of a frame to the
    conditioning, and `time_shift` `auto` becomes the number that clips and noise prior call for.
    """

    noise_prior: NoisePrior
    condition: ConditioningEmbedding

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        with torch.device("cpu"):  # also where the weights are on `meta`
            self.noise_prior = self.make_noise_prior(config)
            automatic = config.options.get("time_shift") == AUTO
            time_shift = natural_time_shift(config.shape, self.noise_prior) if automatic else None
        if automatic:
            config = replace(config, options={**config.options, "time_shift": time_shift})
        self.config = config
        shift = {name: config.options[name] for name in ("time_shift", "shifted_share") if name in config.options}
        self.schedule = Schedule(config.options["schedule"], **shift)
        self.frame_embedding: FrameEmbedding | None = None

    @staticmethod
    def make_noise_prior(config: ModelConfig) -> NoisePrior:
        """The noise prior of a configuration, by default independent noise; `UserError` for options out of range."""
        return Independent()

    def _build_conditioning(self, width: int) -> None:
        """Create the modules that map conditioning to vectors of that width."""
        config = self.config
        text_encoder = config.options.get("text_encoder")
        text_encoder = None if text_encoder is None else TextEncoderConfig(**text_encoder)
        self.condition = ConditioningEmbedding(len(config.classes), config.words, width, text_encoder)
        if "embedding" in config.options:
            self.frame_embedding = FrameEmbedding(EmbeddingConfig(**config.options["embedding"]), config.shape, width)

    def _embedding_networks(self) -> dict[str, nn.Module]:
        """The networks of the frame embedding that sampling calls, for `networks`."""
        return self.frame_embedding.networks() if self.frame_embedding else {}

    def record_conditioning(self, weights: Mapping[Conditioning, float]) -> None:
        """Store in the configuration how often a training uses each conditioning; call before training.

        A subclass raises `UserError` for conditioning that a frozen part of it was not trained with.
        """
        self.config = replace(self.config, conditions=weights)

    def embedding_frames(self) -> list[int]:
        """Indices of the frames whose embeddings training uses: the base frame, or the middle one without a base."""
        noise_prior, frames = self.noise_prior, self.config.shape.frames
        return [noise_prior.base if isinstance(noise_prior, Decomposed) else Decomposed(frames).base]

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The networks that a denoising step calls, by name; the cost ledger counts them."""

    def sampling_prior(self, cond: Tensor) -> NoisePrior:
        """The noise prior of sampling for conditioning vectors (B, width), by default that of training."""
        return self.noise_prior

    @abstractmethod
    def predict(self, z: Tensor, t: Tensor, cond: Tensor) -> Prediction:
        """The prediction for z_t (B, T, 3, H, W) at times t (B,) with conditioning vectors (B, width)."""

    @abstractmethod
    def losses(self, x: Tensor, noise: Tensor, t: Tensor, cond: Tensor) -> dict[str, Tensor]:
        """Named loss terms, to be summed, for clean clips x in [-1, 1] and noise of the model's noise prior.

        A model with several `embedding_frames` takes a conditioning vector for each of them.
        """

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with its learning rate; a text encoder that learns has its own."""
        groups, encoder = self._network_groups(lr), self.condition.caption
        if not isinstance(encoder, PretrainedCaptionEncoder) or not (tuned := encoder.trained_parameters()):
            return groups
        others = [{**group, "params": [p for p in group["params"] if p not in set(tuned)]} for group in groups]
        return [*others, {"params": [p for p in tuned if p.requires_grad], "lr": lr * encoder.config.lr}]

    def _network_groups(self, lr: float) -> list[dict[str, Any]]:
        """The parameter groups before a text encoder gets its own."""
        return [{"params": list(self.parameters()), "lr": lr}]

    def conditioning_vectors(
        self, labels: Sequence[int], captions: Sequence[str], conditioning: Sequence[Conditioning], normal: Normal
    ) -> Tensor:
        """Conditioning vectors for sampling, (B, width); `normal` draws the noise of the frame embedding."""
        cond: Tensor = self.condition(labels, captions, conditioning)
        return cond if self.frame_embedding is None else cond + self.frame_embedding.sample_conditioning(cond, normal)

    def null_conditioning(self, count: int) -> Tensor:
        """Null conditioning for classifier-free guidance, (count, width): no class, caption or frame embedding."""
        cond: Tensor = self.condition([0] * count, [""] * count, ["none"] * count)
        return cond if self.frame_embedding is None else cond + self.frame_embedding.projection.unknown

    def draw(self, count: int, generator: torch.Generator, normal: Normal | None = None) -> dict[str, Tensor]:
        """Random tensors of a training step for `count` clips, by name, each (count, ...).

        They depend on the generator alone, not on weights, so they can be drawn ahead, and once for a batch that
        several processes share. On a GPU, `normal` draws what is named `noise` or `..._noise` instead, for the clips of
        this process alone.
        """
        t = self.schedule.training_times(count, generator)
        normal = normal or normal_per_batch(count, generator)
        noise = self.noise_prior.noise(normal, self.config.shape)
        of_embedding = self.frame_embedding.draw(count, generator, normal) if self.frame_embedding else {}
        return {"t": t, "noise": noise, **of_embedding}

    def training_losses(
        self,
        x: Tensor,
        labels: Sequence[int],
        captions: Sequence[str],
        conditioning: Sequence[Conditioning],
        draws: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Loss terms of clips x (B, T, 3, H, W) in [-1, 1], with the random tensors of `draw`."""
        draws = {name: to_device(value, x.device) for name, value in draws.items()}
        noise, t, cond = draws["noise"], draws["t"], self.condition(labels, captions, conditioning)
        if self.frame_embedding is None:
            return self.losses(x, noise, t, cond)
        known = keep_embedding(conditioning, draws["chance"])
        frame_cond, embeddings = self.frame_embedding.encode_frames(select_frames(x, self.embedding_frames()), known)
        terms = self.losses(x, noise, t, *(cond[:, None] + frame_cond).unbind(1))
        return {**terms, "prior": self.frame_embedding.loss(embeddings[:, 0], cond, draws)}

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write `model.safetensors`, with the configuration in its metadata, and `config.json`, each atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        state, path, config = self.state_dict(), folder / checkpoint.TENSORS, asdict(self.config)
        saved_with = {SAVED_WITH: json.dumps(without_hash(config), sort_keys=True)}
        tensor_files.write(path, tensor_files.to_half(state) if half else state, saved_with)
        files.write_json(folder / checkpoint.CONFIG, {**config, "sha256": file_sha256(path)})
