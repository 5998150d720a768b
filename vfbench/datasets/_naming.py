"""Videos of a known dataset, recognised by their file names in any folder layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vfbench import clips
from vfbench.clips import ClipFile, ClipFolder
from vfbench.clips.scan import VIDEO_SUFFIXES, suffix
from vfbench.datasets._tree import DatasetTree
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Split

# Names of the video files or frame folders of each dataset, without suffix. A YouTube id has 11 characters.
NAME_PATTERNS = {
    "ucf101": re.compile(r"v_(?P<action>[A-Za-z]+)_g(?P<group>[0-9]{2})_c(?P<clip>[0-9]{2})", re.IGNORECASE),
    "taichi_hd": re.compile(r"(?P<id>[A-Za-z0-9_-]{11})#(?P<start>[0-9]+)#(?P<end>[0-9]+)"),
    "sky_timelapse": re.compile(r"(?P<id>[A-Za-z0-9_-]{11})_(?P<part>[0-9]+)"),
}
SPLIT_FOLDERS: Mapping[str, Split] = {"train": "train", "test": "test", "sky_train": "train", "sky_test": "test"}
MAX_SIZE_PROBES = 3  # files opened to find the frame size, in case the first are damaged
Kind: TypeAlias = Literal["videos", "frames"]
FolderSplit: TypeAlias = Literal["train", "test", ""]  # split whose folder a video lies in; empty for no such folder


@dataclass(frozen=True)
class NamedVideos:
    """Videos with the dataset's names: for each split folder (empty: none), the path of each video name.

    Paths are relative to the root. `unrecognised` are videos and frame folders with other names.
    """

    tree: DatasetTree
    kind: Kind
    by_folder: Mapping[FolderSplit, Mapping[str, str]]
    unrecognised: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.by_folder.values()))

    @property
    def notes(self) -> list[str]:
        """Notes on unrecognised names, empty folders, gaps in frame numbers and ignored files."""
        others = f"not read, other names: {len(self.unrecognised):,} ({clips.first_few(self.unrecognised)})"
        return [*([others] if self.unrecognised else []), *self.tree.notes()]

    @property
    def leaked(self) -> list[str]:
        """Names of videos that lie in the folders of both splits, in natural order."""
        return natural_order(self.by_folder.get("train", {}).keys() & self.by_folder.get("test", {}).keys())

    def paths(self, split: Split) -> dict[str, str]:
        """Path of every video by name; for a video in the folders of both splits, the path in that of `split`.

        Raises `MissingData` naming a video that lies both inside and outside a split folder.
        """
        paths = dict(self.by_folder.get("", {}))
        for folder in sorted(self.by_folder.keys() - {""}, key=lambda folder: folder == split):
            if duplicate := next(iter(self.by_folder.get("", {}).keys() & self.by_folder[folder].keys()), ""):
                raise _duplicate_error(self.tree, duplicate, paths[duplicate], self.by_folder[folder][duplicate])
            paths |= self.by_folder[folder]
        return paths

    def describe_layout(self, one_level: str) -> str:
        """Folder layout in words, such as `train/test frame folders, one level`.

        `one_level` is the text for videos in one level of folders, such as `class folders`.
        """
        splits = "/".join(split for split in ("train", "test") if split in self.by_folder)
        frames = {0: "frame folders, one level", 1: "frame folders, two levels"}
        videos = {0: "flat folder of videos", 1: f"{one_level} of videos"}
        depth = max(self.depths)
        if self.kind == "frames":
            return f"{splits} {frames.get(depth, 'frame folders, more levels')}".strip()
        return f"{splits} {videos.get(depth, 'nested folders of videos')}".strip()

    @property
    def depths(self) -> set[int]:
        """Numbers of folders above a video or frame folder, without the root and split folders."""
        parents = {path.rpartition("/")[0] for paths in self.by_folder.values() for path in paths.values()}
        return {sum(part.lower() not in SPLIT_FOLDERS for part in parent.split("/") if part) for parent in parents}

    def clip_folder(self, videos: Mapping[str, str], class_of: Callable[[str], str]) -> ClipFolder:
        """Videos of one split as a `ClipFolder`, from their paths by name; `class_of` gives the class of a name."""
        root = self.tree.root
        return ClipFolder(
            root,
            self.kind,
            tuple(ClipFile(name, root / path, 0, class_of(name), self.kind) for name, path in videos.items()),
        )

    def splits(
        self, class_of: Callable[[str], str], official: Mapping[str, Split] | None = None
    ) -> dict[Split, ClipFolder]:
        """Videos of each split, in natural order of their names.

        A video outside split folders belongs to its `official` split, or else to train. Raises `MissingData` naming a
        video that lies both inside and outside a split folder.
        """
        by_split: dict[Split, dict[str, str]] = {
            split: {**self.by_folder.get(split, {})} for split in ("train", "test")
        }
        for name, path in self.by_folder.get("", {}).items():
            paths = by_split[(official or {}).get(name, "train")]
            if name in paths:
                raise _duplicate_error(self.tree, name, paths[name], path)
            paths[name] = path
        ordered = {split: {name: paths[name] for name in natural_order(paths)} for split, paths in by_split.items()}
        return {split: self.clip_folder(paths, class_of) for split, paths in ordered.items()}


def find_named(
    tree: DatasetTree, dataset: str, title: str, official_name: Callable[[re.Match[str]], str], how: str
) -> NamedVideos:
    """Videos in a folder tree whose names fit the dataset, under their official names.

    `official_name` turns a match of the dataset's pattern in `NAME_PATTERNS` into the official name. Raises
    `MissingData` where no video is found (with the content of the folder and the steps `how` to get the dataset), where
    a video exists twice, and where videos are mixed with frame folders, or png with jpeg frames.
    """
    names_by_kind: dict[Kind, Iterable[str]] = {"videos": tree.videos, "frames": tree.frames}
    matches = {
        path: (kind, match)
        for kind, paths in names_by_kind.items()
        for path in paths
        if (match := NAME_PATTERNS[dataset].fullmatch(stem(path)))
    }
    by_kind: dict[Kind, dict[FolderSplit, dict[str, str]]] = {}
    for path, (kind, match) in matches.items():
        paths = by_kind.setdefault(kind, {}).setdefault(_folder_split(tree, path), {})
        if (name := official_name(match)) in paths:
            raise MissingData(f"{title}: {_duplicate_error(tree, name, paths[name], path)}")
        paths[name] = path
    if not by_kind:
        raise MissingData(f"{title}: " + (_other_dataset(tree) or f"{_describe_content(tree)}.\n{how}"))
    if len(by_kind) > 1:
        examples = " and ".join(f"{kind} ({_first_path(by_folder)})" for kind, by_folder in by_kind.items())
        raise MissingData(f"{title}: {tree.root} holds {examples}: which are meant? Give a folder with one kind")
    kind, by_folder = next(iter(by_kind.items()))
    unrecognised = tuple(path for paths in names_by_kind.values() for path in paths if path not in matches)
    return _require_one_codec(NamedVideos(tree, kind, by_folder, unrecognised), title)


def stem(path: str) -> str:
    """Last part of a path, without a video suffix; frame folders may be named with one."""
    last = path.rpartition("/")[2]
    return last.rpartition(".")[0] if suffix(last) in VIDEO_SUFFIXES else last


def natural_order(names: Iterable[str]) -> list[str]:
    """Names in natural order, `a9` before `a10`."""
    return sorted(names, key=clips.natural_key)


def frame_size(splits: Mapping[Split, ClipFolder]) -> str:
    """Width and height of the first readable video, as `320x240`; `no readable file` if the first three all fail."""
    entries = [entry for folder in splits.values() for entry in folder.entries[:MAX_SIZE_PROBES]]
    for entry in entries[:MAX_SIZE_PROBES]:
        try:
            _, height, width = clips.measure(entry)
        except UserError:  # reading or verifying the clip reports it
            continue
        return f"{width}x{height}"
    return "no readable file"


def official_copy(present: int, total: int) -> str:
    """Description of an official copy: `official`, or `official, partial (5 of 13,320)`."""
    return "official" if present == total else f"official, partial ({present:,} of {total:,})"


def _duplicate_error(tree: DatasetTree, name: str, *paths: str) -> MissingData:
    return MissingData(f"{tree.root} holds {name} twice, {' and '.join(paths)}: keep one")


def _folder_split(tree: DatasetTree, path: str) -> FolderSplit:
    """Split named by the nearest folder above a video, including the root; empty for none."""
    parts = [tree.root.absolute().name, *path.split("/")[:-1]]
    return next((SPLIT_FOLDERS[part.lower()] for part in reversed(parts) if part.lower() in SPLIT_FOLDERS), "")


def _first_path(by_folder: Mapping[FolderSplit, Mapping[str, str]]) -> str:
    return next(iter(next(iter(by_folder.values())).values()))


def _require_one_codec(videos: NamedVideos, title: str) -> NamedVideos:
    """Return the videos; raise `MissingData` for a frame folder that mixes png and jpeg."""
    codecs = videos.tree.scan.codecs if videos.kind == "frames" else {}
    for path in (path for paths in videos.by_folder.values() for path in paths.values()):
        if len(codecs.get(path, ())) > 1:
            folder = videos.tree.root / path
            raise MissingData(f"{title}: {folder} holds png and jpeg images: which are the frames? Keep one kind")
    return videos


def _other_dataset(tree: DatasetTree) -> str:
    """Message for a folder that holds another known dataset; empty for none."""
    for dataset, pattern in NAME_PATTERNS.items():
        if example := next((path for path in (*tree.videos, *tree.frames) if pattern.fullmatch(stem(path))), ""):
            return f"{tree.root} holds {dataset} ({example}): name that dataset, or give another --data-root"
    return ""


def _describe_content(tree: DatasetTree) -> str:
    """Content of a folder without videos of a known dataset."""
    clip_names = [*tree.videos, *tree.frames]
    if tree.archives:
        return f"{tree.root} holds no clip of the dataset; {tree.unpack_hint()}"
    if clip_names:
        return f"{tree.root} holds no clip with the dataset's names, but {clips.first_few(clip_names)}"
    return f"{tree.root} holds no clips ({tree.describe_others() or 'it is empty'})"
