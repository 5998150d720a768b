"""`data`: is a dataset here, is it whole, and what do its real clips measure?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vfbench.cli import _options as flags
from vfbench.cli._options import Context, next_command, option

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Find, verify and measure datasets on disk.")
DATASET = "ucf101, sky_timelapse, taichi_hd, folder, or with options, such as 'ucf101(split_list=2)'."


@data.command("verify")
def data_verify(
    dataset: Annotated[str, typer.Argument(help=DATASET)],
    data_root: flags.DataRoot = None,
    full: Annotated[bool, option("--full", help="Decode every frame, on all cores.")] = False,
    frames: Annotated[int, option("--frames", help="Name the videos with fewer frames than a clip has.")] = 16,
    output: Annotated[
        Path | None, option("--output", help="File of the whole record, every name in it, as JSON.")
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Look at every file of a dataset; exit 4 when something is missing or damaged, naming it and what mends it."""
    from vfbench.data import verify
    from vfbench.utils import files

    report = verify.verify(dataset, data_root, full=full, frames=frames, output=output)
    print(files.as_json(report.record()) if as_json else report.text(), end="" if as_json else "\n")
    if output:
        print(f"record: {output}", file=sys.stderr)
    verify.require(report)


@data.command("where")
def data_where(
    context: Context,
    dataset: Annotated[str | None, typer.Argument(help=f"{DATASET} All by default.")] = None,
    data_root: flags.DataRoot = None,
    as_json: flags.AsJson = False,
) -> None:
    """Say which datasets are here, in which layout and copy, and how to get the others."""
    from vfbench.cli import config
    from vfbench.data import status
    from vfbench.utils import files

    said = config.origins(context).get("data_root", "")
    origin = {"environment": "VFBENCH_DATA_ROOT", "configuration file": "configuration file"}.get(said, "--data-root")
    states = status.where(dataset, data_root, origin)
    print(files.as_json(states) if as_json else status.text(states), end="" if as_json else "\n")


@data.command("stats")
def data_stats(
    dataset: Annotated[str, typer.Argument(help=DATASET)],
    output: Annotated[Path, option("--output", help="Folder of the feature files.")],
    protocol: flags.Protocol = None,
    metrics: flags.Metrics = "",
    num_real: flags.NumReal = None,
    manifest: flags.Manifest = None,
    weights: flags.Weights = "default",
    extractor: flags.Extractor = None,
    device: flags.Device = "auto",
    data_root: flags.DataRoot = None,
    smoke: flags.Few = False,
) -> None:
    """Keep the real features of a protocol in portable files, for whoever does not have the dataset."""
    from vfbench import plugins
    from vfbench.cli import config
    from vfbench.pipeline import reference_stats
    from vfbench.pipeline.eval_setup import EvalOptions

    asked = EvalOptions(
        protocol=protocol,
        metrics=config.listed(metrics),
        n_real=num_real,
        manifest=manifest,
        weights=weights,
        extractors=extractor or (),
        smoke=smoke,
    )
    spec = plugins.parse(dataset).merged({"root": str(data_root) if data_root else None})
    made = reference_stats.stats(spec, output, asked, device=device)
    print(made.text())
    for file in made.files:
        next_command("score", "--real", file, "--fake", "FEATURES", *(["--smoke"] if smoke else []))


ONE_DATASET = "Such as ucf101, or \"sky_timelapse(filter='lanczos')\"; see `vfbench ls`."


@data.command("prepare")
def data_prepare(
    dataset: Annotated[str, typer.Argument(help=ONE_DATASET)],
    output: Annotated[Path, option("--output", help="Folder to prepare it in, outside of the dataset's own.")],
    data_root: flags.DataRoot = None,
    height: Annotated[int | None, option("--height", help="Pixels; the dataset's default.")] = None,
    width: Annotated[int | None, option("--width", help="Pixels; the dataset's default.")] = None,
    workers: Annotated[int | None, option("--workers", help="Threads that decode; one a core.", min=1)] = None,
) -> None:
    """Decode, crop and resize a dataset once; goes on where it stopped."""
    from vfbench import plugins
    from vfbench.clips import prepared
    from vfbench.data.prepare import prepare as start

    spec = plugins.parse(dataset).merged({"height": height, "width": width})
    folder = start(str(spec), output, data_root=data_root, workers=workers)
    index = prepared.read_index(folder)
    videos = sum(map(len, index["videos"].values()))
    print(f"{folder}: {videos:,} videos in {len(index['shards']):,} shards, {index['fitted']}")
    next_command("data", "verify", spec, "--data-root", folder)
