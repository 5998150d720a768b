"""Questions about found clips: are they the same files, stored alike on both sides, long enough?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vfbench.errors import MissingData
from vfbench.folders.layout import Entry, Found, Kind
from vfbench.folders.read import clip, count
from vfbench.folders.scan import codec, few, frame_files

WHOLE = 1 << 22  # bytes of a clip up to which all of it is hashed
SAMPLE = 1 << 20  # bytes hashed at the head, the middle and the tail of a longer one
PROBES = 16  # clips that are looked at on each side, evenly spread
LOSSLESS = ("png", "ffv1", "rawvideo", "huffyuv", "utvideo", "qtrle")  # as long as the pixels are RGB
WHY = {
    "compression": "compression alone moves a score: store both sides alike",
    "JPEG quantiser (mean step)": "compression alone moves a score: store both sides alike",
    "resolution (width x height)": "the two are not resized by the same steps",
    "frames a second": "the same stride spans another time",
    "frames a clip": "check that the frames meant are those taken",
}


def manifest(found: Found) -> str:
    """SHA-256 of the kind of clips and of every clip's relative name, sizes and content, 64 hexadecimal digits.

    Wherever the folder stands and whenever its files were written, the same clips give the same hash. A clip of up to
    4 MiB, and any array file, is hashed whole. Of a longer video its size and 3 MiB are (head, middle, tail), of longer
    frame folders the names and sizes of all frames and the content of three: another encoding of a clip changes sizes,
    so that only a change of bytes in place, between those places, can escape. At most 4 MiB a clip are read.
    Raises `MissingData` naming a file that cannot be read.
    """
    digest = hashlib.sha256(found.kind.encode())
    base = found.base
    for path in dict.fromkeys(entry.path for entry in found.entries):
        digest.update(f"\n{path.relative_to(base).as_posix()}".encode())
        try:
            for part in _identity(found.kind, path):
                digest.update(f"\n {part}".encode())
        except OSError as error:
            raise MissingData(f"{path}: {error.strerror}; get this clip again, or look at the folder again") from error
    return digest.hexdigest()


def _identity(kind: Kind, path: Path) -> Iterator[str]:
    """What a clip or array file is known by."""
    if kind != "frames":
        size = path.stat().st_size
        # The size of an uncompressed array tells nothing of what is in it.
        yield f"{size} {_content(path, size, whole=kind != 'videos' or size <= WHOLE)}"
        return
    files = frame_files(path)
    sizes = [file.stat().st_size for file in files]
    chosen = range(len(files)) if sum(sizes) <= WHOLE else {0, len(files) // 2, len(files) - 1}
    for i, (file, size) in enumerate(zip(files, sizes, strict=True)):
        yield f"{file.name} {size} {_content(file, size, whole=size <= WHOLE) if i in chosen else ''}"


def _content(path: Path, size: int, *, whole: bool) -> str:
    with path.open("rb") as file:
        if whole:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for offset in (0, (size - SAMPLE) // 2, size - SAMPLE):
            file.seek(offset)
            digest.update(file.read(SAMPLE))
        return digest.hexdigest()


class _Look(NamedTuple):
    """What can be seen of how a clip was stored; None where the format does not say. In the order of `WHY`."""

    compression: str
    quantiser: float | None
    resolution: str
    rate: float | None
    frames: int | None


def mismatches(real: Found, fake: Found) -> list[str]:
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


def too_short(found: Found, *, frames: int, stride: int = 1, drop_first: int = 0) -> list[str]:
    """The names of the clips with fewer frames than `clip` would need, so that they are known before any work.

    A video is decoded only where its header declares too few frames. One that declares more than it holds, as some do,
    is found when it is read. Raises `MissingData` naming a clip that cannot be opened.
    """
    need = drop_first + (frames - 1) * stride + 1
    return [entry.name for entry in found.entries if not _declares(found.kind, entry, need)]


def _declares(kind: Kind, entry: Entry, need: int) -> bool:
    """Whether a clip holds the frames needed, or says so."""
    return (kind == "videos" and (_container(entry)[2] or 0) >= need) or count(kind, entry) >= need


def _spread(found: Found) -> list[int]:
    probes = min(PROBES, len(found))
    return [i * (len(found) - 1) // max(probes - 1, 1) for i in range(probes)]


def _look(found: Found, index: int) -> _Look:
    entry = found.entries[index]
    height, width = clip(found, index, frames=1).shape[-2:]
    size = f"{width}x{height}"
    if found.kind == "videos":
        compression, rate, frames = _container(entry)
        return _Look(compression, None, size, rate, frames)
    if found.kind == "arrays":
        return _Look("lossless", None, size, None, count("arrays", entry))
    files = frame_files(entry.path)
    name = codec(files[0].name)
    return _Look("lossless" if name in LOSSLESS else name, _quantiser(files[0]), size, None, len(files))


def _container(entry: Entry) -> tuple[str, float | None, int | None]:
    """Codec and pixel format, frames a second and declared number of frames of a video, as its headers say."""
    import av

    try:
        container = av.open(f"file:{entry.path}")
    except av.error.FFmpegError as error:
        raise MissingData(f"{entry.path}: {error.strerror}; get this file again or take it out") from error
    with container:
        if not container.streams.video:
            raise MissingData(f"{entry.path}: no video stream; get this file again or take it out")
        stream = container.streams.video[0]
        name, pixels, rate = stream.codec_context.name, stream.codec_context.pix_fmt or "", stream.average_rate
        lossless = name in LOSSLESS and pixels.startswith(("rgb", "bgr", "gbr", "0rgb", "argb"))
        return "lossless" if lossless else f"{name} {pixels}", float(rate) if rate else None, stream.frames or None


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
