"""Where a dataset lies: the folder that the user gave, or its child named after the dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from vfbench.clips import prepared
from vfbench.clips.inventory import Inventory
from vfbench.clips.scan import is_folder, listing
from vfbench.datasets._tree import plain
from vfbench.errors import MissingData

NESTED = 3  # an archive unpacked into a folder of its own name makes such a chain


def places(root: str | None, title: str, names: Sequence[str], how: str) -> list[Path]:
    """The folders from the given one down to that of the dataset, each a child of the one before.

    `root`, or else VFBENCH_DATA, is that folder, or holds it under one of `names`, of which the first that is there
    counts; case, `-` and `_` make no difference. Raises `MissingData` with `how` to get the dataset where nothing is
    given or no folder stands there, and naming two children that could both be meant.
    """
    given = root or os.environ.get("VFBENCH_DATA")
    if not given:
        raise MissingData(f"{title}: no --data-root given and VFBENCH_DATA not set.\n{how}")
    place = Path(given).expanduser()
    try:
        os.scandir(place).close()
    except OSError as error:
        raise MissingData(f"{title}: {place}: {error.strerror}; needed: a folder that you may read.\n{how}") from error
    found = [place]
    while len(found) <= NESTED and (child := _child(found[-1], title, names)):
        found.append(child)
    return found


def ready(visited: Sequence[Path], dataset: str, origin: Callable[[str], str], **options: object) -> Inventory | None:
    """What `vfbench data prepare` made of the dataset in one of the folders; None where it made nothing."""
    each = (prepared.inventory(place, dataset, origin=origin, **options) for place in visited)
    return next(filter(None, each), None)


def _child(place: Path, title: str, names: Sequence[str]) -> Path | None:
    """The folder in `place` that is named after the dataset."""
    there: dict[str, list[Path]] = {}
    for item in listing(place):
        if plain(item.name) in map(plain, names) and is_folder(item):
            there.setdefault(plain(item.name), []).append(place / item.name)
    for name in names:
        if len(same := sorted(there.get(plain(name), []))) > 1:
            both = " or ".join(map(str, same))
            raise MissingData(f"{title}: which is meant, {both}? Say --data-root {same[0]}, or the other")
        if same:
            return same[0]
    return None
