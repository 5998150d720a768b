"""What every built-in diffusion model shares: configuration, conditioning, losses, and files on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfbench import files, weights
from vfbench.diffusion.priors import Normal, Prior, batched
from vfbench.diffusion.schedule import Prediction, Schedule
from vfbench.errors import MissingData, unknown
from vfbench.interfaces import ClipShape, Conditioning, Dataset
from vfbench.nets.embedding import Condition


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model's networks again; saved as `config.json` beside the weights."""

    model: str
    preset: str
    dataset: str
    shape: ClipShape
    classes: tuple[str, ...]
    words: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""  # of the weights beside it

    @classmethod
    def of(cls, model: str, preset: str, presets: Mapping[str, Mapping[str, Any]], dataset: Dataset) -> ModelConfig:
        """The configuration of a model's preset for a dataset."""
        if preset not in presets:
            raise unknown(f"{model} preset", preset, presets)
        return cls(model, preset, dataset.name, dataset.shape, dataset.classes, dataset.words, presets[preset])

    @classmethod
    def read(cls, path: Path, model: str) -> ModelConfig:
        """Read `config.json`; raises `MissingData` naming the file when it is another model's or damaged."""
        content = files.read_json(path)
        if content.get("model") != model:
            raise MissingData(f"{path} is a checkpoint of '{content.get('model')}', not of '{model}'")
        try:
            shape = ClipShape(**content.pop("shape"))
            classes, words = tuple(content.pop("classes")), tuple(content.pop("words"))
            return cls(shape=shape, classes=classes, words=words, **content)
        except (TypeError, KeyError) as error:
            raise MissingData(f"{path} is not a model configuration of this version ({error})") from error


class DiffusionModel(nn.Module):
    """A prior, networks and a loss. A subclass sets `prior`, `condition` and its networks, and the three methods."""

    prior: Prior
    condition: Condition

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = Schedule(config.options["schedule"])

    def networks(self) -> dict[str, nn.Module]:
        """The networks that a denoising step calls, for the cost ledger."""
        raise TypeError(f"{type(self).__name__} must name its networks")

    def predict(self, z: Tensor, t: Tensor, condition: Tensor) -> Prediction:
        """What the model says of z_t (B, T, 3, H, W) at times t (B,)."""
        raise TypeError(f"{type(self).__name__} must predict")

    def losses(self, x: Tensor, noise: Tensor, t: Tensor, condition: Tensor) -> dict[str, Tensor]:
        """Named terms whose sum is minimised, for clean clips x in [-1, 1] and noise of the model's prior."""
        raise TypeError(f"{type(self).__name__} must have losses")

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with its learning rate."""
        return [{"params": list(self.parameters()), "lr": lr}]

    def conditioned(
        self, labels: Sequence[int], captions: Sequence[str], modes: Sequence[Conditioning], normal: Normal
    ) -> Tensor:
        """The condition of each clip to be made, (B, width); `normal` draws whatever of it is left to chance."""
        vectors: Tensor = self.condition(labels, captions, modes)
        return vectors

    def training_losses(
        self,
        x: Tensor,
        labels: Sequence[int],
        captions: Sequence[str],
        modes: Sequence[Conditioning],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Draw times and noise for clips x (B, T, 3, H, W) in [-1, 1] and return the loss terms."""
        t = torch.randint(self.schedule.steps, (len(x),), generator=generator, device=generator.device).to(x.device)
        noise = self.prior.noise(batched(len(x), generator), self.config.shape).to(x.device)
        return self.losses(x, noise, t, self.condition(labels, captions, modes))

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write `config.json` and `model.safetensors`, each atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        state, path = self.state_dict(), folder / "model.safetensors"
        weights.write(path, weights.halved(state) if half else state)
        files.write_json(folder / "config.json", {**asdict(self.config), "sha256": weights.sha256(path)})
