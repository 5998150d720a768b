"""Which layout a folder has, and its clips: found and checked from names and array headers, before any work starts."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeAlias

from vfbench.clips.arrays import SUFFIXES, ArrayFile, examine
from vfbench.clips.scan import VIDEOS, Scan, codec, scan, suffix
from vfbench.clips.text import few, natural
from vfbench.errors import MissingData

Kind: TypeAlias = Literal["videos", "frames", "arrays", "prepared", "features"]

DEEPEST = 2  # levels of frame folders
TITLES = {
    "videos": "videos",
    "frames": "frame folders",
    "arrays": "array clips",
    "prepared": "prepared videos",
    "features": "feature rows",
}


class ClipFile(NamedTuple):
    """A video or clip: its name below the folder (`samples.npz[3]` in an array file), its place, class and kind.

    `path` is a file or a frame folder, `row` the place in an array file. What `vfbench data prepare` made has `frames`
    frames of its shard from `row` on, cropped and resized already; `size` is the height and width that they had, and
    `rate` how many a second, where the file said it.
    """

    name: str
    path: Path
    row: int = 0
    group: str = ""
    kind: Kind = "videos"
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    rate: float | None = None


@dataclass(frozen=True)
class ClipFolder:
    """The layout of a folder, its clips in natural order, and notes on all that a reader must know of them."""

    root: Path
    kind: Kind
    entries: tuple[ClipFile, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def base(self) -> Path:
        """The folder that the names of the entries are relative to."""
        return self.root if self.root.is_dir() else self.root.parent

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the classes in natural order; empty without a class level."""
        return tuple(sorted({entry.group for entry in self.entries} - {""}, key=natural))

    def describe(self) -> str:
        """What was found as lines to read: kind and number of clips, first and last, the notes."""
        classes = f", classes: {len(self.groups):,}" if self.groups else ""
        lines = [
            ("folder", str(self.root)),
            ("found", f"{TITLES[self.kind]}: {len(self):,}{classes}"),
            ("first", self.entries[0].name),
            ("last", self.entries[-1].name),
            *(("note", note) for note in self.notes),
        ]
        return "\n".join(f"{name:<7} {line}" for name, line in lines)


def detect(root: str | os.PathLike[str], *, listing: str | os.PathLike[str] | None = None) -> ClipFolder:
    """Find the clips of a folder, or of a single video or array file, reading no more than names and array headers.

    `listing` is a file of paths relative to the folder, one a line; then nothing else is scored, and the rest is named
    in the notes. Array files are listed whole. Raises `MissingData` saying what was found and what is needed: nothing,
    two layouts at once, frame folders too deep or at two depths, an array that is no clip, a listed path that is not
    there.
    """
    place = Path(root).expanduser()
    there = scan(place)
    notes = _only_listed(there, Path(listing)) if listing is not None else []
    layouts = {layout: names for layout, names in there.claimed.items() if names}
    if not layouts:
        raise _nothing(place, there)
    if len(layouts) > 1:
        both = " and ".join(f"{TITLES[layout]} ({len(names):,}: {few(names)})" for layout, names in layouts.items())
        listed = "--list FILE, of a dataset by folder(listing='FILE')"
        raise MissingData(
            f"{place} holds {both}: which are the clips? Give a folder with one kind, or name the clips by {listed}"
        )
    layout, names = next(iter(layouts.items()))
    notes = [*_order_notes(there, names), *notes, *there.notes()]
    if layout == "arrays":
        return _arrays(place, [(name, group, examine(there.base / name)) for name, group in _grouped(names)], notes)
    notes = [*(_check_frames(there, names) if layout == "frames" else _video_notes(names)), *notes]
    entries = [ClipFile(name, there.base / name, 0, group, layout) for name, group in _grouped(names)]
    return ClipFolder(place, layout, tuple(entries), tuple(notes))


def _nothing(place: Path, there: Scan) -> MissingData:
    """The error for a folder without clips, which says what it holds instead."""
    if any(map(codec, there.other)):
        hint = "frames must stand in a folder for each clip; give the folder that holds these"
        return MissingData(f"{place} holds no clips but single images ({few(there.other)}): {hint}")
    needed = f"videos ({' '.join(VIDEOS)}), frame folders (png, jpg) or array files ({' '.join(SUFFIXES)})"
    return MissingData(f"{place} holds no clips ({'; '.join(there.notes()) or 'it is empty'}); needed: {needed}")


def _only_listed(there: Scan, listing: Path) -> list[str]:
    """Keep the clips that the list names, and return the note on the others."""
    wanted = _read_listing(listing)
    known = dict.fromkeys(name for names in there.claimed.values() for name in names)
    if lost := [name for name in wanted if name not in known]:
        such = f", such as {next(iter(known))}" if known else ""
        raise MissingData(
            f"{listing}: {len(lost):,} of {len(wanted):,} listed clips are not in {there.base}: {few(lost)}; "
            f"write paths relative to that folder, one a line{such}"
        )
    there.claimed = {layout: [name for name in names if name in wanted] for layout, names in there.claimed.items()}
    left = [name for name in known if name not in wanted]
    return [f"not listed, not scored: {len(left):,} ({few(left)})"] if left else []


def _read_listing(listing: Path) -> Counter[str]:
    try:
        lines = listing.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingData(f"{listing}: cannot be read as a list of clips ({error})") from error
    names = Counter(str(PurePosixPath(line.removesuffix("\r"))) for line in lines if line.strip())
    if twice := [name for name, count in names.items() if count > 1]:
        raise MissingData(f"{listing}: names a clip twice, which would count twice: {few(twice)}")
    if not names:
        raise MissingData(f"{listing}: names no clip; write one relative path a line")
    return names


def _grouped(names: Iterable[str]) -> list[tuple[str, str]]:
    """The names in natural order, each with its class: the folder it stands in, if all stand equally deep in one."""
    ordered = [PurePosixPath(name) for name in sorted(names, key=natural)]
    level = len({len(path.parts) for path in ordered}) == 1
    return [(str(path), path.parent.name if level else "") for path in ordered]


def _arrays(place: Path, files: Sequence[tuple[str, str, ArrayFile]], notes: Sequence[str]) -> ClipFolder:
    """The rows of all array files, one after another."""
    kinds: dict[Kind, str] = {file.kind: name for name, _, file in files}
    if len(kinds) > 1:
        both = " and ".join(f"{TITLES[kind]} ({name})" for kind, name in kinds.items())
        raise MissingData(f"{place} holds {both}: which are meant? Give a folder with one kind, or a single file")
    widths = {file.shape[1]: name for name, _, file in files}
    if "features" in kinds and len(widths) > 1:
        found = ", ".join(f"{width} in {name}" for width, name in widths.items())
        raise MissingData(f"{place} holds features of different width ({found}): keep those of one network")
    entries = [
        ClipFile(f"{name}[{i}]", file.path, i, group, file.kind)
        for name, group, file in files
        for i in range(file.shape[0])
    ]
    unread = [f"{name}: not read: {few(file.others)}" for name, _, file in files if file.others]
    whole = [
        f"{name} is compressed: it is read into memory as a whole, {math.prod(file.shape) / 1e6:,.0f} MB"
        for name, _, file in files
        if file.kind == "arrays" and not file.mapped
    ]
    return ClipFolder(place, next(iter(kinds)), tuple(entries), (*unread, *whole, *notes))


def _check_frames(there: Scan, names: Sequence[str]) -> list[str]:
    """Refuse frame folders that are not clips of one level, or that mix codecs; note where codecs differ."""
    depths = {name.count("/") + 1: name for name in names}
    if len(depths) > 1:
        found = " and ".join(f"{name} ({depth})" for depth, name in sorted(depths.items()))
        raise MissingData(f"{there.base} holds frame folders at different depths, {found}: which are the clips?")
    if (depth := max(depths)) > DEEPEST:
        raise MissingData(
            f"{there.base}: its frame folders lie {depth} levels deep ({names[0]}), needed: 1, or 2 with a class; "
            f"give a folder further down, such as {there.base / names[0].split('/')[0]}"
        )
    if odd := [name for name in names if len(there.codecs[name]) > 1]:
        raise MissingData(f"{there.base / odd[0]} holds png and jpeg images: which are the frames? Keep one kind")
    return _kinds(next(iter(there.codecs[name])) for name in names)


def _video_notes(names: Sequence[str]) -> list[str]:
    notes = _kinds(map(suffix, names))
    stems = Counter(name.rpartition(".")[0] for name in names)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        notes.append(f"names that stand there in several formats, each scored as a clip: {len(twice):,} ({few(twice)})")
    if ".gif" in map(suffix, names):
        notes.append("a GIF has at most 256 colours a frame, and equal neighbours are often stored as one frame")
    return notes


def _kinds(kinds: Iterable[str]) -> list[str]:
    counted = Counter(kinds)
    return ["mixed: " + ", ".join(f"{n:,} {kind}" for kind, n in counted.items())] if len(counted) > 1 else []


def _order_notes(there: Scan, names: Sequence[str]) -> list[str]:
    """Where natural order is not the order of programs that sort by characters."""
    by_characters = sorted(names, key=lambda name: name.split("/"))
    places = sum(a != b for a, b in zip(sorted(names, key=natural), by_characters, strict=True))
    notes = [f"natural order differs from lexicographic order in {places:,} places"] if places else []
    kept = set(names)
    if inside := [name for name in there.unordered if name in kept]:
        notes.append(f"natural order of frames differs from lexicographic order in {len(inside):,}: {few(inside)}")
    return notes
