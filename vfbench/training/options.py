"""Options of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from vfbench.clips.inventory import inventory_of
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Clips, Conditioning, Dataset, Split
from vfbench.utils.device import DTYPES

_CROPS = ("random", "centre")
# Classifier-free guidance needs some clips without conditioning; the others let one model take captions and classes.
_DEFAULT_PROBS: Mapping[Conditioning, float] = {"text": 0.8, "class": 0.1, "none": 0.1}
_SINGLE_PROB, _NONE_PROB = 0.9, 0.1  # for a dataset with captions or classes alone
_WARMUP_STEPS = 200  # a tenth of the steps in a shorter run
_MAX_VALUE = 1e6  # of the learning rate and of the gradient norm
_WEIGHT_NEUTRAL = (  # options that do not change the weights
    *("device", "save_every", "sample_every", "half", "compile", "workers"),
    *("accumulate", "checkpoint_activations"),  # up to the rounding of sums
)
_MINIMUM = {
    **dict.fromkeys(("steps", "batch_size", "accumulate", "save_every", "sample_every"), 1),
    **dict.fromkeys(("warmup", "workers", "weight_decay"), 0),
}


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training run; those from `device` on do not change the trained weights, except by rounding.

    `batch_size` is the number of clips per step, over all processes and accumulation parts. `warmup` is the number of
    steps until the learning rate reaches `lr`, by default 200 or a tenth of a shorter run. `clip_norm` is the largest
    norm of all gradients. `ema` in [0, 1) is the decay of the weights' moving average per step. `init_from` is a
    vfbench checkpoint with the initial weights. `crop` (`random` or `centre`) and `flip` apply to datasets of real
    videos only; by default clips are cropped at random and half of them mirrored. `conditions` is the relative
    frequency of conditioning on the caption (`text`), the class (`class`) or nothing (`none`): by default 8 : 1 : 1, or
    9 : 1 for a dataset with captions or classes alone. Raises `UserError` for a value out of range.
    """

    steps: int
    batch_size: int = 16
    lr: float = 1e-3
    warmup: int | None = None
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    dtype: str = "float32"
    crop: str | None = None
    flip: bool | None = None
    conditions: Mapping[str, float] | None = None
    init_from: Path | str | None = None
    device: str = "cpu"
    save_every: int = 200
    sample_every: int = 600
    half: bool = False  # write the weights in half precision
    compile: bool = False  # the networks, with torch.compile
    workers: int = 2  # threads that prefetch batches, on a GPU or from real videos
    accumulate: int = 1  # gradient accumulation: parts of a process's share of a batch, to save memory
    checkpoint_activations: bool = False  # recompute blocks in the backward pass: less memory, a third more work

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
        if self.dtype not in DTYPES:
            raise unknown("--dtype", self.dtype, DTYPES)
        if self.crop not in (None, *_CROPS):
            raise unknown("--crop", str(self.crop), _CROPS)
        for name, weight in (self.conditions or {}).items():
            if name not in _DEFAULT_PROBS:
                raise unknown("--conditions", name, _DEFAULT_PROBS)
            if not 0 <= weight < math.inf:
                raise UserError(f"--conditions {name}={weight}: must be at least 0, and finite")
        if self.conditions is not None and not 0 < sum(self.conditions.values()) < math.inf:
            raise UserError(
                "--conditions: give one of text, class and none a weight above 0, such as class=0.9,none=0.1"
            )

    def weight_options(self) -> dict[str, Any]:
        """Options that determine the weights for every dataset: without crop, flip, conditioning and `init_from`."""
        excluded = (*_WEIGHT_NEUTRAL, *CropOptions._fields, "conditions", "init_from")
        options = {**asdict(self), "warmup": self.warmup_steps}
        return {name: value for name, value in options.items() if name not in excluded}

    @property
    def warmup_steps(self) -> int:
        """Steps until the learning rate is reached."""
        return min(_WARMUP_STEPS, self.steps // 10) if self.warmup is None else self.warmup


@runtime_checkable
class RandomCropDataset(Protocol):
    """Dataset that crops training clips at random from real videos."""

    def draw(self, split: Split, indices: Sequence[int], seeds: Sequence[int], *, crop: str, flip: bool) -> Clips:
        """One clip from each video, uint8 (B, T, 3, H, W), determined by the seed of that clip."""
        ...


class CropOptions(NamedTuple):
    """Crop (`random` or `centre`) and horizontal flip of training clips that are cut from real videos."""

    crop: str = "random"
    flip: bool = True


def crop_options(dataset: Dataset, options: TrainOptions) -> CropOptions | None:
    """Arguments of `RandomCropDataset.draw`; None for other datasets.

    Raises `UserError` for an option that the dataset does not support.
    """
    if not isinstance(dataset, RandomCropDataset):
        for name in CropOptions._fields:
            if getattr(options, name) is not None:
                raise UserError(f"--{name}: {dataset.name} has no videos to crop; leave out --{name}")
        return None
    default = CropOptions()
    flip = default.flip if options.flip is None else options.flip
    inventory = inventory_of(dataset)
    if inventory is None or not inventory.fitted:
        return CropOptions(options.crop or default.crop, flip)
    if options.crop == "random":
        raise UserError(
            f"--crop random: {dataset.name} was prepared, and is cropped already; leave out --crop, or give "
            "--data-root with the original videos"
        )
    return CropOptions("centre", flip)  # equal to the centre crop of the original videos


def conditioning_probs(dataset: Dataset, options: TrainOptions) -> dict[Conditioning, float]:
    """Probability of each kind of conditioning for a training clip: text, class, none, in this order.

    Raises `UserError` for a kind that the dataset does not have.
    """
    available = {"text": bool(dataset.words), "class": bool(dataset.classes), "none": True}
    weights = options.conditions or _default_weights(available)
    for name, weight in weights.items():
        if weight and not available[name]:
            lacking = {"text": "captions", "class": "classes"}[name]
            raise UserError(f"--conditions {name}={weight:g}: {dataset.name} has no {lacking}; leave out {name}")
    total = sum(weights.values())
    return {name: weights.get(name, 0.0) / total for name in _DEFAULT_PROBS}


def _default_weights(available: Mapping[str, bool]) -> Mapping[str, float]:
    kinds = [name for name, has_it in available.items() if has_it and name != "none"]
    if len(kinds) == 2:
        return {str(name): weight for name, weight in _DEFAULT_PROBS.items()}
    return {**dict.fromkeys(kinds, _SINGLE_PROB), "none": _NONE_PROB}
