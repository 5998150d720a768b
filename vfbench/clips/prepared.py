"""Prepared datasets: what `vfbench data prepare` made, read back as the dataset that it was made of.

OUT/prepared.json       the index: which videos, where their frames are, what they were made of; sealed by its hash
OUT/shards/000000.npy   uint8 (N, 3, H, W): all frames of whole videos, one after another, cropped and resized
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from vfbench.clips import ClipFile, ClipFolder
from vfbench.clips.arrays import shard_size
from vfbench.clips.inventory import Inventory
from vfbench.errors import MissingData, UserError
from vfbench.utils.files import file_sha256, load_cache, read_json, save_cache, stamp, write_json
from vfbench.utils.prefetch import ahead
from vfbench.utils.progress import Progress

INDEX, MARK, SHARDS = "prepared.json", "preparing.json", "shards"
WHOLE = "shards.json"  # in the cache: the shards that were seen whole
FORMAT = 2
HASHERS = 2  # threads; more would wait for the disk


def inventory(root: Path, dataset: str, *, origin: Callable[[str], str] = str, **options: object) -> Inventory | None:
    """The prepared videos in `root`; None where nothing was prepared.

    `options` are those that choose the videos, such as `split_list=2`, and `origin` is that of the `Inventory`. Raises
    `MissingData` where the index is damaged or of another dataset, the work was not finished, or a shard is missing or
    cut off; and `UserError` for another option than it was prepared with.
    """
    if not (root / INDEX).is_file():
        if (root / MARK).is_file():
            raise MissingData(f"{root} is not prepared to its end; go on with\n  {read_json(root / MARK)['command']}")
        return None
    index = read_index(root)
    if index["dataset"] != dataset:
        raise MissingData(f"{root} was prepared of {index['dataset']}, not of {dataset}: give the folder of {dataset}")
    for name, value in options.items():
        if name in index["options"] and index["options"][name] != value:
            made = f"{name}={index['options'][name]!r}"
            raise UserError(
                f"{dataset}({name}={value!r}): {root} was prepared with {made}; ask for that, or prepare another folder"
            )
    if bad := [fault for shard in index["shards"] if (fault := _size_fault(root, index, shard))]:
        raise MissingData(f"{bad[0]}; give the command again that made it\n  {index['command']}")
    return _inventory(root, index, origin)


def require_whole(root: Path) -> None:
    """Hash the shards of a prepared folder that were not seen whole before.

    What was seen whole is known by its place, size and time, so that every byte is read only once. Raises `MissingData`
    naming a shard that is not, with the command that makes it again.
    """
    index = read_index(root)
    shards = index["shards"]
    keys = [_seal({"stamp": stamp(root / SHARDS / shard["name"]), "sha256": shard["sha256"]}) for shard in shards]
    known = load_cache(WHOLE)
    todo = [number for number, key in enumerate(keys) if key not in known]
    for number, fault in zip(todo, _faults(root, index, todo), strict=True):
        if fault:
            raise MissingData(f"{fault}; give the command again that made it\n  {index['command']}")
        known[keys[number]] = shards[number]["name"]
    if todo:
        save_cache(WHOLE, known)


def damaged(root: Path) -> list[str]:
    """What is wrong with the shards of a prepared folder, a line each: missing, cut off, or a byte that has changed.

    Reads every byte; the command that prepared the folder, given again, makes such shards anew. Raises `MissingData`
    where there is no index, or it is damaged.
    """
    index = read_index(root)
    return [fault for fault in _faults(root, index, range(len(index["shards"]))) if fault]


def _faults(root: Path, index: Mapping[str, Any], numbers: Sequence[int]) -> list[str]:
    """What is wrong with each of these shards; empty where nothing is."""
    progress = Progress("shards looked at", len(numbers), "shards")
    faults = []
    with closing(ahead(lambda i: _fault(root, index, i), numbers, workers=HASHERS, depth=HASHERS)) as found:
        for fault in found:
            progress.advance(1)
            faults.append(fault)
    return faults


def read_index(root: Path) -> dict[str, Any]:
    """The index of a prepared folder; raises `MissingData` for one that is damaged, or of another format."""
    path = root / INDEX
    index = read_json(path)
    if index.get("format") != FORMAT:
        raise MissingData(f"{path} has format {index.get('format')}, known: {FORMAT}; prepare another folder")
    if index.pop("sha256", None) != _seal(index):
        raise MissingData(f"{path} is damaged, it does not match its own hash; prepare this folder again")
    return index


def write_index(root: Path, index: Mapping[str, Any]) -> None:
    """Write the index with its hash, whole or not at all."""
    write_json(root / INDEX, {**index, "sha256": _seal(index)})


def _seal(index: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _inventory(root: Path, index: Mapping[str, Any], origin: Callable[[str], str]) -> Inventory:
    shards = [root / SHARDS / shard["name"] for shard in index["shards"]]
    splits: dict[Any, ClipFolder] = {}
    for split, videos in index["videos"].items():
        entries = (
            ClipFile(name, shards[shard], row, group, "prepared", frames, (height, width), rate)
            for name, group, frames, height, width, shard, row, rate in videos
        )
        splits[split] = ClipFolder(root, "prepared", tuple(entries))
    return Inventory(
        index["dataset"],
        f"prepared from {index['layout']}",
        index["copy"],
        splits,
        tuple(index["classes"]),
        {split: tuple(names) for split, names in index["listed"].items()},
        tuple(index["extra"]),
        origin=origin,
        notes=tuple(index["notes"]),
        made_of=index["made_of"],
        fitted=index["fitted"],
        decoder=index["decoder"],
        leaked=tuple(index["leaked"]),
    )


def _fault(root: Path, index: Mapping[str, Any], number: int) -> str:
    """What is wrong with a shard; empty if nothing is."""
    shard = index["shards"][number]
    if fault := _size_fault(root, index, shard):
        return fault
    path = root / SHARDS / shard["name"]
    try:
        same = file_sha256(path) == shard["sha256"]
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if same else f"{path}: its bytes have changed since it was prepared"


def _size_fault(root: Path, index: Mapping[str, Any], shard: Mapping[str, Any]) -> str:
    """What is wrong with a shard as far as its size tells; empty if nothing is."""
    path = root / SHARDS / shard["name"]
    wanted = shard_size(shard["frames"], index["height"], index["width"])
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if size == wanted else f"{path}: cut off, {size:,} of {wanted:,} bytes"
