"""Any diffusion model behind the common interface: requests in, clips out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vfbench import video
from vfbench.diffusion import schedule, solvers
from vfbench.diffusion import solvers as guidance
from vfbench.diffusion.long_video import LongVideoPlan
from vfbench.diffusion.model import DiffusionModel, ModelConfig, require_unchanged
from vfbench.diffusion.priors import Sharing, per_clip
from vfbench.diffusion.schedule import Prediction
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import BuildContext, Clips, ClipShape, Conditioning, Dataset, Quantise, Request, derive_seed
from vfbench.nets.embedding import MODES
from vfbench.utils import checkpoint as checkpoint_
from vfbench.utils import tensor_files as tensor_files_

STRONGEST = 1000.0  # guidance: some 10 is much, and far beyond it clips are saturated noise


@dataclass(frozen=True)
class Sampling:
    """How clips are made of a trained model: the options that every built-in model takes.

    `steps`, `solver` and `eta` are those of `vfbench.diffusion.solvers.solve`, `guidance` the weight of
    `vfbench.diffusion.solvers`. `condition` is how the model is told what to make: its caption, its class or nothing;
    None is the first of these that it was trained with. `threshold` is that of `vfbench.diffusion.schedule.clip` (None:
    static), which looks at all frames of a clip, and in a longer one at those of a window. `frames` asks for clips
    longer than the model was trained for, of windows that share `overlap` frames (`vfbench.diffusion.long_video`).
    Raises `UserError` naming what is out of range.
    """

    steps: int = 25
    solver: str = "dpm++2m"
    guidance: float = 1.0
    condition: Conditioning | None = None
    eta: float | None = None
    threshold: float | None = None
    frames: int | None = None
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.condition is not None and self.condition not in MODES:
            raise unknown("conditioning", self.condition, MODES)
        solvers.check(self.steps, self.solver, self.eta)
        if not abs(self.guidance) <= STRONGEST:
            raise UserError(f"guidance {self.guidance}: choose a finite number of at most {STRONGEST:g}; 1 is none")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UserError(
                f"threshold {self.threshold}: choose a part of a clip's values between 0 and 1, such as 0.995; leave "
                "it out to cut off what is beyond [-1, 1]"
            )


@dataclass
class DiffusionSampler:
    """Any `DiffusionModel` behind the common interface; raises `UserError` for options that it cannot have."""

    model: DiffusionModel
    weights: str
    device: torch.device
    dtype: torch.dtype = torch.float32
    sampling: Sampling = Sampling()
    quantise: Quantise = "round"
    windows: LongVideoPlan = field(init=False)  # of the length the model was trained for: what a clip is made of

    def __post_init__(self) -> None:
        length = self.model.config.shape.frames
        self.windows = LongVideoPlan.of(self.model.prior, length, self.sampling.frames, self.sampling.overlap)
        self._require_learnt()

    def _require_learnt(self) -> None:
        """Raise `UserError` for what would ask the networks something that no training clip has taught them."""
        guidance, ways = self.sampling.guidance, self.model.config.ways
        if self.conditioning not in ways:
            raise UserError(
                f"condition='{self.conditioning}': the training clips of this model were shown with "
                f"{' or '.join(ways)} alone; choose condition='{ways[0]}', or train with --conditions"
            )
        if guidance == 1:
            return
        if self.conditioning == "none" and self.model.frame_embedding is None:
            raise UserError(
                f"guidance {guidance} leads away from a clip of which nothing is said, and condition='none' asks for "
                "just that: it would cost twice and change nothing; leave it out, or choose condition='class' or 'text'"
            )
        if "none" not in ways:
            raise UserError(
                f"guidance {guidance} leads away from a clip of which nothing is said, and this model has seen none: "
                f"leave it out, or train with such clips as well, --conditions {ways[0]}=0.9,none=0.1"
            )

    @property
    def shape(self) -> ClipShape:
        """The clip shape the model was trained for, or as many frames as were asked for."""
        return replace(self.model.config.shape, frames=self.windows.frames)

    @property
    def shares_base(self) -> bool:
        """Whether a request may name the seed of another clip's base noise."""
        return isinstance(self.model.prior, Sharing) and self.model.prior.shares

    @property
    def conditioning(self) -> Conditioning:
        """What of a request it looks at."""
        return self.sampling.condition or self.model.config.ways[0]

    @property
    def preset(self) -> str:
        """What the model was made of, for tables that show one model twice."""
        return self.model.config.preset

    @property
    def configuration(self) -> str:
        """The SHA-256 of what the networks and the prior were built from, which weights alone do not tell."""
        return hashlib.sha256(json.dumps(asdict(self.model.config), sort_keys=True).encode()).hexdigest()

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The model's networks, for the cost ledger."""
        return {"condition": self.model.condition, **self.model.networks()}

    @torch.inference_mode()
    def sample(self, requests: Sequence[Request]) -> Clips:
        """One clip a request, uint8 (B, T, 3, H, W) on the CPU."""
        fresh = self.windows.noise(self.model.prior, self.model.config.shape, requests, self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            x = solvers.solve(
                self.windows.denoiser(self._denoiser(requests)),
                fresh(),
                self.model.schedule,
                steps=self.sampling.steps,
                solver=self.sampling.solver,
                eta=self.sampling.eta,
                fresh=fresh,
            )
        return video.to_uint8(x[:, : self.shape.frames].float() / 2 + 0.5, self.quantise).cpu()

    def _denoiser(self, requests: Sequence[Request]) -> Callable[[Tensor, int], Prediction]:
        labels, prompts = [r.label for r in requests], [r.prompt for r in requests]
        normal = per_clip([derive_seed(r.base_seed, 0, "condition") for r in requests], self.device)
        condition = self.model.conditioned(labels, prompts, [self.conditioning] * len(requests), normal)
        null = self.model.unconditioned(len(requests))

        def denoise(z: Tensor, t: int) -> Prediction:
            times = torch.full((len(z),), t, device=z.device)
            prediction = guidance.guided(self.model.predict, z, times, condition, null, self.sampling.guidance)
            prediction = Prediction(prediction.x0.float(), prediction.eps.float())
            return schedule.clip(prediction, z, self.model.schedule.at(times, z), self.sampling.threshold)

        return denoise


def builder(
    model: str, build: Callable[[ModelConfig], DiffusionModel], *, steps: int = 25, solver: str = "dpm++2m"
) -> Callable[..., DiffusionSampler]:
    """The function `build` of a model's file, which makes the sampler of a trained one.

    `steps` and `solver` are the model's own defaults. All models of this repository have those given here, so that they
    are compared at as many calls: 25 of the second-order solver, of whose steps its paper finds 15 to 20 enough.

    Its options are those of `Sampling`. The model comes from `setting.checkpoint`, or is the one shipped for the
    dataset. Raises `MissingData` where there is none, or where it is damaged, of another model, dataset or shape, and
    `UserError` for options out of range.
    """

    def load(
        setting: BuildContext,
        *,
        steps: int = steps,
        solver: str = solver,
        guidance: float = 1.0,
        condition: Conditioning | None = None,
        eta: float | None = None,
        threshold: float | None = None,
        frames: int | None = None,
        overlap: int = 0,
    ) -> DiffusionSampler:
        sampling = Sampling(steps, solver, guidance, condition, eta, threshold, frames, overlap)
        network, digest = _trained(model, build, setting, longer=frames is not None)
        network.to(setting.device).eval()
        return DiffusionSampler(network, digest, setting.device, setting.dtype, sampling, setting.quantise)

    return load


def _trained(
    model: str, build: Callable[[ModelConfig], DiffusionModel], setting: BuildContext, *, longer: bool
) -> tuple[DiffusionModel, str]:
    """A model with its weights, and their SHA-256; `longer`: for clips of another length than the dataset's."""
    folder = setting.checkpoint or checkpoint_.shipped(setting.dataset.name, model)
    if folder is None:
        raise MissingData(
            f"no checkpoint of '{model}' for '{setting.dataset.name}' is shipped: train one with\n"
            f"  python -m vfbench train --model {model} --dataset {setting.dataset.name} --output DIR\n"
            f"and pass it as --checkpoint DIR"
        )
    checkpoint_.require_checkpoint(folder, model)
    config = ModelConfig.read(folder / checkpoint_.CONFIG, model)
    _require_fit(folder, config, setting.dataset, longer=longer)
    if not config.sha256:
        raise MissingData(f"{folder / checkpoint_.CONFIG} records no SHA-256 of its weights: train or copy it again")
    with checkpoint_.describing(folder / checkpoint_.CONFIG, model):
        network = build(config)
    digest = tensor_files_.load_into(network, folder / checkpoint_.TENSORS, config.sha256)
    require_unchanged(folder)
    return network, digest


def _require_fit(folder: Path, config: ModelConfig, dataset: Dataset, *, longer: bool) -> None:
    """Raise `MissingData` for a checkpoint trained on other clips, classes or words than those of a dataset."""
    wanted = replace(dataset.shape, frames=config.shape.frames) if longer else dataset.shape
    if (config.dataset, config.shape) != (dataset.name, wanted):
        raise MissingData(
            f"{folder} was trained on {config.dataset} at {config.shape}, "
            f"but {dataset.name} at {dataset.shape} is asked for: "
            f"say --dataset '{config.dataset}({config.shape.options})', or give another checkpoint"
        )
    if (config.classes, config.words) != (dataset.classes, dataset.words):
        raise MissingData(f"{folder} was trained with other classes or words than {dataset.name} has now")


def not_learnt(ways: Sequence[Conditioning], classes: Sequence[str]) -> str:
    """What a model learnt that was told of its clips in these ways, and the flag of `generate` that asks for it."""
    if "text" in ways:
        return "captions, not classes: give --prompt TEXT"
    if "class" in ways:
        return f"classes, not captions: give --label NAME (one of {', '.join(classes)})"
    return "neither captions nor classes: leave it out"
