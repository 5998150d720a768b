"""`run`, `status` and `sensitivity`: score a model, see how far that is, or score real clips with known damage."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

import vfbench
from vfbench.cli import _options as flags
from vfbench.cli import config
from vfbench.cli._options import flags_from, next_command, option, print_plan, print_result, print_table
from vfbench.pipeline.options import EvalOptions, MachineOptions, RunOptions
from vfbench.utils import console
from vfbench.utils.options import values_of


@flags_from(RunOptions)
def run(options: RunOptions, dry_run: flags.DryRun = False, as_json: flags.AsJson = False) -> None:
    """Generate clips with a model, score them and print the table; the same command resumes."""
    if dry_run:
        print_plan(vfbench.plan(**values_of(options)), as_json)
        return
    result = vfbench.run(**values_of(options))
    print_result(result, as_json)
    console.info(f"run: {result.run_dir}  look at: {result.run_dir}/samples/sheet.png")
    next_command("table", result.run_dir, "OTHER_RUN", *([] if result.protocol.comparable else ["--allow-mixed"]))


def status(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of `generate`.")],
    as_json: flags.AsJson = False,
) -> None:
    """Show how far a run is: chunks done, rate, time left, workers at work, and those that failed."""
    from vfbench.pipeline.status import read
    from vfbench.utils import files

    state = read(run)
    console.result(files.as_json(state.to_json()).rstrip() if as_json else state.describe())


_SENSITIVITY_FLAGS = {field.name for field in (*dataclasses.fields(EvalOptions), *dataclasses.fields(MachineOptions))}
_SENSITIVITY_FLAGS |= {"dataset", "num_samples", "seed", "output"}


@flags_from(RunOptions, only=_SENSITIVITY_FLAGS)
def sensitivity(
    options: RunOptions,
    kinds: Annotated[str, option("--kinds", help="Comma-separated kinds of damage; all by default.")] = "",
    as_json: flags.AsJson = False,
) -> None:
    """Score real clips with known damage, to see how much each metric changes."""
    from vfbench.pipeline.sensitivity import sensitivity as measure
    from vfbench.utils import files

    results = measure(options, config.split_list(kinds))
    if as_json:
        print(files.as_json([result.to_json() for result in results]), end="")
    else:
        print_table(vfbench.table(results, allow_mixed=True))
