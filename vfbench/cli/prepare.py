"""`data prepare`: a dataset once decoded, cropped and resized, so that it is read fast from then on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vfbench.cli import _flags as flags
from vfbench.cli._shared import next_command, option

DATASET = "Such as ucf101, or \"sky_timelapse(filter='lanczos')\"; see `vfbench ls`."


def prepare(
    dataset: Annotated[str, typer.Argument(help=DATASET)],
    output: Annotated[Path, option("--output", help="Folder to prepare it in, outside of the dataset's own.")],
    data_root: flags.DataRoot = None,
    height: Annotated[int | None, option("--height", help="Pixels; the dataset's default.")] = None,
    width: Annotated[int | None, option("--width", help="Pixels; the dataset's default.")] = None,
    workers: Annotated[int | None, option("--workers", help="Threads that decode; one a core.", min=1)] = None,
) -> None:
    """Decode, crop and resize a dataset once; goes on where it stopped."""
    from vfbench import plugins, prepared
    from vfbench.prepare import prepare as start

    spec = plugins.parse(dataset).merged({"height": height, "width": width})
    folder = start(str(spec), output, data_root=data_root, workers=workers)
    index = prepared.read_index(folder)
    videos = sum(map(len, index["videos"].values()))
    print(f"{folder}: {videos:,} videos in {len(index['shards']):,} shards, {index['fitted']}")
    next_command("data", "verify", spec, "--data-root", folder)
