"""Parts of a `vfbench.report.results.Result`: scores, protocol, cost, and where clips came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from vfbench.interfaces import Better, Metric, PartMetric, Score
from vfbench.utils.records import Count, Flag, Hash, Id, Integer, Size, Text

# JSON has no NaN and no infinity: a number that is not finite is null, and null is read as NaN.
Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    Field(strict=True),
    PlainSerializer(lambda value: value if math.isfinite(value) else None, return_type=float | None),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]
_NAN: Any = Field(default_factory=lambda: math.nan)  # a default that JSON Schema can leave out


class Record(BaseModel):
    """A part of `results.json`: immutable; keeps fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def to_json(self) -> dict[str, Any]:
        """JSON values of the fields that were set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class ScoreRecord(Record):
    """A `vfbench.interfaces.Score` with the title and the direction of its metric."""

    value: Number
    low: Number
    high: Number
    floor: Number
    n_real: Count
    n_fake: Count
    title: Text
    better: Better
    note: Text = ""
    error: Number = _NAN
    limit: Number | None = None
    limit_error: Number | None = None
    slope: Number | None = None
    chance: Number | None = None
    part_of: Text = ""  # name of the metric that this one details

    @classmethod
    def of(cls, metric: Metric, score: Score) -> ScoreRecord:
        """Record of a metric's score."""
        fields = {name: getattr(score, name) for name in Score.__dataclass_fields__}
        if score.chance is None:
            del fields["chance"]
        if isinstance(metric, PartMetric) and metric.part_of:
            fields["part_of"] = metric.part_of
        return cls(**fields, title=metric.title, better=metric.better)


class MeasureRecord(Record):
    """The metric with its options, and the `extractor.output` that it reads."""

    metric: Text
    source: Text


class ProtocolRecord(Record):
    """A `vfbench.protocol.protocol.Protocol` with its id: the fields that reports read; the others are kept as well."""

    id: Id
    name: Text = "?"
    comparable: Flag = False
    dataset: Text = "?"
    split: Text | None = None
    selection_seed: Integer = 0
    repeats: Size = 1
    n_fake: Count = 0
    measures: Mapping[Text, MeasureRecord] = {}
    extractors: Mapping[Text, Text] = {}


class Cost(Record):
    """Compute of one clip: FLOPs (a multiply-add counts two), network evaluations, seconds and bytes."""

    parameters: Count = 0
    flops_per_clip: Number = _NAN
    evaluations: Count | None = None
    calls: Mapping[Text, Count] = {}
    seconds_per_clip: Number = _NAN
    peak_memory_bytes: Count = 0


class StageRecord(Record):
    """A stage of a chain of models, such as `cascade`: SHA-256 of its checkpoint, and FLOPs of one clip."""

    weights: Text = ""
    flops_per_clip: Number = _NAN


class DataRecord(Record):
    """The real clips of a result: copy of the dataset, clips per split, and the SHA-256 of the manifest."""

    dataset: Text
    layout: Text = ""
    copy_: Text = Field("", alias="copy")
    fingerprint: Text = ""
    splits: Mapping[Text, Mapping[Text, Count]] = {}
    draws: Count = 1
    clips: Count = 0
    spare: Count = 0
    videos: Count = 0
    manifest: Text = ""
    note: Text = ""


class GivenRecord(Record):
    """Clips or features that `score` was given: their folder, layout, number, and the SHA-256 of their content."""

    folder: Text
    layout: Text = ""
    count: Count = 0
    manifest: Text = ""
    notes: tuple[Text, ...] = ()
    list_: Text | None = Field(None, alias="list")
    prompts: Text | None = None
    decoder: Text | None = None
    captions: Text | None = None  # SHA-256 of all captions in order


class ImportRecord(Record):
    """File of another tool that scores were read from: the tool, the name of the file and its SHA-256."""

    tool: Text
    file: Text
    sha256: Hash
