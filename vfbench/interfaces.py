"""Data types that the stages of vfbench exchange, and the interfaces of plug-ins.

    requests -> Sampler -> clips (uint8) -> Extractor -> features -> Metric -> Score -> Result

A clip is uint8 RGB with shape (T, 3, H, W), a batch (B, T, 3, H, W); it is the only exchange format.
A plug-in is a module with a function `build` that returns an implementation of one of the protocols below.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from jaxtyping import Float, Int, UInt8, UInt64
    from torch import Tensor, nn

    Clips: TypeAlias = UInt8[Tensor, "batch frames 3 height width"]
    Features: TypeAlias = Float[Tensor, "batch dim"]
    FakeArray: TypeAlias = Float[np.ndarray, "fake dim"]
    RealArray: TypeAlias = Float[np.ndarray, "real dim"]
    HoldoutArray: TypeAlias = Float[np.ndarray, "holdout dim"]
else:
    _ARRAYS = ("FakeArray", "RealArray", "HoldoutArray")

    def __getattr__(name: str) -> object:
        """Aliases of tensors, defined when first asked for: torch is slow to import, and many commands need none."""
        if name not in ("Clips", "Features", *_ARRAYS):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import numpy as np
        from jaxtyping import Float, UInt8
        from torch import Tensor

        arrays = {side: Float[np.ndarray, f"{side.removesuffix('Array').lower()} dim"] for side in _ARRAYS}
        globals().update(
            arrays, Clips=UInt8[Tensor, "batch frames 3 height width"], Features=Float[Tensor, "batch dim"]
        )
        return globals()[name]


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
        """Options of a dataset or a model: `frames=16, height=32, width=32`."""
        return f"frames={self.frames}, height={self.height}, width={self.width}"


class Place(NamedTuple):
    """Position of a clip: frames `start`, `start + stride`, ... of a video, cropped to a box.

    `video` is its name in the dataset; `crop` is (left, top, width, height) in pixels of the video as displayed.
    """

    split: Split
    video: str
    start: int
    stride: int
    crop: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Request:
    """Request for one generated clip, which depends on this request alone, never on batch or worker.

    The noise is identical bit for bit. Network outputs are rounded: at another batch size rare values differ by one
    level of 255 in float32, and more of them in bfloat16.

    `source` is the index, in `split`, of the real clip that gave label and prompt; only controls read it. `base` is the
    seed of another clip whose shared base noise this clip uses: the same content with different motion. It requires a
    model with `shares_base = True`.
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
        """Seed of the noise and other random content that all frames share."""
        return self.seed if self.base is None else self.base


def derive_seed(run_seed: int, index: int, purpose: str = "") -> int:
    """Seed of clip `index` in a run: 63 bits of a SHA-256, independent of machine and order.

    Without a `purpose` it seeds the clip's noise; each `purpose` gives an independent seed for other random choices.
    """
    return derive_seeds(run_seed, [index], purpose)[0]


def derive_seeds(run_seed: int, indices: Iterable[int], purpose: str = "") -> list[int]:
    """Seeds of several clips, as `derive_seed` gives them one by one."""
    start = hashlib.sha256((f"vfbench/{purpose}/{run_seed}/" if purpose else f"vfbench/{run_seed}/").encode())
    digests = []
    for index in indices:
        sha256 = start.copy()
        sha256.update(b"%d" % index)
        digests.append(sha256.digest())
    # Read at once, as plans of a million clips ask for: the first 8 of each 32 bytes.
    return [number >> 1 for number in struct.unpack("<" + "Q24x" * len(digests), b"".join(digests))]


@runtime_checkable
class Dataset(Protocol):
    """Real clips with a class and a caption each, addressed by split and index."""

    @property
    def name(self) -> str:
        """Name on the command line."""
        ...

    @property
    def shape(self) -> ClipShape:
        """Shape of every clip."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        ...

    @property
    def words(self) -> tuple[str, ...]:
        """Vocabulary of all captions."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash that changes whenever any clip changes."""
        ...

    def size(self, split: Split) -> int:
        """Number of clips in a split."""
        ...

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """Clips at `indices`, uint8 (B, T, 3, H, W); raises `MissingData` naming a clip that cannot be read."""
        ...

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """Class of each clip, an index into `classes`."""
        ...

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """Caption of each clip, made of `words`."""
        ...


@runtime_checkable
class NamedClips(Protocol):
    """Optional interface of a `Dataset` whose clips have names. Without it, a clip is identified by its index."""

    def names(self, split: Split) -> list[str]:
        """Name of each clip's video, in the order of the clips."""
        ...

    def keys(self, split: Split, seed: int) -> UInt64[np.ndarray, " clips"]:
        """Sort key of each clip, a 64-bit hash of name and seed; a draw takes the clips with the smallest keys."""
        ...


@runtime_checkable
class GroupedClips(Protocol):
    """Optional interface of a `Dataset` with several clips per video. Without it, all clips are independent."""

    def videos(self, split: Split, indices: Sequence[int]) -> list[int]:
        """Index of each clip's video, equal for clips of one video."""
        ...


@runtime_checkable
class PlacedClips(Protocol):
    """Optional interface of a `Dataset` that can cut clips from any position of its videos."""

    def places(self, split: Split, indices: Sequence[int], seed: int = 0) -> list[Place]:
        """Position of each clip in its video."""
        ...

    def at(self, places: Sequence[Place]) -> Dataset:
        """Dataset of the clips at these positions, in this order; raises `MissingData` naming one that is missing."""
        ...


@runtime_checkable
class VideoBacked(NamedClips, GroupedClips, PlacedClips, Protocol):
    """Optional interface of a `Dataset` whose clips are cut from video files."""

    stride: int  # between the frames of a clip, in frames of the video
    note: str  # printed beside every score; may be empty


@runtime_checkable
class FrameRated(Protocol):
    """Optional interface of a `Dataset` whose files say how fast its clips play."""

    def clip_rate(self) -> float | None:
        """Frames of a clip per second, None where the files do not say."""
        ...


def _float32() -> torch.dtype:
    import torch

    return torch.float32


@dataclass(frozen=True)
class BuildContext:
    """Context that vfbench passes to `build` of a model: dataset, device, dtype and checkpoint.

    `quantise` is the conversion of floats to bytes: rounded, or truncated as in some published protocols. `requests`
    are all requests to come, in order; empty where they are not known.
    """

    dataset: Dataset
    device: torch.device
    dtype: torch.dtype = field(default_factory=_float32)
    checkpoint: Path | None = None
    quantise: Quantise = "round"
    requests: Sequence[Request] = ()


@runtime_checkable
class Sampler(Protocol):
    """Interface of every model: requests in, a batch of clips out."""

    @property
    def shape(self) -> ClipShape:
        """Shape of the generated clips."""
        ...

    @property
    def conditioning(self) -> Conditioning:
        """Conditioning that the model reads from a request, besides the seed."""
        ...

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """Modules whose parameters and calls are counted as cost; empty for a control."""
        ...

    @property
    def weights(self) -> str:
        """SHA-256 of the checkpoint, or `none`."""
        ...

    def sample(self, requests: Sequence[Request]) -> Clips:
        """Generate one clip per request, uint8 (B, T, 3, H, W), each a function of its request only."""
        ...


@runtime_checkable
class ReferenceSampler(Protocol):
    """Optional interface of a `Sampler`: `reference = True` makes it a reference row, which is never marked as best."""

    reference: bool


@runtime_checkable
class SharesBase(Protocol):
    """Optional interface of a `Sampler`: with `shares_base` true it accepts requests that have a `base`."""

    @property
    def shares_base(self) -> bool:
        """True where a clip can use the base noise of another clip."""
        ...


@runtime_checkable
class ChoosesPrecision(Protocol):
    """Optional interface of a `Sampler` that may run in half precision, and can also run in float32."""

    def in_float32(self) -> Sampler:
        """This sampler in float32; it makes clips for the same requests."""
        ...


@runtime_checkable
class DrawsNoise(Protocol):
    """Optional interface of a `Sampler` that draws noise with one of several generators, whose numbers differ."""

    @property
    def noise_generator(self) -> str:
        """Name of the generator: `mt19937`, that of a CPU, or another one, which is then part of the run's id."""
        ...


@runtime_checkable
class Staged(Protocol):
    """Optional interface of a `Sampler` that is a chain of others: the clips of one are the input of the next.

    Its network `base.network` is that of the stage `base`.
    """

    @property
    def stages(self) -> Mapping[str, Sampler]:
        """The samplers by name, in their order."""
        ...


@runtime_checkable
class Configured(Protocol):
    """Optional interface of a `Sampler` with a preset and a configuration for the result to record."""

    @property
    def preset(self) -> str:
        """Name of the preset."""
        ...

    @property
    def configuration(self) -> str:
        """SHA-256 of everything the networks were built from besides the weights."""
        ...


@runtime_checkable
class Tunable(Protocol):
    """Optional interface of a `Sampler` with options of sampling for the result to record."""

    @property
    def sampling_options(self) -> Mapping[str, str | int | float]:
        """The options that apply, such as steps and guidance, also where a preset sets them."""
        ...


@runtime_checkable
class Extractor(Protocol):
    """Frozen network that maps clips to features, with its own conversion, resizing and normalisation.

    `outputs` maps the name of each output (`features`, `logits`, `similarity`) to its dimension.
    `weight_status` is `verified` (the weights have their published hash), `unpublished` (no hash is published, so the
    hash of the weights is part of the protocol) or `nonstandard` (random or altered weights: the scores are not
    comparable).
    """

    name: str
    fingerprint: str
    weight_status: WeightStatus
    outputs: Mapping[str, int]

    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Features for each name in `outputs`, float32 (B, D) on the CPU, from one pass of the network.

        `requests` are those of the clips. Raises an error for clips that are not uint8 with values in 0..255.
        """
        ...


@runtime_checkable
class FrameLimits(Protocol):
    """Optional interface of an `Extractor` that cannot read clips of every length: it is asked before any work."""

    def require_frames(self, frames: int, outputs: Sequence[str]) -> None:
        """Raise `UserError` where clips of `frames` frames do not have these outputs."""
        ...


@runtime_checkable
class Remarks(Protocol):
    """Optional interface of an `Extractor` or a `Sampler` with remarks on the requests of a run, as cut captions."""

    def note(self, requests: Sequence[Request]) -> str:
        """Remark to print beside the scores; may be empty."""
        ...


@dataclass(frozen=True, eq=False)
class Groups:
    """Group number of each clip. Clips of one prompt, or cut from one source video, are dependent: they share a number.

    `fake` (N,) and `real` (M,) are numbered separately.
    """

    fake: Int[np.ndarray, " fake"]
    real: Int[np.ndarray, " real"]


@dataclass(frozen=True)
class Score:
    """Value of a metric with its uncertainty.

    `low` and `high` bound the 95 % interval; `floor` is the score of real clips at the same N; `note` has remarks for
    the reader, such as the kind of interval or a floor at smaller N. `error` is the standard error at this N, NaN where
    the metric gives none. `limit` is the value extrapolated to infinite N, `limit_error` its standard error, and
    `slope` the slope against 1 / N for N generated clips: value = limit + slope / N. They are None where the metric has
    no extrapolation, or N is too small for it. `chance` is the value of clips made at random, None where not known.
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
    chance: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Score of model A minus that of model B, on the same requests and the same real clips.

    `low` and `high` bound the 95 % interval of the difference, `p_value` is that of the two-sided test of no
    difference, and `note` has remarks for the reader.
    """

    difference: float
    low: float
    high: float
    p_value: float
    note: str = ""


@runtime_checkable
class Metric(Protocol):
    """Score of generated clips against real ones. It reads one named output of one extractor."""

    @property
    def name(self) -> str:
        """Name on the command line."""
        ...

    @property
    def title(self) -> str:
        """Name in a table."""
        ...

    @property
    def better(self) -> Better:
        """Direction of a good score: `lower` or `higher`."""
        ...

    @property
    def output(self) -> str:
        """Output that it needs from an extractor: `features`, `logits` or `similarity`."""
        ...

    @property
    def minimum(self) -> int:
        """Smallest number of generated clips for a meaningful value."""
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
        """Score `fake` (N, D) against `real` (M, D); pure and deterministic for given arrays and seed.

        `holdout` (N, D) are other real clips, scored in place of the generated ones for the floor. `groups` marks
        dependent clips; without it all are independent.
        """
        ...


@runtime_checkable
class ClipLimits(Protocol):
    """Optional interface of a `Metric` that has no value for two generated and two real clips, not even a rough one."""

    @property
    def fewest_clips(self) -> tuple[int, int]:
        """Smallest numbers of generated and of real clips that have a value; from `minimum` on it means something."""
        ...


@runtime_checkable
class PartMetric(Protocol):
    """Optional interface of a `Metric` that details another one, such as `motion` the metric `attributes`.

    Tables show the parts of a metric below the others. A run by a metric without options computes its parts, too.
    """

    @property
    def part_of(self) -> str:
        """Name of the whole metric; empty where it is a metric of its own."""
        ...


def is_part(metric: Metric) -> bool:
    """True for a metric that details another one."""
    return isinstance(metric, PartMetric) and bool(metric.part_of)


@runtime_checkable
class SharedRealClips(Protocol):
    """Optional interface of a `Metric` whose score depends on the real clips.

    The real clips add the same error to the scores of two models. With this interface an unpaired test leaves that
    part of the variance out; without it the test counts the part twice, and finds only larger differences.
    """

    def real_influence(
        self, fake: FakeArray, real: RealArray, *, groups: Groups | None = None, seed: int = 0
    ) -> Float[np.ndarray, " sources"]:
        """Influence of each source of real clips on the score, (H,), up to a constant.

        The sources, their order and their number depend on `real`, its groups and `seed` alone. H times the variance
        of the influence is the variance of the score that is due to real clips.
        """
        ...


@runtime_checkable
class PairedMetric(Metric, Protocol):
    """Metric with a paired test between two models."""

    def compare(
        self, a: FakeArray, b: FakeArray, real: RealArray, *, groups: Groups | None = None, seed: int = 0
    ) -> Comparison:
        """Score of model A minus score of model B, both against `real` (M, D), with a test of the difference.

        `a` and `b` (N, D) are the features of their clips; row i of each array answers request i. Pure and
        deterministic for given arrays and seed. Random variation that both models share cancels in the difference, so
        this test is more sensitive than a comparison of two intervals.
        """
        ...
