"""`run`, `status`, `replay`, `sensitivity`: score a model, follow or repeat that, or score damaged real clips."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import vfbench
from vfbench.cli import _options as flags
from vfbench.cli import config
from vfbench.cli._options import flags_from, next_command, option, print_plans, print_result, print_table
from vfbench.errors import UserError
from vfbench.pipeline.options import EvalOptions, MachineOptions, RunOptions, require_price
from vfbench.utils import console, files
from vfbench.utils.options import flags as flag_fields
from vfbench.utils.options import values_of


def parse_seeds(text: str) -> tuple[int, ...]:
    """Comma-separated seeds, each once."""
    try:
        seeds = tuple(int(number) for number in config.split_list(text))
    except ValueError as error:
        raise typer.BadParameter(f"'{text[:40]}' is no whole number; write 0, or 1,2,3 for several runs") from error
    if not seeds or len(set(seeds)) < len(seeds):
        raise typer.BadParameter(f"'{text[:40]}': give one seed, or several different ones, as in 1,2,3")
    return seeds


@flags_from(RunOptions, only={field.name for field in flag_fields(RunOptions)} - {"seed"})
def run(
    options: RunOptions,
    seed: Annotated[
        Any,
        option(
            "--seed",
            help="Seed of all clips; several, as in 1,2,3, make as many runs and their mean.",
            parser=parse_seeds,
            metavar="<int,...>",
        ),
    ] = "0",
    dry_run: Annotated[bool, option("--dry-run", help="Print the plan, time a few batches, and stop.")] = False,
    price_per_hour: Annotated[
        float | None,
        option("--price-per-hour", help="Hourly price of a GPU, or of a machine without one; needs --dry-run."),
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Generate clips with a model, score them and print the table; the same command resumes."""
    require_price(price_per_hour, dry_run=dry_run)
    runs = _one_per_seed(options, seed)
    if dry_run:
        from vfbench.pipeline.estimate import estimate

        plans = (vfbench.plan(**values_of(each)) for each in runs)
        print_plans(((plan, estimate(plan, price_per_hour)) for plan in plans), as_json)
        return
    results = [vfbench.run(**values_of(each)) for each in runs]
    if len(results) == 1:
        print_result(results[0], as_json)
    elif as_json:
        print(files.as_json([result.to_json() for result in results]), end="")
    else:
        print_table(vfbench.table(results, allow_mixed=True, mean=True))
    for result in results:
        console.info(f"run: {result.run_dir}  look at: {result.run_dir}/samples/sheet.png")
    mixed = [] if results[0].protocol.comparable else ["--allow-mixed"]
    mean = ["--mean"] if len(results) > 1 else []
    next_command("table", *(result.run_dir for result in results), "OTHER_RUN", *mean, *mixed)


def _one_per_seed(options: RunOptions, seeds: Sequence[int]) -> list[RunOptions]:
    """Options of one run for each seed; several runs go to the folders `seed-N` in `--output`."""
    if len(seeds) == 1 or options.output is None:
        return [dataclasses.replace(options, seed=seed) for seed in seeds]
    folder = Path(options.output)
    return [dataclasses.replace(options, seed=seed, output=folder / f"seed-{seed}") for seed in seeds]


def status(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of `generate`.")],
    as_json: flags.AsJson = False,
) -> None:
    """Show how far a run is: chunks done, rate, time left, workers at work, and those that failed."""
    from vfbench.pipeline.status import read

    state = read(run)
    console.result(files.as_json(state.to_json()).rstrip() if as_json else state.describe())


def replay(
    run: Annotated[Path, typer.Argument(help="Run folder or results.json.")],
    output: Annotated[
        Path | None, option("--output", help="Folder of the new run; runs/replay-<id> by default.")
    ] = None,
    tolerance: Annotated[
        float, option("--tolerance", help="Exit 3 above this share of a score, or of half its interval if wider.")
    ] = 1e-3,
    device: Annotated[str | None, option("--device", help="auto, cpu or cuda; the record's by default.")] = None,
    data_root: Annotated[
        Path | None, option("--data-root", help="Folder of the dataset's files; the record's.")
    ] = None,
    model: Annotated[str | None, option("--model", help="Model of your own that the record names.")] = None,
    dataset: Annotated[str | None, option("--dataset", help="Dataset of your own that the record names.")] = None,
    metrics: Annotated[str, option("--metrics", help="Metrics of your own that the record names.")] = "",
    extractors: Annotated[
        list[str] | None, option("--extractor", help="LABEL=SPEC of your own that the record names; repeatable.")
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Make a run again from its record, on this machine, and say what differs."""
    if not 0 <= tolerance < math.inf:
        raise UserError(f"--tolerance {tolerance:g}: choose a share from 0 on, such as 0.001")
    outcome = vfbench.replay(
        run,
        output=output,
        device=device,
        data_root=data_root,
        model=model,
        dataset=dataset,
        metrics=config.split_list(metrics),
        extractors=config.rejoin(extractors or []),
    )
    console.result(files.as_json(outcome.to_json()).rstrip() if as_json else outcome.describe())
    console.info(f"run: {outcome.result.run_dir}")
    outcome.require(tolerance)


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

    results = measure(options, config.split_list(kinds))
    if as_json:
        print(files.as_json([result.to_json() for result in results]), end="")
    else:
        print_table(vfbench.table(results, allow_mixed=True))
