"""Videos that are in a dataset more than once, and those that two splits share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from vfbench.clips import few
from vfbench.clips.inventory import Inventory
from vfbench.data.findings import Example, Finding, finding
from vfbench.data.inspect_video import VideoInfo, contents, identity
from vfbench.data.sources import Item
from vfbench.interfaces import Split
from vfbench.utils.progress import Progress

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def linked(items: Sequence[Item]) -> list[list[Item]]:
    """The names of each file; links are told by the file system, and nothing is read."""
    return list(_grouped((identity(item.entry), item) for item in items).values())


def copied(files: Sequence[list[Item]], seen: Sequence[VideoInfo]) -> list[list[list[Item]]]:
    """Files of the same content, each with all its names. Only those of equal size are read, and hashed whole.

    `seen` is what the first name of each file shows; damaged files count as well as others. Frame folders are equal if
    all their images are, in their order.
    """
    weights = ((one.weight, names) for one, names in zip(seen, files, strict=True) if one.weight)
    suspects = [names for same in _grouped(weights).values() if len(same) > 1 for names in same]
    progress = Progress("files of equal size compared", len(suspects), "files")
    digests = []
    for digest in contents([names[0].entry for names in suspects]):
        digests.append(digest)
        progress.advance(1)
    keyed = ((digest, names) for digest, names in zip(digests, suspects, strict=True) if digest)
    return [same for same in _grouped(keyed).values() if len(same) > 1]


def findings(items: Sequence[Item], seen: Sequence[VideoInfo], inventory: Inventory) -> list[Finding]:
    """What is there twice: links to one file, copies, and what two splits share, by content and by recording."""
    first = {id(item): one for item, one in zip(items, seen, strict=True)}
    files = linked(items)
    copies = copied(files, [first[id(names[0])] for names in files])
    twice = {id(names) for same in copies for names in same}
    alike = [[item for names in same for item in names] for same in copies]
    alone = [names for names in files if id(names) not in twice]
    return [
        *finding("links", [_together(names) for names in files if len(names) > 1]),
        *finding("copies", [_together([names[0] for names in same]) for same in copies]),
        *finding("shared", [*_placed(items, inventory), *filter(None, map(_across, [*alike, *alone]))]),
        *(finding("recordings", _recordings(items, inventory.origin)) if inventory.origin is not str else []),
    ]


def _together(items: Sequence[Item]) -> Example:
    names = tuple(item.name for item in items[1:])
    return Example(items[0].name, f"also {few(names)}", names)


def _across(items: Sequence[Item]) -> Example | None:
    """Names of one content in two splits; None where they are in one."""
    splits = _grouped((item.split, item) for item in items)
    if len(splits) < 2:
        return None
    (split, (one, *_)), *rest = splits.items()
    others = tuple(item.name for _, there in rest for item in there)
    where = " and ".join(other for other, _ in rest)
    return Example(one.name, f"in {split}; in {where}: {few(others)}", others)


def _placed(items: Sequence[Item], inventory: Inventory) -> list[Example]:
    """Names that the folders have in both splits, and the lists in one."""
    listed = {item.entry.name: item.split for item in items}
    known = {name: f", used for {listed[name]}" if name in listed else "" for name in inventory.leaked}
    return [Example(name, f"in the folders of train and test{used}") for name, used in known.items()]


def _recordings(items: Sequence[Item], origin: Callable[[str], str]) -> list[Example]:
    """The recordings with clips in two splits."""
    found: dict[str, dict[Split, int]] = defaultdict(lambda: defaultdict(int))
    for item in items:
        found[origin(item.entry.name)][item.split] += 1
    shared = {name: splits for name, splits in found.items() if len(splits) > 1}
    return [
        Example(name, ", ".join(f"{count:,} {split}" for split, count in splits.items()) + " clips")
        for name, splits in shared.items()
    ]


def _grouped(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    groups: dict[Key, list[Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups
