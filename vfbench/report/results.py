"""Typed record of a run, as stored in `results.json`.

`result.schema.json` beside this file is the JSON Schema of `Result`. Records of older versions are read: a missing
field has its default. A field that this version does not know is kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
)

from vfbench.errors import MissingData
from vfbench.interfaces import Better, Metric, PartMetric, Score
from vfbench.protocol import presets
from vfbench.report import comparison_cache, signature
from vfbench.utils import files
from vfbench.utils.environment import Environment

if TYPE_CHECKING:
    import pandas as pd

SCHEMA: Literal[1] = 1
NOT_COMPARABLE = "not comparable"
ALPHA = 0.05  # significance level of comparisons
RUN_COMMAND = "python -m vfbench run --model NAME --dataset NAME"
Integrity: TypeAlias = Literal["intact", "unsigned", "edited"]
ARROWS: Mapping[Better, str] = {"lower": "↓", "higher": "↑"}
SCORED_FILE = "scored.safetensors"  # features that the scores of a run were computed from
RESULT_FILE = "results.json"

# JSON has no NaN and no infinity: a number that is not finite is null, and null is read as NaN.
Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
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
    n_real: int
    n_fake: int
    title: str
    better: Better
    note: str = ""
    error: Number = _NAN
    limit: Number | None = None
    limit_error: Number | None = None
    slope: Number | None = None
    chance: Number | None = None
    part_of: str = ""  # name of the metric that this one details

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

    metric: str
    source: str


class ProtocolRecord(Record):
    """A `vfbench.protocol.protocol.Protocol` with its id: the fields that reports read; the others are kept as well."""

    id: str
    name: str = "?"
    comparable: bool = False
    split: str | None = None
    selection_seed: int = 0
    repeats: int = 1
    n_fake: int = 0
    measures: Mapping[str, MeasureRecord] = {}
    extractors: Mapping[str, str] = {}


class Cost(Record):
    """Compute of one clip: FLOPs (a multiply-add counts two), network evaluations, seconds and bytes."""

    parameters: int = 0
    flops_per_clip: Number = _NAN
    evaluations: int | None = None
    calls: Mapping[str, int] = {}
    seconds_per_clip: Number = _NAN
    peak_memory_bytes: int = 0


class DataRecord(Record):
    """The real clips of a result: copy of the dataset, clips per split, and the SHA-256 of the manifest."""

    dataset: str
    layout: str = ""
    copy_: str = Field("", alias="copy")
    fingerprint: str = ""
    splits: Mapping[str, Mapping[str, int]] = {}
    draws: int = 1
    clips: int = 0
    spare: int = 0
    videos: int = 0
    manifest: str = ""
    note: str = ""


class GivenRecord(Record):
    """Clips or features that `score` was given: their folder, layout, number, and the SHA-256 of their content."""

    folder: str
    layout: str = ""
    count: int = 0
    manifest: str = ""
    notes: tuple[str, ...] = ()
    list_: str | None = Field(None, alias="list")
    prompts: str | None = None
    decoder: str | None = None
    captions: str | None = None  # SHA-256 of all captions in order


class Result(Record):
    """The scores of a run and everything needed to trust and repeat them: one `results.json`.

    For clips made elsewhere, whose model is not known, `seed` and `cost` are None and `fake` describes the clips.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    run_id: str = ""
    run_dir: str = ""
    model: str
    model_spec: str = ""
    preset: str = ""
    reference: bool = False
    weights: str = ""
    dataset: str
    data: DataRecord | None = None
    protocol: ProtocolRecord
    seed: int | None = None
    scores: Mapping[str, ScoreRecord]
    cost: Cost | None = Cost()
    environment: Environment | None = None
    note: str = ""
    fake: GivenRecord | None = None
    signature: str = ""  # hash of all other fields but `run_dir`; see `vfbench.report.signature`
    _file: Path | None = PrivateAttr(None)  # that it was read from: a run may have been moved

    @property
    def folder(self) -> Path | None:
        """Run folder that the result was read from or is of; None for a file of another name than `results.json`."""
        if self._file:
            return self._file.parent if self._file.name == RESULT_FILE else None
        return Path(self.run_dir) if self.run_dir else None

    @property
    def source(self) -> str:
        """File that the result was read from, or its label."""
        return str(self._file or self.label)

    @property
    def integrity(self) -> Integrity:
        """`intact` as vfbench wrote it, `edited` since, or `unsigned`: written before results had a signature."""
        if not self.signature:
            return "unsigned"
        return "intact" if self.signature == signature.of(self.to_json()) else "edited"

    @property
    def edited_message(self) -> str:
        """What is wrong with an edited result, and how to mend it."""
        return (
            f"{self.source} was edited after vfbench wrote it (its content does not match its signature): restore the "
            "file, or repeat the command that made it"
        )

    def signed(self) -> Result:
        """The result with the signature of its content."""
        return self.model_copy(update={"signature": signature.of(self.to_json())})

    def p_value(self, other: Result, metric: str) -> float | None:
        """p-value of the test against another run, None where `vfbench compare` has not made it."""
        return comparison_cache.p_values(self.folder).get(other.run_id, {}).get(metric) if self.folder else None

    @property
    def label(self) -> str:
        """Run folder, or the model's name where no folder is recorded."""
        return self.run_dir or self.model

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values, with the fields that were set."""
        return {"schema": SCHEMA, **super().to_json()}

    def to_frame(self) -> pd.DataFrame:
        """Scores at full precision, one row per metric."""
        import pandas as pd

        rows = [
            {
                **{"model": self.model, "dataset": self.dataset, "protocol": self.protocol.id, "metric": name},
                **{"value": score.value, "low": score.low, "high": score.high, "floor": score.floor},
                **{"n_real": score.n_real, "n_fake": score.n_fake, "better": score.better},
                "comparable": self.protocol.comparable,
                "integrity": self.integrity,
                "run_dir": self.run_dir,
            }
            for name, score in self.scores.items()
        ]
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        """HTML table, as a notebook shows it."""
        return self.to_frame().to_html(index=False)

    def write(self, path: Path) -> None:
        """Write the result, signed, as JSON in one atomic step."""
        files.write_json(path, self.signed().to_json())


def load(paths: Iterable[str | Path]) -> list[Result]:
    """Read results, each a `results.json` or a run folder that holds one; duplicates are read once.

    Raises `MissingData` naming the file that is absent, damaged or of another schema.
    """
    candidates = (Path(path) / RESULT_FILE if Path(path).is_dir() else Path(path) for path in paths)
    return [_read(file) for file in {file.resolve(): file for file in candidates}.values()]


def _read(file: Path) -> Result:
    try:
        content = json.loads(files.read_text(file))
    except MissingData as error:
        raise MissingData(f"no results: {error}; make them with `{RUN_COMMAND}`") from error
    except (ValueError, RecursionError) as error:
        raise MissingData(f"{file} is not valid JSON ({error}): make it again with `{RUN_COMMAND}`") from error
    try:
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        if content.get("schema") != SCHEMA:
            raise ValueError(f"schema {content.get('schema')!r}, expected {SCHEMA}")
        result = Result.model_validate({"run_dir": str(file.parent), **content})
        result._file = file
        return result
    except ValueError as error:
        reason = _first_problem(error) if isinstance(error, ValidationError) else error
        message = f"{file} is not a valid result: {reason}; make it again with `{RUN_COMMAND}`"
        raise MissingData(message) from error


def _first_problem(error: ValidationError) -> str:
    """First invalid field with the reason: `scores.fvd.floor: Field required`."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def describe_differences(ours: ProtocolRecord, theirs: ProtocolRecord, limit: int = 4) -> str:
    """First `limit` fields in which two protocols differ, as `field ours vs theirs`, for a message."""
    left, right = (dict(presets.flatten({**presets.DEFAULTS, **record.to_json()})) for record in (ours, theirs))
    keys = [key for key in {**left, **right} if key not in ("id", "name", "comparable")]
    pairs = {key: (left.get(key, "absent"), right.get(key, "absent")) for key in keys}
    texts = [f"{key} {' vs '.join(pair)}" for key, pair in pairs.items() if pair[0] != pair[1]]
    more = [f"and {len(texts) - limit} more"] if len(texts) > limit else []
    return ", ".join(texts[:limit] + more) or "no recorded field"
