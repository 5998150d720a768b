"""Sampler interface of diffusion models: requests in, clips out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from vfbench import video
from vfbench.diffusion import schedule, solver_options, solvers
from vfbench.diffusion.long_video import LongVideoPlan
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.priors import NoiseGenerator, SharedNoisePrior, noise_generator, normal_per_clip
from vfbench.diffusion.schedule import Prediction
from vfbench.diffusion.super_resolution import EnlargesClips, SmallClips
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Clips, ClipShape, Conditioning, Quantise, Request, derive_seed
from vfbench.nets.embedding import CONDITIONINGS
from vfbench.utils.device import precision

STEPS, GUIDANCE = 16, 1.0  # where the preset sets none; the paper of dpm++2m finds 15 to 20 steps sufficient


@dataclass(frozen=True)
class SamplerOptions:
    """Sampling options that every built-in model takes.

    `steps`, `solver` and `eta` are those of `vfbench.diffusion.solvers.solve`, `guidance` the weight of
    `vfbench.diffusion.solvers.guided`; None is the preset's (`preset_sampling`). `condition` is the conditioning:
    `text`, `class` or `none`; None is the first of these that the model was trained with. `threshold` is that of
    `vfbench.diffusion.schedule.clip_x0`; None is static thresholding. Dynamic thresholding uses all frames of a clip,
    in a long clip those of a window. `frames` above the training length makes windows that share `overlap` frames
    (`vfbench.diffusion.long_video`). Raises `UserError` naming the option that is out of range.
    """

    steps: int | None = None
    solver: str = "dpm++2m"
    guidance: float | None = None
    condition: Conditioning | None = None
    eta: float | None = None
    threshold: float | None = None
    frames: int | None = None
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.condition is not None and self.condition not in CONDITIONINGS:
            raise unknown("conditioning", self.condition, CONDITIONINGS)
        solver_options.check_solver_options(STEPS if self.steps is None else self.steps, self.solver, self.eta)
        solver_options.check_guidance(GUIDANCE if self.guidance is None else self.guidance)
        solver_options.check_threshold(self.threshold)


@dataclass
class DiffusionSampler:
    """A `DiffusionModel` as a `Sampler`; raises `UserError` for options that the model does not support.

    `noise` is the generator that draws the noise; None is that of the device (`vfbench.diffusion.priors`).
    `small_clips` are those that a model enlarges; other models need none.
    """

    model: DiffusionModel
    weights: str
    device: torch.device
    dtype: torch.dtype = torch.float32
    sampling: SamplerOptions = SamplerOptions()
    quantise: Quantise = "round"
    noise: NoiseGenerator | None = None
    small_clips: SmallClips | None = None
    window_plan: LongVideoPlan = field(init=False)  # windows of the training length

    def __post_init__(self) -> None:
        length = self.model.config.shape.frames
        self.window_plan = LongVideoPlan.of(self.model.noise_prior, length, self.sampling.frames, self.sampling.overlap)
        self._require_trained_conditioning()

    @property
    def steps(self) -> int:
        """Sampling steps: the option, or the preset's."""
        return preset_sampling(self.model.config)[0] if self.sampling.steps is None else self.sampling.steps

    @property
    def guidance(self) -> float:
        """Weight of classifier-free guidance: the option, or the preset's where it has an effect."""
        if self.sampling.guidance is not None:
            return self.sampling.guidance
        return GUIDANCE if self._ignores_guidance else preset_sampling(self.model.config)[1]

    @property
    def _ignores_guidance(self) -> bool:
        return self.conditioning == "none" and self.model.frame_embedding is None

    def _require_trained_conditioning(self) -> None:
        """Raise `UserError` for conditioning or guidance that the model was not trained for."""
        guidance, trained = self.guidance, self.model.config.trained_conditioning
        if self.conditioning not in trained:
            raise UserError(
                f"condition='{self.conditioning}': this model was trained with {' or '.join(trained)} only; "
                f"choose condition='{trained[0]}', or train with --conditions"
            )
        if guidance == 1:
            return
        if self._ignores_guidance:
            raise UserError(
                f"guidance {guidance} has no effect with condition='none', at twice the cost: leave it out, or choose "
                "condition='class' or 'text'"
            )
        if "none" not in trained:
            raise UserError(
                f"guidance {guidance} needs a model that was also trained without class and caption: leave it out, or "
                f"train with --conditions {trained[0]}=0.9,none=0.1"
            )

    @property
    def shape(self) -> ClipShape:
        """Shape of the clips: the training shape, or with the option `frames` that many frames."""
        return replace(self.model.config.shape, frames=self.window_plan.frames)

    @property
    def shares_base(self) -> bool:
        """True where a request may name the seed of another clip's base noise."""
        return isinstance(self.model.noise_prior, SharedNoisePrior) and self.model.noise_prior.shares_noise

    @property
    def noise_generator(self) -> NoiseGenerator:
        """The generator that draws the noise of clips."""
        return self.noise or noise_generator(self.device)

    @property
    def reference(self) -> bool:
        """True for a model that enlarges real clips."""
        return self.small_clips is not None and self.small_clips.real

    @property
    def conditioning(self) -> Conditioning:
        """The part of a request that the model reads besides the seed."""
        return self.sampling.condition or self.model.config.trained_conditioning[0]

    @property
    def preset(self) -> str:
        """The model's preset, for tables that list one model twice."""
        return self.model.config.preset

    @property
    def configuration(self) -> str:
        """SHA-256 of the model's configuration: equal weights may have another noise prior or schedule."""
        return hashlib.sha256(json.dumps(asdict(self.model.config), sort_keys=True).encode()).hexdigest()

    @property
    def sampling_options(self) -> Mapping[str, str | int | float]:
        """The options of sampling that apply, with those of the preset."""
        chosen = replace(self.sampling, steps=self.steps, guidance=self.guidance, condition=self.conditioning)
        return {name: value for name, value in asdict(chosen).items() if value is not None}

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The model's networks by name, for the cost ledger."""
        return {"condition": self.model.condition, **self.model.networks()}

    def in_float32(self) -> DiffusionSampler:
        """The sampler that makes the clips of the same requests in float32."""
        return replace(self, dtype=torch.float32)

    @torch.inference_mode()
    def sample(self, requests: Sequence[Request]) -> Clips:
        """One clip per request, uint8 (B, T, 3, H, W) on the CPU."""
        shape, generator = self.model.config.shape, self.noise_generator
        with precision(self.device, self.dtype):
            cond = self._conditioning_vectors(requests)
            prior = self.model.sampling_prior(cond)
            fresh_noise = self.window_plan.noise(prior, shape, requests, self.device, generator)
            x = solvers.solve(
                self.window_plan.denoiser(self._denoiser(requests, cond)),
                fresh_noise(),
                self.model.schedule,
                steps=self.steps,
                solver=self.sampling.solver,
                eta=self.sampling.eta,
                fresh_noise=fresh_noise,
            )
        return video.to_uint8(x[:, : self.shape.frames].float() / 2 + 0.5, self.quantise).cpu()

    def _conditioning_vectors(self, requests: Sequence[Request]) -> Tensor:
        labels, prompts = [r.label for r in requests], [r.prompt for r in requests]
        seeds = [derive_seed(r.base_seed, 0, "condition") for r in requests]
        normal = normal_per_clip(seeds, self.device, self.noise_generator)
        return self.model.conditioning_vectors(labels, prompts, [self.conditioning] * len(requests), normal)

    def _denoiser(self, requests: Sequence[Request], cond: Tensor) -> Callable[[Tensor, int], Prediction]:
        null_cond = self.model.null_conditioning(len(cond))
        predict: solvers.ConditionalDenoiser = self.model.predict
        if self.small_clips is not None and isinstance(self.model, EnlargesClips):
            predict = self.small_clips.denoiser(self.model, requests, self.device)

        def denoise(z: Tensor, t: int) -> Prediction:
            times = torch.full((len(z),), t, device=z.device)
            prediction = solvers.guided(predict, z, times, cond, null_cond, self.guidance)
            prediction = Prediction(prediction.x0.float(), prediction.eps.float())
            return schedule.clip_x0(prediction, z, self.model.schedule.at(times, z), self.sampling.threshold)

        return denoise


def preset_sampling(config: ModelConfig) -> tuple[int, float]:
    """Sampling steps and guidance of a model's preset, in its option `sampling`.

    Guidance is 1 for a model that was not trained both with and without classes or captions.
    """
    options = {"steps": STEPS, "guidance": GUIDANCE, **config.options.get("sampling", {})}
    guided = {"none"} < set(config.trained_conditioning) and bool(config.words or config.classes)
    return options["steps"], options["guidance"] if guided else GUIDANCE


def describe_conditioning(conditioning: Sequence[Conditioning], classes: Sequence[str]) -> str:
    """The conditioning that a model was trained with, and the flag of `generate` for it, to end an error message."""
    if "text" in conditioning:
        return "captions, not classes: give --prompt TEXT"
    if "class" in conditioning:
        return f"classes, not captions: give --label NAME (one of {', '.join(classes)})"
    return "neither captions nor classes: leave it out"
