"""`train`: a model learns a dataset, and the checkpoint goes to a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vfbench.cli._shared import next_command, option


def train(
    model: Annotated[str, option("--model", help="Model to train.")] = "videofusion",
    dataset: Annotated[str, option("--dataset", help="Dataset to train on.")] = "shapes",
    preset: Annotated[str, option("--preset", help="Size of the model; see `vfbench show model NAME`.")] = "tiny",
    steps: Annotated[int, option("--steps", help="Optimiser steps.")] = 3600,
    output: Annotated[
        Path | None, option("--output", help="Folder of the checkpoint; runs/train-<model>-<dataset>.")
    ] = None,
    batch_size: Annotated[int, option("--batch-size", help="Clips a step.")] = 16,
    lr: Annotated[float, option("--lr", help="Peak learning rate.")] = 1e-3,
    seed: Annotated[int, option("--seed", help="Seed of weights, data and noise.")] = 0,
    device: Annotated[str, option("--device", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, option("--dtype", help="auto, float32 or bfloat16 (auto on a GPU).")] = "auto",
    data_root: Annotated[Path | None, option("--data-root", help="Folder of the dataset's files.")] = None,
    save_every: Annotated[int, option("--save-every", help="Steps between checkpoints.")] = 200,
    sample_every: Annotated[int, option("--sample-every", help="Steps between sample sheets.")] = 600,
    resume: Annotated[bool, option("--resume", help="Go on where an earlier run stopped.")] = False,
    half: Annotated[bool, option("--half", help="Write the weights in half precision.")] = False,
    compile: Annotated[bool, option("--compile", help="Compile the networks: slow to start, then faster.")] = False,
    crop: Annotated[
        str | None, option("--crop", help="Part of real videos to train on: random (the default) or centre.")
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip",
            help="Mirror half of the clips of real videos.",
            envvar="VFBENCH_FLIP",
            show_envvar=False,
        ),
    ] = None,
    workers: Annotated[int, option("--workers", help="Threads that draw clips of real videos ahead.", min=0)] = 2,
) -> None:
    """Train a model; Ctrl-C saves, --resume goes on."""
    from vfbench import device as devices
    from vfbench.train import TrainOptions, prepare
    from vfbench.train import train as start

    network, data = prepare(model, dataset, preset, seed=seed, data_root=data_root)
    where = devices.choose(device)
    options = TrainOptions(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        dtype=str(devices.precision(dtype, where)).removeprefix("torch."),
        device=where.type,
        save_every=save_every,
        sample_every=sample_every,
        half=half,
        compile=compile,
        crop=crop,
        flip=flip,
        workers=workers,
    )
    folder = output or Path("runs") / f"train-{model}-{data.name}"
    start(network, data, options, folder, resume=resume)
    print(f"checkpoint: {folder}  samples: {folder}/samples", file=sys.stderr)
    root = ["--data-root", data_root] if data_root else []
    next_command("run", "--model", model, "--dataset", dataset, *root, "--checkpoint", folder)
