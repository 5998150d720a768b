"""What every built-in diffusion model shares: configuration, conditioning, files on disk, and the sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfbench import files, video, weights
from vfbench.diffusion import guidance, schedule
from vfbench.diffusion.priors import Normal, Prior, batched, per_clip
from vfbench.diffusion.schedule import Prediction, Schedule
from vfbench.diffusion.solvers import solve
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Clips, ClipShape, Conditioning, Dataset, Quantise, Request, Setting
from vfbench.nets.embedding import MODES, Condition


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


@dataclass
class DiffusionSampler:
    """Any `DiffusionModel` behind the common interface."""

    model: DiffusionModel
    weights: str
    device: torch.device
    dtype: torch.dtype
    steps: int
    solver: str
    guidance: float
    conditioning: Conditioning
    quantise: Quantise = "round"

    @property
    def shape(self) -> ClipShape:
        """The clip shape the model was trained for."""
        return self.model.config.shape

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The model's networks, for the cost ledger."""
        return {"condition": self.model.condition, **self.model.networks()}

    @torch.inference_mode()
    def sample(self, requests: Sequence[Request]) -> Clips:
        """One clip a request, uint8 (B, T, 3, H, W) on the CPU."""
        normal = per_clip([r.seed for r in requests], self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            x = solve(
                self._denoiser(requests),
                self.model.prior.noise(normal, self.shape),
                self.model.schedule,
                steps=self.steps,
                solver=self.solver,
                fresh=lambda: self.model.prior.noise(normal, self.shape),
            )
        return video.to_uint8(x.float() / 2 + 0.5, self.quantise).cpu()

    def _denoiser(self, requests: Sequence[Request]) -> Callable[[Tensor, int], Prediction]:
        labels, prompts = [r.label for r in requests], [r.prompt for r in requests]
        condition = self.model.condition(labels, prompts, [self.conditioning] * len(requests))
        null = self.model.condition(labels, prompts, ["none"] * len(requests))

        def denoise(z: Tensor, t: int) -> Prediction:
            times = torch.full((len(z),), t, device=z.device)
            prediction = guidance.guided(self.model.predict, z, times, condition, null, self.guidance)
            prediction = Prediction(prediction.x0.float(), prediction.eps.float())
            return schedule.clip(prediction, z, self.model.schedule.at(times, z))

        return denoise


def sampler(
    build: Callable[[ModelConfig], DiffusionModel],
    model: str,
    setting: Setting,
    *,
    steps: int,
    solver: str,
    guidance: float,
    condition: Conditioning,
) -> DiffusionSampler:
    """The sampler of a trained model: from `setting.checkpoint`, or from the checkpoint shipped for the dataset."""
    if condition not in MODES:
        raise unknown("conditioning", condition, MODES)
    if steps < 1:
        raise UserError(f"--steps {steps}: choose at least 1")
    folder = setting.checkpoint or weights.shipped(setting.dataset.name, model)
    if folder is None:
        raise MissingData(
            f"no checkpoint of '{model}' for '{setting.dataset.name}' is shipped: train one with\n"
            f"  python -m vfbench train --model {model} --dataset {setting.dataset.name} --output DIR\n"
            f"and pass it as --checkpoint DIR"
        )
    config = ModelConfig.read(folder / "config.json", model)
    if (config.classes, config.words) != (setting.dataset.classes, setting.dataset.words):
        raise MissingData(f"{folder} was trained with other classes or words than {setting.dataset.name} has now")
    if (config.dataset, config.shape) != (setting.dataset.name, setting.dataset.shape):
        raise MissingData(
            f"{folder} was trained on {config.dataset} at {config.shape}, "
            f"but {setting.dataset.name} at {setting.dataset.shape} is asked for"
        )
    try:
        network = build(config)
    except (KeyError, TypeError, ValueError) as error:
        raise MissingData(f"{folder / 'config.json'} does not describe a {model} ({error})") from error
    digest = weights.load_into(network, folder / "model.safetensors", config.sha256)
    network.to(setting.device).eval()
    return DiffusionSampler(
        network, digest, setting.device, setting.dtype, steps, solver, guidance, condition, setting.quantise
    )


__all__ = ["DiffusionModel", "DiffusionSampler", "ModelConfig", "Normal", "sampler"]
