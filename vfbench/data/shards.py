"""Shards of a prepared dataset: assignment of videos to shards, and writing.

The assignment is fixed before the work starts, so any number of workers writes the same bytes. A shard is written
completely or not at all. A JSON file beside it records a key of its sources; the next call keeps shards whose key
still matches.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
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
from vfbench.utils.prefetch import SharedIterator, prefetch
from vfbench.utils.progress import Progress

SHARD_BYTES = 1 << 28  # bytes of frames in a shard, unless one video has more
BYTES_AT_ONCE = 1 << 27  # bytes of decoded frames that a worker holds at a time
GROUP_FRAMES = 32  # frames decoded and resized at a time; resizing in float32 takes four times the memory


class Video(NamedTuple):
    """A video to prepare, with the declared number of frames and the displayed height and width."""

    split: Split
    entry: ClipFile
    frames: int
    height: int
    width: int


Frames: TypeAlias = UInt8[np.ndarray, "frames 3 height width"]


class Piece(NamedTuple):
    """Frames `first` to `last` (exclusive) of a video. All pieces of a video share its iterator of frame groups."""

    video: Video
    first: int
    last: int
    groups: SharedIterator[Tensor]


class Shard(NamedTuple):
    """A shard file and the videos it holds, in order."""

    path: Path
    videos: tuple[Video, ...]

    @property
    def frames(self) -> int:
        """Total number of frames."""
        return sum(video.frames for video in self.videos)


@dataclass(frozen=True)
class PrepareSource:
    """An original dataset with its transform and decoder, the `find` options that chose it, and the command to run."""

    inventory: Inventory
    transform: ClipTransform
    decoder: str
    options: Mapping[str, Any]
    command: str

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that unfinished work must share with a new call to be continued."""
        fields = {"dataset": self.inventory.dataset, "fitted": self.transform.fitting, "decoder": self.decoder}
        return {"format": FORMAT, **fields, "options": dict(self.options)}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of prepared frames."""
        return self.transform.shape.height, self.transform.shape.width

    def identities(self) -> dict[Split, str]:
        """Identity of each split's pixels (decoder and file hash), from the files as they are now."""
        return {split: self.inventory.identity(split, self.decoder) for split in self.inventory.splits}

    def key(self, shard: Shard, identities: Mapping[Split, str]) -> str:
        """SHA-256 of all that determines the bytes of a shard; files of arrays count as a whole split."""
        digest = hashlib.sha256(f"{FORMAT} {self.transform.fitting}".encode())
        for split, folder in self.inventory.splits.items():
            videos = [video for video in shard.videos if video.split == split]
            for video in videos:
                digest.update(f"\n{video.entry.name} {video.frames}".encode(errors="surrogateescape"))
            if folder.kind == "arrays":  # rows of shared files: use the identity of the split
                digest.update(f"\n{identities[split]}".encode())
            elif videos:
                part = replace(folder, entries=tuple(video.entry for video in videos))
                part_inventory = replace(self.inventory, splits={split: part})
                digest.update(f"\n{part_inventory.identity(split, self.decoder)}".encode())
        return digest.hexdigest()


def plan_shards(source: PrepareSource, folder: Path) -> list[Shard]:
    """Assign all videos, in the order of splits and names, to shards in a folder.

    Raises `MissingData` naming all videos that cannot be opened.
    """
    shards: list[list[Video]] = []
    room = 0
    for video in _list_videos(source.inventory):
        size = video.frames * 3 * math.prod(source.size)
        if size > room or not shards:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(video)
        room -= size
    return [Shard(folder / f"{i:06d}.npy", tuple(videos)) for i, videos in enumerate(shards)]


def _list_videos(inventory: Inventory) -> list[Video]:
    """All videos with their declared sizes; raises `MissingData` naming all that cannot be opened."""
    entries = [(split, entry) for split, folder in inventory.splits.items() for entry in folder.entries]
    try:
        sizes = clips.measure_all([entry for _, entry in entries])
    except MissingData:
        faults = [fault for _, entry in entries if (fault := _open_fault(entry))]
        raise _unreadable_error(inventory, faults) from None
    return [Video(split, entry, *size) for (split, entry), size in zip(entries, sizes, strict=True)]


def _open_fault(entry: ClipFile) -> str:
    try:
        clips.measure(entry)
    except MissingData as error:
        return str(error)
    return ""


def _unreadable_error(inventory: Inventory, faults: Sequence[str]) -> MissingData:
    """Error that names every unreadable video: a dataset is never prepared without them."""
    lines = "\n  ".join(faults)
    return MissingData(
        f"{inventory.dataset}: {len(faults):,} videos cannot be prepared:\n  {lines}\n"
        "Get these again and repeat the command, which keeps finished shards; or take them out and start again"
    )


def is_complete(shard: Shard, key: str) -> bool:
    """True where the shard file has its recorded hash, and its sources have not changed."""
    path = shard.path.with_suffix(".json")
    if not (shard.path.is_file() and path.is_file()):
        return False
    record = files.read_json(path)
    rates = record.get("rates")
    if not isinstance(rates, list) or len(rates) != len(shard.videos):
        return False
    return record.get("key") == key and record.get("sha256") == file_sha256(shard.path)


def write_shards(source: PrepareSource, pending: Sequence[tuple[Shard, str]], workers: int, total_frames: int) -> None:
    """Write shards, each given with its key. `total_frames` counts the frames of all shards, finished ones included.

    Raises `MissingData` naming all videos that cannot be decoded, after writing every other shard.
    """
    done = total_frames - sum(shard.frames for shard, _ in pending)
    progress = Progress(f"prepare {source.inventory.dataset}", total_frames, "frames", done=done)
    of_shards = [[piece for video in shard.videos for piece in _pieces(source, video)] for shard, _ in pending]
    pieces = list(chain.from_iterable(of_shards))
    faults: dict[str, str] = {}
    with contextlib.closing(_transform_pieces(source, pieces, workers)) as results, progress:
        for (shard, key), own in zip(pending, of_shards, strict=True):
            if digest := _write_shard(shard, source.size, islice(results, len(own)), progress, faults):
                rates = [_frame_rate(video.entry) for video in shard.videos]
                record = {"key": key, "frames": shard.frames, "sha256": digest, "rates": rates}
                files.write_json(shard.path.with_suffix(".json"), record)
    if faults:
        raise _unreadable_error(source.inventory, list(faults.values()))


def _frame_rate(entry: ClipFile) -> float | None:
    """Frames per second, where the file declares it."""
    return codec.header(entry.path).rate if entry.kind == "videos" else None


def _pieces(source: PrepareSource, video: Video) -> list[Piece]:
    """Pieces of a video that fit into memory. A video that declares no frames is one piece, so that it is decoded."""
    step = max(BYTES_AT_ONCE // (3 * video.height * video.width) // GROUP_FRAMES, 1) * GROUP_FRAMES
    groups = SharedIterator(_decode_groups(source, video))
    return [
        Piece(video, first, min(first + step, video.frames), groups) for first in range(0, max(video.frames, 1), step)
    ]


def _decode_groups(source: PrepareSource, video: Video) -> Iterator[Tensor]:
    """All frames of a video, `GROUP_FRAMES` at a time, from a single pass over a video file.

    Raises `MissingData` where a video file has another number of frames than it declares.
    """
    entry, base = video.entry, source.inventory.splits[video.split].base
    if entry.kind == "videos":
        codec.check_complete(entry.path)
        yield from codec.frame_groups(entry.path, group=GROUP_FRAMES, decoder=source.decoder)
        return
    for first in range(0, video.frames, GROUP_FRAMES):
        yield clips.read_frames(entry, range(first, min(first + GROUP_FRAMES, video.frames)), root=base)


def _transform_pieces(
    source: PrepareSource, pieces: Sequence[Piece], workers: int
) -> Generator[tuple[Piece, Frames | MissingData], None, None]:
    """Cropped and resized frames of each piece, in order, or the error that stopped it.

    Uses threads, since decoders and resizing release the interpreter lock. While a piece of a video is resized, its
    next piece is decoded.
    """

    def transform(i: int) -> tuple[Piece, Frames | MissingData]:
        video, first, last, groups = pieces[i]
        name = str(source.inventory.splits[video.split].base / video.entry.name)
        try:
            images = groups.take(first // GROUP_FRAMES, max(-(-(last - first) // GROUP_FRAMES), 1))
            parts = [source.transform.fit(group, name) for group in images]
        except MissingData as error:
            return pieces[i], error
        return pieces[i], np.ascontiguousarray(torch.cat(parts).numpy())

    return prefetch(transform, range(len(pieces)), workers=workers, depth=2 * workers)


class _FailedShard(Exception):
    """Internal signal: discard a shard, since one of its videos cannot be decoded."""


def _write_shard(
    shard: Shard,
    size: tuple[int, int],
    results: Iterator[tuple[Piece, Frames | MissingData]],
    progress: Progress,
    faults: dict[str, str],
) -> str:
    """Write a shard and return its SHA-256; on a faulty video, write nothing, add to `faults` and return empty."""
    header = shard_header(shard.frames, *size)
    digest, failed = hashlib.sha256(header), False
    with contextlib.suppress(_FailedShard), files.atomic_path(shard.path) as temporary, temporary.open("wb") as file:
        file.write(header)
        for (video, first, last, _), frames in results:
            if isinstance(frames, MissingData):
                faults.setdefault(video.entry.name, str(frames))
                failed = True
            else:
                file.write(frames.data)
                digest.update(frames.data)
            progress.advance(last - first)
        if failed:
            raise _FailedShard
    return "" if failed else digest.hexdigest()
