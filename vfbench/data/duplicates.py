"""Duplicate videos of a dataset, and videos or recordings shared by two splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from vfbench.clips import first_few
from vfbench.clips.inventory import Inventory
from vfbench.data.findings import Example, Finding, make_findings
from vfbench.data.inspect_video import VideoInfo, content_hashes, file_identity
from vfbench.data.sources import SplitVideo
from vfbench.interfaces import Split
from vfbench.utils.progress import Progress

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def group_links(videos: Sequence[SplitVideo]) -> list[list[SplitVideo]]:
    """Videos grouped by file: hard and symbolic links to one file share a group. Reads no file content."""
    return list(_group((file_identity(video.entry), video) for video in videos).values())


def group_copies(files: Sequence[list[SplitVideo]], infos: Sequence[VideoInfo]) -> list[list[list[SplitVideo]]]:
    """Groups of two or more files of equal content. Reads and hashes only files of equal `size_key`.

    `files` are groups of `group_links`, `infos` the inspection of each group's first video. Damaged files are compared
    too. Frame folders are equal if all their images are, in order.
    """
    keyed_by_size = ((info.size_key, names) for info, names in zip(infos, files, strict=True) if info.size_key)
    suspects = [names for group in _group(keyed_by_size).values() if len(group) > 1 for names in group]
    digests = []
    with Progress("files of equal size compared", len(suspects), "files") as progress:
        for digest in content_hashes([names[0].entry for names in suspects]):
            digests.append(digest)
            progress.advance(1)
    keyed_by_content = ((digest, names) for digest, names in zip(digests, suspects, strict=True) if digest)
    return [group for group in _group(keyed_by_content).values() if len(group) > 1]


def findings(videos: Sequence[SplitVideo], infos: Sequence[VideoInfo], inventory: Inventory) -> list[Finding]:
    """Links to one file, copies of a file, and content or recordings that two splits share."""
    info_of = {id(video): info for video, info in zip(videos, infos, strict=True)}
    files = group_links(videos)
    copies = group_copies(files, [info_of[id(names[0])] for names in files])
    copied = {id(names) for group in copies for names in group}
    copy_groups = [[video for names in group for video in names] for group in copies]
    single_files = [names for names in files if id(names) not in copied]
    leaks = filter(None, map(_split_leak, [*copy_groups, *single_files]))
    recordings = _shared_recordings(videos, inventory.origin) if inventory.origin is not str else []
    return [
        *make_findings("links", [_duplicates(names) for names in files if len(names) > 1]),
        *make_findings("copies", [_duplicates([names[0] for names in group]) for group in copies]),
        *make_findings("shared", [*_folder_leaks(videos, inventory), *leaks]),
        *make_findings("recordings", recordings),
    ]


def _duplicates(videos: Sequence[SplitVideo]) -> Example:
    names = tuple(video.name for video in videos[1:])
    return Example(videos[0].name, f"also {first_few(names)}", names)


def _split_leak(videos: Sequence[SplitVideo]) -> Example | None:
    """Names of one content, if it is in two splits; else None."""
    by_split = _group((video.split, video) for video in videos)
    if len(by_split) < 2:
        return None
    (split, (video, *_)), *rest = by_split.items()
    others = tuple(other.name for _, group in rest for other in group)
    other_splits = " and ".join(other for other, _ in rest)
    return Example(video.name, f"in {split}; in {other_splits}: {first_few(others)}", others)


def _folder_leaks(videos: Sequence[SplitVideo], inventory: Inventory) -> list[Example]:
    """Names that lie in the folders of both splits, although the lists give them to one."""
    listed = {video.entry.name: video.split for video in videos}
    uses = {name: f", used for {listed[name]}" if name in listed else "" for name in inventory.leaked}
    return [Example(name, f"in the folders of train and test{use}") for name, use in uses.items()]


def _shared_recordings(videos: Sequence[SplitVideo], origin: Callable[[str], str]) -> list[Example]:
    """Recordings with clips in two splits, with the number of clips in each."""
    counts: dict[str, dict[Split, int]] = defaultdict(lambda: defaultdict(int))
    for video in videos:
        counts[origin(video.entry.name)][video.split] += 1
    return [
        Example(name, ", ".join(f"{count:,} {split}" for split, count in by_split.items()) + " clips")
        for name, by_split in counts.items()
        if len(by_split) > 1
    ]


def _group(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    groups: dict[Key, list[Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups
