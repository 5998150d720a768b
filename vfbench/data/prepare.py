"""One pass over a dataset to a fast cache: every frame of every video, cropped and resized, in files that are mapped.

Readers then give the same clips bit for bit, and the same fingerprint, as from the original files:
`vfbench.clips.prepared`.
The frames stand in shards (`vfbench.data.shards`). The index is written when all are there; until then a mark tells the
command that goes on.
"""

from __future__ import annotations

import inspect
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfbench import clips, plugins
from vfbench.clips.arrays import shard_size
from vfbench.clips.inventory import Inventory, require_outside
from vfbench.clips.prepared import INDEX, MARK, SHARDS, write_index
from vfbench.clips.transform import ClipTransform
from vfbench.data import shards
from vfbench.data.shards import Shard, Source
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.plugins import Spec
from vfbench.utils import device, files
from vfbench.utils.environment import code_version
from vfbench.utils.files import require_writable


def prepare(
    dataset: str,
    output: Path,
    *,
    data_root: Path | None = None,
    height: int | None = None,
    width: int | None = None,
    workers: int | None = None,
) -> Path:
    """Prepare a dataset, such as `ucf101` or `sky_timelapse(filter='lanczos')`, in the folder `output`; returns it.

    The dataset lies in `data_root`. `workers` are threads, by default one a core. Whole shards of an earlier call are
    kept. Raises `MissingData` naming every video that cannot be decoded or has another number of frames than it
    declares, or files that changed meanwhile; `UserError` where `output` is within the dataset or holds something
    else; and `BadEnvironment` where it cannot be written or the disk is too small.
    """
    output = output.expanduser().absolute()
    spec = plugins.parse(dataset).merged({"height": height, "width": width})
    root = ["--data-root", str(data_root)] if data_root else []
    words = [str(spec), *root, "--output", str(output)]
    command = shlex.join(["python", "-m", "vfbench", "data", "prepare", *words])
    require_writable(output)
    source = _source(spec, data_root, command)
    require_outside(output, source.inventory, data_root)
    with files.held(output):
        return _prepared(source, output, workers or device.cores())


def _source(spec: Spec, root: Path | None, command: str) -> Source:
    """The files of a dataset, and the options that have to do with them."""
    data = plugins.load("dataset", spec.merged({"root": str(root) if root else None}))
    inventory = getattr(data, "inventory", None)
    if not isinstance(inventory, Inventory):
        raise UserError(f"{spec.name} has no video files to prepare: it can be read as it is")
    if inventory.fitted:
        where = next(iter(inventory.splits.values())).root
        raise UserError(f"{where} is prepared already, as {inventory.fitted}: give the folder of the original files")
    options = {**plugins.options("dataset", spec.name), **spec.options}
    fit = {name: options[name] for name in ("geometry", "filter", "antialias")}
    chosen = inspect.signature(plugins.module("dataset", spec.name).find).parameters.keys() - {"root"}
    cut = ClipTransform(data.name, data.shape, **fit)
    return Source(inventory, cut, options["decoder"], {name: options[name] for name in sorted(chosen)}, command)


def _prepared(source: Source, output: Path, workers: int) -> Path:
    _claim(source, output)
    made_of, planned = source.made_of(), shards.plan(source, output / SHARDS)
    _tidy(output / SHARDS, planned)
    keyed = [(shard, source.key(shard, made_of)) for shard in planned]
    todo = [(shard, key) for shard, key in keyed if not shards.whole(shard, key)]
    if todo:
        _require_space(output, sum(shard_size(shard.frames, *source.sides) for shard, _ in todo))
        (output / INDEX).unlink(missing_ok=True)  # it would be untrue from here on
        shards.make(source, todo, workers, sum(shard.frames for shard in planned))
    if changed := [split for split, identity in source.made_of().items() if identity != made_of[split]]:
        raise MissingData(f"files of split {changed[0]} changed while they were prepared; give the same command again")
    write_index(output, {**source.about, **_index(source, planned), "made_of": made_of})
    (output / MARK).unlink(missing_ok=True)
    return output


def _claim(source: Source, output: Path) -> None:
    """Mark the folder as being prepared; raises `UserError` where it holds something else."""
    begun = _begun(output)
    found = files.read_json(output / begun) if begun else source.about
    for name, value in source.about.items():
        if found.get(name) != value:
            said = f"{name} {found.get(name)} there, {value} asked for"
            raise UserError(f"{output} was prepared otherwise ({said}): choose another --output, or remove the folder")
    files.write_json(output / MARK, {**source.about, "command": source.command})


def _begun(output: Path) -> str:
    """The file that says what is being prepared here; empty for an empty folder. Raises `UserError` for any other."""
    names = [path.name for path in output.iterdir() if path.name != ".lock"]
    begun = next((name for name in (MARK, INDEX) if name in names), "")
    if names and not begun:
        raise UserError(f"{output} holds other files ({clips.few(sorted(names))}): choose an empty --output")
    return begun


def _tidy(folder: Path, planned: Sequence[Shard]) -> None:
    """Remove what a killed process left unfinished, and shards that are no longer part of the plan."""
    folder.mkdir(exist_ok=True)
    wanted = {path for shard in planned for path in (shard.path, shard.path.with_suffix(".json"))}
    for path in set(folder.iterdir()) - wanted:
        path.unlink()


def _require_space(output: Path, needed: int) -> None:
    free = shutil.disk_usage(output).free
    if free < needed:
        raise BadEnvironment(
            f"{output} needs {needed / 1e6:,.0f} MB more and its disk has {free / 1e6:,.0f} MB free: "
            "choose another --output, or a smaller --height and --width"
        )


def _index(source: Source, planned: Sequence[Shard]) -> dict[str, Any]:
    """What a reader must know of the dataset, and where the frames of each video are."""
    inventory = source.inventory
    videos: dict[str, list[Any]] = {split: [] for split in inventory.splits}
    records = [files.read_json(shard.path.with_suffix(".json")) for shard in planned]
    for number, (shard, record) in enumerate(zip(planned, records, strict=True)):
        row = 0
        for (split, entry, frames, height, width), rate in zip(shard.videos, record["rates"], strict=True):
            videos[split].append([entry.name, entry.group, frames, height, width, number, row, rate])
            row += frames
    return {
        "command": source.command,
        "vfbench": code_version(),
        "layout": inventory.layout,
        "copy": inventory.copy,
        "notes": list(inventory.notes),
        "classes": list(inventory.classes),
        "listed": {split: list(names) for split, names in inventory.listed.items()},
        "extra": list(inventory.extra),
        "leaked": list(inventory.leaked),
        "height": source.sides[0],
        "width": source.sides[1],
        "shards": [
            {"name": shard.path.name, "frames": shard.frames, "sha256": record["sha256"]}
            for shard, record in zip(planned, records, strict=True)
        ],
        "videos": videos,
    }
