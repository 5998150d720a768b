"""Sensitivity of the metrics: scores of real clips at known damage, with the protocol of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vfbench import plugins
from vfbench.errors import unknown
from vfbench.pipeline.folder import RUNS
from vfbench.pipeline.job import run
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.plugins import Spec
from vfbench.report import render, table
from vfbench.report.results import Result
from vfbench.utils import console, files, store

CONTROL = "corrupted"


def damaged_models(kinds: Sequence[str] = ()) -> list[Spec]:
    """Specs of the clean real clips, then of every kind of damage (or those of `kinds`), from weak to strong."""
    strengths = plugins.constants("model", CONTROL).strengths
    for kind in kinds:
        if kind not in strengths:
            raise unknown("kind of damage", kind, strengths)
    damaged = [
        Spec(CONTROL, {"kind": kind, "strength": strength})
        for kind in kinds or strengths
        for strength in strengths[kind]
    ]
    return [Spec("real"), *damaged]


def sensitivity(options: RunOptions, kinds: Sequence[str] = ()) -> list[Result]:
    """Run once for each damage, each in its own folder below `options.output`, resumable like any run.

    The model of `options` is ignored. Raises the errors of a run.
    """
    store.require_local("--output", options.output)
    folder = Path(options.output or RUNS / f"sensitivity-{plugins.parse(options.dataset).name}")
    models, results = damaged_models(kinds), []
    for number, model in enumerate(models, start=1):
        console.info(f"{number} of {len(models)}: {model}")
        results.append(
            run(plan(replace(options, model=str(model), checkpoint=None, output=folder / _folder_name(model))))
        )
    files.write_text(folder / "table.md", render.to_markdown(table.build(results, allow_mixed=True)))
    return results


def _folder_name(model: Spec) -> str:
    return "-".join([model.name, *(str(value) for value in model.options.values())])
