"""VideoFusion (Luo et al., arXiv 2303.08320): noise split into a base shared by all frames and a residual per frame.

Two jointly trained networks denoise them. Each step calls the base generator B once, on the base frame (the middle
one). B's base noise is removed from all frames, and the residual generator R predicts the remaining noise, given the
frame index. Assumptions where the paper is silent: R mixes frames by temporal convolutions and attention; R also sees
the denoised base frame as three more channels of every frame; all loss terms have equal weight; both networks share
the conditioning embedding, which learns from all terms.

The presets depart from the paper in four ways:

- The paper's networks predict eps and learn from the plain error of eps: `parametrisation='eps', images=0,
  base_update='paper'` is this loss. The presets predict v, whose error is that of eps with a weight that grows with
  the noise.
- The paper starts from a B pretrained on images. Without one, B also learns from `images` single frames of each clip,
  and `base_lr` is 1.
- In the paper's reverse step B moves the base frame. In the presets R does, `base_update='joint'`.
- The paper conditions both networks on the embedding of the base frame, drawn by a prior network at test time. Presets
  named `-prior` do so; the others condition on class or caption directly, as the baselines' presets of the same name.

Options of a model besides its sizes:

- `lam`, `lam_schedule`, `base_frame`: see `vfbench.diffusion.priors.Decomposed`.
- `parametrisation`, `images`: see above.
- `stop_gradient`: true, as in the paper, where B learns from its own terms alone; false where the error of R trains B
  as well.
- `base_init`, the origin of B: `scratch`, `finetune` (pretrained, learns at `base_lr` times the rate of R) or `frozen`
  (pretrained, does not learn).
- `new_condition`, `new_embedding`: true where a pretrained B came without the conditioning embedding, or the frame
  embedding, that it reads. That part is then trained from scratch, as R is.
- `form`: `two` networks, or `one` that predicts the whole noise under the same noise prior, which isolates the noise
  prior from the second network.
- `base_update`: what moves the base frame in a reverse step. `paper`: the prediction of B, which sees this frame alone,
  so that the clip that is made does not follow the joint distribution of its frames. `joint`: R reads the noisy base
  frame as well and predicts its noise from all frames, in the same call; B gives the noise that the frames share.
- `embedding`: the encoder of the base frame and the sizes of its embedding prior (`vfbench.diffusion.frame_embedding`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
from torch import Tensor, nn

from vfbench.diffusion.build_sampler import builder
from vfbench.diffusion.frame_embedding import EmbeddingOption
from vfbench.diffusion.model import DiffusionModel, select_frames
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.priors import BASE_FRAMES, LAMBDA_SCHEDULES, Decomposed
from vfbench.diffusion.schedule import (
    BETAS,
    ParametrisationOption,
    Prediction,
    Schedule,
    ShiftedShareOption,
    TimeShiftOption,
    check_parametrisation,
    to_prediction,
)
from vfbench.diffusion.single_network import OneUNet, with_options
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Conditioning, Dataset
from vfbench.models import _hub_base, _presets, _pretrained_base
from vfbench.models._hub_base import HubBase, HubUNet, ImageParametrisation
from vfbench.models._pretrained_base import BaseCheckpoint, BaseInit
from vfbench.models._unclip_base import UnclipDecoder
from vfbench.nets.text_encoder import TextEncoderOption, TextLROption
from vfbench.nets.unet import UNet, UNetConfig

PRESETS = _presets.PRESETS
BASE_UPDATES = ("paper", "joint")
# With a pretrained B: the paper has no image loss, and a small rate for B without giving its value.
_PRETRAINED_DEFAULTS = {"base_lr": 0.1, "images": 0}
_DEFAULTS = {
    "form": "two",
    "lam_schedule": "constant",
    "base_frame": "middle",
    "base_update": "paper",
    "stop_gradient": True,
    "base_init": "scratch",
    "new_condition": False,
    "new_embedding": True,
}


def create(
    dataset: Dataset,
    preset: str = "tiny",
    *,
    lam: Annotated[
        float | Sequence[float] | None, "Share of base noise in a frame, 0 to 1: one value, or one per frame."
    ] = None,
    lam_schedule: Annotated[
        str | None, LAMBDA_SCHEDULES, "Change of lam with the distance from the base frame."
    ] = None,
    base_frame: Annotated[int | str | None, BASE_FRAMES, "Base frame; an index counts from 0."] = None,
    base_init: Annotated[
        BaseInit, "Base generator: new, pretrained and learning, or pretrained and frozen."
    ] = "scratch",
    base_from: Annotated[Path | str | None, "Folder or hub id of the pretrained base generator."] = None,
    base_lr: Annotated[
        float | None, "Learning rate of the base generator, relative to the residual generator's."
    ] = None,
    images: Annotated[
        int | None, "Number of single frames of each clip that the base generator also learns from."
    ] = None,
    base_update: Annotated[
        str | None, BASE_UPDATES, "Network that moves the base frame when sampling: B (paper), or R (joint)."
    ] = None,
    stop_gradient: Annotated[
        bool | None, "Whether B learns from its own error alone, as in the paper, or also from R's."
    ] = None,
    schedule: Annotated[str | None, BETAS, "Noise schedule."] = None,
    parametrisation: ParametrisationOption = None,
    time_shift: TimeShiftOption = None,
    shifted_share: ShiftedShareOption = None,
    embedding: EmbeddingOption = None,
    text_encoder: TextEncoderOption = None,
    text_lr: TextLROption = None,
) -> VideoFusion | OneNetworkVideoFusion:
    """An untrained model for a dataset; None keeps the preset's value.

    `parametrisation`, `eps` or `v`, is that of R and of a U-Net B; a diffusers B keeps its own. `images`, at most the
    number of frames, is the number of single frames of each clip that B learns from besides the paper's loss; with
    `base_from` it defaults to 0. `embedding` is `none`, `learnt`, or the folder or hub id of a CLIP
    (`vfbench.diffusion.frame_embedding`). `text_encoder` is `words`, or the folder or hub id of a pretrained one, and
    `text_lr` its relative learning rate (`vfbench.nets.text_encoder`).

    `base_from`, required by `finetune` and `frozen`, is the pretrained B. One choice is the folder of a vfbench
    checkpoint: a `vdm` or `pyoco` of one frame, or a `videofusion`, whose B, conditioning embedding and frame embedding
    are used. The other is a model of diffusers, by folder or hub id, whose conditioning layer learns with R: a
    `UNet2DModel` (`vfbench.models._hub_base`), or the decoder of an unCLIP pipeline (`vfbench.models._unclip_base`).
    Most of the former were trained with the `schedule` `linear`, of the latter with `cosine`.

    Raises `UserError` for an unknown name, for options that contradict each other, for two networks on clips of one
    frame, and for a B that does not fit: another image size, or frozen and trained without the `embedding`. Raises
    `MissingData` where B cannot be read.
    """
    noise_options = {"lam": lam, "lam_schedule": lam_schedule, "base_frame": base_frame}
    training_options = {"base_lr": base_lr, "images": images, "schedule": schedule, "parametrisation": parametrisation}
    training_options |= {"base_update": base_update, "stop_gradient": stop_gradient}
    training_options |= {"time_shift": time_shift, "shifted_share": shifted_share}
    config = ModelConfig.from_preset("videofusion", preset, PRESETS, dataset).with_embedding(embedding)
    config = config.with_text_encoder(text_encoder, text_lr)
    _pretrained_base.require_consistent(config, base_init, base_from, base_lr, images, stop_gradient)
    if base_from is None:
        return _model(with_options(config, **noise_options, **training_options))
    config = with_options(config, **_PRETRAINED_DEFAULTS)
    config = with_options(config, **noise_options, **training_options, base_init=base_init)
    pretrained = _pretrained_base.read(base_from, config, dataset)
    model = VideoFusion(with_options(config, **pretrained.options))
    pretrained.load_into(model)
    model.base_checkpoint = pretrained.checkpoint
    return model


def _model(config: ModelConfig) -> VideoFusion | OneNetworkVideoFusion:
    """The model of a configuration."""
    form = config.options.get("form", _DEFAULTS["form"])
    if form not in ("one", "two"):
        raise unknown("form of VideoFusion", form, ("one", "two"))
    return OneNetworkVideoFusion(config) if form == "one" else VideoFusion(config)


def _noise_prior(config: ModelConfig) -> Decomposed:
    options = {**_DEFAULTS, **config.options}
    frames, base, schedule = config.shape.frames, options["base_frame"], options["lam_schedule"]
    return Decomposed(frames, options["lam"], base=base, schedule=schedule)


class OneNetworkVideoFusion(OneUNet):
    """One U-Net that predicts the noise of all frames under the decomposed noise prior."""

    @staticmethod
    def make_noise_prior(config: ModelConfig) -> Decomposed:
        """Decomposed noise; raises `UserError` for values out of range."""
        return _noise_prior(config)


class VideoFusion(DiffusionModel):
    """Base generator B (`base`), residual generator R (`residual`) and the decomposed noise prior.

    Raises `UserError` for clips of one frame, which leave nothing to R.
    """

    noise_prior: Decomposed

    def __init__(self, config: ModelConfig) -> None:
        options, frames = {**_DEFAULTS, **config.options}, config.shape.frames
        if frames < 2:
            raise UserError(
                f"{config.dataset} has clips of {config.shape}: the residual generator needs two frames or more; for "
                "images choose --model vdm --preset tiny-image"
            )
        super().__init__(config)
        self.parametrisation, self.images = check_parametrisation(options["parametrisation"]), options["images"]
        self.init: BaseInit = options["base_init"]
        if self.init not in get_args(BaseInit):
            raise unknown("base init", self.init, get_args(BaseInit))
        if options["base_update"] not in BASE_UPDATES:
            raise unknown("base update", options["base_update"], BASE_UPDATES)
        self.joint = options["base_update"] == "joint"
        self.stop_gradient: bool = options["stop_gradient"]
        residual = UNetConfig(**options["residual"])
        self._build_conditioning(residual.embedding)
        self.base: UNet | HubBase = _base(options["base"], residual.embedding, self.schedule)
        self.base_parametrisation: ImageParametrisation = (
            self.base.parametrisation if isinstance(self.base, HubBase) else self.parametrisation
        )
        self.residual = UNet(residual, frames=frames, inputs=6)
        self.new_condition: bool = options["new_condition"]
        self.new_embedding: bool = options["new_embedding"]
        self.base_checkpoint: BaseCheckpoint | None = None  # set by `create`
        if self.init == "frozen":
            self.base.requires_grad_(False)
            self.condition.requires_grad_(self.new_condition)  # a change would alter what B reads
            if self.frame_embedding is not None:
                self.frame_embedding.requires_grad_(self.new_embedding)

    @staticmethod
    def make_noise_prior(config: ModelConfig) -> Decomposed:
        """Decomposed noise; raises `UserError` for values out of range."""
        return _noise_prior(config)

    def record_conditioning(self, weights: Mapping[Conditioning, float]) -> None:
        """Store the conditioning of a training; raises `UserError` for one that a frozen B was not trained with."""
        if self.init == "frozen" and self.base_checkpoint is not None:
            self.base_checkpoint.require_conditioning(weights)
        super().record_conditioning(weights)

    def networks(self) -> dict[str, nn.Module]:
        """B and R, and the networks of the frame embedding if the model has one."""
        return {"base": self.base, "residual": self.residual, **self._embedding_networks()}

    def embedding_frames(self) -> list[int]:
        """The base frame, and the frames that B learns from as single images."""
        return [self.noise_prior.base, *self._image_frames()]

    def _image_frames(self) -> list[int]:
        """Indices of `images` frames, evenly spread over the clip."""
        frames: list[int] = torch.linspace(0, self.config.shape.frames - 1, self.images).long().tolist()
        return frames

    def _network_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups: B at `base_lr` times the rate of R, small for a B pretrained on images (section 3.3).

        The conditioning embedding and the frame embedding learn at the rate of B where they were trained with it, else
        at the rate of R. So does the conditioning layer of a diffusers B, which is new. Frozen parameters are in no
        group.
        """
        if self.init == "frozen":
            return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": lr}]
        # The order must follow from the configuration: an optimiser's state is restored by position.
        base = self._base_rate_parameters()
        base_set = set(base)
        others = [p for p in self.parameters() if p not in base_set]
        return [{"params": others, "lr": lr}, {"params": base, "lr": lr * self.config.options["base_lr"]}]

    def _base_rate_parameters(self) -> list[nn.Parameter]:
        """Parameters of B without its new conditioning layer, and of embeddings that came with a pretrained B."""
        if self.new_condition:
            base = {name: p for name, p in self.named_parameters() if name.startswith("base.")}
            return [p for name, p in base.items() if not name.startswith(_hub_base.CONDITIONING_PREFIX)]
        modules: list[nn.Module] = [self.base, self.condition] if self.init == "finetune" else [self.base]
        if self.frame_embedding is not None and not self.new_embedding:
            modules.append(self.frame_embedding)
        return [p for module in modules for p in module.parameters()]

    def predict(self, z: Tensor, t: Tensor, cond: Tensor) -> Prediction:
        """The prediction for all frames in one reverse step: eps^i = sqrt(lam_i) b + sqrt(1 - lam_i) r^i."""
        base_prediction = self.denoise_base(z, t, cond)
        residual_prediction, _ = self.denoise_residual(z, t, cond, base_prediction)
        eps = self._combined_noise(base_prediction.eps, residual_prediction.eps)
        if self.joint:
            return Prediction(residual_prediction.x0, eps)
        m = self.noise_prior.base
        x0 = torch.cat([residual_prediction.x0[:, :m], base_prediction.x0, residual_prediction.x0[:, m + 1 :]], dim=1)
        return Prediction(x0, eps)

    def _combined_noise(self, base: Tensor, residual: Tensor) -> Tensor:
        """Noise of all frames; that of the base frame is b (lam is 1), or what R predicts with `joint`."""
        eps = self.noise_prior.combine(base, residual)
        if not self.joint:
            return eps
        m = self.noise_prior.base
        return torch.cat([eps[:, :m], residual[:, m, None], eps[:, m + 1 :]], dim=1)

    def denoise_base(self, z: Tensor, t: Tensor, cond: Tensor) -> Prediction:
        """B on the base frame, (B, 1, 3, H, W): the frame, and as `eps` the base noise b that all frames share."""
        return self._denoise_image(z[:, self.noise_prior.base, None], t, cond)

    def _denoise_image(self, frame: Tensor, t: Tensor, cond: Tensor) -> Prediction:
        alpha_bar = self.schedule.at(t, frame)
        output = self.base(frame, t, cond).to(frame)
        return _hub_base.image_prediction(output, frame, alpha_bar, self.base_parametrisation)

    def denoise_residual(self, z: Tensor, t: Tensor, cond: Tensor, base: Prediction) -> tuple[Prediction, Tensor]:
        """R on all frames without the base noise: the prediction of x0 and r, (B, T, 3, H, W), and R's raw output.

        `base` is the prediction of B. With `joint`, R reads the base frame with its noise, and r of that frame is this
        noise.
        """
        m, alpha_bar = self.noise_prior.base, self.schedule.at(t, z)
        residual_z = self.remove_base(z, base.eps, alpha_bar)  # z'
        _, residual_weight = self.noise_prior.weights(z)
        if self.joint:
            base_frame = base.x0
            residual_z = torch.cat([residual_z[:, :m], z[:, m, None], residual_z[:, m + 1 :]], dim=1)
            is_base = torch.arange(z.shape[1], device=z.device).view(1, -1, 1, 1, 1) == m
            residual_weight = residual_weight.where(~is_base, 1.0)
        else:
            # z' of the base frame is sqrt(a_t) times the denoised frame, which R sees beside every frame.
            base_frame = residual_z[:, m, None] / alpha_bar.sqrt().clamp(min=1e-2)
        inputs = torch.cat([residual_z, base_frame.clamp(-1, 1).expand_as(residual_z)], dim=2)
        output = self.residual(inputs, t, cond).to(z)
        noise = (1 - alpha_bar).sqrt() * residual_weight
        return to_prediction(output, residual_z, alpha_bar.sqrt(), noise, self.parametrisation), output

    def remove_base(self, z: Tensor, base: Tensor, alpha_bar: Tensor) -> Tensor:
        """z'^i = z^i - sqrt(lam_i) sqrt(1 - a_t) b."""
        base_weight, _ = self.noise_prior.weights(z)
        return z - base_weight * (1 - alpha_bar).sqrt() * base

    def losses(self, x: Tensor, noise: Tensor, t: Tensor, cond: Tensor, *image_conds: Tensor) -> dict[str, Tensor]:
        """The two terms of the joint loss, and the `images` term; with `stop_gradient`, R's term does not train B.

        `image_conds` are the conditioning vectors of the single images; by default those of their clips.
        """
        alpha_bar = self.schedule.at(t, x)
        z = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
        m = self.noise_prior.base
        # A frozen B does not train the conditioning, so no activation of it need be kept for a backward pass.
        base_prediction = self.denoise_base(z, t, cond.detach() if self.init == "frozen" else cond)
        terms = {}
        if self.init != "frozen":
            base_error = noise[:, m, None] - base_prediction.eps
            terms["base"] = _weighted_error(base_error, alpha_bar, self.base_parametrisation)
            if self.images:
                terms["images"] = self._image_loss(z, noise, t, cond, image_conds)
        if self.stop_gradient:  # b is used twice, in R's input and in its target
            base_prediction = Prediction(*(part.detach() for part in base_prediction))
        residual_prediction, _ = self.denoise_residual(z, t, cond, base_prediction)
        error = noise - self._combined_noise(base_prediction.eps, residual_prediction.eps)
        if not self.joint:  # R does not predict the base frame
            error = torch.cat([error[:, :m], error[:, m + 1 :]], dim=1)
        return {**terms, "residual": _weighted_error(error, alpha_bar, self.parametrisation)}

    def _image_loss(self, z: Tensor, noise: Tensor, t: Tensor, cond: Tensor, image_conds: Sequence[Tensor]) -> Tensor:
        """B's error on single frames, evenly spread over the clip: each is an image in standard normal noise."""
        z, noise = (select_frames(x, self._image_frames()).flatten(0, 1)[:, None] for x in (z, noise))
        t, cond = (x.repeat_interleave(self.images, dim=0) for x in (t, cond))
        if image_conds:
            cond = torch.stack(list(image_conds), dim=1).flatten(0, 1)
        error = noise - self._denoise_image(z, t, cond).eps
        return _weighted_error(error, self.schedule.at(t, z), self.base_parametrisation)


def _base(options: Mapping[str, Any], width: int, schedule: Schedule) -> UNet | HubBase:
    """B from its options: those of an image U-Net, or of a diffusers model with its scheduler."""
    if "hub" in options:
        return HubUNet(options, width, schedule)
    if "unclip" in options:
        return UnclipDecoder(options, width, schedule)
    return UNet(UNetConfig(**options), frames=1)


def _weighted_error(error: Tensor, alpha_bar: Tensor, parametrisation: ImageParametrisation) -> Tensor:
    """Mean squared error of eps, weighted by the parametrisation; `eps` has weight 1, as in the paper.

    For B, the weight turns the error of eps into that of B's own target, v or x0. For R, whose noise in frame i is
    weaker by sqrt(1 - lam_i), the squared error of its v then counts (1 - lam_i) / (1 - lam_i (1 - a_t)).
    """
    weights = {"eps": torch.ones_like(alpha_bar), "v": 1 / alpha_bar, "x0": (1 - alpha_bar) / alpha_bar}
    return (weights[parametrisation] * error**2).mean()


build = builder("videofusion", _model)
