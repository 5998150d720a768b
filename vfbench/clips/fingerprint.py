"""Questions about found clips: are they the same files, stored alike on both sides, long enough?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vfbench import video
from vfbench.clips.layout import ClipFolder
from vfbench.clips.read import clip, count
from vfbench.clips.scan import codec, frame_files
from vfbench.clips.text import few
from vfbench.errors import MissingData
from vfbench.protocol.protocol import frames_needed
from vfbench.utils.files import file_sha256

PROBES = 16  # clips that are looked at on each side, evenly spread
LOSSLESS = ("png", "ffv1", "rawvideo", "huffyuv", "utvideo", "qtrle")  # as long as the pixels are RGB
WHY = {
    "compression": "compression alone moves a score: store both sides alike",
    "JPEG quantiser (mean step)": "compression alone moves a score: store both sides alike",
    "resolution (width x height)": "the two are not resized by the same steps",
    "frames a second": "the same stride spans another time",
    "frames a clip": "check that the frames meant are those taken",
}


class Depth(NamedTuple):
    """How much of the files is hashed: a clip of up to `whole` bytes is, and `sample` at three places of a larger."""

    whole: int
    sample: int


DEEP = Depth(1 << 22, 1 << 20)
LIGHT = Depth(0, 1 << 14)  # 48 KiB of each of the thousands of videos of a known dataset: seconds, not minutes


def content_hash(found: ClipFolder, depth: Depth = DEEP) -> str:
    """SHA-256 of the kind of clips and of every clip's name, sizes and content, 64 hexadecimal digits.

    Wherever the folder stands and whenever its files were written, the same clips give the same hash. A clip of up to
    `depth.whole` bytes (4 MiB), and any array file, is hashed whole. Of a longer video its size and three samples
    (head, middle, tail) are, of longer frame folders the names and sizes of all frames and the content of three:
    another encoding of a clip changes sizes, so that only a change of bytes in place, between those places, can escape.
    Raises `MissingData` naming a file that cannot be read.
    """
    digest = hashlib.sha256(found.kind.encode())
    for name, path in _files(found).items():
        digest.update(f"\n{name}".encode(errors="surrogateescape"))
        try:
            for part in _identity(found, path, depth):
                digest.update(f"\n {part}".encode(errors="surrogateescape"))
        except OSError as error:
            raise MissingData(f"{path}: {error.strerror}; get this clip again, or look at the folder again") from error
    return digest.hexdigest()


def _files(found: ClipFolder) -> dict[str, Path]:
    """What is hashed, by name; an array file, whose rows are entries each, once."""
    if found.kind in ("videos", "frames"):
        return {entry.name: entry.path for entry in found.entries}
    return {path.relative_to(found.base).as_posix(): path for path in dict.fromkeys(e.path for e in found.entries)}


def _identity(found: ClipFolder, path: Path, depth: Depth) -> Iterator[str]:
    """What a clip or array file is known by."""
    if found.kind != "frames":
        size = path.stat().st_size
        # The size of an uncompressed array tells nothing of what is in it.
        yield f"{size} {_content(path, size, depth if found.kind == 'videos' else None)}"
        return
    files = frame_files(path)
    sizes = [file.stat().st_size for file in files]
    chosen = range(len(files)) if sum(sizes) <= depth.whole else {0, len(files) // 2, len(files) - 1}
    for i, (file, size) in enumerate(zip(files, sizes, strict=True)):
        yield f"{file.name} {size} {_content(file, size, depth) if i in chosen else ''}"


def _content(path: Path, size: int, depth: Depth | None) -> str:
    """SHA-256 of a file, or of samples of a large one; None hashes it whole."""
    if depth is None or size <= max(depth.whole, 3 * depth.sample):
        return file_sha256(path)
    with path.open("rb") as file:
        digest = hashlib.sha256()
        for offset in (0, (size - depth.sample) // 2, size - depth.sample):
            file.seek(offset)
            digest.update(file.read(depth.sample))
        return digest.hexdigest()


class _Look(NamedTuple):
    """What can be seen of how a clip was stored; None where the format does not say. In the order of `WHY`."""

    compression: str
    quantiser: float | None
    resolution: str
    rate: float | None
    frames: int | None


def mismatches(real: ClipFolder, fake: ClipFolder) -> list[str]:
    """How the two sides were stored differently, a line each: compression, resolution, frame rate, number of frames.

    None of these stops a score; each can move it more than a better model does. Up to 16 clips a side are looked at,
    and of videos the frame counts are those that headers declare. Raises `MissingData` naming a clip that cannot be
    read.
    """
    if "features" in (real.kind, fake.kind):
        named = few([str(found.root) for found in (real, fake) if found.kind == "features"])
        return [f"{named}: features do not tell how their clips were stored"]
    looks = [list(zip(*(_look(found, i) for i in _spread(found)), strict=True)) for found in (real, fake)]
    lines = []
    for (name, why), mine, theirs in zip(WHY.items(), *looks, strict=True):
        spans = _span(mine), _span(theirs)
        if all(spans) and spans[0] != spans[1]:
            lines.append(f"{name}: real {spans[0]}, fake {spans[1]}; {why}")
    return lines


def too_short(found: ClipFolder, *, frames: int, stride: int = 1, drop_first: int = 0) -> list[str]:
    """The names of the clips with fewer frames than `clip` would need, so that they are known before any work.

    A video that declares more than it holds, as damaged ones do, is found when it is read. Raises `MissingData` naming
    a clip that cannot be opened.
    """
    needed = frames_needed(frames, stride, drop_first)
    return [entry.name for entry in found.entries if count(entry) < needed]


def _spread(found: ClipFolder) -> list[int]:
    probes = min(PROBES, len(found))
    return [i * (len(found) - 1) // max(probes - 1, 1) for i in range(probes)]


def _look(found: ClipFolder, index: int) -> _Look:
    entry = found.entries[index]
    height, width = clip(found, index, frames=1).shape[-2:]
    size = f"{width}x{height}"
    if found.kind == "videos":
        header = video.header(entry.path)
        lossless = header.codec in LOSSLESS and header.pixels.startswith(("rgb", "bgr", "gbr", "0rgb", "argb"))
        compression = "lossless" if lossless else f"{header.codec} {header.pixels}"
        return _Look(compression, None, size, header.rate, header.frames)
    if found.kind == "arrays":
        return _Look("lossless", None, size, None, count(entry))
    files = frame_files(entry.path)
    name = codec(files[0].name)
    return _Look("lossless" if name in LOSSLESS else name, _quantiser(files[0]), size, None, len(files))


def _quantiser(file: Path) -> float | None:
    """The mean step of the first quantisation table of a JPEG, 29 at libjpeg's quality 75; None for a PNG."""
    with Image.open(file) as image:
        tables = getattr(image, "quantization", None)
    return round(sum(tables[0]) / len(tables[0]), 1) if tables else None


def _span(values: tuple[str | float | int | None, ...]) -> str:
    """All words, or the least and the greatest number; empty where nothing is known."""
    words = sorted({value for value in values if isinstance(value, str)})
    numbers = [value for value in values if isinstance(value, int | float)]
    if not numbers:
        return ", ".join(words)
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
