"""`run` and `sensitivity`: score a model, or real clips with known damage."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

from vfbench.cli import _options as flags
from vfbench.cli import config
from vfbench.cli._options import flags_from, next_command, option, print_plan, print_result
from vfbench.pipeline.options import EvalOptions, MachineOptions, RunOptions


@flags_from(RunOptions)
def run(options: RunOptions, dry_run: flags.DryRun = False, as_json: flags.AsJson = False) -> None:
    """Generate clips with a model, score them and print the table; the same command resumes."""
    from vfbench.pipeline.job import run as execute
    from vfbench.pipeline.plan import plan
    from vfbench.training.budget import training_advice

    setup = (options.model, options.dataset, options.data_root, options.checkpoint, options.protocol)
    with training_advice(*setup, smoke=options.smoke):
        run_plan = plan(options)
    if dry_run:
        print_plan(run_plan, as_json)
        return
    print(run_plan.describe(), file=sys.stderr)
    print_result(execute(run_plan), as_json)
    print(f"run: {run_plan.folder}  look at: {run_plan.folder}/samples/sheet.png", file=sys.stderr)
    mixed = [] if run_plan.setup.protocol.comparable else ["--allow-mixed"]
    next_command("table", run_plan.folder, "OTHER_RUN", *mixed)


_SENSITIVITY_FLAGS = {field.name for field in (*dataclasses.fields(EvalOptions), *dataclasses.fields(MachineOptions))}
_SENSITIVITY_FLAGS |= {"dataset", "num_samples", "seed", "output"}


@flags_from(RunOptions, only=_SENSITIVITY_FLAGS)
def sensitivity(
    options: RunOptions,
    kinds: Annotated[str, option("--kinds", help="Comma-separated kinds of damage; all by default.")] = "",
) -> None:
    """Score real clips with known damage, to see how much each metric changes."""
    from vfbench.pipeline.sensitivity import sensitivity as measure
    from vfbench.report import render, table

    print(render.to_markdown(table.build(measure(options, config.split_list(kinds)), allow_mixed=True)), end="")
