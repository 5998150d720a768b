"""Shards of a prepared dataset: which video stands in which, and how they are written.

That is settled before the work, so that any number of workers makes the same bytes. A shard is whole or not there;
beside it stands, as JSON, what it was made of, by which the next call knows whether it can be kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vfbench import clips
from vfbench import video as codec
from vfbench.clips import ClipFile
from vfbench.clips.arrays import shard_header
from vfbench.clips.inventory import Inventory
from vfbench.clips.prepared import FORMAT
from vfbench.clips.transform import ClipTransform
from vfbench.errors import MissingData
from vfbench.interfaces import Split
from vfbench.utils import files
from vfbench.utils.files import file_sha256
from vfbench.utils.prefetch import InTurn, ahead
from vfbench.utils.progress import Progress

SHARD = 1 << 28  # bytes of frames in a shard, unless one video has more
BYTES_AT_ONCE = 1 << 27  # bytes of frames as decoded that a worker holds at a time
GROUP = 32  # frames decoded, and resized, at a time: as floats they take four times the room


class Video(NamedTuple):
    """A video to be prepared, and what its file declares: frames, height and width as shown."""

    split: Split
    entry: ClipFile
    frames: int
    height: int
    width: int


Frames: TypeAlias = UInt8[np.ndarray, "frames 3 height width"]


class Piece(NamedTuple):
    """Frames `first` to `last` of a video, the last not included; those of one file have its `groups` of frames."""

    video: Video
    first: int
    last: int
    groups: InTurn[Tensor]


class Shard(NamedTuple):
    """The videos that a shard holds, one after another, and where it stands."""

    path: Path
    videos: tuple[Video, ...]

    @property
    def frames(self) -> int:
        """The frames of all its videos."""
        return sum(video.frames for video in self.videos)


@dataclass(frozen=True)
class Source:
    """A dataset as its files stand on disk, how they are fitted and decoded, and the options that chose them.

    `command` prepares it.
    """

    inventory: Inventory
    cut: ClipTransform
    decoder: str
    options: Mapping[str, Any]
    command: str

    @property
    def about(self) -> dict[str, Any]:
        """What work that was begun must have in common with what is asked for, to be gone on with."""
        said = {"dataset": self.inventory.dataset, "fitted": self.cut.fitting, "decoder": self.decoder}
        return {"format": FORMAT, **said, "options": dict(self.options)}

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of prepared frames."""
        return self.cut.shape.height, self.cut.shape.width

    def made_of(self) -> dict[Split, str]:
        """What tells the pixels of each split from all others, as the files are now."""
        return {split: self.inventory.identity(split, self.decoder) for split in self.inventory.splits}

    def key(self, shard: Shard, made_of: Mapping[Split, str]) -> str:
        """SHA-256 of all that determines the bytes of a shard, with no more of the files than it is made of."""
        digest = hashlib.sha256(f"{FORMAT} {self.cut.fitting}".encode())
        for split, found in self.inventory.splits.items():
            videos = [video for video in shard.videos if video.split == split]
            for video in videos:
                digest.update(f"\n{video.entry.name} {video.frames}".encode(errors="surrogateescape"))
            if found.kind == "arrays":  # the rows of one file, which is hashed whole
                digest.update(f"\n{made_of[split]}".encode())
            elif videos:
                part = replace(found, entries=tuple(video.entry for video in videos))
                files_alone = replace(self.inventory, splits={split: part})
                digest.update(f"\n{files_alone.identity(split, self.decoder)}".encode())
        return digest.hexdigest()


def plan(source: Source, folder: Path) -> list[Shard]:
    """Which videos go to which shard of the folder, in the order of splits and names.

    Raises `MissingData` naming all videos that cannot be opened.
    """
    shards: list[list[Video]] = []
    room = 0
    for video in _videos(source.inventory):
        size = video.frames * 3 * math.prod(source.sides)
        if size > room or not shards:
            shards.append([])
            room = SHARD
        shards[-1].append(video)
        room -= size
    return [Shard(folder / f"{i:06d}.npy", tuple(videos)) for i, videos in enumerate(shards)]


def _videos(inventory: Inventory) -> list[Video]:
    """All videos with what their files declare; raises `MissingData` naming all that cannot be opened."""
    there = [(split, entry) for split, found in inventory.splits.items() for entry in found.entries]
    try:
        sizes = clips.measures([entry for _, entry in there])
    except MissingData:
        raise _unreadable(inventory, [fault for _, entry in there if (fault := _fault(entry))]) from None
    return [Video(split, entry, *size) for (split, entry), size in zip(there, sizes, strict=True)]


def _fault(entry: ClipFile) -> str:
    try:
        clips.measure(entry)
    except MissingData as error:
        return str(error)
    return ""


def _unreadable(inventory: Inventory, faults: Sequence[str]) -> MissingData:
    """The error that names every video that is not whole: nothing is prepared with fewer."""
    lines = "\n  ".join(faults)
    return MissingData(
        f"{inventory.dataset}: {len(faults):,} videos cannot be prepared:\n  {lines}\n"
        "Get these again, then give the same command again: what is done is kept. Or take them out and begin anew"
    )


def whole(shard: Shard, key: str) -> bool:
    """Whether a shard stands there as it was written, made of the same files."""
    record = shard.path.with_suffix(".json")
    if not (shard.path.is_file() and record.is_file()):
        return False
    there = files.read_json(record)
    return there.get("key") == key and there.get("sha256") == file_sha256(shard.path)


def make(source: Source, todo: Sequence[tuple[Shard, str]], workers: int, frames: int) -> None:
    """Write shards, each with its key; raises `MissingData` naming all videos that cannot be decoded, after the others.

    `frames` is how many all shards have, with those that are not to do.
    """
    done = frames - sum(shard.frames for shard, _ in todo)
    progress = Progress(f"prepare {source.inventory.dataset}", frames, "frames", done=done)
    pieces = [piece for shard, _ in todo for video in shard.videos for piece in _pieces(source, video)]
    faults: dict[str, str] = {}
    with contextlib.closing(_fitted(source, pieces, workers)) as made:
        for shard, key in todo:
            if digest := _write(shard, source.sides, made, progress, faults):
                rates = [_rate(video.entry) for video in shard.videos]
                record = {"key": key, "frames": shard.frames, "sha256": digest, "rates": rates}
                files.write_json(shard.path.with_suffix(".json"), record)
    if faults:
        raise _unreadable(source.inventory, list(faults.values()))


def _rate(entry: ClipFile) -> float | None:
    """Frames a second, where a file says it."""
    return codec.header(entry.path).rate if entry.kind == "videos" else None


def _pieces(source: Source, video: Video) -> list[Piece]:
    """The frames of a video in parts that fit into memory; a video without frames is a part, to be found out."""
    step = max(BYTES_AT_ONCE // (3 * video.height * video.width) // GROUP, 1) * GROUP
    groups = InTurn(_groups(source, video))
    return [
        Piece(video, first, min(first + step, video.frames), groups) for first in range(0, max(video.frames, 1), step)
    ]


def _groups(source: Source, video: Video) -> Iterator[Tensor]:
    """All frames of a video, some at a time. A video file is opened once, and has as many as it declares."""
    entry, base = video.entry, source.inventory.splits[video.split].base
    if entry.kind == "videos":
        codec.check_whole(entry.path)
        yield from codec.frames(entry.path, group=GROUP, decoder=source.decoder)
        return
    for first in range(0, video.frames, GROUP):
        yield clips.read(entry, range(first, min(first + GROUP, video.frames)), root=base)


def _fitted(
    source: Source, pieces: Sequence[Piece], workers: int
) -> Generator[tuple[Piece, Frames | MissingData], None, None]:
    """The frames of every piece as they are kept, or why there are none, in the order of the pieces.

    Threads, not processes: decoders and resizing let other threads run. Of one video, the next piece is decoded while
    this one is resized.
    """

    def fit(i: int) -> tuple[Piece, Frames | MissingData]:
        video, first, last, groups = pieces[i]
        name = str(source.inventory.splits[video.split].base / video.entry.name)
        try:
            images = groups.take(first // GROUP, max(-(-(last - first) // GROUP), 1))
            parts = [source.cut.fit(group, name) for group in images]
        except MissingData as error:
            return pieces[i], error
        return pieces[i], np.ascontiguousarray(torch.cat(parts).numpy())

    return ahead(fit, range(len(pieces)), workers=workers, depth=2 * workers)


class _Broken(Exception):
    """A shard that stays unwritten, since one of its videos cannot be decoded."""


def _write(
    shard: Shard,
    sides: tuple[int, int],
    made: Iterator[tuple[Piece, Frames | MissingData]],
    progress: Progress,
    faults: dict[str, str],
) -> str:
    """Write a shard, whole or not at all; returns its SHA-256, or nothing where a video is added to `faults`."""
    header = shard_header(shard.frames, *sides)
    digest, left, broken = hashlib.sha256(header), shard.frames, False
    with contextlib.suppress(_Broken), files.replacing(shard.path) as temporary, temporary.open("wb") as file:
        file.write(header)
        while left:
            (video, first, last, _), found = next(made)
            left -= last - first
            if isinstance(found, MissingData):
                faults.setdefault(video.entry.name, str(found))
                broken = True
            else:
                file.write(found.data)
                digest.update(found.data)
            progress.advance(last - first)
        if broken:
            raise _Broken
    return "" if broken else digest.hexdigest()
