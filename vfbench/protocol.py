"""Protocols: every choice that can move a number, frozen, validated and named by a hash.

Two scores may stand in one table only if the ids of their protocols are equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfbench.errors import UserError, unknown
from vfbench.interfaces import Split

METRICS = ("fvd", "kvd", "is", "clipsim")


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
    split: Split = "train"
    prompts: Split = "test"
    selection: Literal["seeded"] = "seeded"
    selection_seed: int = 0
    frames: int = Field(gt=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    stride: int = Field(gt=0, default=1)
    start: Literal["zero", "hashed"]
    geometry: Literal["native", "centre-crop"]
    filter: Literal["none", "bilinear"]
    antialias: bool
    quantise: Literal["round"] = "round"
    n_real: int = Field(gt=0)
    n_fake: int = Field(gt=0)
    measures: Mapping[str, Measure]
    extractors: Mapping[str, str]

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the canonical JSON of every field but `name`."""
        content = json.dumps(self.model_dump(exclude={"name"}), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def record(self) -> dict[str, Any]:
        """All fields and the id, as they stand in a result."""
        return {"id": self.id, **self.model_dump()}


_RENDERED = {"start": "zero", "geometry": "native", "filter": "none", "antialias": False}
_DECODED = {"start": "hashed", "geometry": "centre-crop", "filter": "bilinear", "antialias": True}
_JUDGED = {
    "fvd": {"metric": "fvd(ddof=1)", "source": "shapes_judge.features"},
    "kvd": {"metric": "kvd(degree=3, coef0=1.0)", "source": "shapes_judge.features"},
    "is": {"metric": "is(splits=1)", "source": "shapes_judge.logits"},
    "clipsim": {"metric": "clipsim", "source": "shapes_judge.similarity"},
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Moving Shapes with its own judge; every value float64, N - 1, against 2,048 real clips of the train split.
    "shapes": {"dataset": "shapes", **_RENDERED, "n_real": 2048, "measures": _JUDGED},
    # Plumbing on real video: the judge of Moving Shapes stands in for I3D and C3D. Its captions are not the judge's
    # language, so there is no CLIPSIM.
    "ucf101-smoke": {
        "dataset": "ucf101",
        "comparable": False,
        **_DECODED,
        "n_real": 16,
        "measures": {name: measure for name, measure in _JUDGED.items() if name != "clipsim"},
    },
}
SMOKE_CLIPS = {"n_real": 64, "n_fake": 8}


def preset(name: str | None, dataset: str, *, smoke: bool) -> Mapping[str, Any]:
    """The fields of a preset by name, or the default one of a dataset; raises `UserError` where there is none."""
    fitting = [key for key, fields in PRESETS.items() if fields["dataset"] == dataset]
    if name is not None and name not in PRESETS:
        raise unknown("protocol", name, PRESETS)
    if name is not None and name not in fitting:
        raise UserError(
            f"protocol '{name}' is for {PRESETS[name]['dataset']}, not {dataset}: known: {', '.join(fitting)}"
        )
    usable = [key for key in fitting if smoke or PRESETS[key].get("comparable", True)]
    chosen = name or next(iter(usable), None)
    if chosen is None or chosen not in usable:
        raise UserError(
            f"{dataset} has no comparable protocol yet: its numbers need networks that are not part of this version; "
            f"add --smoke to try the path end to end (not comparable)"
        )
    return {"name": chosen, **PRESETS[chosen]}
