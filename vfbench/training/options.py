"""What determines a training's weights, and how its work is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vfbench.device import DTYPES
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Clips, Dataset, Split

_OF_DRAWN_CLIPS = {"crop": "random", "flip": True}  # options of datasets that can draw, and what they are by default
_CROPS = ("random", "centre")
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
    learning rate `lr` is reached, `clip_norm` is the largest norm of all gradients, and `ema` in [0, 1) how much of the
    average of the weights stays after a step. `init_from` is the folder of a checkpoint of ours, whose weights are the
    first. `crop` (`random` or `centre`) and `flip` say how training clips are drawn from real videos, by default at
    random and half of them mirrored. Other datasets take neither. Raises `UserError` for what is out of range.
    """

    steps: int
    batch_size: int = 16
    lr: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    dtype: str = "float32"
    crop: str | None = None
    flip: bool | None = None
    init_from: Path | str | None = None
    device: str = "cpu"
    save_every: int = 200
    sample_every: int = 600
    half: bool = False  # write the weights in half precision
    compile: bool = False  # the networks, with torch.compile
    workers: int = 2  # threads that draw clips of real videos ahead
    accumulate: int = 1  # parts of a process's share of a batch, one after the other: less memory
    checkpoint_activations: bool = False  # compute blocks again in the backward pass: less memory, a third more work

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if not least <= (value := getattr(self, name)) < math.inf:
                raise UserError(f"--{name.replace('_', '-')} {value}: at least {least}")
        for name in ("lr", "clip_norm"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise UserError(f"--{name.replace('_', '-')} {value}: more than 0, and finite")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema {self.ema}: at least 0 and less than 1, such as 0.999")
        if self.dtype not in DTYPES:
            raise unknown("--dtype", self.dtype, DTYPES)
        if self.crop not in (None, *_CROPS):
            raise unknown("--crop", str(self.crop), _CROPS)

    def of_the_weights(self) -> dict[str, Any]:
        """The options that determine the weights, whatever the dataset: not `crop` and `flip`, nor a folder's place."""
        without = (*_NOT_OF_THE_WEIGHTS, *_OF_DRAWN_CLIPS, "init_from")
        return {name: value for name, value in asdict(self).items() if name not in without}


@runtime_checkable
class Drawing(Protocol):
    """A dataset that cuts its training clips at random."""

    def draw(self, split: Split, indices: Sequence[int], seeds: Sequence[int], *, crop: str, flip: bool) -> Clips:
        """One clip of each of the videos, uint8 (B, T, 3, H, W), each determined by its seed."""
        ...


def drawn(dataset: Dataset, options: TrainOptions) -> dict[str, Any]:
    """How training clips are drawn, which determines the weights; nothing for a dataset whose clips are as they are.

    Raises `UserError` for what the dataset cannot do.
    """
    asked = {name: value for name in _OF_DRAWN_CLIPS if (value := getattr(options, name)) is not None}
    if not isinstance(dataset, Drawing):
        if asked:
            flag = next(iter(asked))
            raise UserError(f"--{flag}: {dataset.name} has no videos to draw clips from; leave out --{flag}")
        return {}
    if not getattr(getattr(dataset, "inventory", None), "fitted", ""):
        return {**_OF_DRAWN_CLIPS, **asked}
    if asked.get("crop") == "random":
        raise UserError(f"--crop random: {dataset.name} was prepared, and cropped: leave it out, or read its own files")
    return {**_OF_DRAWN_CLIPS, **asked, "crop": "centre"}  # as of the files themselves
