"""Checks of clip folders: content hash, storage differences between real and fake clips, clips that do not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vfbench import video
from vfbench.clips.layout import DEEP_HASH, ClipFolder, HashDepth
from vfbench.clips.read import count_frames, read_clip
from vfbench.clips.scan import first_gap, frame_files, image_codec, strangers
from vfbench.clips.text import first_few
from vfbench.errors import MissingData
from vfbench.protocol.protocol import frames_needed
from vfbench.utils import text
from vfbench.utils.files import file_sha256, open_file

MAX_COMPARED = 16  # clips of each side, evenly spread
LOSSLESS = ("png", "webp", "ffv1", "rawvideo", "huffyuv", "utvideo", "qtrle")  # only with RGB pixels
MISMATCH_REASONS = {
    "compression": "compression alone moves a score: store both sides alike",
    "JPEG quantiser (mean step)": "compression alone moves a score: store both sides alike",
    "resolution (width x height)": "the two sides are not resized by the same steps",
    "frames a second": "the same stride spans a different time",
    "frames a clip": "check that the intended frames are taken",
}


def content_hash(folder: ClipFolder, depth: HashDepth = DEEP_HASH) -> str:
    """SHA-256 of the kind of clips and of every clip's name, sizes and content, 64 hexadecimal digits.

    Independent of the folder's path and of file times. Clips of up to `depth.max_full` bytes (4 MiB) and array files
    are hashed completely. Larger videos contribute their size and three samples (head, middle, tail), larger frame
    folders the names and sizes of all frames and the content of three. Re-encoding changes sizes, so only bytes changed
    in place between the samples can escape. Raises `MissingData` naming a file that cannot be read.
    """
    digest = hashlib.sha256(folder.kind.encode())
    for name, path in _files(folder).items():
        digest.update(f"\n{name}".encode(errors="surrogateescape"))
        try:
            for part in _identity(folder, path, depth):
                digest.update(f"\n {part}".encode(errors="surrogateescape"))
        except OSError as error:
            raise MissingData(f"{path}: {error.strerror}; get this clip again, or repeat the command") from error
    return digest.hexdigest()


def _files(folder: ClipFolder) -> dict[str, Path]:
    """Files to hash by name; an array file once, not once per row."""
    if folder.kind in ("videos", "frames"):
        return {entry.name: entry.path for entry in folder.entries}
    return {path.relative_to(folder.base).as_posix(): path for path in dict.fromkeys(e.path for e in folder.entries)}


def _identity(folder: ClipFolder, path: Path, depth: HashDepth) -> Iterator[str]:
    """Strings that identify the content of a clip or array file."""
    if folder.kind != "frames":
        size = path.stat().st_size
        # Arrays are hashed completely: uncompressed arrays of different content have the same size.
        yield f"{size} {_content(path, size, depth if folder.kind == 'videos' else None)}"
        return
    files = frame_files(path)
    sizes = [file.stat().st_size for file in files]
    hashed = range(len(files)) if sum(sizes) <= depth.max_full else {0, len(files) // 2, len(files) - 1}
    for i, (file, size) in enumerate(zip(files, sizes, strict=True)):
        yield f"{file.name} {size} {_content(file, size, depth) if i in hashed else ''}"


def _content(path: Path, size: int, depth: HashDepth | None) -> str:
    """SHA-256 of a file, or of three samples of a large one; None hashes all of it."""
    if depth is None or size <= max(depth.max_full, 3 * depth.sample):
        return file_sha256(path)
    with open_file(path) as file:
        digest = hashlib.sha256()
        for offset in (0, (size - depth.sample) // 2, size - depth.sample):
            file.seek(offset)
            digest.update(file.read(depth.sample))
        return digest.hexdigest()


class _Storage(NamedTuple):
    """Storage format of a clip, in the order of `MISMATCH_REASONS`; None where the format does not record it."""

    compression: str
    quantiser: float | None
    resolution: str
    rate: float | None
    frames: int | None


def mismatches(real: ClipFolder, fake: ClipFolder) -> list[str]:
    """Storage differences between the two sides, a line each: compression, resolution, frame rate, number of frames.

    Each can move a score more than a better model does; none of them prevents scoring. Compares up to `MAX_COMPARED`
    clips a side; the frame counts of videos come from their headers. Raises `MissingData` naming an unreadable clip.
    """
    if "features" in (real.kind, fake.kind):
        roots = first_few([str(folder.root) for folder in (real, fake) if folder.kind == "features"])
        return [f"{roots}: features do not record how their clips were stored"]
    sides = [list(zip(*(_storage(folder, i) for i in _probe_indices(folder)), strict=True)) for folder in (real, fake)]
    lines = []
    for (name, reason), real_values, fake_values in zip(MISMATCH_REASONS.items(), *sides, strict=True):
        spans = _span(real_values), _span(fake_values)
        if all(spans) and spans[0] != spans[1]:
            lines.append(f"{name}: real {spans[0]}, fake {spans[1]}; {reason}")
    return lines


def too_short(folder: ClipFolder, *, frames: int, stride: int = 1, drop_first: int = 0) -> list[str]:
    """Names of the clips with fewer frames than `read_clip` needs.

    Counts come from headers: a damaged video that declares more frames than it holds passes, and fails when it is read.
    Raises `MissingData` naming a clip that cannot be opened.
    """
    needed = frames_needed(frames, stride, drop_first)
    return [entry.name for entry in folder.entries if count_frames(entry) < needed]


def frame_warnings(folder: ClipFolder) -> list[str]:
    """Doubts about frame folders, a line each: numbers that are missing in between, images named unlike the others."""
    gaps, odd = [], []
    for entry in folder.entries if folder.kind == "frames" else ():
        names = [file.name for file in frame_files(entry.path)]
        gaps += [f"{entry.name}: {gap}" for gap in [first_gap(names)] if gap]
        odd += [f"{entry.name}/{name}" for name in strangers(names)]
    gap_lines = [f"missing frames in {text.count(len(gaps), 'clip')}: {first_few(gaps)}; the motion jumps there"]
    odd_lines = [f"scored as frames, though named unlike the others: {first_few(odd)}; take them out if they are none"]
    return [*(gap_lines if gaps else []), *(odd_lines if odd else [])]


def require_frame_sizes(folder: ClipFolder, numbers: range) -> None:
    """Raise `MissingData` naming an image among these frames of each clip that is damaged or of another size.

    Only the heads of the images are read.
    """
    for entry in folder.entries if folder.kind == "frames" else ():
        files = frame_files(entry.path)
        sizes = [_image_size(files[number]) for number in numbers]
        if odd := next((number for number, size in zip(numbers, sizes, strict=True) if size != sizes[0]), None):
            both = " and ".join(f"{width}x{height}" for width, height in (sizes[0], _image_size(files[odd])))
            raise MissingData(f"{files[odd]}: the frame size changes within the clip, {both}; make this clip again")


def _image_size(file: Path) -> tuple[int, int]:
    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, SyntaxError, ValueError) as error:  # raised by Pillow for damaged files
        raise MissingData(f"{file}: no readable image ({error}); get this clip again or take it out") from error


def _probe_indices(folder: ClipFolder) -> list[int]:
    count = min(MAX_COMPARED, len(folder))
    return [i * (len(folder) - 1) // max(count - 1, 1) for i in range(count)]


def _storage(folder: ClipFolder, index: int) -> _Storage:
    entry = folder.entries[index]
    height, width = read_clip(folder, index, frames=1).shape[-2:]
    size = f"{width}x{height}"
    if folder.kind == "videos":
        header = video.header(entry.path)
        lossless = header.codec in LOSSLESS and header.pixels.startswith(("rgb", "bgr", "gbr", "0rgb", "argb"))
        compression = "lossless" if lossless else f"{header.codec} {header.pixels}"
        return _Storage(compression, None, size, header.rate, header.frames)
    if folder.kind == "arrays":
        return _Storage("lossless", None, size, None, count_frames(entry))
    files = frame_files(entry.path)
    name = image_codec(files[0].name)
    return _Storage("lossless" if name in LOSSLESS else name, _quantiser(files[0]), size, None, len(files))


def _quantiser(file: Path) -> float | None:
    """Mean step of the first quantisation table of a JPEG, 29 at quality 75 of libjpeg; None for a PNG."""
    with Image.open(file) as image:
        tables = getattr(image, "quantization", None)
    return round(sum(tables[0]) / len(tables[0]), 1) if tables else None


def _span(values: tuple[str | float | int | None, ...]) -> str:
    """All strings, or the range of the numbers; empty where all values are None."""
    words = sorted({value for value in values if isinstance(value, str)})
    numbers = [value for value in values if isinstance(value, int | float)]
    if not numbers:
        return ", ".join(words)
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
