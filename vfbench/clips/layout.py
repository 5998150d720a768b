"""Layout of a folder and its clips, detected from file names and array headers before any frame is read."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeAlias

from vfbench.clips.arrays import ARRAY_SUFFIXES, ArrayFile, examine
from vfbench.clips.scan import VIDEO_SUFFIXES, Scan, image_codec, scan, suffix
from vfbench.clips.text import first_few, names_on_disk, natural_key
from vfbench.errors import MissingData
from vfbench.utils.files import read_text

Kind: TypeAlias = Literal["videos", "frames", "arrays", "prepared", "features"]

MAX_FRAME_DEPTH = 2  # a class folder and a frame folder
KIND_NAMES = {
    "videos": "videos",
    "frames": "frame folders",
    "arrays": "array clips",
    "prepared": "prepared videos",
    "features": "feature rows",
}


class HashDepth(NamedTuple):
    """Bytes to hash: all of a clip of up to `max_full` bytes, else `sample` bytes at three places."""

    max_full: int
    sample: int


DEEP_HASH = HashDepth(1 << 22, 1 << 20)
LIGHT_HASH = HashDepth(0, 1 << 14)  # 48 KiB a video: seconds for a known dataset


class ClipFile(NamedTuple):
    """A video or clip: its name below the folder (`samples.npz[3]` in an array file), path, class and kind.

    `path` is a file or a frame folder, `row` the index in an array file. A prepared video is the `frames` frames from
    `row` on of its shard, already cropped and resized; `size` is the (height, width) of the source video and `rate` its
    frames per second, where known.
    """

    name: str
    path: Path
    row: int = 0
    class_name: str = ""
    kind: Kind = "videos"
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    rate: float | None = None


@dataclass(frozen=True)
class ClipFolder:
    """Layout of a folder, its clips in natural order, and notes for reports."""

    root: Path
    kind: Kind
    entries: tuple[ClipFile, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def base(self) -> Path:
        """Folder that the names of the entries are relative to."""
        return self.root if self.root.is_dir() else self.root.parent

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in natural order; empty without class folders."""
        return tuple(sorted({entry.class_name for entry in self.entries} - {""}, key=natural_key))

    def describe(self) -> str:
        """Summary for a terminal: kind and number of clips, first and last clip, notes."""
        classes = f", classes: {len(self.classes):,}" if self.classes else ""
        lines = [
            ("folder", str(self.root)),
            ("found", f"{KIND_NAMES[self.kind]}: {len(self):,}{classes}"),
            ("first", self.entries[0].name),
            ("last", self.entries[-1].name),
            *(("note", note) for note in self.notes),
        ]
        return "\n".join(f"{name:<7} {line}" for name, line in lines)


def detect(root: str | os.PathLike[str], *, listing: str | os.PathLike[str] | None = None) -> ClipFolder:
    """Find the clips of a folder, or of a single video or array file, from names and array headers alone.

    `listing` is a text file of paths relative to the folder, one a line: only these clips are kept, and the notes count
    the others. An array file is listed as a whole, without `[row]`. Raises `MissingData` for a folder without clips,
    with two layouts, with frame folders too deep or at two depths, for an array that holds no clips, and for a listed
    path that does not exist.
    """
    path = Path(root).expanduser()
    files = scan(path)
    notes = _keep_listed(files, Path(listing)) if listing is not None else []
    layouts = {layout: names for layout, names in files.by_layout.items() if names}
    if not layouts:
        raise _no_clips(path, files)
    if len(layouts) > 1:
        kinds = [f"{KIND_NAMES[layout]} ({len(names):,}: {first_few(names)})" for layout, names in layouts.items()]
        raise MissingData(
            f"{path} holds {' and '.join(kinds)}: which are the clips? Give a folder with one kind, or list the clips: "
            "--list FILE, or folder(listing='FILE') as a dataset"
        )
    layout, names = next(iter(layouts.items()))
    notes = [*_order_notes(files, names), *notes, *files.notes()]
    if layout == "arrays":
        arrays = [(name, class_name, examine(files.base / name)) for name, class_name in _with_classes(names)]
        return _array_clips(path, arrays, notes)
    notes = [*(_check_frames(files, names) if layout == "frames" else _video_notes(names)), *notes]
    entries = [ClipFile(name, files.base / name, 0, class_name, layout) for name, class_name in _with_classes(names)]
    return ClipFolder(path, layout, tuple(entries), tuple(notes))


def _no_clips(path: Path, files: Scan) -> MissingData:
    """Error for a folder without clips; names what it holds instead."""
    if any(map(image_codec, files.other)):
        hint = "each clip needs its own folder of frames; give the folder that holds these, or name animations .apng"
        return MissingData(f"{path} holds no clips but single images ({first_few(files.other)}): {hint}")
    needed = (
        f"videos ({' '.join(VIDEO_SUFFIXES)}), frame folders (png, jpg) or array files ({' '.join(ARRAY_SUFFIXES)})"
    )
    return MissingData(f"{path} holds no clips ({'; '.join(files.notes()) or 'it is empty'}); needed: {needed}")


def _keep_listed(files: Scan, listing: Path) -> list[str]:
    """Keep the listed clips, and return the note on the others."""
    paths = _read_listing(listing)
    present = dict.fromkeys(name for names in files.by_layout.values() for name in names)
    names = names_on_disk(paths, present)
    if missing := [path for path in paths if path not in names]:
        example = f", such as {next(iter(present))}" if present else ""
        raise MissingData(
            f"{listing}: {len(missing):,} of {len(paths):,} listed clips are not in {files.base}: "
            f"{first_few(missing)}; write paths relative to that folder, one a line{example}"
        )
    counts = Counter(names[path] for path in paths)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise MissingData(f"{listing}: names a clip twice: {first_few(repeated)}; keep one line for each clip")
    files.by_layout = {layout: [name for name in each if name in counts] for layout, each in files.by_layout.items()}
    unlisted = [name for name in present if name not in counts]
    return [f"not listed, not scored: {len(unlisted):,} ({first_few(unlisted)})"] if unlisted else []


def _read_listing(listing: Path) -> list[str]:
    if paths := [line for line in read_text(listing).split("\n") if line.strip()]:
        return paths
    raise MissingData(f"{listing}: names no clip; write one relative path a line")


def _with_classes(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names in natural order, each with its class: its parent folder, if all names are equally deep, else empty."""
    ordered = [PurePosixPath(name) for name in sorted(names, key=natural_key)]
    same_depth = len({len(path.parts) for path in ordered}) == 1
    return [(str(path), path.parent.name if same_depth else "") for path in ordered]


def _array_clips(path: Path, files: Sequence[tuple[str, str, ArrayFile]], notes: Sequence[str]) -> ClipFolder:
    """One entry per row of every array file; `files` are (name, class, header)."""
    kinds: dict[Kind, str] = {file.kind: name for name, _, file in files}
    if len(kinds) > 1:
        both = " and ".join(f"{KIND_NAMES[kind]} ({name})" for kind, name in kinds.items())
        raise MissingData(f"{path} holds {both}: give a folder with one kind, or a single file")
    widths = {file.shape[1]: name for name, _, file in files}
    if "features" in kinds and len(widths) > 1:
        listed = ", ".join(f"{width} in {name}" for width, name in widths.items())
        raise MissingData(f"{path} holds features of different width ({listed}): keep those of one network")
    entries = [
        ClipFile(f"{name}[{i}]", file.path, i, class_name, file.kind)
        for name, class_name, file in files
        for i in range(file.shape[0])
    ]
    unread = [f"{name}: not read: {first_few(file.others)}" for name, _, file in files if file.others]
    compressed = [
        f"{name} is compressed: it is read into memory as a whole, {math.prod(file.shape) / 1e6:,.0f} MB"
        for name, _, file in files
        if file.kind == "arrays" and not file.mapped
    ]
    return ClipFolder(path, next(iter(kinds)), tuple(entries), (*unread, *compressed, *notes))


def _check_frames(files: Scan, names: Sequence[str]) -> list[str]:
    """Require frame folders at one depth with one codec each; return the note on different codecs between folders."""
    depths = {name.count("/") + 1: name for name in names}
    if len(depths) > 1:
        listed = " and ".join(f"{name} ({depth})" for depth, name in sorted(depths.items()))
        raise MissingData(f"{files.base} holds frame folders at different depths, {listed}: which are the clips?")
    if (depth := max(depths)) > MAX_FRAME_DEPTH:
        raise MissingData(
            f"{files.base}: its frame folders lie {depth} levels deep ({names[0]}), needed: 1, or 2 with a class; "
            f"give a folder further down, such as {files.base / names[0].split('/')[0]}"
        )
    if mixed := [name for name in names if len(files.codecs[name]) > 1]:
        raise MissingData(f"{files.base / mixed[0]} holds png and jpeg images: which are the frames? Keep one kind")
    return _mixture_note(next(iter(files.codecs[name])) for name in names)


def _video_notes(names: Sequence[str]) -> list[str]:
    notes = _mixture_note(map(suffix, names))
    stems = Counter(name.rpartition(".")[0] for name in names)
    if repeated := [stem for stem, count in stems.items() if count > 1]:
        notes.append(f"names in several formats, each scored as a clip: {len(repeated):,} ({first_few(repeated)})")
    suffixes = {suffix(name) for name in names}
    if ".gif" in suffixes:
        notes.append("a GIF has at most 256 colours a frame, and equal neighbours are often stored as one frame")
    if suffixes & {".webp", ".apng"}:
        notes.append("in an animated WebP or PNG, equal neighbours are often stored as one frame")
    return notes


def _mixture_note(formats: Iterable[str]) -> list[str]:
    counts = Counter(formats)
    return ["mixed: " + ", ".join(f"{n:,} {name}" for name, n in counts.items())] if len(counts) > 1 else []


def _order_notes(files: Scan, names: Sequence[str]) -> list[str]:
    """Notes where natural order differs from the order of programs that sort by characters."""
    lexicographic = sorted(names, key=lambda name: name.split("/"))
    places = sum(a != b for a, b in zip(sorted(names, key=natural_key), lexicographic, strict=True))
    notes = [f"natural order differs from lexicographic order in {places:,} places"] if places else []
    clips = set(names)
    if unordered := [name for name in files.unordered if name in clips]:
        listed = f"{len(unordered):,}: {first_few(unordered)}"
        notes.append(f"natural order of frames differs from lexicographic order in {listed}")
    return notes
