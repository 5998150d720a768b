"""Evaluation protocols: every choice that can change a score, frozen, validated and identified by a hash.

Two scores compare only if the ids of their protocols are equal. Published protocols are the TOML files beside this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from vfbench.interfaces import Extractor, Quantise, Split

RealSplit = Literal["train", "test", "both"]
HashedStart = Literal["hashed", "hashed-not-last", "hashed-longer", "hashed-interval", "hashed-quarter"]
Start = Literal["zero", HashedStart, "every", "chunks", "interleaved", "own"]
SPLITS: Mapping[RealSplit, tuple[Split, ...]] = {"train": ("train",), "test": ("test",), "both": ("train", "test")}
# Fields added after the first results, at the values that those results imply: left out of the id at these values.
ADDED_FIELDS: Mapping[str, Any] = {"fake_stride": 1, "drop_first": 0, "repeats": 1, "manifest": ""}


def frames_needed(frames: int, stride: int = 1, drop_first: int = 0) -> int:
    """Shortest video, in frames, that holds a clip: `frames` frames, `stride` apart, after the first `drop_first`."""
    return drop_first + (frames - 1) * stride + 1


class Measure(BaseModel):
    """Metric with its options, and the features it is computed from (`extractor.output`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    source: str


class Protocol(BaseModel):
    """Every choice that can change a score besides the model and its seed; `id` hashes all fields but the name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    comparable: bool = True
    dataset: str
    data_fingerprint: str
    split: RealSplit = "train"
    prompts: Split = "test"  # source of labels and captions of the generated clips
    # seeded: videos drawn by the seed without replacement; sorted: the first by name; all: every video; one clip each.
    # windows: clips drawn by the seed from all positions that `start` allows, so that long videos have more weight.
    # every-tenth: of the videos by name, the first and every tenth after it, evenly spaced (MCVD).
    # manifest: a list of clips from the user, identified by its hash (see `vfbench.clips.manifest`).
    selection: Literal["seeded", "sorted", "all", "every-tenth", "windows", "manifest"] = "seeded"
    manifest: str = ""
    selection_seed: int = 0
    frames: int = Field(gt=0)  # frames of a clip that are scored
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    stride: int = Field(gt=0, default=1)  # of real clips, in frames of the video
    fake_stride: int = Field(gt=0, default=1)  # of generated clips, in frames of the model's output
    drop_first: int = Field(ge=0, default=0)  # leading frames that are not scored, such as conditioning frames
    # First frame of a clip: a rule of `vfbench.clips.starts`. own: the dataset decides, its fingerprint covers it.
    start: Start
    geometry: Literal["native", "centre-crop", "resize-crop", "resize-crop-floor", "resize-crop-4:3", "squash", "own"]
    filter: Literal["none", "bilinear", "lanczos", "own"]
    antialias: bool | Literal["own"]
    quantise: Quantise = "round"  # conversion of generated floats to bytes
    n_real: int = Field(ge=2)
    n_fake: int = Field(ge=2)
    repeats: int = Field(gt=0, default=1)  # draws of clips; their scores are averaged
    measures: Mapping[str, Measure]
    extractors: Mapping[str, str]  # label -> text of `extractor_ids`

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the canonical JSON of every field but `name`.

        A field of `ADDED_FIELDS` is left out at the value listed there.
        """
        fields = {k: v for k, v in self.model_dump(exclude={"name"}).items() if (k, v) not in ADDED_FIELDS.items()}
        content = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """JSON values of all fields, and the id."""
        return {"id": self.id, **self.model_dump()}


def extractor_ids(specs: Mapping[str, str], loaded: Mapping[str, Extractor]) -> dict[str, str]:
    """Text that identifies each extractor of `specs` (label -> spec) in a protocol.

    A network with verified weights, or one that the run does not load, is identified by its spec, so that the id does
    not depend on the metrics of a run. Any other is identified by spec and fingerprint, or by its fingerprint alone
    where the spec is only the label.
    """
    return {label: _extractor_id(label, spec, loaded.get(label)) for label, spec in specs.items()}


def _extractor_id(label: str, spec: str, extractor: Extractor | None) -> str:
    if extractor is None or extractor.weight_status == "verified":
        return spec
    return extractor.fingerprint if spec == label else f"{spec} {extractor.fingerprint}"


# Metrics on the features of the Moving Shapes judge: covariances over N - 1, the kernel of KID, one split.
JUDGE_MEASURES: Mapping[str, Mapping[str, str]] = {
    "fvd": {"metric": "fvd(ddof=1)", "source": "shapes_judge.features"},
    "kvd": {"metric": "kvd(degree=3, coef0=1.0)", "source": "shapes_judge.features"},
    "is": {"metric": "is(splits=1)", "source": "shapes_judge.logits"},
}
# The judge knows only the captions of Moving Shapes, so other datasets have no CLIPSIM and no attributes.
CAPTION_MEASURES: Mapping[str, Mapping[str, str]] = {
    "clipsim": {"metric": "clipsim", "source": "shapes_judge.similarity"},
    "attributes": {"metric": "attributes", "source": "shapes_judge.attributes"},
    **{
        attribute: {"metric": f"attributes(attribute='{attribute}')", "source": "shapes_judge.attributes"}
        for attribute in ("motion", "shape", "size", "colour", "ground", "texture")
    },
}
# Smoke protocol of a dataset that declares none.
SMOKE: Mapping[str, Any] = {
    "comparable": False,
    "split": "both",
    "start": "own",
    "geometry": "own",
    "filter": "own",
    "antialias": "own",
    "n_real": 16,
    "measures": JUDGE_MEASURES,
}
SMOKE_CLIPS = {"n_real": 64, "n_fake": 8}

HASHED_STARTS: tuple[HashedStart, ...] = get_args(HashedStart)
ONE_CLIP_STARTS = ("zero", *HASHED_STARTS)  # values of `start` with one clip per video
MULTI_CLIP_STARTS = ("every", "chunks", "interleaved")  # values of `start` with as many clips as fit
CHOICES = {
    "start": (*ONE_CLIP_STARTS, *MULTI_CLIP_STARTS),
    "geometry": ("centre-crop", "resize-crop", "resize-crop-floor", "resize-crop-4:3", "squash", "native"),
    "filter": ("bilinear", "lanczos", "none"),
}
