"""What determines a training's weights, and how its work is done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vfbench.errors import UserError, unknown
from vfbench.interfaces import Clips, Conditioning, Dataset, Split
from vfbench.utils.device import DTYPES

_OF_DRAWN_CLIPS = {"crop": "random", "flip": True}  # options of datasets that can draw, and what they are by default
_CROPS = ("random", "centre")
# Guidance needs some clips of which nothing is said; the rest lets one model answer captions and classes.
_CONDITIONS: Mapping[Conditioning, float] = {"text": 0.8, "class": 0.1, "none": 0.1}
_WARMUP = 200  # steps, of a training that has ten times as many
_MOST = 1e6  # of a learning rate, or of a norm of gradients
_OF_ONE = {"said": 0.9, "none": 0.1}  # where a dataset says one thing alone
_NOT_OF_THE_WEIGHTS = (
    *("device", "save_every", "sample_every", "half", "compile", "workers"),
    *("accumulate", "checkpoint_activations"),  # but for the rounding of sums
)
_LEAST = {
    **dict.fromkeys(("steps", "batch_size", "accumulate", "save_every", "sample_every"), 1),
    **dict.fromkeys(("warmup", "workers", "weight_decay"), 0),
}


@dataclass(frozen=True)
class TrainOptions:
    """What determines the weights, and from `device` on how the work is done.

    A step learns from `batch_size` clips, over all processes and parts together. `warmup` are the steps until the
    learning rate `lr` is reached, by default 200, but of a short training a tenth. `clip_norm` is the largest norm of
    all gradients, and `ema` in [0, 1) how much of the average of the weights stays after a step. `init_from` is the
    folder of a checkpoint of ours, whose weights are the first. `crop` (`random` or `centre`) and `flip` say how
    training clips are drawn from real videos, by default at random and half of them mirrored. Other datasets take
    neither. `conditions` is how often a clip is shown with its caption (`text`), its class or nothing, by default
    8 : 1 : 1, or 9 : 1 where the dataset says one thing alone. Raises `UserError` for what is out of
    range.
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
    workers: int = 2  # threads that make clips and noise ahead, on a GPU or of real videos
    accumulate: int = 1  # parts of a process's share of a batch, one after the other: less memory
    checkpoint_activations: bool = False  # compute blocks again in the backward pass: less memory, a third more work

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise UserError(f"--{name.replace('_', '-')} {value}: at least {least}")
        if self.warmup_steps > self.steps:
            raise UserError(f"--warmup {self.warmup}: the learning rate would not be reached in --steps {self.steps}")
        for name in ("lr", "clip_norm"):
            if not 0 < (value := getattr(self, name)) <= _MOST:
                raise UserError(f"--{name.replace('_', '-')} {value}: more than 0, and finite: at most {_MOST:g}")
        if not 0 <= self.seed < 1 << 63:
            raise UserError(f"--seed {self.seed}: at least 0, and less than 2 to the 63rd")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema {self.ema}: at least 0 and less than 1, such as 0.999")
        if self.dtype not in DTYPES:
            raise unknown("--dtype", self.dtype, DTYPES)
        if self.crop not in (None, *_CROPS):
            raise unknown("--crop", str(self.crop), _CROPS)
        for name, weight in (self.conditions or {}).items():
            if name not in _CONDITIONS:
                raise unknown("--conditions", name, _CONDITIONS)
            if not 0 <= weight < math.inf:
                raise UserError(f"--conditions {name}={weight}: at least 0, and finite")
        if self.conditions is not None and not 0 < sum(self.conditions.values()) < math.inf:
            raise UserError(
                "--conditions: give one of text, class and none a weight above 0, such as class=0.9,none=0.1"
            )

    def of_the_weights(self) -> dict[str, Any]:
        """The options that determine the weights, whatever the dataset: not how its clips are drawn or shown, nor a
        folder's place."""
        without = (*_NOT_OF_THE_WEIGHTS, *_OF_DRAWN_CLIPS, "conditions", "init_from")
        found = {**asdict(self), "warmup": self.warmup_steps}
        return {name: value for name, value in found.items() if name not in without}

    @property
    def warmup_steps(self) -> int:
        """Steps until the learning rate is reached."""
        return min(_WARMUP, self.steps // 10) if self.warmup is None else self.warmup


@runtime_checkable
class RandomCropDataset(Protocol):
    """A dataset that cuts its training clips at random."""

    def draw(self, split: Split, indices: Sequence[int], seeds: Sequence[int], *, crop: str, flip: bool) -> Clips:
        """One clip of each of the videos, uint8 (B, T, 3, H, W), each determined by its seed."""
        ...


def drawn(dataset: Dataset, options: TrainOptions) -> dict[str, Any]:
    """How training clips are drawn, which determines the weights; nothing for a dataset whose clips are as they are.

    Raises `UserError` for what the dataset cannot do.
    """
    asked = {name: value for name in _OF_DRAWN_CLIPS if (value := getattr(options, name)) is not None}
    if not isinstance(dataset, RandomCropDataset):
        if asked:
            flag = next(iter(asked))
            raise UserError(f"--{flag}: {dataset.name} has no videos to draw clips from; leave out --{flag}")
        return {}
    if not getattr(getattr(dataset, "inventory", None), "fitted", ""):
        return {**_OF_DRAWN_CLIPS, **asked}
    if asked.get("crop") == "random":
        raise UserError(f"--crop random: {dataset.name} was prepared, and cropped: leave it out, or read its own files")
    return {**_OF_DRAWN_CLIPS, **asked, "crop": "centre"}  # as of the files themselves


def conditions(dataset: Dataset, options: TrainOptions) -> dict[Conditioning, float]:
    """How often a training clip is shown with its caption, its class or nothing: parts of 1, in this order.

    Raises `UserError` for what the dataset does not say.
    """
    said = {"text": bool(dataset.words), "class": bool(dataset.classes), "none": True}
    asked = options.conditions or _by_default(said)
    for name, weight in asked.items():
        if weight and not said[name]:
            things = {"text": "captions", "class": "classes"}[name]
            raise UserError(f"--conditions {name}={weight:g}: {dataset.name} has no {things}; leave {name} out")
    whole = sum(asked.values())
    return {name: asked.get(name, 0.0) / whole for name in _CONDITIONS}


def _by_default(said: Mapping[str, bool]) -> Mapping[str, float]:
    ways = [name for name, there in said.items() if there and name != "none"]
    if len(ways) == 2:
        return {str(name): weight for name, weight in _CONDITIONS.items()}
    return {**dict.fromkeys(ways, _OF_ONE["said"]), "none": _OF_ONE["none"]}
