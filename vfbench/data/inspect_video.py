"""A video of a dataset looked at: what it declares, whether it is whole and, if asked, whether every frame decodes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vfbench import clips, video
from vfbench.clips import ClipFile
from vfbench.clips.scan import frame_files, gap
from vfbench.data import avi_index, frame_rate, parallel
from vfbench.errors import MissingData
from vfbench.utils.progress import Progress, plain

BATCH = 16  # frames of a folder or array that are in memory at once


class Problem(NamedTuple):
    """What is wrong with a video: a kind of `vfbench.data.findings`, and in words."""

    kind: str
    detail: str


class VideoInfo(NamedTuple):
    """What a video shows of itself: frames, size as shown, frames a second, and what is wrong with it, if anything.

    `weight` is equal for videos that may have the same content (the sizes of their files); None where that is not
    compared. `gap` names frames between which others are missing, `uneven` says how long frames last that do not last
    equally long; `decoded` counts frames that were read.
    """

    frames: int = 0
    height: int = 0
    width: int = 0
    rate: float | None = None
    weight: str | None = None
    gap: str = ""
    uneven: str = ""
    decoded: int = 0
    trouble: Problem | None = None


Identity = tuple[int, int, int] | str


def identity(entry: ClipFile) -> Identity:
    """Equal for names of one file (links to it), however they are spelled."""
    try:
        told = entry.path.stat()
    except OSError:  # told when it is looked at
        return f"{entry.path}[{entry.row}]"
    return told.st_dev, told.st_ino, entry.row


def look_at(entries: Sequence[ClipFile], *, full: bool = False) -> list[VideoInfo]:
    """What each entry shows, with `full` after reading every frame. A file with several names is looked at once."""
    own = [identity(entry) for entry in entries]
    unique = dict(zip(reversed(own), reversed(entries), strict=True))  # the first name of each
    found: dict[Identity, VideoInfo] = {}
    progress = Progress("videos decoded" if full else "videos looked at", len(unique), "videos")
    results = parallel.each(partial(look, full=full), list(unique.values()), processes=full)
    decoded, start = 0, time.monotonic()
    for one, seen in zip(unique, results, strict=True):
        found[one] = seen
        decoded += seen.decoded
        frames = decoded / max(time.monotonic() - start, 1e-9)
        progress.advance(1, f"{plain(frames)} frames/s" if decoded else "")
    return [found[one] for one in own]


def look(entry: ClipFile, *, full: bool = False) -> VideoInfo:
    """What an entry shows; never raises, since whatever is wrong stands in `trouble`."""
    try:
        kind = {"videos": _video, "frames": _stills}.get(entry.kind, _array)
        return kind(entry, full)
    except OSError as error:
        return VideoInfo(trouble=Problem("unreadable", error.strerror or str(error)))
    except MissingData as error:
        return VideoInfo(trouble=_trouble(error, entry.path, "undecodable"))


def _video(entry: ClipFile, full: bool) -> VideoInfo:
    path = entry.path
    told = path.stat()
    if stat.S_ISREG(told.st_mode) and told.st_size == 0:
        return VideoInfo(trouble=Problem("empty", "0 bytes"))
    if not os.access(path, os.R_OK):
        return VideoInfo(trouble=Problem("unreadable", "Permission denied"))
    try:
        header = video.header(path)
    except MissingData as error:
        return VideoInfo(trouble=_trouble(error, path, "no video"))
    indexed = avi_index.counts(path)
    seen = VideoInfo(header.frames, header.height, header.width, header.rate, str(told.st_size))
    if trouble := _wrong(path, header.frames, indexed):
        seen = seen._replace(trouble=trouble)
    elif full or not indexed:  # the rate of an AVI is in its head; to look whether frames are left out takes time
        with contextlib.suppress(MissingData):  # damage is told by decoding
            seen = seen._replace(uneven=frame_rate.uneven(path, full=full))
    return _decoded(path, seen) if full else seen


def _wrong(path: Path, frames: int, indexed: tuple[int, int] | None) -> Problem | None:
    """What is wrong with a file of so many frames, as far as its size and, of an AVI, its index tell."""
    try:
        video.check_whole(path)
    except MissingData as error:
        return _trouble(error, path, "cut off")
    if frames == 0:
        return Problem("empty", "no frame")
    if indexed and frames == indexed[0] != indexed[1]:  # the head was believed, and is wrong
        return Problem("count", f"declared {frames:,}, indexed {indexed[1]:,}")
    return None


def _decoded(path: Path, seen: VideoInfo) -> VideoInfo:
    """The same with every frame decoded: how many come out, and how many should."""
    try:
        decoded = video.count_frames(path)
    except MissingData as error:
        return seen._replace(trouble=seen.trouble or _trouble(error, path, "undecodable"))
    said = f"declared {seen.frames:,}, decoded {decoded:,}"
    if seen.trouble:
        more = f", decoded {decoded:,}" if seen.trouble.kind == "count" else f"; {said}"
        return seen._replace(decoded=decoded, trouble=seen.trouble._replace(detail=f"{seen.trouble.detail}{more}"))
    return seen._replace(decoded=decoded, trouble=Problem("count", said) if decoded != seen.frames else None)


def _stills(entry: ClipFile, full: bool) -> VideoInfo:
    files = frame_files(entry.path)
    if not files:
        return VideoInfo(trouble=Problem("empty", "no image"))
    sizes = [file.stat().st_size for file in files]
    weight = hashlib.sha256(repr(sizes).encode()).hexdigest()
    if 0 in sizes:
        return VideoInfo(len(files), trouble=Problem("empty", f"{files[sizes.index(0)].name} has 0 bytes"))
    if shut := [file for file in files if not os.access(file, os.R_OK)]:
        return VideoInfo(len(files), trouble=Problem("unreadable", f"{shut[0].name}: Permission denied"))
    try:
        with Image.open(files[0]) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError) as error:  # whatever Pillow's readers raise for damage
        return VideoInfo(len(files), trouble=Problem("undecodable", f"{files[0].name}: no readable image ({error})"))
    seen = VideoInfo(len(files), height, width, None, weight, gap([file.name for file in files]))
    return _read(entry, seen) if full else seen


def _array(entry: ClipFile, full: bool) -> VideoInfo:
    frames, height, width = clips.measure(entry)
    weight = f"{frames}x{height}x{width}" if entry.kind == "arrays" else None
    seen = VideoInfo(frames, height, width, entry.rate, weight)
    return _read(entry, seen) if full else seen


def _read(entry: ClipFile, seen: VideoInfo) -> VideoInfo:
    """The same with every frame of a folder or array read, a few at a time."""
    size = None
    for start in range(0, seen.frames, BATCH):
        try:
            images = clips.read(entry, range(start, min(start + BATCH, seen.frames)))
        except MissingData as error:
            sizes = "frame size changes" in str(error)
            return seen._replace(
                decoded=start, trouble=_trouble(error, entry.path, "sizes" if sizes else "undecodable")
            )
        if size not in (None, images.shape[2:]):
            return seen._replace(decoded=start, trouble=Problem("sizes", f"another size from frame {start} on"))
        size = images.shape[2:]
    return seen._replace(decoded=seen.frames)


def _trouble(error: MissingData, path: Path, kind: str) -> Problem:
    """An error in words that do not name the file again, and do not say twice how to mend it."""
    said = str(error).removeprefix(f"{path}: ").rpartition("; ")[0] or str(error)
    said = said.replace(f"{path}{os.sep}", "").removeprefix("needs all frames from 0, ")
    cause = error.__cause__
    refused = isinstance(cause, OSError) and cause.errno is not None  # by the system; Pillow's have no number
    return Problem("unreadable" if refused else kind, said)


def contents(entries: Sequence[ClipFile]) -> Iterator[str]:
    """The SHA-256 of what each entry holds; empty for one that cannot be read."""
    return parallel.each(_content, entries)


def _content(entry: ClipFile) -> str:
    digest = hashlib.sha256()
    try:
        if entry.kind == "arrays":
            digest.update(clips.read(entry, range(clips.count(entry))).numpy().tobytes())
            return digest.hexdigest()
        files = frame_files(entry.path) if entry.kind == "frames" else [entry.path]
        for file in files:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    except (OSError, MissingData):  # told where it was looked at
        return ""
    return digest.hexdigest()
