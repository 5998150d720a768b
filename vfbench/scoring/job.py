"""A score before and after its work: what a user may say, what was found, the folder and the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch

from vfbench.clips import ClipFolder
from vfbench.errors import UserError
from vfbench.pipeline.folder import RUNS, RunFolder
from vfbench.pipeline.result import SCHEMA, keep
from vfbench.utils import environment, files, tensor_files

Scores: TypeAlias = dict[str, dict[str, Any]]  # as they stand in results.json


@dataclass(frozen=True)
class ScoreOptions:
    """What a user may say of a score. `real` is a dataset or a path; None and () mean the protocol's own."""

    real: str
    fake: Path | str
    protocol: str | None = None
    metrics: Sequence[str] = ()
    listing: Path | str | None = None
    prompts: Path | str | None = None
    num_real: int | None = None
    manifest: Path | str | None = None
    weights: str = "default"
    extractors: Sequence[str] = ()
    device: str = "auto"
    data_root: Path | str | None = None
    output: Path | str | None = None
    name: str | None = None
    smoke: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScorePlan:
    """A score, ready to start. `about` is what its result says of it already; `work` finds the scores."""

    folder: Path
    specification: Mapping[str, Any]
    lines: Sequence[tuple[str, str]]
    about: Mapping[str, Any]
    work: Callable[[RunFolder], Scores]

    def describe(self) -> str:
        """What was found on both sides, what is done with it and what to beware of, as lines to read."""
        rows = [(name, line) for name, text in self.lines for line in text.splitlines()]
        return "\n".join(f"{name:<9} {line}" for name, line in [*rows, ("score", str(self.folder))])


def ready(
    options: ScoreOptions,
    fake: ClipFolder,
    device: torch.device,
    determines: Mapping[str, Any],
    *,
    lines: Sequence[tuple[str, str]],
    about: Mapping[str, Any],
    work: Callable[[RunFolder], Scores],
) -> ScorePlan:
    """A score with its name, folder and record. `determines` is what its numbers follow from.

    Raises `UserError` where the folder lies among the clips, and `BadEnvironment` where it cannot be written.
    """
    called = fake.root.resolve().name if fake.root.is_dir() else fake.root.stem
    determines = {**determines, "device": device.type, "code": environment.code_version()}
    identity = tensor_files.digest(determines)
    folder = Path(options.output or RUNS / f"score-{called}-{identity[:8]}")
    if fake.root.is_dir() and folder.resolve().is_relative_to(fake.root.resolve()):
        raise UserError(f"{folder} lies in {fake.root}, where it would be taken for clips: choose another --output")
    files.require_writable(folder)
    specification = {
        "id": identity,
        "determines": determines,
        "options": environment.options(options, options.origins),
        "environment": environment.environment(device),
    }
    name = {"model": options.name or called, "model_spec": str(fake.root)}
    return ScorePlan(folder, specification, lines, {**name, **about}, work)


def found_in(fake: ClipFolder, manifest: str, options: ScoreOptions) -> dict[str, Any]:
    """What a result says of the generated side."""
    return {
        "folder": str(fake.root),
        "layout": fake.kind,
        "count": len(fake),
        "manifest": manifest,
        "notes": list(fake.notes),
        "list": str(options.listing) if options.listing else None,
        "prompts": str(options.prompts) if options.prompts else None,
    }


def score(scoring: ScorePlan) -> dict[str, Any]:
    """Do what was looked at and return the result, as it is written to `results.json` in the folder.

    Features that are there already are not made again. Raises `MissingData` naming the first clip that cannot be read:
    no number is given from the others.
    """
    with RunFolder.hold(scoring.folder, scoring.specification) as folder:
        result = {
            "schema": SCHEMA,
            "run_id": scoring.specification["id"],
            "run_dir": str(folder.path),
            "reference": False,
            "weights": "unknown",  # of the model that made the clips, and so are its seed and cost
            "seed": None,
            "cost": None,
            **scoring.about,
            "scores": scoring.work(folder),
            "environment": scoring.specification["environment"],
        }
        keep(folder, result)
        return result
