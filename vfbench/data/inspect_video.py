"""Inspection of one video of a dataset: declared properties, damage and, in full mode, decoding of every frame."""

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

from vfbench import clips, video
from vfbench.clips import ClipFile
from vfbench.clips.scan import first_gap, frame_files, strangers
from vfbench.data import frame_rate, parallel
from vfbench.errors import MissingData
from vfbench.utils.files import open_file
from vfbench.utils.progress import Progress, format_rate
from vfbench.video.images import open_image
from vfbench.video.riff import frame_counts

FRAMES_AT_ONCE = 16  # frames of a folder or array in memory at a time


class Problem(NamedTuple):
    """A fault of a video: a kind of `vfbench.data.findings.KINDS`, and a detail to print."""

    kind: str
    detail: str


class VideoInfo(NamedTuple):
    """Properties of a video: number of frames, displayed height and width, frames per second, and its first problem.

    `size_key` is equal for videos that may have the same content (file sizes); None where copies are not looked for.
    `gap` names the frames around a missing one, `stranger` an image named unlike the other frames, `uneven` is the
    range of unequal frame durations, and `decoded` counts the frames read.
    """

    frames: int = 0
    height: int = 0
    width: int = 0
    rate: float | None = None
    size_key: str | None = None
    gap: str = ""
    uneven: str = ""
    decoded: int = 0
    problem: Problem | None = None
    stranger: str = ""


FileIdentity = tuple[int, int, int] | str


def file_identity(entry: ClipFile) -> FileIdentity:
    """Device, inode and row of an entry: equal for all links to one file."""
    try:
        status = entry.path.stat()
    except OSError:  # reported by `inspect_entry`
        return f"{entry.path}[{entry.row}]"
    return status.st_dev, status.st_ino, entry.row


def inspect_entries(entries: Sequence[ClipFile], *, full: bool = False) -> list[VideoInfo]:
    """Inspection of each entry, with `full` after decoding every frame. A file with several names is inspected once."""
    identities = [file_identity(entry) for entry in entries]
    unique = dict(zip(reversed(identities), reversed(entries), strict=True))  # the first name of each file
    infos: dict[FileIdentity, VideoInfo] = {}
    results = parallel.map_ordered(partial(inspect_entry, full=full), list(unique.values()), processes=full)
    decoded, start = 0, time.monotonic()
    with Progress("videos decoded" if full else "videos checked", len(unique), "videos") as progress:
        for identity, info in zip(unique, results, strict=True):
            infos[identity] = info
            decoded += info.decoded
            rate = decoded / max(time.monotonic() - start, 1e-9)
            progress.advance(1, f"{format_rate(rate)} frames/s" if decoded else "")
    return [infos[identity] for identity in identities]


def inspect_entry(entry: ClipFile, *, full: bool = False) -> VideoInfo:
    """Inspect one entry, with `full` by decoding every frame. Never raises: a fault is returned as `problem`."""
    try:
        inspect = {"videos": _inspect_video, "frames": _inspect_frames}.get(entry.kind, _inspect_array)
        return inspect(entry, full)
    except OSError as error:
        return VideoInfo(problem=Problem("unreadable", error.strerror or str(error)))
    except MissingData as error:
        return VideoInfo(problem=_to_problem(error, entry.path, "undecodable"))


def _inspect_video(entry: ClipFile, full: bool) -> VideoInfo:
    path = entry.path
    status = path.stat()
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        return VideoInfo(problem=Problem("empty", "0 bytes"))
    if not os.access(path, os.R_OK):
        return VideoInfo(problem=Problem("unreadable", "Permission denied"))
    try:
        header = video.header(path)
    except MissingData as error:
        return VideoInfo(problem=_to_problem(error, path, "no video"))
    avi_counts = frame_counts(path)
    info = VideoInfo(header.frames, header.height, header.width, header.rate, str(status.st_size))
    if problem := _file_problem(path, header.frames, avi_counts):
        info = info._replace(problem=problem)
    elif full or not avi_counts:  # an AVI declares one rate; finding left-out frames means reading all its packets
        with contextlib.suppress(MissingData):  # decoding reports the damage
            info = info._replace(uneven=frame_rate.uneven_durations(path, full=full))
    return _decode_video(path, info) if full else info


def _file_problem(path: Path, frames: int, avi_counts: tuple[int, int] | None) -> Problem | None:
    """Fault of a file that its size, its number of frames or, for an AVI, its index shows."""
    try:
        video.check_complete(path)
    except MissingData as error:
        return _to_problem(error, path, "cut off")
    if frames == 0:
        return Problem("empty", "no frame")
    if avi_counts and frames == avi_counts[0] != avi_counts[1]:  # `frames` comes from the header, which is wrong
        return Problem("count", f"declared {frames:,}, indexed {avi_counts[1]:,}")
    return None


def _decode_video(path: Path, info: VideoInfo) -> VideoInfo:
    """Decode every frame, and report a number that differs from the declared one."""
    try:
        decoded = video.count_frames(path)
    except MissingData as error:
        return info._replace(problem=info.problem or _to_problem(error, path, "undecodable"))
    counts = f"declared {info.frames:,}, decoded {decoded:,}"
    if info.problem:
        more = f", decoded {decoded:,}" if info.problem.kind == "count" else f"; {counts}"
        return info._replace(decoded=decoded, problem=info.problem._replace(detail=f"{info.problem.detail}{more}"))
    return info._replace(decoded=decoded, problem=Problem("count", counts) if decoded != info.frames else None)


def _inspect_frames(entry: ClipFile, full: bool) -> VideoInfo:
    """Inspect a frame folder: the size of every image file, and the pixels of the first."""
    files = frame_files(entry.path)
    if not files:
        return VideoInfo(problem=Problem("empty", "no image"))
    sizes = [file.stat().st_size for file in files]
    size_key = hashlib.sha256(repr(sizes).encode()).hexdigest()
    if 0 in sizes:
        return VideoInfo(len(files), problem=Problem("empty", f"{files[sizes.index(0)].name} has 0 bytes"))
    if unreadable := [file for file in files if not os.access(file, os.R_OK)]:
        return VideoInfo(len(files), problem=Problem("unreadable", f"{unreadable[0].name}: Permission denied"))
    try:
        with open_image(files[0]) as image:
            width, height = image.size
    except MissingData as error:
        return VideoInfo(len(files), problem=_to_problem(error, entry.path, "undecodable"))
    names = [file.name for file in files]
    gap, stranger = first_gap(names), ", ".join(strangers(names)[:1])
    info = VideoInfo(len(files), height, width, None, size_key, gap, stranger=stranger)
    return _read_all(entry, info) if full else info


def _inspect_array(entry: ClipFile, full: bool) -> VideoInfo:
    frames, height, width = clips.measure(entry)
    size_key = f"{frames}x{height}x{width}" if entry.kind == "arrays" else None
    info = VideoInfo(frames, height, width, entry.rate, size_key)
    return _read_all(entry, info) if full else info


def _read_all(entry: ClipFile, info: VideoInfo) -> VideoInfo:
    """Read every frame of a folder or array, `FRAMES_AT_ONCE` at a time."""
    size = None
    for start in range(0, info.frames, FRAMES_AT_ONCE):
        try:
            images = clips.read_frames(entry, range(start, min(start + FRAMES_AT_ONCE, info.frames)))
        except MissingData as error:
            kind = "sizes" if "frame size changes" in str(error) else "undecodable"
            return info._replace(decoded=start, problem=_to_problem(error, entry.path, kind))
        if size not in (None, images.shape[2:]):
            return info._replace(decoded=start, problem=Problem("sizes", f"another size from frame {start} on"))
        size = images.shape[2:]
    return info._replace(decoded=info.frames)


def _to_problem(error: MissingData, path: Path, kind: str) -> Problem:
    """An error as a problem, without the file name and the advice: the report prints its own."""
    detail = str(error).removeprefix(f"{path}: ").rpartition("; ")[0] or str(error)
    detail = detail.replace(f"{path}{os.sep}", "").removeprefix("needs all frames from 0, ")
    cause = error.__cause__
    refused = isinstance(cause, OSError) and cause.errno is not None  # a system error; Pillow's have no number
    return Problem("unreadable" if refused else kind, detail)


def content_hashes(entries: Sequence[ClipFile]) -> Iterator[str]:
    """SHA-256 of the content of each entry; empty for one that cannot be read."""
    return parallel.map_ordered(_content_hash, entries)


def _content_hash(entry: ClipFile) -> str:
    digest = hashlib.sha256()
    try:
        if entry.kind == "arrays":
            digest.update(clips.read_frames(entry, range(clips.count_frames(entry))).numpy().tobytes())
            return digest.hexdigest()
        files = frame_files(entry.path) if entry.kind == "frames" else [entry.path]
        for path in files:
            with open_file(path) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except (OSError, MissingData):  # reported by `inspect_entry`
        return ""
    return digest.hexdigest()
