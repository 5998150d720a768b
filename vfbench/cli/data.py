"""`data`: find, verify, prepare and measure datasets on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vfbench.cli import _options as flags
from vfbench.cli._help import Command, Group
from vfbench.cli._options import Context, flags_from, next_command, option
from vfbench.pipeline.options import StatsOptions
from vfbench.utils import console, text

data = typer.Typer(
    cls=Group, no_args_is_help=True, rich_markup_mode=None, help="Find, verify and measure datasets on disk."
)
DATASET = "ucf101, sky_timelapse, taichi_hd, folder, or with options, such as 'ucf101(split_list=2)'."


@data.command("verify", cls=Command)
def data_verify(
    dataset: Annotated[str, typer.Argument(help=DATASET)],
    data_root: flags.DataRoot = None,
    full: Annotated[bool, option("--full", help="Decode every frame, on all cores.")] = False,
    frames: Annotated[int, option("--frames", help="List the videos with fewer frames than this.")] = 16,
    output: Annotated[
        Path | None, option("--output", help="JSON file for the full record with every file name.")
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Check every file of a dataset; exit 4 if any is missing or damaged, with its name and the remedy."""
    from vfbench.data import verify
    from vfbench.utils import files

    report = verify.verify(dataset, data_root, full=full, frames=frames, output=output)
    console.result(files.as_json(report.record()) if as_json else report.text(), end="" if as_json else "\n")
    if output:
        console.info(f"record: {output}")
    verify.require_no_errors(report)


@data.command("status", cls=Command)
def data_status(
    context: Context,
    dataset: Annotated[str | None, typer.Argument(help=f"{DATASET} All by default.")] = None,
    data_root: flags.DataRoot = None,
    as_json: flags.AsJson = False,
) -> None:
    """List the datasets on this machine with layout and copy, and how to get the others."""
    from vfbench.cli import config
    from vfbench.data import status
    from vfbench.utils import files

    source = config.origins(context).get("data_root", "")
    origin = {"environment": "VFBENCH_DATA_ROOT", "configuration file": "configuration file"}.get(source, "--data-root")
    states = status.dataset_states(dataset, data_root, origin)
    if as_json:
        print(files.as_json({name: state.to_json() for name, state in states.items()}), end="")
    else:
        console.result(status.format_states(states))


@data.command("stats", cls=Command)
@flags_from(StatsOptions)
def data_stats(
    options: StatsOptions,
    dataset: Annotated[str, typer.Argument(help=DATASET)],
    output: Annotated[Path, option("--output", help="Folder of the feature files.")],
) -> None:
    """Write the real features of a protocol to portable files, for scoring without the dataset."""
    from vfbench import plugins
    from vfbench.pipeline import reference_stats

    spec = plugins.parse(dataset).merged({"root": str(options.data_root) if options.data_root else None})
    stats = reference_stats.stats(spec, output, options)
    console.result(stats.text())
    for file in stats.files:
        next_command("score", "--real", file, "--fake", "FEATURES", *(["--smoke"] if options.smoke else []))


ONE_DATASET = "Such as ucf101, or \"sky_timelapse(filter='lanczos')\"; see `vfbench ls`."


@data.command("prepare", cls=Command)
def data_prepare(
    dataset: Annotated[str, typer.Argument(help=ONE_DATASET)],
    output: Annotated[Path, option("--output", help="Folder of the prepared dataset, outside the original one.")],
    data_root: flags.DataRoot = None,
    height: Annotated[int | None, option("--height", help="Pixels; the dataset's default.")] = None,
    width: Annotated[int | None, option("--width", help="Pixels; the dataset's default.")] = None,
    workers: Annotated[
        int | None, option("--workers", help="Decoding threads; one per core by default.", min=1)
    ] = None,
) -> None:
    """Decode, crop and resize a dataset once; the same command resumes."""
    from vfbench import plugins
    from vfbench.clips import prepared
    from vfbench.data.prepare import prepare

    spec = plugins.parse(dataset).merged({"height": height, "width": width})
    folder = prepare(str(spec), output, data_root=data_root, workers=workers)
    index = prepared.read_index(folder)
    videos = sum(map(len, index.videos.values()))
    shards = text.count(len(index.shards), "shard")
    console.result(f"{folder}: {text.count(videos, 'video')} in {shards}, {index.fitted}")
    next_command("data", "verify", spec, "--data-root", folder)
