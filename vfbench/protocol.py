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

RealSplit = Literal["train", "test", "both"]
SPLITS: Mapping[RealSplit, tuple[Split, ...]] = {"train": ("train",), "test": ("test",), "both": ("train", "test")}


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
    prompts: Split = "test"
    selection: Literal["seeded"] = "seeded"
    selection_seed: int = 0
    frames: int = Field(gt=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    stride: int = Field(gt=0, default=1)
    start: Literal["zero", "hashed", "own"]  # own: the dataset decides, and its fingerprint covers it
    geometry: Literal["native", "centre-crop", "own"]
    filter: Literal["none", "bilinear", "own"]
    antialias: bool | Literal["own"]
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


def choose(name: str | None, dataset: str, offered: Mapping[str, Mapping[str, Any]], *, smoke: bool) -> dict[str, Any]:
    """The fields of the protocol called `name`, or of the first that fits, of those that a dataset offers.

    Raises `UserError` where there is none; a smoke run can do without.
    """
    if name is not None and name not in offered:
        raise unknown(f"protocol for {dataset}", name, offered)
    usable = [key for key, fields in offered.items() if smoke or fields.get("comparable", True)]
    chosen = name or next(iter(usable), None)
    if chosen in usable:
        return {"name": chosen, **offered[str(chosen)]}
    if smoke:
        return {"name": "smoke", **SMOKE}
    raise UserError(
        f"{dataset} has no comparable protocol yet: its numbers need networks that are not part of this version; "
        "add --smoke to try the path end to end (not comparable)"
    )
