"""Sampler interface of diffusion models: requests in, clips out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from vfbench import plugins, video
from vfbench.diffusion import schedule, solver_options, solvers
from vfbench.diffusion.long_video import LongVideoPlan
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig, require_unchanged
from vfbench.diffusion.priors import NoiseGenerator, SharedNoisePrior, noise_generator, normal_per_clip
from vfbench.diffusion.schedule import Prediction
from vfbench.diffusion.super_resolution import EnlargesClips, SmallClips, real_small_clips
from vfbench.errors import MissingCheckpoint, MissingData, UserError, unknown
from vfbench.interfaces import BuildContext, Clips, ClipShape, Conditioning, Dataset, Quantise, Request, derive_seed
from vfbench.nets.embedding import CONDITIONINGS
from vfbench.nets.unet import place
from vfbench.utils import checkpoint, tensor_files
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


def builder(model: str, create: Callable[[ModelConfig], DiffusionModel]) -> Callable[..., DiffusionSampler]:
    """The function `build` of a model's file: load a trained model and return its sampler.

    `create` makes the model of a configuration. The options of `build` are those of `SamplerOptions`. The model comes
    from `context.checkpoint`, or is the one shipped for the dataset. `build` raises `MissingData` where there is none,
    and for one that is damaged or of another model, dataset or shape; `UserError` for options out of range.
    """

    def build(
        context: BuildContext,
        *,
        steps: Annotated[int | None, "Sampling steps; by default those of the preset, or 16."] = None,
        solver: Annotated[str, solver_options.SOLVERS, "Sampling algorithm."] = "dpm++2m",
        guidance: Annotated[
            float | None, "Classifier-free guidance weight; 1 is none; by default the preset's, or 1."
        ] = None,
        condition: Annotated[
            Conditioning | None,
            "Conditioning; by default the first of text, class, none that it was trained with.",
        ] = None,
        eta: Annotated[float | None, "Fresh noise of ddim: 0 is none, 1 as much as ddpm."] = None,
        threshold: Annotated[float | None, "Dynamic thresholding: a quantile of each clip, e.g. 0.995."] = None,
        frames: Annotated[int | None, "Frames of a clip, more than the model's own."] = None,
        overlap: Annotated[int, "Frames that neighbouring windows of a long clip share."] = 0,
    ) -> DiffusionSampler:
        sampling = SamplerOptions(steps, solver, guidance, condition, eta, threshold, frames, overlap)
        network, sha256 = _load_model(model, create, context, any_length=frames is not None)
        place(network.eval(), context.device)
        small_clips = real_small_clips(network, context.dataset)
        settings = (context.device, context.dtype, sampling, context.quantise)
        return DiffusionSampler(network, sha256, *settings, small_clips=small_clips)

    return build


def _load_model(
    model: str, create: Callable[[ModelConfig], DiffusionModel], context: BuildContext, *, any_length: bool
) -> tuple[DiffusionModel, str]:
    """A trained model and the SHA-256 of its weights; `any_length` allows another clip length than the dataset's."""
    dataset = context.dataset
    folder = context.checkpoint or _shipped(model, dataset, any_length=any_length)
    if folder is None:
        raise MissingCheckpoint(
            f"no checkpoint of '{model}' for {dataset.name} at {dataset.shape}: vfbench ships none, and --checkpoint "
            "is not given",
            model,
            dataset,
        )
    checkpoint.require_checkpoint(folder, model)
    path = folder / checkpoint.CONFIG
    config = ModelConfig.read(path, model)
    _require_fit(folder, config, dataset, any_length=any_length)
    if not config.sha256:
        raise MissingData(f"{path} records no SHA-256 of its weights: train or copy it again")
    with checkpoint.config_errors(path, model):
        _check_options(model, config)
        _require_as_large(create, config, folder / checkpoint.TENSORS)
        network = create(config)
    sha256 = tensor_files.load_into(network, folder / checkpoint.TENSORS, config.sha256)
    require_unchanged(folder)
    return network, sha256


def _check_options(model: str, config: ModelConfig) -> None:
    """Raise `UserError` for a saved option of another type than that of the model's `create`, or of sampling."""
    if plugins.is_built_in("model", model):
        known = plugins.options("model", model, "create").keys() - {
            "embedding",
            "text_encoder",
        }  # given as names, saved as sizes
        saved = {name: value for name, value in config.options.items() if name in known}
        plugins.validated_options("model", plugins.Spec(model, saved), "create")
    sampling = config.options.get("sampling", {})
    types: Mapping[str, tuple[type, ...]] = {"steps": (int,), "guidance": (int, float)}
    if not isinstance(sampling, Mapping) or any(
        type(each) not in types.get(name, ()) for name, each in sampling.items()
    ):
        raise UserError(f"sampling {sampling}: a preset sets steps, a whole number, and guidance, a number")
    SamplerOptions(**sampling)


def _require_as_large(create: Callable[[ModelConfig], DiffusionModel], config: ModelConfig, weights: Path) -> None:
    """Raise `MissingData` where a configuration has more parameters than its weights file bytes: none is allocated."""
    with torch.device("meta"):
        parameters = sum(each.numel() for each in create(config).parameters())
    if weights.is_file() and parameters > (size := weights.stat().st_size):
        raise MissingData(
            f"{weights} is damaged or does not fit this model: it has {size:,} bytes, {checkpoint.CONFIG} describes "
            f"{parameters:,} parameters"
        )


def _shipped(model: str, dataset: Dataset, *, any_length: bool) -> Path | None:
    """The shipped checkpoint of a model for clips of the dataset's shape, None where there is none."""
    folder = checkpoint.shipped(dataset.name, model)
    if folder is None:
        return None
    shape = ModelConfig.read(folder / checkpoint.CONFIG, model).shape
    return folder if shape == _trained_shape(dataset, shape, any_length=any_length) else None


def _trained_shape(dataset: Dataset, trained: ClipShape, *, any_length: bool) -> ClipShape:
    """Clip shape that a checkpoint for the dataset must have been trained on."""
    return replace(dataset.shape, frames=trained.frames) if any_length else dataset.shape


def _require_fit(folder: Path, config: ModelConfig, dataset: Dataset, *, any_length: bool) -> None:
    """Raise `MissingData` for a checkpoint trained on another dataset, clip shape, classes or vocabulary."""
    shape = _trained_shape(dataset, config.shape, any_length=any_length)
    if (config.dataset, config.shape) != (dataset.name, shape):
        raise MissingData(
            f"{folder} was trained on {config.dataset} at {config.shape}, this run uses {dataset.name} at "
            f"{dataset.shape}: give --dataset '{config.dataset}({config.shape.options})', or another checkpoint"
        )
    if (config.classes, config.words) != (dataset.classes, dataset.words):
        raise MissingData(
            f"{folder} was trained with other classes or words than {dataset.name} has: give another checkpoint, or "
            "train again"
        )


def describe_conditioning(conditioning: Sequence[Conditioning], classes: Sequence[str]) -> str:
    """The conditioning that a model was trained with, and the flag of `generate` for it, to end an error message."""
    if "text" in conditioning:
        return "captions, not classes: give --prompt TEXT"
    if "class" in conditioning:
        return f"classes, not captions: give --label NAME (one of {', '.join(classes)})"
    return "neither captions nor classes: leave it out"
