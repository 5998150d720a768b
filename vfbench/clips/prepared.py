"""Prepared datasets: the output of `vfbench data prepare`, read in place of the source dataset.

OUT/prepared.json       index of the videos, their shards and their source, with its own SHA-256
OUT/shards/000000.npy   uint8 (N, 3, H, W): cropped and resized frames of complete videos, one after another
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from filelock import FileLock
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from vfbench.clips import ClipFile, ClipFolder
from vfbench.clips.arrays import shard_size
from vfbench.clips.inventory import Inventory
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Split
from vfbench.utils import records
from vfbench.utils.files import file_key, file_sha256, json_digest, load_cache, read_json, save_cache, write_json
from vfbench.utils.prefetch import prefetch
from vfbench.utils.progress import Progress
from vfbench.utils.records import Count, Hash, Size, Text
from vfbench.utils.store import Store, local_path

INDEX, UNFINISHED, SHARDS = "prepared.json", "preparing.json", "shards"
VERIFIED = "shards.json"  # in the cache: shards with a verified hash
FORMAT = 2
HASH_THREADS = 2  # the disk limits more


def _own_command(text: object) -> str:
    """Check a `data prepare` command read from a file, so that no message shows the user any other command."""
    words = shlex.split(text) if isinstance(text, str) else []
    if words[:5] != ["python", "-m", "vfbench", "data", "prepare"] or shlex.join(words) != text:
        raise ValueError("not a command of vfbench")
    return shlex.join(words)


Command = Annotated[str, AfterValidator(_own_command)]


class PreparedVideo(NamedTuple):
    """One video: its size, the number of its shard, and its first row in it; `rate` in frames per second."""

    name: Text
    class_name: Text
    frames: Count
    height: Count
    width: Count
    shard: Count
    row: Count
    rate: float | None


class PreparedShard(BaseModel):
    """One file of frames."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, Field(pattern=r"^[0-9]{6}\.npy$")]  # in the folder of shards, and nowhere else
    frames: Count
    sha256: Hash


class PreparedIndex(BaseModel):
    """Content of `prepared.json`: settings, shards, videos by split, and the inventory of the original dataset."""

    model_config = ConfigDict(frozen=True)

    format: int
    dataset: str
    fitted: str  # size and geometry, as `ClipTransform.fitting` has them
    decoder: str
    options: Mapping[str, Any]  # of the dataset, that select its videos
    command: Command  # that prepares the folder
    vfbench: str  # version of the code
    layout: str
    copy_: str = Field(alias="copy")
    notes: tuple[str, ...]
    classes: tuple[str, ...]
    listed: Mapping[Split, tuple[str, ...]]
    extra: tuple[str, ...]
    leaked: tuple[str, ...]
    height: Size
    width: Size
    shards: tuple[PreparedShard, ...]
    videos: Mapping[Split, tuple[PreparedVideo, ...]]
    made_of: Mapping[Split, str]  # identity of each split's original files

    @model_validator(mode="after")
    def _videos_in_shards(self) -> PreparedIndex:
        for video in (video for videos in self.videos.values() for video in videos):
            if video.shard >= len(self.shards) or video.row + video.frames > self.shards[video.shard].frames:
                raise ValueError(f"{video.name} is not within its shard")
        return self


def local_root(root: str) -> Path:
    """Folder of a dataset on this machine: of a URL, the copy of the prepared dataset there in the cache folder.

    Fetches what the copy lacks. Raises `MissingData` where the object store has no prepared dataset at this URL.
    """
    remote = Store.of(root)
    if remote is None:
        return local_path(root).expanduser()
    remote.copy.mkdir(parents=True, exist_ok=True)
    with FileLock(remote.copy / ".lock"):  # processes of one machine fetch a shard once
        if not remote.fetch(INDEX):
            raise MissingData(
                f"{remote.url} holds no {INDEX}: from an object store, only prepared datasets are read; copy what "
                "`data prepare` writes there"
            )
        names = [f"{SHARDS}/{shard.name}" for shard in read_index(remote.copy).shards]
        work = prefetch(lambda number: remote.fetch(names[number]), range(len(names)), workers=4, depth=8)
        with closing(work) as results, Progress(f"fetched of {remote.url}", len(names), "shards") as progress:
            for _ in results:
                progress.advance(1)
    return remote.copy


def read_inventory(
    root: Path, dataset: str, *, origin: Callable[[str], str] = str, **options: object
) -> Inventory | None:
    """Inventory of the prepared videos in `root`; None where there are none.

    `options` select the videos, such as `split_list=2`. `origin` maps a video's name to its recording. Raises
    `MissingData` for an index that is damaged or of another dataset, an unfinished preparation, and a shard that is
    missing or cut off; `UserError` for options that differ from those of the preparation.
    """
    if not (root / INDEX).is_file():
        if (root / UNFINISHED).is_file():
            raise MissingData(f"{root} is only partly prepared; repeat the command that began it{_unfinished(root)}")
        return None
    index = read_index(root)
    if index.dataset != dataset:
        raise MissingData(f"{root} was prepared from {index.dataset}, not from {dataset}: give another folder")
    for name, value in options.items():
        if name in index.options and index.options[name] != value:
            used = f"{name}={index.options[name]!r}"
            raise UserError(
                f"{dataset}({name}={value!r}): {root} was prepared with {used}; use that, or prepare another folder"
            )
    if faults := [fault for shard in index.shards if (fault := _size_fault(root, index, shard))]:
        raise MissingData(f"{faults[0]}; repeat the command that wrote it\n  {index.command}")
    return _inventory(root, index, origin)


def _unfinished(root: Path) -> str:
    """The command that prepares a folder, on a line of its own; empty where its record is damaged."""
    try:
        return f"\n  {_own_command(read_json(root / UNFINISHED)['command'])}"
    except (KeyError, ValueError, MissingData):
        return ""


def require_intact(root: Path) -> None:
    """Verify the SHA-256 of every shard of a prepared folder.

    The cache remembers verified shards by path, size and modification time, so that later calls skip them. Raises
    `MissingData` naming a damaged shard, with the command that writes it again.
    """
    index = read_index(root)
    shards = index.shards
    keys = [json_digest({"stamp": file_key(root / SHARDS / shard.name), "sha256": shard.sha256}) for shard in shards]
    verified = load_cache(VERIFIED)
    unverified = [number for number, key in enumerate(keys) if key not in verified]
    for number, fault in zip(unverified, _faults(root, index, unverified), strict=True):
        if fault:
            raise MissingData(f"{fault}; repeat the command that wrote it\n  {index.command}")
        verified[keys[number]] = shards[number].name
    if unverified:
        save_cache(VERIFIED, verified)


def damaged_shards(root: Path) -> list[str]:
    """Faults of the shards of a prepared folder, a line each: missing, cut off, or changed bytes.

    Reads every byte. Repeating the command that prepared the folder writes faulty shards again. Raises `MissingData`
    for a missing or damaged index.
    """
    index = read_index(root)
    return [fault for fault in _faults(root, index, range(len(index.shards))) if fault]


def _faults(root: Path, index: PreparedIndex, numbers: Sequence[int]) -> list[str]:
    """Fault of each shard in `numbers`; empty for an intact one."""
    faults = []
    work = prefetch(partial(_fault, root, index), numbers, workers=HASH_THREADS, depth=HASH_THREADS)
    with closing(work) as results, Progress("verified", len(numbers), "shards") as progress:
        for fault in results:
            progress.advance(1)
            faults.append(fault)
    return faults


def read_index(root: Path) -> PreparedIndex:
    """Read the index of a prepared folder; raises `MissingData` for a damaged index or another format."""
    path = root / INDEX
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise MissingData(f"{path} has format {content.get('format')}, known: {FORMAT}; prepare another folder")
    if content.pop("sha256", None) != json_digest(content):
        raise MissingData(f"{path} is damaged: its content does not match its hash; prepare this folder again")
    return records.validate(PreparedIndex, content, path, "prepare another folder")


def write_index(root: Path, index: PreparedIndex) -> None:
    """Write the index with its hash, atomically."""
    content = index.model_dump(mode="json", by_alias=True)
    write_json(root / INDEX, {**content, "sha256": json_digest(content)})


def _inventory(root: Path, index: PreparedIndex, origin: Callable[[str], str]) -> Inventory:
    shards = [root / SHARDS / shard.name for shard in index.shards]
    splits: dict[Split, ClipFolder] = {}
    for split, videos in index.videos.items():
        entries = (
            ClipFile(name, shards[shard], row, class_name, "prepared", frames, (height, width), rate)
            for name, class_name, frames, height, width, shard, row, rate in videos
        )
        splits[split] = ClipFolder(root, "prepared", tuple(entries))
    return Inventory(
        index.dataset,
        f"prepared from {index.layout}",
        index.copy_,
        splits,
        index.classes,
        index.listed,
        index.extra,
        origin=origin,
        notes=index.notes,
        source_identities=index.made_of,
        fitted=index.fitted,
        decoder=index.decoder,
        leaked=index.leaked,
    )


def _fault(root: Path, index: PreparedIndex, number: int) -> str:
    """Fault of a shard by size and hash; empty for an intact one."""
    shard = index.shards[number]
    if fault := _size_fault(root, index, shard):
        return fault
    path = root / SHARDS / shard.name
    try:
        intact = file_sha256(path) == shard.sha256
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if intact else f"{path}: its bytes have changed since it was prepared"


def _size_fault(root: Path, index: PreparedIndex, shard: PreparedShard) -> str:
    """Fault of a shard by its size; empty for the right size."""
    path = root / SHARDS / shard.name
    expected = shard_size(shard.frames, index.height, index.width)
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if size == expected else f"{path}: cut off, {size:,} of {expected:,} bytes"
