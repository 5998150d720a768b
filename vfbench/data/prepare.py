"""Preparation of a dataset: every frame of every video, cropped and resized once, in memory-mapped files.

`vfbench.clips.prepared` reads the result, with the same clips bit for bit and the same fingerprint as the original
files. Frames are stored in shards (`vfbench.data.shards`). The index is written last; until then, a marker file holds
the command that continues the work.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from vfbench import clips, plugins
from vfbench.clips.arrays import shard_size
from vfbench.clips.inventory import inventory_of, require_outside
from vfbench.clips.prepared import (
    INDEX,
    SHARDS,
    UNFINISHED,
    PreparedIndex,
    PreparedShard,
    PreparedVideo,
    write_index,
)
from vfbench.clips.transform import ClipTransform
from vfbench.data import shards
from vfbench.data.shards import PrepareSource, Shard
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import Split
from vfbench.plugins import Spec
from vfbench.utils import device, files, store
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

    Reads the dataset from `data_root` with `workers` threads, by default one per core. Keeps finished shards of an
    earlier call. Raises `MissingData` naming every video that cannot be decoded or has another number of frames than
    it declares, or where files change during the work; `UserError` where `output` is inside the dataset's folder or
    holds other files; and `BadEnvironment` where it cannot be written or the disk is too small.
    """
    store.require_local("--output", output)
    output = output.expanduser().absolute()
    spec = plugins.parse(dataset).merged({"height": height, "width": width})
    root = ["--data-root", str(data_root)] if data_root else []
    arguments = [str(spec), *root, "--output", str(output)]
    command = shlex.join(["python", "-m", "vfbench", "data", "prepare", *arguments])
    require_writable(output)
    source = _load_source(spec, data_root, command)
    require_outside(output, source.inventory, data_root)
    with files.locked_folder(output):
        return _prepare(source, output, workers or device.available_cores())


def _load_source(spec: Spec, root: Path | None, command: str) -> PrepareSource:
    """Load a dataset of original files, with its transform and the options of its `find`."""
    dataset = plugins.load("dataset", spec.merged({"root": str(root) if root else None}))
    inventory = inventory_of(dataset)
    if inventory is None:
        raise UserError(f"{spec.name} has no video files, so there is nothing to prepare: use it as it is")
    if inventory.fitted:
        folder = next(iter(inventory.splits.values())).root
        raise UserError(f"{folder} is already prepared, as {inventory.fitted}: give the folder of the original files")
    options = {**plugins.options("dataset", spec.name), **spec.options}
    fit = {name: options[name] for name in ("geometry", "filter", "antialias")}
    transform = ClipTransform(dataset.name, dataset.shape, **fit)
    chosen = {name: options[name] for name in sorted(plugins.options("dataset", spec.name, "find"))}
    return PrepareSource(inventory, transform, options["decoder"], chosen, command)


def _prepare(source: PrepareSource, output: Path, workers: int) -> Path:
    _claim_folder(source, output)
    identities, planned = source.identities(), shards.plan_shards(source, output / SHARDS)
    _remove_stale(output / SHARDS, planned)
    keyed = [(shard, source.key(shard, identities)) for shard in planned]
    pending = [(shard, key) for shard, key in keyed if not shards.is_complete(shard, key)]
    if pending:
        _require_space(output, sum(shard_size(shard.frames, *source.size) for shard, _ in pending))
        (output / INDEX).unlink(missing_ok=True)  # out of date once a shard changes
        shards.write_shards(source, pending, workers, sum(shard.frames for shard in planned))
    if changed := [split for split, identity in source.identities().items() if identity != identities[split]]:
        raise MissingData(f"files of split {changed[0]} changed while they were prepared; repeat the command")
    write_index(output, _build_index(source, planned, identities))
    (output / UNFINISHED).unlink(missing_ok=True)
    return output


def _claim_folder(source: PrepareSource, output: Path) -> None:
    """Mark the folder as being prepared; raises `UserError` where it holds something else."""
    name = _settings_file(output)
    stored = files.read_json(output / name) if name else source.settings
    for setting, value in source.settings.items():
        if stored.get(setting) != value:
            raise UserError(
                f"{output} was prepared with {setting} {stored.get(setting)}, not {value}: choose another --output, or "
                "remove the folder"
            )
    files.write_json(output / UNFINISHED, {**source.settings, "command": source.command})


def _settings_file(output: Path) -> str:
    """Name of the file with the settings of earlier work; empty for an empty folder. Raises `UserError` for others."""
    names = [path.name for path in output.iterdir() if path.name != ".lock"]
    settings_file = next((name for name in (UNFINISHED, INDEX) if name in names), "")
    if names and not settings_file:
        raise UserError(f"{output} holds other files ({clips.first_few(sorted(names))}): choose an empty --output")
    return settings_file


def _remove_stale(folder: Path, planned: Sequence[Shard]) -> None:
    """Remove temporary files of a killed process, and shards that are no longer planned."""
    folder.mkdir(exist_ok=True)
    current = {path for shard in planned for path in (shard.path, shard.path.with_suffix(".json"))}
    for path in set(folder.iterdir()) - current:
        path.unlink()


def _require_space(output: Path, needed: int) -> None:
    free = shutil.disk_usage(output).free
    if free < needed:
        raise BadEnvironment(
            f"{output} needs {needed / 1e6:,.0f} MB more and its disk has {free / 1e6:,.0f} MB free: "
            "choose another --output, or a smaller --height and --width"
        )


def _build_index(source: PrepareSource, planned: Sequence[Shard], identities: Mapping[Split, str]) -> PreparedIndex:
    """Index of a prepared dataset: its inventory, and the shard and first row of each video."""
    inventory = source.inventory
    videos: dict[Split, list[PreparedVideo]] = {split: [] for split in inventory.splits}
    records = [files.read_json(shard.path.with_suffix(".json")) for shard in planned]
    for number, (shard, record) in enumerate(zip(planned, records, strict=True)):
        row = 0
        for (split, entry, frames, height, width), rate in zip(shard.videos, record["rates"], strict=True):
            sizes = (frames, height, width)
            videos[split].append(PreparedVideo(entry.name, entry.class_name, *sizes, number, row, rate))
            row += frames
    return PreparedIndex(
        **source.settings,
        command=source.command,
        vfbench=code_version(),
        layout=inventory.layout,
        copy=inventory.copy,
        notes=inventory.notes,
        classes=inventory.classes,
        listed=inventory.listed,
        extra=inventory.extra,
        leaked=inventory.leaked,
        height=source.size[0],
        width=source.size[1],
        shards=tuple(
            PreparedShard(name=shard.path.name, frames=shard.frames, sha256=record["sha256"])
            for shard, record in zip(planned, records, strict=True)
        ),
        videos={split: tuple(rows) for split, rows in videos.items()},
        made_of=identities,
    )
