"""Protocols: every choice that can move a number, frozen, validated and named by a hash.

Two scores may stand in one table only if the ids of their protocols are equal. Those of the field are in `presets/`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfbench.interfaces import Extractor, Quantise, Split

RealSplit = Literal["train", "test", "both"]
SPLITS: Mapping[RealSplit, tuple[Split, ...]] = {"train": ("train",), "test": ("test",), "both": ("train", "test")}
# Fields that are younger than the first results: at these values, which were meant before, they leave an id as it was.
LATER: Mapping[str, Any] = {"fake_stride": 1, "drop_first": 0, "repeats": 1, "manifest": ""}


def frames_needed(frames: int, stride: int = 1, drop_first: int = 0) -> int:
    """Length of a video that gives one clip: `frames` frames, `stride` apart, after the first `drop_first`."""
    return drop_first + (frames - 1) * stride + 1


class Measure(BaseModel):
    """How one metric is computed: the metric with its options, and what it is computed from (`extractor.output`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    source: str


class Protocol(BaseModel):
    """All that can change a number besides the model and its seed. `id` hashes everything but the name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    comparable: bool = True
    dataset: str
    data_fingerprint: str
    split: RealSplit = "train"
    prompts: Split = "test"  # where labels and captions of the generated clips are taken from
    # seeded: videos drawn by the seed, none twice; sorted: the first by name; all: every one, each with one clip.
    # windows: clips drawn by the seed from all places where one can begin, as `start` has it: long videos weigh more.
    # manifest: a list that the user gave, known by its hash (see `vfbench.clips.manifest`).
    selection: Literal["seeded", "sorted", "all", "windows", "manifest"] = "seeded"
    manifest: str = ""
    selection_seed: int = 0
    frames: int = Field(gt=0)  # that enter a score
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    stride: int = Field(gt=0, default=1)  # of real clips, in frames of the video
    fake_stride: int = Field(gt=0, default=1)  # of generated ones, in frames as the model makes them
    drop_first: int = Field(ge=0, default=0)  # frames before the scored ones, such as those a model was given
    # zero: with the first frame; hashed: at a place drawn from the video's name; own: the dataset decides, and its
    # fingerprint covers it. Of windows, every: at each frame; chunks: where the one before has ended.
    start: Literal["zero", "hashed", "own", "every", "chunks"]
    geometry: Literal["native", "centre-crop", "squash", "own"]
    filter: Literal["none", "bilinear", "lanczos", "own"]
    antialias: bool | Literal["own"]
    quantise: Quantise = "round"  # how generated floats become bytes
    n_real: int = Field(ge=2)
    n_fake: int = Field(ge=2)
    repeats: int = Field(gt=0, default=1)  # draws of clips whose scores are averaged
    measures: Mapping[str, Measure]
    extractors: Mapping[str, str]  # by label, as `extractor_ids` tells them

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the canonical JSON of every field but `name`.

        A field of `LATER` is left out at the value given there.
        """
        fields = {k: v for k, v in self.model_dump(exclude={"name"}).items() if (k, v) not in LATER.items()}
        content = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def record(self) -> dict[str, Any]:
        """All fields and the id, as they stand in a result."""
        return {"id": self.id, **self.model_dump()}


def extractor_ids(specs: Mapping[str, str], loaded: Mapping[str, Extractor]) -> dict[str, str]:
    """What tells each extractor of `specs` (label -> spec) in a protocol, given those that a run has loaded.

    The published network, proven to be it, is told by its spec. So is one that the run does not need: with proven
    networks, fewer metrics leave the id as it is. Any other is told by spec and fingerprint, and so tells apart a run
    that needed it; by its fingerprint alone, as in the first results, where the spec is no more than the label.
    """
    return {label: _told(label, spec, loaded.get(label)) for label, spec in specs.items()}


def _told(label: str, spec: str, extractor: Extractor | None) -> str:
    if extractor is None or extractor.weight_status == "verified":
        return spec
    return extractor.fingerprint if spec == label else f"{spec} {extractor.fingerprint}"


# The four metrics as the judge of Moving Shapes makes them: covariances over N - 1, the kernel of KID, one split.
JUDGED: Mapping[str, Mapping[str, str]] = {
    "fvd": {"metric": "fvd(ddof=1)", "source": "shapes_judge.features"},
    "kvd": {"metric": "kvd(degree=3, coef0=1.0)", "source": "shapes_judge.features"},
    "is": {"metric": "is(splits=1)", "source": "shapes_judge.logits"},
    "clipsim": {"metric": "clipsim", "source": "shapes_judge.similarity"},
}
# Its captions are not the judge's language, so a dataset of other words has no CLIPSIM.
WORDLESS = {name: measure for name, measure in JUDGED.items() if name != "clipsim"}
# For a dataset that names no protocol of its own: enough to try the path.
SMOKE: Mapping[str, Any] = {
    "comparable": False,
    "split": "both",
    "start": "own",
    "geometry": "own",
    "filter": "own",
    "antialias": "own",
    "n_real": 16,
    "measures": WORDLESS,
}
SMOKE_CLIPS = {"n_real": 64, "n_fake": 8}


ONE = ("zero", "hashed")  # ways to start that give one clip a video


SEVERAL = ("every", "chunks")  # and those that give as many as fit


WORDS = {
    "start": (*ONE, *SEVERAL),
    "geometry": ("centre-crop", "squash", "native"),
    "filter": ("bilinear", "lanczos", "none"),
}
