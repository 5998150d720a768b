"""Any diffusion model behind the common interface: requests in, clips out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vfbench import video, weights
from vfbench.diffusion import guidance, schedule
from vfbench.diffusion.model import DiffusionModel, ModelConfig
from vfbench.diffusion.priors import per_clip
from vfbench.diffusion.schedule import Prediction
from vfbench.diffusion.solvers import solve
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Clips, ClipShape, Conditioning, Quantise, Request, Setting, derive_seed
from vfbench.nets.embedding import MODES


@dataclass(frozen=True)
class Sampling:
    """How clips are made of a trained model: the options that every built-in model takes."""

    steps: int = 25
    solver: str = "dpm++2m"
    guidance: float = 1.0
    condition: Conditioning = "text"

    def __post_init__(self) -> None:
        if self.condition not in MODES:
            raise unknown("conditioning", self.condition, MODES)
        if self.steps < 1:
            raise UserError(f"--steps {self.steps}: choose at least 1")


@dataclass
class DiffusionSampler:
    """Any `DiffusionModel` behind the common interface."""

    model: DiffusionModel
    weights: str
    device: torch.device
    dtype: torch.dtype = torch.float32
    sampling: Sampling = Sampling()
    quantise: Quantise = "round"

    @property
    def shape(self) -> ClipShape:
        """The clip shape the model was trained for."""
        return self.model.config.shape

    @property
    def conditioning(self) -> Conditioning:
        """What of a request it looks at."""
        return self.sampling.condition

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
                steps=self.sampling.steps,
                solver=self.sampling.solver,
                fresh=lambda: self.model.prior.noise(normal, self.shape),
            )
        return video.to_uint8(x.float() / 2 + 0.5, self.quantise).cpu()

    def _denoiser(self, requests: Sequence[Request]) -> Callable[[Tensor, int], Prediction]:
        labels, prompts = [r.label for r in requests], [r.prompt for r in requests]
        normal = per_clip([derive_seed(r.seed, 0, "condition") for r in requests], self.device)
        condition = self.model.conditioned(labels, prompts, [self.conditioning] * len(requests), normal)
        null = self.model.conditioned(labels, prompts, ["none"] * len(requests), normal)

        def denoise(z: Tensor, t: int) -> Prediction:
            times = torch.full((len(z),), t, device=z.device)
            prediction = guidance.guided(self.model.predict, z, times, condition, null, self.sampling.guidance)
            prediction = Prediction(prediction.x0.float(), prediction.eps.float())
            return schedule.clip(prediction, z, self.model.schedule.at(times, z))

        return denoise


def builder(model: str, build: Callable[[ModelConfig], DiffusionModel]) -> Callable[..., DiffusionSampler]:
    """The function `build` of a model's file, which makes the sampler of a trained one.

    From `setting.checkpoint`, or from the checkpoint shipped for the dataset. Raises `MissingData` where there is none,
    or where it is damaged, of another model, dataset or shape, and `UserError` for options out of range.
    """

    def load(
        setting: Setting,
        *,
        steps: int = 25,
        solver: str = "dpm++2m",
        guidance: float = 1.0,
        condition: Conditioning = "text",
    ) -> DiffusionSampler:
        sampling = Sampling(steps, solver, guidance, condition)
        network, digest = _trained(model, build, setting)
        network.to(setting.device).eval()
        return DiffusionSampler(network, digest, setting.device, setting.dtype, sampling, setting.quantise)

    return load


def _trained(
    model: str, build: Callable[[ModelConfig], DiffusionModel], setting: Setting
) -> tuple[DiffusionModel, str]:
    """A model with its weights, and their SHA-256."""
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
    return network, weights.load_into(network, folder / "model.safetensors", config.sha256)
