"""Options of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from vfbench import plugins
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Conditioning
from vfbench.utils import store, trackers
from vfbench.utils.options import DEVICES, DTYPES, flag

CONDITIONS: tuple[Conditioning, ...] = ("text", "class", "none")
CROPS = ("random", "centre")
LR_SCHEDULES = ("cosine", "constant")
_WARMUP_STEPS = 200  # a tenth of the steps in a shorter run
_MAX_VALUE = 1e6  # of the learning rate and of the gradient norm
_MINIMUM = {
    **dict.fromkeys(("steps", "batch_size", "accumulate", "save_every", "sample_every"), 1),
    **dict.fromkeys(("warmup", "workers", "weight_decay"), 0),
}


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """Model to train, and the dataset it learns from; `model` may have options of its `create`."""

    model: str = flag("videofusion", 'Model to train, with options if any: "videofusion(lam=0.3)".')
    dataset: str = flag("shapes", "Dataset to train on.")
    data_root: Path | str | None = flag(None, "Folder of the dataset's files; VFBENCH_DATA by default.")
    preset: str = flag("tiny", "Size of the model; see `vfbench show model NAME`.")
    match_flops: str | None = flag(None, "Widen the preset to another's FLOPs per clip: vdm, or vdm:small.")
    base_init: str | None = flag(None, "Base generator of videofusion: scratch, finetune or frozen.")
    base_from: str | None = flag(None, "Folder or hub id of the pretrained base generator.")

    def __post_init__(self) -> None:
        require_trainable(plugins.parse(self.model).name)
        plugins.require("dataset", plugins.parse(self.dataset).name)


def require_trainable(model: str) -> None:
    """Raise `UserError` for the name of a model that does not exist or has no function `create`."""
    plugins.require("model", model)
    if not plugins.defines("model", model, "create"):
        raise UserError(f"'{model}' cannot be trained; these can: {', '.join(plugins.trainable())}")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training run; those after `device` do not change the trained weights, except by rounding.

    The device chooses the generator of the noise (`vfbench.diffusion.priors`). `steps` may grow when a run is resumed:
    the warm-up stays as it was, and a cosine schedule of the new length takes over at the saved step. A run with a
    constant rate ends as if it had begun with the new `steps`.
    `batch_size` counts the clips of a step over all processes and accumulation parts. `init_from` is a vfbench
    checkpoint with the initial weights. `crop` and `flip` apply to datasets of real videos only; by default clips are
    cropped at random and half of them mirrored. `conditions` is the relative frequency of conditioning on the caption
    (`text`), the class (`class`) or nothing (`none`): by default 8 : 1 : 1, or 9 : 1 for a dataset with captions or
    classes alone. Raises `UserError` for a value out of range.
    """

    steps: int = flag(3600, "Optimiser steps.")
    batch_size: int = flag(16, "Clips per step, summed over all processes of `accelerate launch`.")
    lr: float = flag(1e-3, "Peak learning rate.")
    lr_schedule: str = flag("cosine", "Rate after warm-up: cosine, to a twentieth at the last of --steps, or constant.")
    warmup: int | None = flag(None, "Warm-up steps; by default the smaller of 200 and a tenth of --steps.")
    weight_decay: float = flag(0.0, "Weight decay of AdamW.")
    clip_norm: float = flag(1.0, "Gradient norm above which gradients are clipped.")
    ema: float = flag(0.999, "Decay of the moving average of the weights.")
    seed: int = flag(0, "Seed of weights, data and noise.")
    dtype: str = flag("auto", "auto, float32 or bfloat16 (auto on a GPU).")
    crop: str | None = flag(None, "Crop of real videos: random (the default) or centre.")
    flip: bool | None = flag(None, "Mirror clips of real videos with probability 1/2.", "--flip/--no-flip")
    conditions: Mapping[str, float] | None = flag(
        None, "Probability of each kind of conditioning, e.g. class=0.9,none=0.1."
    )
    init_from: Path | str | None = flag(
        None, "Checkpoint to start from: of this model, of one with the same network, or of an image model."
    )
    device: str = flag("auto", "auto, cpu or cuda.")
    save_every: int = flag(200, "Steps between checkpoints.")
    sample_every: int = flag(600, "Steps between sample sheets.")
    half: bool = flag(False, "Write the weights in half precision.")
    compile: bool = flag(False, "Compile the networks: slower start, faster steps.")
    workers: int = flag(2, "Threads that prefetch clips and noise, on a GPU or from real videos.")
    accumulate: int = flag(1, "Gradient accumulation: parts of a batch, for the same step in less memory.")
    checkpoint_activations: bool = flag(False, "Recompute activations in the backward pass: slower, in less memory.")
    log_to: str | None = flag(None, "Also pass the losses to wandb, mlflow, trackio or tensorboard.")

    def __post_init__(self) -> None:
        for name, minimum in _MINIMUM.items():
            value = getattr(self, name)
            if value is not None and not minimum <= value < math.inf:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {minimum}, and finite")
        if self.warmup_steps > self.steps:
            raise UserError(f"--warmup {self.warmup}: longer than --steps {self.steps}, so --lr would not be reached")
        for name in ("lr", "clip_norm"):
            if not 0 < (value := getattr(self, name)) <= _MAX_VALUE:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be above 0 and at most {_MAX_VALUE:g}")
        if not 0 <= self.seed < 1 << 63:
            raise UserError(f"--seed {self.seed}: must be at least 0 and less than 2^63")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema {self.ema}: must be at least 0 and less than 1, such as 0.999")
        if self.lr_schedule not in LR_SCHEDULES:
            raise unknown("--lr-schedule", self.lr_schedule, LR_SCHEDULES)
        trackers.require(self.log_to)
        if self.device not in DEVICES:
            raise unknown("--device", self.device, DEVICES)
        if self.dtype not in ("auto", *DTYPES):
            raise unknown("--dtype", self.dtype, ["auto", *DTYPES])
        if self.crop not in (None, *CROPS):
            raise unknown("--crop", str(self.crop), CROPS)
        for name, weight in (self.conditions or {}).items():
            if name not in CONDITIONS:
                raise unknown("--conditions", name, CONDITIONS)
            if not 0 <= weight < math.inf:
                raise UserError(f"--conditions {name}={weight}: must be at least 0, and finite")
        if self.conditions is not None and not 0 < sum(self.conditions.values()) < math.inf:
            raise UserError(
                "--conditions: give one of text, class and none a weight above 0, such as class=0.9,none=0.1"
            )

    @property
    def warmup_steps(self) -> int:
        """Steps until the learning rate is reached."""
        return min(_WARMUP_STEPS, self.steps // 10) if self.warmup is None else self.warmup

    def on_device(self) -> TrainOptions:
        """Copy with the device and data type that `auto` stands for on this machine.

        Raises `BadEnvironment` for `cuda` on a machine without one.
        """
        from vfbench.utils.device import choose_device, choose_dtype

        device = choose_device(self.device)
        return replace(self, device=device.type, dtype=str(choose_dtype(self.dtype, device)).removeprefix("torch."))


@dataclass(frozen=True, kw_only=True)
class TrainJob(TrainOptions, TrainingSetup):
    """Options of `train`: what is trained, how, and where the checkpoint goes."""

    output: Path | str | None = flag(None, "Folder of the checkpoint; runs/train-<model>-<dataset> by default.")
    resume: bool = flag(False, "Refuse to start anew where there is no training to resume.")

    def __post_init__(self) -> None:
        TrainOptions.__post_init__(self)
        TrainingSetup.__post_init__(self)
        store.require_local("--output", self.output)

    @property
    def options(self) -> TrainOptions:
        """Options of the training alone, with the device and data type that `auto` stands for."""
        return TrainOptions(**{each.name: getattr(self, each.name) for each in fields(TrainOptions)}).on_device()
