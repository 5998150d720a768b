"""VideoFusion (Luo et al., arXiv 2303.08320): noise split into a base shared by all frames and a residual per frame.

Two jointly trained networks denoise them. Each step calls the base generator B once, on the middle frame alone; its
base noise is removed from all frames, and the residual generator R predicts what is left, given the frame index. Where
the paper is silent, this file assumes, and says so: R mixes frames by temporal convolutions and attention; R also sees
the denoised base frame as three more channels of every frame; all terms of the loss weigh the same; both networks share
the embedding of the condition, which learns from all terms.

The presets depart from the paper in three things. Both of its networks predict eps and learn from the plain error of
eps: `parametrisation='eps', images=0` is that loss. The presets read v, and their error of eps is weighted (`_error`).
The paper starts from a B pretrained on images; without one, B learns images beside the clips, from `images` single
frames of each, and `base_lr` is 1. The paper shows both networks the embedding of the base frame, and at test one that
a prior network draws: presets named `-prior` do, the others condition on class or caption directly, as the baselines of
the same name do.

Options of a model, beside its sizes: `lam`, `lam_schedule` and `base_frame` (`vfbench.diffusion.priors.Decomposed`);
`parametrisation` and `images`; `base_init`, where B comes from: `scratch`, `finetune` (pretrained, learns at `base_lr`
times the rate of R) or `frozen` (pretrained, and stays as it is); `new_condition` and `new_embedding`, whether a
pretrained B came without the condition, or the embedding, that it reads, which is then as new as R; `form`: `two`
networks, or `one` that predicts the whole noise under the same prior, which isolates the prior from the second network;
and `embedding`, the encoder of the base frame and the sizes of the network that draws its embedding
(`vfbench.diffusion.frame_embedding`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from vfbench.diffusion.model import DiffusionModel, ModelConfig
from vfbench.diffusion.priors import Decomposed
from vfbench.diffusion.sampler import builder
from vfbench.diffusion.schedule import Prediction, Schedule, parametrisation, split
from vfbench.diffusion.single_network import OneUNet, chosen
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Conditioning, Dataset
from vfbench.models import _hub_base, _presets, _pretrained_base
from vfbench.models._hub_base import HubBase, ImageKind
from vfbench.models._pretrained_base import BaseInit, Told
from vfbench.nets.unet import UNet, UNetConfig

PRESETS = _presets.PRESETS
# What a pretrained B changes unless told otherwise: the paper says a small rate, not which, and has no loss of images.
_PRETRAINED = {"base_lr": 0.1, "images": 0}
_DEFAULTS = {
    "form": "two",
    "lam_schedule": "constant",
    "base_frame": "middle",
    "base_init": "scratch",
    "new_condition": False,
    "new_embedding": True,
}


def create(
    dataset: Dataset,
    preset: str = "tiny",
    *,
    lam: float | Sequence[float] | None = None,
    lam_schedule: str | None = None,
    base_frame: int | str | None = None,
    base_init: BaseInit = "scratch",
    base_from: Path | str | None = None,
    base_lr: float | None = None,
    images: int | None = None,
    schedule: str | None = None,
    parametrisation: str | None = None,
    embedding: str | None = None,
) -> VideoFusion | OneNetworkVideoFusion:
    """An untrained model for a dataset; None leaves what the preset says.

    `parametrisation`, `eps` or `v`, is what R and a B of ours predict; one of the hub keeps its own. `images` says from
    how many single frames of each clip, at most all, B learns beside the paper's loss: with `base_from` from none,
    unless it is given. `embedding` is `none`, `learnt` or a CLIP by its folder or its id on the hub
    (`vfbench.diffusion.frame_embedding`).

    `base_from`, wanted by `finetune` and `frozen`, holds the pretrained B: the folder of a checkpoint of ours (a `vdm`
    of one frame, or a `videofusion`, whose B, condition and embedding are taken), or a `UNet2DModel` of the diffusers
    hub, as a folder or by its id, whose condition learns with R; most of these were trained with the `schedule`
    `linear`. One that knows classes begins with the mean of their embeddings, and none has dropout
    (`vfbench.models._hub_base`).
    Raises `UserError` for an unknown name, options that contradict each other, two networks for clips of one frame, and
    a B that makes images of another height or width than the clips or that is frozen and knows no `embedding`, and
    `MissingData` where B cannot be read.
    """
    of_noise = {"lam": lam, "lam_schedule": lam_schedule, "base_frame": base_frame}
    learning = {"base_lr": base_lr, "images": images, "schedule": schedule, "parametrisation": parametrisation}
    config = ModelConfig.of("videofusion", preset, PRESETS, dataset).with_embedding(embedding)
    _pretrained_base.require_consistent(config, base_init, base_from, base_lr, images)
    if base_from is None:
        return _model(chosen(config, **of_noise, **learning))
    config = chosen(chosen(config, **_PRETRAINED), **of_noise, **learning, base_init=base_init)
    found = _pretrained_base.read(base_from, config, dataset)
    model = VideoFusion(chosen(config, **found.options))
    found.fill(model)
    model.told = found.told
    return model


def _model(config: ModelConfig) -> VideoFusion | OneNetworkVideoFusion:
    """The model that a configuration describes."""
    form = config.options.get("form", _DEFAULTS["form"])
    if form not in ("one", "two"):
        raise unknown("form of VideoFusion", form, ("one", "two"))
    return OneNetworkVideoFusion(config) if form == "one" else VideoFusion(config)


def _prior(config: ModelConfig) -> Decomposed:
    options = {**_DEFAULTS, **config.options}
    frames, base, schedule = config.shape.frames, options["base_frame"], options["lam_schedule"]
    return Decomposed(frames, options["lam"], base=base, schedule=schedule)


class OneNetworkVideoFusion(OneUNet):
    """One U-Net that predicts the noise of all frames under the decomposed prior."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, _prior(config))


class VideoFusion(DiffusionModel):
    """Base generator B (`base`), residual generator R (`residual`) and the decomposed prior.

    Raises `UserError` for clips of one frame, of which R has no part.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        options, frames = {**_DEFAULTS, **config.options}, config.shape.frames
        if frames < 2:
            raise UserError(
                f"{config.dataset} has clips of {config.shape}: without a second frame the residual generator has "
                "nothing to learn from; for images choose --model vdm --preset tiny-image"
            )
        self.kind, self.images = parametrisation(options["parametrisation"]), options["images"]
        self.init: BaseInit = options["base_init"]
        if self.init not in get_args(BaseInit):
            raise unknown("base init", self.init, get_args(BaseInit))
        self.prior: Decomposed = _prior(config)
        residual = UNetConfig(**options["residual"])
        self._conditions(residual.embedding)
        self.base: UNet | HubBase = _base(options["base"], residual.embedding, self.schedule)
        self.base_kind: ImageKind = self.base.kind if isinstance(self.base, HubBase) else self.kind
        self.residual = UNet(residual, frames=frames, inputs=6)
        self.new_condition: bool = options["new_condition"]
        self.new_embedding: bool = options["new_embedding"]
        self.told: Told | None = None  # for a B that was just read
        if self.init == "frozen":
            self.base.requires_grad_(False)
            self.condition.requires_grad_(self.new_condition)  # else B reads it, and would answer otherwise
            if self.frame_embedding is not None:
                self.frame_embedding.requires_grad_(self.new_embedding)  # as well

    def record_conditions(self, conditions: Mapping[Conditioning, float]) -> None:
        """A frozen B that was never told one of them cannot learn it, and is refused by a `UserError`."""
        if self.init == "frozen" and self.told is not None:
            self.told.require(conditions)
        super().record_conditions(conditions)

    def networks(self) -> dict[str, nn.Module]:
        """B and R, and those of the embedding where there is one."""
        return {"base": self.base, "residual": self.residual, **self._embedding_networks()}

    def pictures(self) -> list[int]:
        """The base frame, and those that B learns from as single images."""
        return [self.prior.base, *self._images()]

    def _images(self) -> list[int]:
        """Frames evenly spread over the clip."""
        spread: list[int] = torch.linspace(0, self.config.shape.frames - 1, self.images).long().tolist()
        return spread

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """B learns at `base_lr` times the rate of R: small when B was pretrained on images (section 3.3).

        So do the condition and the embedding where they were trained with B. Beside a hub's B the condition is as new
        as R, and so is the layer by which that B reads it, and both learn at R's rate, as an embedding does that B did
        not bring. What a frozen B brought is in no group.
        """
        if self.init == "frozen":
            return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": lr}]
        # In an order that follows from the configuration: an optimiser's state is restored by position.
        base = self._at_base_lr()
        of_base = set(base)
        others = [p for p in self.parameters() if p not in of_base]
        return [{"params": others, "lr": lr}, {"params": base, "lr": lr * self.config.options["base_lr"]}]

    def _at_base_lr(self) -> list[nn.Parameter]:
        """B without what was added to it here, and the condition and embedding that came with a pretrained one."""
        if self.new_condition:
            base = {name: p for name, p in self.named_parameters() if name.startswith("base.")}
            return [p for name, p in base.items() if not name.startswith(_hub_base.ADDED)]
        parts: list[nn.Module] = [self.base, self.condition] if self.init == "finetune" else [self.base]
        if self.frame_embedding is not None and not self.new_embedding:
            parts.append(self.frame_embedding)
        return [p for part in parts for p in part.parameters()]

    def predict(self, z: Tensor, t: Tensor, condition: Tensor) -> Prediction:
        """One reverse step's prediction for all frames: eps^i = sqrt(lam_i) b + sqrt(1 - lam_i) r^i."""
        of_base, base = self.denoise_base(z, t, condition)
        of_others, _ = self.denoise_rest(z, t, condition, base)
        m = self.prior.base
        x0 = torch.cat([of_others.x0[:, :m], of_base.x0, of_others.x0[:, m + 1 :]], dim=1)
        eps = self.prior.combine(base, of_others.eps)  # the base frame's lam is 1: its noise is b itself
        return Prediction(x0, eps)

    def denoise_base(self, z: Tensor, t: Tensor, condition: Tensor) -> tuple[Prediction, Tensor]:
        """B on the one base frame, (B, 1, 3, H, W): what it says of it, and the base noise b."""
        prediction = self._denoise_image(z[:, self.prior.base, None], t, condition)
        return prediction, prediction.eps

    def _denoise_image(self, frame: Tensor, t: Tensor, condition: Tensor) -> Prediction:
        alpha_bar = self.schedule.at(t, frame)
        output = self.base(frame, t, condition).to(frame)
        return _hub_base.read(output, frame, alpha_bar, self.base_kind)

    def denoise_rest(self, z: Tensor, t: Tensor, condition: Tensor, base: Tensor) -> tuple[Prediction, Tensor]:
        """R on all frames with the base noise removed: x0 and r (B, T, 3, H, W), and R's own output."""
        alpha_bar = self.schedule.at(t, z)
        left = self.remove_base(z, base, alpha_bar)  # z'
        # z' of the base frame is sqrt(a_t) times its denoised picture: R sees the picture beside every frame.
        picture = left[:, self.prior.base, None] / alpha_bar.sqrt().clamp(min=1e-2)
        seen = torch.cat([left, picture.clamp(-1, 1).expand_as(left)], dim=2)
        output = self.residual(seen, t, condition).to(z)
        _, of_residual = self.prior.weights(z)
        return split(output, left, alpha_bar.sqrt(), (1 - alpha_bar).sqrt() * of_residual, self.kind), output

    def remove_base(self, z: Tensor, base: Tensor, alpha_bar: Tensor) -> Tensor:
        """z'^i = z^i - sqrt(lam_i) sqrt(1 - a_t) b."""
        of_base, _ = self.prior.weights(z)
        return z - of_base * (1 - alpha_bar).sqrt() * base

    def losses(self, x: Tensor, noise: Tensor, t: Tensor, condition: Tensor, *of_images: Tensor) -> dict[str, Tensor]:
        """The two terms of the joint loss, and that of `images`; b is detached for R, whose error teaches B nothing.

        `of_images` are the conditions of the single images, which are those of their clips unless they are given.
        """
        alpha_bar = self.schedule.at(t, x)
        z = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
        m = self.prior.base
        # A frozen B teaches the condition nothing, so that nothing of it need be kept for a backward pass.
        of_base, base = self.denoise_base(z, t, condition.detach() if self.init == "frozen" else condition)
        terms = {}
        if self.init != "frozen":
            terms["base"] = _error(noise[:, m, None] - of_base.eps, alpha_bar, self.base_kind)
            if self.images:
                terms["images"] = self._image_error(z, noise, t, condition, of_images)
        detached = base.detach()  # used twice: in R's input and in its target
        of_rest, _ = self.denoise_rest(z, t, condition, detached)
        error = noise - self.prior.combine(detached, of_rest.eps)
        others = torch.cat([error[:, :m], error[:, m + 1 :]], dim=1)
        return {**terms, "residual": _error(others, alpha_bar, self.kind)}

    def _image_error(
        self, z: Tensor, noise: Tensor, t: Tensor, condition: Tensor, of_images: Sequence[Tensor]
    ) -> Tensor:
        """B's error on single frames, evenly spread over the clip: each is an image in standard normal noise."""
        z, noise = (x[:, self._images()].flatten(0, 1)[:, None] for x in (z, noise))
        t, condition = (x.repeat_interleave(self.images, dim=0) for x in (t, condition))
        if of_images:
            condition = torch.stack(list(of_images), dim=1).flatten(0, 1)
        error = noise - self._denoise_image(z, t, condition).eps
        return _error(error, self.schedule.at(t, z), self.base_kind)


def _base(options: Mapping[str, Any], width: int, schedule: Schedule) -> UNet | HubBase:
    """B by its options: those of our image U-Net, or of a hub model with its noise schedule."""
    if "hub" in options:
        return HubBase(options["hub"], options["scheduler"], width, schedule)
    return UNet(UNetConfig(**options), frames=1)


def _error(error: Tensor, alpha_bar: Tensor, kind: ImageKind) -> Tensor:
    """Mean square of an error of eps, which weighs 1 if a network predicts that: the paper's loss.

    For B the others are the plain errors of what it predicts: its error of v is larger by 1 / sqrt(a_t), and that of x0
    by sqrt(1 - a_t) / sqrt(a_t). R reads v of a weaker noise, and the same weight 1 / a_t gives the square of its error
    of v in frame i the weight (1 - lam_i) / (1 - lam_i (1 - a_t)).
    """
    weights = {"eps": torch.ones_like(alpha_bar), "v": 1 / alpha_bar, "x0": (1 - alpha_bar) / alpha_bar}
    return (weights[kind] * error**2).mean()


build = builder("videofusion", _model)
