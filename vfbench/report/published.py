"""Scores that papers and repositories have published: `published.csv`, beside this file.

None of them has a protocol that is provably one of vfbench's: how many clips, which copy of the dataset and which
sampler are often not written anywhere. `confidence` says how sure the transcription is (high: read in the source;
medium: in another paper's table; low: by a machine or from a summary), not how good the score is.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from vfbench.errors import UserError, nearest, unknown

Confidence: TypeAlias = Literal["high", "medium", "low"]
Published: TypeAlias = Literal["none", "high", "medium", "all"]  # least confidence of the rows to show
NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """A score as published; an empty text or None is not stated in the source."""

    dataset: str
    task: str  # uncond, class, text, zeroshot-text, image-to-video, prediction, reconstruction
    model: str
    year: int | None
    resolution: str  # width x height in pixels
    frames: int | None
    clips: int | None  # generated clips
    metric: str  # title
    value: float
    std: float | None
    protocol_note: str
    reported_in: str
    source_url: str
    confidence: Confidence
    kind: str  # paper, reproduction, third-party, claimed

    @property
    def text(self) -> str:
        """The value as published, with its standard deviation where there is one."""
        return f"{self.value:g}" + ("" if self.std is None else f" ± {self.std:g}")


@functools.cache
def load() -> tuple[PublishedScore, ...]:
    """All published scores, in the order of the file."""
    path = Path(__file__).with_name("published.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(_score(row) for row in csv.DictReader(file))


def _score(row: dict[str, str]) -> PublishedScore:
    numbers = {name: int(row[name]) if row[name] else None for name in ("year", "frames", "clips")}
    std = float(row["std"]) if row["std"] else None
    return PublishedScore(**{**row, **numbers, "value": float(row["value"]), "std": std})  # type: ignore[arg-type]


def select(
    *, dataset: str = "", model: str = "", metric: str = "", task: str = "", confidence: Confidence = "low"
) -> list[PublishedScore]:
    """Published scores of at least this confidence, filtered by names where given.

    Names are compared without case and punctuation; `model` may be a part of the name. Raises `UserError` for a name
    that no score has.
    """
    scores = list(load())
    for field, name in (("dataset", dataset), ("task", task), ("metric", metric)):
        known = {str(getattr(score, field)) for score in scores}
        scores = [score for score in scores if not name or key(getattr(score, field)) == key(name)]
        if not scores:
            raise unknown(f"published {field}", name, known)
    found = [score for score in scores if key(model) in key(score.model)]
    if model and (not found or not key(model)):
        hint = nearest(model, {score.model for score in scores})
        advice = f"did you mean '{hint}'?" if hint else "leave out --model to list all"
        raise UserError(f"no published score of a model called '{model}': {advice}")
    levels = get_args(Confidence)
    return [score for score in found if levels.index(score.confidence) <= levels.index(confidence)]


def key(name: str) -> str:
    """A name without case and punctuation, under which spellings of it are equal: `Taichi-HD`, `taichi_hd`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def explain(scores: Sequence[PublishedScore]) -> list[str]:
    """Lines on why the scores of one model and metric differ: their range for each value of what differs."""
    first, plural = scores[0], "s" if len(scores) > 1 else ""
    lines = [f"{first.model} on {first.dataset}: {len(scores)} published {first.metric}{plural}, {_range(scores)}"]
    conditions: dict[str, Callable[[PublishedScore], str]] = {
        "task": lambda score: score.task,
        "pixels": lambda score: score.resolution or NOT_STATED,
        "frames": lambda score: str(score.frames or NOT_STATED),
        "clips": lambda score: f"{score.clips:,}" if score.clips else NOT_STATED,
        "kind": lambda score: score.kind,
    }
    for name, condition in conditions.items():
        groups: dict[str, list[PublishedScore]] = {}
        for score in scores:
            groups.setdefault(condition(score), []).append(score)
        texts = [f"{value}: {_range(group)}" for value, group in sorted(groups.items())]
        if len(texts) > 1:
            lines.append(f"  by {name:<7} {'; '.join(texts)}")
    for score in sorted(scores, key=lambda score: score.value):
        details = (score.task, score.resolution, f"{score.frames} frames" if score.frames else "", score.protocol_note)
        lines.append(f"  {score.text:<14} {score.reported_in} ({', '.join(filter(None, details))})")
    return lines


def _range(scores: Sequence[PublishedScore]) -> str:
    """Smallest and largest value."""
    values = [score.value for score in scores]
    return f"{min(values):g} to {max(values):g}" if min(values) < max(values) else f"{values[0]:g}"
