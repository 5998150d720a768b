"""The vocabulary of vfbench: the plain things that travel between its stations, and what a plug-in must offer.

    requests -> Sampler -> clips (uint8) -> Extractor -> features -> Metric -> Score -> Result

A clip is uint8 RGB with shape (T, 3, H, W), a batch (B, T, 3, H, W); it is the only exchange format.
A plug-in is a module with a function `build`; what `build` must return is one of the protocols below.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

Clips: TypeAlias = UInt8[Tensor, "batch frames 3 height width"]
Features: TypeAlias = Float[Tensor, "batch dim"]
FakeArray: TypeAlias = Float[np.ndarray, "fake dim"]
RealArray: TypeAlias = Float[np.ndarray, "real dim"]
HoldoutArray: TypeAlias = Float[np.ndarray, "spare dim"]

Conditioning = Literal["none", "class", "text"]
Split = Literal["train", "test"]
Better = Literal["lower", "higher"]
WeightStatus = Literal["verified", "unpublished", "nonstandard"]
Quantise = Literal["round", "truncate"]


@dataclass(frozen=True, slots=True)
class ClipShape:
    """Frames, height and width of a clip; printed as `16x32x32`."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"

    @property
    def options(self) -> str:
        """As options of a dataset or a model: `frames=16, height=32, width=32`."""
        return f"frames={self.frames}, height={self.height}, width={self.width}"


class Place(NamedTuple):
    """Where a clip comes from: frames `start`, `start + stride`, ... of a video, cropped to a box.

    `video` is its name in the dataset, `crop` left, top, width and height in pixels of the video as shown.
    """

    split: Split
    video: str
    start: int
    stride: int
    crop: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Request:
    """One clip to be generated. The clip depends on its own request alone, never on its batch or worker.

    Its noise does so bit for bit. What networks make of it is rounded: at another batch size rare values differ by one
    level of 255 in float32, and more of them in bfloat16.

    `source` is the real clip that label and prompt were taken from, an index into `split`; only controls look at it.
    `base` is the seed of the noise that all frames share, where it is another clip's: the same content, moving
    otherwise. Only a model that says `shares_base = True` can do it.
    """

    index: int
    seed: int
    label: int
    prompt: str
    source: int = 0
    split: Split = "test"
    base: int | None = None

    @property
    def base_seed(self) -> int:
        """The seed of what all frames share: noise, and whatever of the content is left to chance."""
        return self.seed if self.base is None else self.base


def derive_seed(run_seed: int, index: int, purpose: str = "") -> int:
    """The seed of clip `index` in a run: 63 bits of SHA-256, the same on every machine and in every order.

    Its noise comes from it; a `purpose` gives an independent one for whatever else is drawn.
    """
    parts = ["vfbench", *([purpose] if purpose else []), str(run_seed), str(index)]
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@runtime_checkable
class Dataset(Protocol):
    """Real clips with a class and a caption each, addressed by split and index."""

    @property
    def name(self) -> str:
        """As it is called on the command line."""
        ...

    @property
    def shape(self) -> ClipShape:
        """The shape of every clip."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their labels."""
        ...

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary of all captions."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash that changes whenever any clip would."""
        ...

    def size(self, split: Split) -> int:
        """How many clips the split holds."""
        ...

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """The clips at `indices`, uint8 (B, T, 3, H, W); raises `MissingData` naming a clip that cannot be read."""
        ...

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """The class of each clip, an index into `classes`."""
        ...

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """The caption of each clip, made of `words`."""
        ...


@dataclass(frozen=True)
class BuildContext:
    """What the engine gives every model when it is built: where and on what it will work.

    `quantise` is how a float becomes a byte: rounded, or cut off as some published protocols do. `requests` are all
    that it will be asked for, in order; empty where nobody knows.
    """

    dataset: Dataset
    device: torch.device
    dtype: torch.dtype = torch.float32
    checkpoint: Path | None = None
    quantise: Quantise = "round"
    requests: Sequence[Request] = ()


@runtime_checkable
class Sampler(Protocol):
    """The common interface of every model: requests in, a batch of clips out.

    A control, a row to read the others against and no model, says so by `reference = True`.
    """

    @property
    def shape(self) -> ClipShape:
        """The shape of the clips it makes."""
        ...

    @property
    def conditioning(self) -> Conditioning:
        """What of a request it looks at, besides the seed."""
        ...

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The modules whose parameters and calls the cost ledger counts; empty for a control."""
        ...

    @property
    def weights(self) -> str:
        """The SHA-256 of the checkpoint, or `none`."""
        ...

    def sample(self, requests: Sequence[Request]) -> Clips:
        """One clip per request, uint8 (B, T, 3, H, W), each a function of its own request only."""
        ...


@runtime_checkable
class Extractor(Protocol):
    """A frozen network that turns clips into features. It does its own conversion, resize and normalisation.

    `outputs` maps the name of each output (`features`, `logits`, `similarity`) to its dimension.
    `weight_status` is `verified` (the weights have their published hash), `unpublished` (no hash is published, so the
    hash of the weights is part of the protocol) or `nonstandard` (random or altered weights: the numbers compare with
    nothing).
    """

    name: str
    fingerprint: str
    weight_status: WeightStatus
    outputs: Mapping[str, int]

    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Float32 (B, D) on the CPU for each asked output, from one pass of the network.

        `requests` say what each clip was asked to show. Refuses anything but uint8 that looks like 0..255.
        """
        ...


@dataclass(frozen=True, eq=False)
class Groups:
    """Which clips are not independent: those of one prompt, or cut from one source video, share a number.

    One number for each row of the features. Those of `fake` and those of `real` are not compared with each other.
    """

    fake: Int[np.ndarray, " fake"]
    real: Int[np.ndarray, " real"]


@dataclass(frozen=True)
class Score:
    """One number with what is needed to trust it.

    `low` and `high` bound the 95 % interval; `floor` is what real clips score at the same N; `note` says what a
    reader must know (which interval, a floor at smaller N). `error` is the standard error at this N, NaN where the
    metric gives none. `limit` is the value extrapolated to infinite N, `limit_error` its standard error, and `slope`
    that of the value against 1 / N, N generated clips: value = limit + slope / N. They are None where the metric
    knows no extrapolation, or N is too small for it.
    """

    value: float
    low: float
    high: float
    floor: float
    n_real: int
    n_fake: int
    note: str = ""
    error: float = math.nan
    limit: float | None = None
    limit_error: float | None = None
    slope: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One metric of model A minus that of model B, on the same requests and the same real clips.

    `low` and `high` bound the 95 % interval of the difference, `p_value` is that of the two-sided test of no
    difference, and `note` says what a reader must know.
    """

    difference: float
    low: float
    high: float
    p_value: float
    note: str = ""


@runtime_checkable
class Metric(Protocol):
    """A score of generated clips against real ones, from one output of an extractor."""

    @property
    def name(self) -> str:
        """As it is called on the command line."""
        ...

    @property
    def title(self) -> str:
        """As it is called in a table."""
        ...

    @property
    def better(self) -> Better:
        """Whether a good model scores low or high."""
        ...

    @property
    def output(self) -> str:
        """What it needs of an extractor: `features`, `logits` or `similarity`."""
        ...

    @property
    def minimum(self) -> int:
        """The smallest number of generated clips for which the value means anything."""
        ...

    def score(
        self,
        fake: FakeArray,
        real: RealArray,
        *,
        holdout: HoldoutArray | None = None,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Score:
        """Score `fake` (N, D) against `real` (M, D); pure, and the same for the same arrays and seed.

        `holdout` (N, D) are other real clips, which stand in for the generated ones to find the floor. `groups` says
        which clips are not independent; without it each is.
        """
        ...


@runtime_checkable
class PairedMetric(Metric, Protocol):
    """A metric that can tell whether one model is better than another."""

    def compare(
        self, a: FakeArray, b: FakeArray, real: RealArray, *, groups: Groups | None = None, seed: int = 0
    ) -> Comparison:
        """The score of `a` minus that of `b` (N, D), both against `real` (M, D); row i of both answers request i.

        Pure, and the same for the same arrays and seed. Two models on the same requests and real clips share much of
        their chance, which the difference is free of: this tells more than two intervals side by side.
        """
        ...
