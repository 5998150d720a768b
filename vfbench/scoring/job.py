"""A score before and after its work: plan, folder and result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch

from vfbench.clips import ClipFolder
from vfbench.errors import UserError
from vfbench.pipeline.folder import RUNS, RunFolder, Specification
from vfbench.pipeline.result import write_result
from vfbench.report.result_parts import DataRecord, GivenRecord, ProtocolRecord, ScoreRecord
from vfbench.report.results import SCHEMA, Result
from vfbench.scoring.options import ScoreOptions
from vfbench.utils import environment, files

Compute: TypeAlias = Callable[[RunFolder], Mapping[str, ScoreRecord]]


@dataclass(frozen=True, kw_only=True)
class ScorePlan:
    """A score, ready to start: both sides found, everything loaded and checked. `compute` does the work."""

    folder: Path
    specification: Specification
    name: str  # of the row in tables
    dataset: str
    data: DataRecord | None = None
    protocol: ProtocolRecord
    fake: GivenRecord
    note: str
    lines: tuple[tuple[str, str], ...] = field(repr=False)
    compute: Compute = field(repr=False)

    def describe(self) -> str:
        """Both sides, the protocol and the warnings, as lines to read."""
        rows = [(name, line) for name, text in self.lines for line in text.splitlines()]
        return "\n".join(f"{name:<9} {line}" for name, line in [*rows, ("score", str(self.folder))])


def folder_and_specification(
    options: ScoreOptions, fake: ClipFolder, device: torch.device, determines: Mapping[str, object]
) -> tuple[Path, Specification]:
    """The output folder of a score, and its record for `run.json`. `determines` is what the numbers follow from.

    Raises `UserError` where the folder lies among the clips, and `BadEnvironment` where it cannot be written.
    """
    specification = Specification(
        determines={**determines, "device": device.type, "code": environment.code_version()},
        options=environment.options_record(options, options.origins),
        environment=environment.environment(device.type),
    )
    folder = Path(options.output or RUNS / f"score-{default_name(fake)}-{specification.id[:8]}")
    if fake.root.is_dir() and folder.resolve().is_relative_to(fake.root.resolve()):
        raise UserError(f"{folder} lies in {fake.root}, where it would be taken for clips: choose another --output")
    files.require_writable(folder)
    return folder, specification


def default_name(fake: ClipFolder) -> str:
    """Name of the row in tables where the user gives none: that of the folder or file."""
    return fake.root.resolve().name if fake.root.is_dir() else fake.root.stem


def given_record(
    fake: ClipFolder, content_hash: str, options: ScoreOptions, decoder: str | None = None, captions: str | None = None
) -> GivenRecord:
    """Record of the generated side; `decoder` and `captions` where it holds clips."""
    clips = {"decoder": decoder, "captions": captions} if fake.kind != "features" else {}
    return GivenRecord(
        folder=str(fake.root),
        layout=fake.kind,
        count=len(fake),
        manifest=content_hash,
        notes=tuple(fake.notes),
        list=str(options.listing) if options.listing else None,
        prompts=str(options.prompts) if options.prompts else None,
        **clips,
    )


def score(plan: ScorePlan) -> Result:
    """Carry out a plan and return the result, as `results.json` in the folder holds it.

    Cached features are not computed again. Raises `MissingData` naming the first clip that cannot be read: the others
    alone are not scored.
    """
    folder = RunFolder.join(plan.folder, plan.specification)
    result = Result(
        schema=SCHEMA,
        run_id=folder.run_id,
        run_dir=str(folder.path),
        model=plan.name,
        model_spec=plan.fake.folder,
        reference=False,
        weights="unknown",  # of the model that made the clips, and so are its seed and cost
        dataset=plan.dataset,
        protocol=plan.protocol,
        seed=None,
        scores=plan.compute(folder),
        cost=None,
        environment=plan.specification.environment,
        note=plan.note,
        fake=plan.fake,
    )
    if plan.data is not None:
        result = result.model_copy(update={"data": plan.data})
    return write_result(folder, result)
