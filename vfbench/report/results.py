"""Typed record of a run, as stored in `results.json`.

`result.schema.json` beside this file is the JSON Schema of `Result`. Records of older versions are read: a missing
field has its default. A field that this version does not know is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import (
    Field,
    PrivateAttr,
)

from vfbench.errors import MissingData
from vfbench.interfaces import Better
from vfbench.protocol import presets
from vfbench.report import comparison_cache, signature
from vfbench.report.result_parts import (
    Cost,
    DataRecord,
    GivenRecord,
    ImportRecord,
    ProtocolRecord,
    Record,
    ScoreRecord,
    StageRecord,
)
from vfbench.utils import escape, files, records, store
from vfbench.utils.environment import Environment
from vfbench.utils.records import Flag, Id, Integer, Text

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


class Result(Record):
    """The scores of a run and everything needed to trust and repeat them: one `results.json`.

    For clips made elsewhere, whose model is not known, `seed` and `cost` are None and `fake` describes the clips.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    run_id: Id = ""
    run_dir: Text = ""
    model: Text
    model_spec: Text = ""
    preset: Text = ""
    sampling: Mapping[Text, Integer | float | Text] = {}
    reference: Flag = False
    weights: Text = ""
    dataset: Text
    data: DataRecord | None = None
    protocol: ProtocolRecord
    seed: Integer | None = None
    scores: Mapping[Text, ScoreRecord]
    cost: Cost | None = Cost()
    stages: Mapping[Text, StageRecord] = {}  # of a chain of models; `weights` is then the hash of their hashes
    environment: Environment | None = None
    note: Text = ""
    fake: GivenRecord | None = None
    imported: ImportRecord | None = None  # the scores are of another tool, and not verified
    signature: Text = ""  # hash of all other fields but `run_dir`; see `vfbench.report.signature`
    _file: Path | None = PrivateAttr(None)  # that it was read from: a run may have been moved
    _url: str | None = PrivateAttr(None)  # of the folder in an object store whose copy holds this file

    @property
    def folder(self) -> Path | None:
        """Run folder that the result was read from or is of; None for a file of another name than `results.json`."""
        if self._file:
            return self._file.parent if self._file.name == RESULT_FILE else None
        return store.local_path(self.run_dir) if self.run_dir else None

    @property
    def url(self) -> str | None:
        """URL of the run folder in an object store; None for a folder of this machine."""
        return self._url or (None if self._file else store.url_of(self.run_dir))

    def fetch(self, *names: str) -> None:
        """Fetch files of the run into `folder`, where the run is in an object store."""
        if self.url:
            store.Store(self.url).fetch(*names)

    def has_features(self) -> bool:
        """True where the features that the scores were computed from are in `folder`; fetches them from a store."""
        self.fetch(SCORED_FILE)
        return self.folder is not None and (self.folder / SCORED_FILE).is_file()

    @property
    def source(self) -> str:
        """File that the result was read from, or its label."""
        return f"{self._url}/{RESULT_FILE}" if self._url else str(self._file or self.label)

    @property
    def modified(self) -> float:
        """Time at which the file that it was read from was written, in seconds; 0 for no file."""
        return self._file.stat().st_mtime if self._file else 0.0

    @cached_property
    def integrity(self) -> Integrity:
        """`intact` as vfbench wrote it, `edited` since, or `unsigned`: written before results had a signature."""
        if not self.signature:
            return "unsigned"
        return "intact" if self.signature == signature.of(self.to_json()) else "edited"

    @property
    def edited_message(self) -> str:
        """Message about an edited result, with the command that mends it."""
        return (
            f"{self.source} was edited after vfbench wrote it (its content does not match its signature): restore the "
            "file, or repeat the command that made it"
        )

    @property
    def imported_message(self) -> str:
        """Message about scores of another tool, where only those of vfbench will do; empty for these."""
        if not self.imported:
            return ""
        return (
            f"{self.source} holds scores that {self.imported.tool} computed, which vfbench has not verified: make the "
            "clips and score them with `vfbench score`"
        )

    def signed(self) -> Result:
        """The result with the signature of its content."""
        return self.model_copy(update={"signature": signature.of(self.to_json())})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Result:
        """A copy with other values of some fields, whose integrity is checked anew."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("integrity", None)
        return copied

    def p_value(self, other: Result, metric: str) -> float | None:
        """p-value of the test against another run, None where `vfbench compare` has not made it."""
        return comparison_cache.p_values(self.folder).get(other.run_id, {}).get(metric) if self.folder else None

    @property
    def label(self) -> str:
        """Run folder, or the model's name where no folder is recorded; on one line."""
        return escape.printable(self.run_dir or self.model)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values, with the fields that were set."""
        return {"schema": SCHEMA, **super().to_json()}

    def score_rows(self) -> list[dict[str, Any]]:
        """Scores at full precision, one row per metric."""
        return [
            {
                **{"model": self.model, "dataset": self.dataset, "protocol": self.protocol.id, "metric": name},
                **{"value": score.value, "low": score.low, "high": score.high, "floor": score.floor},
                **{"n_real": score.n_real, "n_fake": score.n_fake, "better": score.better},
                "comparable": self.protocol.comparable,
                "integrity": "unverified" if self.imported else self.integrity,
                "run_dir": self.run_dir,
            }
            for name, score in self.scores.items()
        ]

    def to_frame(self) -> pd.DataFrame:
        """`score_rows` as a data frame."""
        import pandas as pd

        return pd.DataFrame(self.score_rows())

    def _repr_html_(self) -> str:
        """HTML table, as a notebook shows it."""
        return escape.message(self.to_frame().to_html(index=False))

    def write(self, path: Path) -> None:
        """Write the result, signed, as JSON in one atomic step."""
        files.write_json(path, self.signed().to_json())


def load(paths: Iterable[str | Path]) -> list[Result]:
    """Read results, each a `results.json` or a run folder that holds one, or its URL; duplicates are read once.

    Raises `MissingData` naming the file that is absent, damaged or of another schema.
    """
    found: dict[Path, Result] = {}
    for path in paths:
        url, place = store.url_of(path), store.local_path(path)
        if url:
            url = url.removesuffix(f"/{RESULT_FILE}")
            place = _fetched(url)
        file = place / RESULT_FILE if place.is_dir() else place
        if file.resolve() not in found:
            found[file.resolve()] = _read(file)
            found[file.resolve()]._url = url
    return list(found.values())


def _fetched(url: str) -> Path:
    """Copy of the result of a run folder in an object store."""
    remote = store.Store(url)
    if not remote.fetch(RESULT_FILE):
        raise MissingData(f"no results: {url}/{RESULT_FILE} does not exist; make them with `{RUN_COMMAND}`")
    return remote.copy / RESULT_FILE


def _read(file: Path) -> Result:
    again = f"make it again with `{RUN_COMMAND}`"
    try:
        content = files.read_json(file)
    except MissingData as error:
        raise MissingData(f"no results: {error}; make them with `{RUN_COMMAND}`") from error
    if (schema := content.get("schema")) != SCHEMA:
        raise MissingData(f"{file} has schema {str(schema)[:20]}, expected {SCHEMA}; {again}")
    result = records.validate(Result, {"run_dir": str(file.parent), **content}, file, again)
    result._file = file
    return result


def describe_differences(ours: ProtocolRecord, theirs: ProtocolRecord, limit: int = 4) -> str:
    """First `limit` fields in which two protocols differ, as `field ours vs theirs`, for a message."""
    left, right = (dict(presets.flatten({**presets.DEFAULTS, **record.to_json()})) for record in (ours, theirs))
    keys = [key for key in {**left, **right} if key not in ("id", "name", "comparable")]
    pairs = {key: (left.get(key, "absent"), right.get(key, "absent")) for key in keys}
    texts = [f"{key} {' vs '.join(pair)}" for key, pair in pairs.items() if pair[0] != pair[1]]
    more = [f"and {len(texts) - limit} more"] if len(texts) > limit else []
    return ", ".join(texts[:limit] + more) or "no recorded field"
