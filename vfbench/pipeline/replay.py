"""Replay: options that make a run again from its record, and what differs between the record and the new run.

The options are those in `run.json`, with what `auto` stood for on the machine of the record; a `results.json` alone has
model, dataset, protocol, seed and number of clips. A module of a third party is imported only where the command repeats
its name: a record is a file, which somebody else may have written.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from vfbench import plugins
from vfbench.errors import GateFailed, MissingData, UserError
from vfbench.pipeline.folder import RUNS
from vfbench.pipeline.options import RunOptions
from vfbench.plugins import Kind, Spec
from vfbench.protocol import presets
from vfbench.report.result_parts import ScoreRecord
from vfbench.report.results import Result, load
from vfbench.utils import records
from vfbench.utils.files import read_json

TOLERANCE = 1e-3  # of a score, or of half the width of its interval where that is larger
RUN_FILE = "run.json"
# They change no number, and belong to the machine.
_NOT_REPLAYED = ("output", "workers", "executor", "ray_address", "profile", "log_to", "origins")
_TEXTS = ("model", "dataset", "data_root", "device", "dtype", "protocol", "manifest", "weights", "solver", "checkpoint")


@dataclass(frozen=True)
class Replay:
    """Recorded and new result of one run, and the entries of both records that differ: `code: 1f3a... -> 77b0...`."""

    recorded: Result
    result: Result
    changes: tuple[str, ...]

    @property
    def differences(self) -> dict[str, float]:
        """Difference of each score, as a share of the recorded score or of half the width of its interval if larger.

        Infinite for a score that only one of both has, or that is a number in only one.
        """
        names = dict.fromkeys([*self.recorded.scores, *self.result.scores])
        return {name: _difference(self.recorded.scores.get(name), self.result.scores.get(name)) for name in names}

    @property
    def largest(self) -> float:
        """Largest difference of all scores."""
        return max(self.differences.values(), default=math.inf)

    def describe(self) -> str:
        """Scores side by side, and what else differs, as lines to read."""
        lines = [f"{name}: {self._values(name)}, difference {share:.2g}" for name, share in self.differences.items()]
        changes = [f"differs in {change}" for change in self.changes] or ["nothing else that is recorded differs"]
        return "\n".join([*lines, *changes, f"largest difference: {self.largest:.2g}"])

    def _values(self, name: str) -> str:
        scores = [record.scores.get(name) for record in (self.recorded, self.result)]
        return " -> ".join("no score" if score is None else f"{score.value:.6g}" for score in scores)

    def to_json(self) -> dict[str, Any]:
        """Scores, differences and changes as JSON values; null for a difference that is infinite."""
        scores = {
            name: {
                "recorded": _value(self.recorded, name),
                "now": _value(self.result, name),
                "difference": _finite(share),
            }
            for name, share in self.differences.items()
        }
        return {"scores": scores, "largest": _finite(self.largest), "changes": list(self.changes)}

    def require(self, tolerance: float = TOLERANCE) -> None:
        """Raise `GateFailed` naming the scores that differ by more than `tolerance`."""
        if far := [name for name, share in self.differences.items() if not share <= tolerance]:
            raise GateFailed(f"the replay differs by more than --tolerance {tolerance:g} in {', '.join(far)}")


def _value(result: Result, name: str) -> float | None:
    return _finite(result.scores[name].value) if name in result.scores else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _difference(before: ScoreRecord | None, after: ScoreRecord | None) -> float:
    if before is None or after is None or math.isnan(before.value) != math.isnan(after.value):
        return math.inf
    if before.value == after.value or math.isnan(before.value):
        return 0.0
    half = (before.high - before.low) / 2
    scale = max(abs(before.value), half if math.isfinite(half) else 0.0)
    return abs(after.value - before.value) / scale if scale else math.inf


class Repeated(NamedTuple):
    """Specs that the command repeats. Of the third-party modules in a record, only these are imported."""

    model: str | None = None
    dataset: str | None = None
    metrics: Sequence[str] = ()
    extractors: Sequence[str] = ()  # LABEL=SPEC

    def specs(self) -> dict[Kind, list[str]]:
        """Specs by kind of plug-in."""
        return {
            "model": [self.model] if self.model else [],
            "dataset": [self.dataset] if self.dataset else [],
            "metric": list(self.metrics),
            "extractor": [text.partition("=")[2].strip() for text in self.extractors],
        }


def replay_options(run: Path, repeated: Repeated, changed: Mapping[str, Any]) -> RunOptions:
    """Options that make a run again in another folder.

    `run` is a run folder or a `results.json`. `changed` replaces options, such as `output` and `device`, where they are
    not None. Raises `UserError` for a module that is not repeated, for scores of clips made elsewhere and where the
    output is the run itself, and `MissingData` for a damaged record.
    """
    (result,) = load([run])
    if result.seed is None:
        raise UserError(f"{result.source} scores clips made elsewhere: repeat `vfbench score` with the same clips")
    folder = result.folder if result.folder and (result.folder / RUN_FILE).is_file() else None
    options = _recorded_options(folder / RUN_FILE, result) if folder else _options_of(result)
    _require_repeated(result.source, options, repeated)
    output = Path(changed.get("output") or RUNS / f"replay-{result.run_id[:8] or 'record'}")
    if folder and output.resolve() == folder.resolve():
        raise UserError(f"--output {output} is the run itself: choose another folder")
    given = {name: value for name, value in changed.items() if value is not None}
    return RunOptions(**{**options, **given, "output": output})


def _recorded_options(file: Path, result: Result) -> dict[str, Any]:
    """Options in a `run.json`; raises `MissingData` without a model, and naming an option of another type."""
    content, hints = read_json(file), get_type_hints(RunOptions)
    recorded = content.get("options")
    values = {}
    for name, hint in hints.items():
        if name in _NOT_REPLAYED or not isinstance(recorded, dict) or name not in recorded:
            continue  # an option that is younger than the record
        values[name] = _parse(name, recorded[name], hint, file)
    if "model" not in values:
        raise MissingData(f"{file} has no options of a run: give the folder that `vfbench run` made")
    return {**values, **_settled(values, content, result)}


def _parse(name: str, entry: object, hint: Any, file: Path) -> Any:
    from pydantic import TypeAdapter

    text = entry.get("value") if isinstance(entry, dict) else None
    try:
        if not isinstance(text, str):
            raise ValueError("it has no value")
        value = text if name in _TEXTS and text != "None" else "auto" if text == "auto" else ast.literal_eval(text)
        return TypeAdapter(hint).validate_python(value, strict=True)
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError) as error:
        reason = f"options.{name} is {str(text)[:80]!r} ({records.first_problem(error)[:200]})"
        raise MissingData(f"{file}: {reason}: get the record again, or repeat `vfbench run` by hand") from error


def _settled(values: Mapping[str, Any], content: Mapping[str, Any], result: Result) -> dict[str, Any]:
    """The choices that `auto` and the defaults of the device stood for, and the list of real clips."""
    settled: dict[str, Any] = {}
    determines, layout = content.get("determines"), content.get("layout")
    if values.get("dtype") == "auto" and isinstance(determines, dict):
        settled["dtype"] = str(determines.get("dtype", "auto"))
    if values.get("batch_size") == "auto" and isinstance(layout, dict) and type(layout.get("batch_size")) is int:
        settled["batch_size"] = layout["batch_size"]
    if values.get("num_samples") is None and not values.get("smoke") and result.protocol.n_fake:
        settled["num_samples"] = result.protocol.n_fake
    listed = result.folder / "manifest.csv" if result.folder else None
    if values.get("manifest") and not Path(values["manifest"]).is_file() and listed and listed.is_file():
        settled["manifest"] = str(listed)
    return settled


def _options_of(result: Result) -> dict[str, Any]:
    """Options by what a result says; raises `UserError` for one that is not comparable, which does not say enough."""
    if not result.protocol.comparable:
        raise UserError(f"{result.source} is of a smoke run or of random weights: give its folder with a {RUN_FILE}")
    rules = plugins.parse(result.protocol.name)
    counts = {name: rules.options.get(name) for name in ("n_real", "n_fake")}
    if rules.options.keys() - counts.keys() or not all(type(count) in (int, type(None)) for count in counts.values()):
        raise UserError(f"{result.source}: protocol '{rules}' needs more than its name: give the folder of the run")
    return {
        "model": result.model_spec or result.model,
        "dataset": result.dataset,
        "protocol": rules.name,
        "seed": result.seed,
        "num_samples": result.protocol.n_fake or None,
        "num_real": counts["n_real"],
        "metrics": tuple(name for name, score in result.scores.items() if not score.part_of),
    }


_FLAGS: Mapping[Kind, str] = {
    "model": "--model",
    "dataset": "--dataset",
    "metric": "--metrics",
    "extractor": "--extractor",
}


def _require_repeated(source: str, options: Mapping[str, Any], repeated: Repeated) -> None:
    """Raise `UserError` for a module that the options name and the command does not, or the command alone names."""
    given = repeated.specs()
    recorded = Repeated(*(options.get(name, default) for name, default in Repeated._field_defaults.items())).specs()
    for kind, texts in recorded.items():
        named = {name for text in given[kind] for name in _modules(kind, text, known=True)}
        if others := named - {name for text in texts for name in _modules(kind, text, known=True)}:
            raise UserError(f"{_FLAGS[kind]} {min(others)}: {source} has {', '.join(texts) or 'none'}; give that")
        for text in texts:
            if unknown := [name for name in _modules(kind, text) if name not in named]:
                raise UserError(
                    f"{source} names {kind} '{unknown[0]}', which is no part of vfbench. No module that only a file "
                    f'names is imported: if you trust it, repeat it with {_FLAGS[kind]} "{text}"'
                )


def _modules(kind: Kind, text: str, *, known: bool = False) -> Iterator[str]:
    """Names in a spec of plug-ins that vfbench does not know, also of the stages of a cascade; all names if `known`."""
    spec: Spec = plugins.parse(text)
    if known or not plugins.is_known(kind, spec.name):
        yield spec.name
    if kind == "model":
        yield from _modules_of_stages(spec)


def _modules_of_stages(spec: Spec) -> Iterator[str]:
    """Dotted names in the options of a model, which may be models themselves, at any depth."""
    for value in spec.options.values():
        try:
            stage = plugins.parse(value) if isinstance(value, str) else Spec("")
        except UserError:  # a path, or any other text
            continue
        if "." in stage.name:
            yield stage.name
        yield from _modules_of_stages(stage)


def changes(recorded: Result, result: Result) -> tuple[str, ...]:
    """Entries of two runs' records that differ, as `entry: before -> now`: first what determines the numbers."""
    sides = [dict(presets.flatten(_entries(each))) for each in (recorded, result)]
    keys = [key for key in dict.fromkeys([*sides[0], *sides[1]]) if sides[0].get(key) != sides[1].get(key)]
    return tuple(f"{key}: {_short(sides[0].get(key))} -> {_short(sides[1].get(key))}" for key in keys)


def _entries(result: Result) -> dict[str, Any]:
    """Choices and machine that determine the numbers of a run, from its result and, if present, its `run.json`."""
    record = result.to_json()
    environment = record.get("environment") or {}
    entries = {name: record.get(name) for name in ("model_spec", "weights", "stages", "protocol", "seed")}
    file = result.folder / RUN_FILE if result.folder else None
    if file and file.is_file() and isinstance(determines := read_json(file).get("determines"), dict):
        entries |= {name: determines.get(name) for name in ("configuration", "device", "dtype", "code")}
    return {**entries, "machine": environment}


def _short(value: str | None) -> str:
    """A value for a line, a hash by its first digits."""
    text = "not recorded" if value is None else value
    return f"{text[:12]}..." if len(text) > 60 else text
