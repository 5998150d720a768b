"""What a point of a score means: real clips at known damage, scored with the same protocol as a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vfbench import plugins
from vfbench.errors import unknown
from vfbench.pipeline.folder import RUNS
from vfbench.pipeline.job import run
from vfbench.pipeline.plan import RunOptions, plan
from vfbench.plugins import Spec
from vfbench.report import render, table
from vfbench.utils import files

CONTROL = "corrupted"


def rungs(kinds: Sequence[str] = ()) -> list[Spec]:
    """Clean real clips, then every kind of damage (or those of `kinds`) from weak to strong."""
    ladder: Mapping[str, Sequence[float]] = plugins.module("model", CONTROL).LADDER
    for kind in kinds:
        if kind not in ladder:
            raise unknown("kind of damage", kind, ladder)
    damaged = [
        Spec(CONTROL, {"kind": kind, "strength": strength}) for kind in kinds or ladder for strength in ladder[kind]
    ]
    return [Spec("real"), *damaged]


def calibrate(options: RunOptions, kinds: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One run a rung, each in its own folder below `options.output`, resumable like any run; returns their results.

    The model of `options` is not looked at. Raises what a run raises.
    """
    folder = place(options)
    results = [
        run(plan(replace(options, model=str(rung), checkpoint=None, output=folder / _slug(rung))))
        for rung in rungs(kinds)
    ]
    files.write_text(folder / "table.md", render.to_markdown(table.build(results, allow_mixed=True)))
    return results


def place(options: RunOptions) -> Path:
    """The folder of all rungs and their table."""
    return Path(options.output or RUNS / f"calibrate-{plugins.parse(options.dataset).name}")


def _slug(rung: Spec) -> str:
    return "-".join([rung.name, *(str(value) for value in rung.options.values())])
