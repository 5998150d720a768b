"""`generate`: clips of a model as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from vfbench.cli import _options as flags
from vfbench.cli._options import next_command, option, whole


def generate(
    output: Annotated[Path, option("--output", help="Folder of the clips; must not be there yet, or be empty.")],
    model: flags.Model = "videofusion",
    dataset: Annotated[str, option("--dataset", help="Dataset that the model was trained on.")] = "shapes",
    prompt: Annotated[
        str | None, option("--prompt", help="What all clips show, in words; the dataset's test captions by default.")
    ] = None,
    label: Annotated[str | None, option("--label", help="What all clips show, as the name of a class.")] = None,
    num_samples: Annotated[int, option("-n", "--num-samples", help="Clips to generate.")] = 8,
    seed: Annotated[int, option("--seed", help="Seed of the clips; clip i has its own, as in `run`.")] = 0,
    fix: Annotated[
        Literal["base"] | None,
        option("--fix", help="base: all have the first one's base noise, and motion of their own."),
    ] = None,
    frames: Annotated[int | None, option("--frames", help="Frames of a clip, more than the model's own.")] = None,
    overlap: Annotated[int | None, option("--overlap", help="Frames that the windows of such a clip share.")] = None,
    steps: flags.Steps = None,
    solver: flags.Solver = None,
    eta: flags.Eta = None,
    guidance: flags.Guidance = None,
    threshold: flags.Threshold = None,
    format: Annotated[
        Literal["mp4", "webp", "npy", "png-folder"],
        option("--format", help="All are lossless; `score` reads all but webp."),
    ] = "mp4",
    batch_size: flags.BatchSize = "auto",
    device: flags.Device = "auto",
    dtype: flags.Dtype = "auto",
    data_root: flags.DataRoot = None,
    checkpoint: flags.Checkpoint = None,
) -> None:
    """Make clips with a model and write them to a folder, with what each was asked for."""
    from vfbench.pipeline.eval_setup import CLIPS
    from vfbench.pipeline.export import ExportOptions, make, prepare
    from vfbench.training import budget

    sampling = {
        "frames": frames,
        "overlap": overlap,
        "steps": steps,
        "solver": solver,
        "eta": eta,
        "guidance": guidance,
        "threshold": threshold,
    }
    options = ExportOptions(
        output=output,
        model=model,
        dataset=dataset,
        prompt=prompt,
        label=label,
        num_samples=num_samples,
        seed=seed,
        fix=fix,
        format=format,
        sampling=sampling,
        batch_size=whole(batch_size),
        device=device,
        dtype=dtype,
        data_root=data_root,
        checkpoint=checkpoint,
    )
    making = prepare(options, budget.require_trained_on)
    folder = make(making)
    print(f"clips: {folder}/clips  look at: {folder}/sheet.png", file=sys.stderr)
    if not making.format.read:
        print("note: WebP is to look at; give --format mp4, npy or png-folder for clips to score", file=sys.stderr)
        return
    prompts = ["--prompts", folder / "prompts.tsv"] if "prompts.tsv" in making.tables() else []
    root = ["--data-root", data_root] if data_root else []
    if num_samples < 3:  # no score of so few
        return
    few = ["--smoke"] if num_samples < CLIPS["cpu"] else []
    next_command("score", "--real", dataset, *root, "--fake", folder / "clips", *prompts, *few)
