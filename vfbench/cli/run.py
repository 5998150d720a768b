"""`run` and `calibrate`: clips to scores, of a model or of real clips at known damage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from vfbench.cli import _options as flags
from vfbench.cli import config
from vfbench.cli._options import Context, next_command, option, whole


def run(
    context: Context,
    model: flags.Model = "videofusion",
    dataset: Annotated[str, option("--dataset", help="Dataset, e.g. shapes or ucf101.")] = "shapes",
    protocol: flags.Protocol = None,
    metrics: flags.Metrics = "",
    num_samples: Annotated[
        int | None,
        option("-n", "--num-samples", help="Clips to generate: the protocol's, 256 on a CPU, 2048 on a GPU."),
    ] = None,
    num_real: flags.NumReal = None,
    manifest: flags.Manifest = None,
    weights: flags.Weights = "default",
    extractor: flags.Extractor = None,
    seed: Annotated[int, option("--seed", help="Seed of the run; clip i has its own, derived from (seed, i).")] = 0,
    steps: flags.Steps = None,
    solver: flags.Solver = None,
    eta: flags.Eta = None,
    guidance: flags.Guidance = None,
    threshold: flags.Threshold = None,
    batch_size: flags.BatchSize = "auto",
    device: flags.Device = "auto",
    dtype: flags.Dtype = "auto",
    data_root: flags.DataRoot = None,
    checkpoint: flags.Checkpoint = None,
    output: Annotated[Path | None, option("--output", help="Run folder; runs/<model>-<dataset>-<id>.")] = None,
    keep_clips: Annotated[bool, option("--keep-clips", help="Keep every clip, lossless, in the chunks.")] = False,
    smoke: Annotated[bool, option("--smoke", help="A few clips through the whole path; not comparable.")] = False,
    dry_run: Annotated[bool, option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: flags.AsJson = False,
) -> None:
    """Generate clips with a model, score them, print the table. The same command again resumes."""
    from vfbench.pipeline.job import run as start
    from vfbench.pipeline.plan import RunOptions, plan
    from vfbench.report import render, table
    from vfbench.training import budget
    from vfbench.utils import files

    options = RunOptions(
        model=model,
        dataset=dataset,
        protocol=protocol,
        metrics=config.listed(metrics),
        num_samples=num_samples,
        num_real=num_real,
        manifest=manifest,
        weights=weights,
        extractors=extractor or (),
        seed=seed,
        steps=steps,
        solver=solver,
        eta=eta,
        guidance=guidance,
        threshold=threshold,
        batch_size=whole(batch_size),
        device=device,
        dtype=dtype,
        data_root=data_root,
        checkpoint=checkpoint,
        output=output,
        keep_clips=keep_clips,
        smoke=smoke,
        origins=config.origins(context),
    )
    planned = plan(options, budget.require_trained)
    if dry_run:
        print(files.as_json(planned.specification) if as_json else planned.describe())
        return
    print(planned.describe(), file=sys.stderr)
    result = start(planned)
    text = files.as_json(result) if as_json else render.to_markdown(table.build([result], allow_mixed=True))
    print(text, end="")
    print(f"run: {planned.folder}  look at: {planned.folder}/samples/sheet.png", file=sys.stderr)
    next_command(
        "table", planned.folder, "OTHER_RUN", *([] if planned.measuring.protocol.comparable else ["--allow-mixed"])
    )


def calibrate(
    dataset: Annotated[str, option("--dataset", help="Dataset whose real clips are damaged.")] = "shapes",
    protocol: flags.Protocol = None,
    metrics: flags.Metrics = "",
    kinds: Annotated[str, option("--kinds", help="Comma-separated kinds of damage; all by default.")] = "",
    num_samples: Annotated[int | None, option("-n", "--num-samples", help="Clips a rung.")] = None,
    num_real: flags.NumReal = None,
    weights: flags.Weights = "default",
    extractor: flags.Extractor = None,
    seed: Annotated[int, option("--seed", help="Seed of the draw and of the damage.")] = 0,
    device: flags.Device = "auto",
    data_root: flags.DataRoot = None,
    output: Annotated[Path | None, option("--output", help="Folder; runs/calibrate-<dataset>.")] = None,
) -> None:
    """Score real clips at known damage, to see what a point of each metric means."""
    from vfbench.pipeline import sensitivity as ladder
    from vfbench.pipeline.plan import RunOptions
    from vfbench.report import render
    from vfbench.report import table as tables

    options = RunOptions(
        dataset=dataset,
        protocol=protocol,
        metrics=config.listed(metrics),
        num_samples=num_samples,
        num_real=num_real,
        weights=weights,
        extractors=extractor or (),
        seed=seed,
        device=device,
        data_root=data_root,
        output=output,
    )
    print(render.to_markdown(tables.build(ladder.calibrate(options, config.listed(kinds)), allow_mixed=True)), end="")
