"""`run` and `calibrate`: clips to scores, of a model or of real clips at known damage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from vfbench import arguments
from vfbench.cli._shared import Context, next_command, option, whole


def run(
    context: Context,
    model: Annotated[str, option("--model", help="Model, e.g. videofusion or 'vdm(steps=50)'.")] = "videofusion",
    dataset: Annotated[str, option("--dataset", help="Dataset, e.g. shapes or ucf101.")] = "shapes",
    protocol: Annotated[str | None, option("--protocol", help="Protocol; the dataset's own by default.")] = None,
    metrics: Annotated[
        str, option("--metrics", help="Comma-separated, see `ls metrics`; the protocol's by default.")
    ] = "",
    num_samples: Annotated[
        int | None,
        option("-n", "--num-samples", help="Clips to generate: the protocol's, 256 on a CPU, 2048 on a GPU."),
    ] = None,
    num_real: Annotated[int | None, option("--num-real", help="Real clips; the protocol's by default.")] = None,
    manifest: Annotated[
        Path | None, option("--manifest", help="Score the real clips of this list, such as a run's manifest.csv.")
    ] = None,
    weights: Annotated[
        str, option("--weights", help="default, or random to try the path (not comparable).")
    ] = "default",
    extractor: Annotated[
        list[str] | None, option("--extractor", help="LABEL=SPEC, e.g. \"i3d=i3d(dtype='bfloat16')\"; repeatable.")
    ] = None,
    seed: Annotated[int, option("--seed", help="Seed of the run; clip i has its own, derived from (seed, i).")] = 0,
    steps: Annotated[int | None, option("--steps", help="Sampling steps.")] = None,
    solver: Annotated[str | None, option("--solver", help="ddim, ddpm or dpm++2m.")] = None,
    eta: Annotated[float | None, option("--eta", help="Fresh noise of ddim: 0 is none, 1 as much as ddpm.")] = None,
    guidance: Annotated[float | None, option("--guidance", help="Classifier-free guidance weight; 1 is none.")] = None,
    threshold: Annotated[
        float | None, option("--threshold", help="Dynamic thresholding: a quantile of each clip, e.g. 0.995.")
    ] = None,
    batch_size: Annotated[str, option("--batch-size", help="Clips per network call; never changes a clip.")] = "auto",
    device: Annotated[str, option("--device", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, option("--dtype", help="auto, float32 or bfloat16 (auto on a GPU).")] = "auto",
    data_root: Annotated[Path | None, option("--data-root", help="Folder of the dataset's files.")] = None,
    checkpoint: Annotated[
        str | None, option("--checkpoint", help="Folder that `train` wrote, or hub:owner/name[@revision].")
    ] = None,
    output: Annotated[Path | None, option("--output", help="Run folder; runs/<model>-<dataset>-<id>.")] = None,
    keep_clips: Annotated[bool, option("--keep-clips", help="Keep every clip, lossless, in the chunks.")] = False,
    smoke: Annotated[bool, option("--smoke", help="A few clips through the whole path; not comparable.")] = False,
    dry_run: Annotated[bool, option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[bool, option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Generate clips with a model, score them, print the table. The same command again resumes."""
    from vfbench import files, render, table
    from vfbench.plan import RunOptions, plan
    from vfbench.run import run as start

    options = RunOptions(
        model=model,
        dataset=dataset,
        protocol=protocol,
        metrics=arguments.listed(metrics),
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
        origins=arguments.origins(context),
    )
    planned = plan(options)
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
    protocol: Annotated[str | None, option("--protocol", help="Protocol; the dataset's first by default.")] = None,
    metrics: Annotated[str, option("--metrics", help="Comma-separated; all of the protocol by default.")] = "",
    kinds: Annotated[str, option("--kinds", help="Comma-separated kinds of damage; all by default.")] = "",
    num_samples: Annotated[int | None, option("-n", "--num-samples", help="Clips a rung.")] = None,
    num_real: Annotated[int | None, option("--num-real", help="Real clips; the protocol's by default.")] = None,
    weights: Annotated[
        str, option("--weights", help="default, or random to try the path (not comparable).")
    ] = "default",
    extractor: Annotated[
        list[str] | None, option("--extractor", help="LABEL=SPEC, e.g. \"i3d=i3d(dtype='bfloat16')\"; repeatable.")
    ] = None,
    seed: Annotated[int, option("--seed", help="Seed of the draw and of the damage.")] = 0,
    device: Annotated[str, option("--device", help="auto, cpu or cuda.")] = "auto",
    data_root: Annotated[Path | None, option("--data-root", help="Folder of the dataset's files.")] = None,
    output: Annotated[Path | None, option("--output", help="Folder; runs/calibrate-<dataset>.")] = None,
) -> None:
    """Score real clips at known damage, to see what a point of each metric means."""
    from vfbench import calibrate as ladder
    from vfbench import render
    from vfbench import table as tables
    from vfbench.plan import RunOptions

    options = RunOptions(
        dataset=dataset,
        protocol=protocol,
        metrics=arguments.listed(metrics),
        num_samples=num_samples,
        num_real=num_real,
        weights=weights,
        extractors=extractor or (),
        seed=seed,
        device=device,
        data_root=data_root,
        output=output,
    )
    print(
        render.to_markdown(tables.build(ladder.calibrate(options, arguments.listed(kinds)), allow_mixed=True)), end=""
    )
