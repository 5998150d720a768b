"""`train`: train a model on a dataset and write the checkpoint to a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vfbench.cli import _options as flags
from vfbench.cli import config
from vfbench.cli._options import next_command, option


def train(
    model: Annotated[
        str, option("--model", help='Model to train, with options if any: "videofusion(lam=0.3)".')
    ] = "videofusion",
    dataset: Annotated[str, option("--dataset", help="Dataset to train on.")] = "shapes",
    preset: Annotated[str, option("--preset", help="Size of the model; see `vfbench show model NAME`.")] = "tiny",
    steps: Annotated[int, option("--steps", help="Optimiser steps.")] = 3600,
    output: Annotated[
        Path | None, option("--output", help="Folder of the checkpoint; runs/train-<model>-<dataset> by default.")
    ] = None,
    batch_size: Annotated[
        int, option("--batch-size", help="Clips per step, summed over all processes of `accelerate launch`.")
    ] = 16,
    lr: Annotated[float, option("--lr", help="Peak learning rate.")] = 1e-3,
    warmup: Annotated[
        int | None,
        option("--warmup", help="Warm-up steps; by default the smaller of 200 and a tenth of --steps."),
    ] = None,
    weight_decay: Annotated[float, option("--weight-decay", help="Weight decay of AdamW.")] = 0.0,
    clip_norm: Annotated[float, option("--clip-norm", help="Gradient norm above which gradients are clipped.")] = 1.0,
    ema: Annotated[float, option("--ema", help="Decay of the moving average of the weights.")] = 0.999,
    seed: Annotated[int, option("--seed", help="Seed of weights, data and noise.")] = 0,
    match_flops: Annotated[
        str | None,
        option("--match-flops", help="Widen the preset to another's FLOPs per clip: vdm, or vdm:small.", metavar="REF"),
    ] = None,
    init_from: Annotated[
        str | None,
        option("--init-from", help="Checkpoint of the same model to start from.", metavar="DIR"),
    ] = None,
    base_init: Annotated[
        str | None, option("--base-init", help="Base generator of videofusion: scratch, finetune or frozen.")
    ] = None,
    base_from: Annotated[
        str | None, option("--base-from", help="Folder or hub id of the pretrained base generator.", metavar="DIR")
    ] = None,
    device: flags.Device = "auto",
    dtype: flags.Dtype = "auto",
    data_root: flags.DataRoot = None,
    save_every: Annotated[int, option("--save-every", help="Steps between checkpoints.")] = 200,
    sample_every: Annotated[int, option("--sample-every", help="Steps between sample sheets.")] = 600,
    resume: Annotated[bool, option("--resume", help="Resume an earlier run.")] = False,
    half: Annotated[bool, option("--half", help="Write the weights in half precision.")] = False,
    compile: Annotated[bool, option("--compile", help="Compile the networks: slower start, faster steps.")] = False,
    accumulate: Annotated[
        int, option("--accumulate", help="Gradient accumulation: parts of a batch, for the same step in less memory.")
    ] = 1,
    checkpoint_activations: Annotated[
        bool,
        option("--checkpoint-activations", help="Recompute activations in the backward pass: slower, in less memory."),
    ] = False,
    crop: Annotated[str | None, option("--crop", help="Crop of real videos: random (the default) or centre.")] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip",
            help="Mirror clips of real videos with probability 1/2.",
            envvar="VFBENCH_FLIP",
            show_envvar=False,
        ),
    ] = None,
    conditions: Annotated[
        str | None,
        option("--conditions", help="Probability of each kind of conditioning, e.g. class=0.9,none=0.1."),
    ] = None,
    workers: Annotated[
        int, option("--workers", help="Threads that prefetch clips and noise, on a GPU or from real videos.")
    ] = 2,
) -> None:
    """Train a model; Ctrl-C saves the state, --resume continues.

    On several GPUs or nodes: accelerate launch -m vfbench train ...
    """
    from vfbench import plugins
    from vfbench.training.distributed import is_main_process
    from vfbench.training.train import TrainOptions, prepare_training
    from vfbench.training.train import train as fit
    from vfbench.utils import device as devices

    torch_device = devices.choose_device(device)
    options = TrainOptions(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        warmup=warmup,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        ema=ema,
        seed=seed,
        dtype=str(devices.choose_dtype(dtype, torch_device)).removeprefix("torch."),
        crop=crop,
        flip=flip,
        conditions=config.parse_weights(conditions, "--conditions") if conditions else None,
        init_from=init_from,
        device=torch_device.type,
        save_every=save_every,
        sample_every=sample_every,
        half=half,
        compile=compile,
        workers=workers,
        accumulate=accumulate,
        checkpoint_activations=checkpoint_activations,
    )
    model_options = {"base_init": base_init, "base_from": base_from}
    network, data = prepare_training(
        model, dataset, preset, seed=seed, data_root=data_root, match_flops=match_flops, options=model_options
    )
    name = plugins.parse(model).name
    folder = output or Path("runs") / f"train-{name}-{data.name}"
    fit(network, data, options, folder, resume=resume)
    if is_main_process():
        print(f"checkpoint: {folder}  samples: {folder}/samples", file=sys.stderr)
        root = ["--data-root", data_root] if data_root else []
        next_command("run", "--model", name, "--dataset", dataset, *root, "--checkpoint", folder)
