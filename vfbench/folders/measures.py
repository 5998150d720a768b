"""How many frames entries have and how large they are; what takes time to find out is kept in the cache."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vfbench.errors import BadEnvironment, MissingData
from vfbench.files import cache, read_json, write_json
from vfbench.folders.layout import Entry
from vfbench.folders.read import measure
from vfbench.folders.scan import suffix
from vfbench.progress import Progress

Measure = tuple[int, int, int]
QUICK = ".avi"  # its header stands at the file's head: to read it again costs less than to look it up


def measures(entries: Sequence[Entry]) -> list[Measure]:
    """Number of frames, height and width of every entry, as `vfbench.folders.measure` finds them.

    The cache knows a file by its place, size and time. Raises `MissingData` naming the first entry that is cut off or
    cannot be read; what was found before it is kept.
    """
    keys = {i: _key(entry.path) for i, entry in enumerate(entries) if _slow(entry)}
    store = cache() / "videos.json"
    known = _known(store) if keys else {}
    todo = [key for key in keys.values() if key not in known]
    if not todo:
        return [known[keys[i]] if i in keys else measure(entry) for i, entry in enumerate(entries)]
    progress = Progress("videos looked at", len(entries), "videos")
    found = []
    try:
        for i, entry in enumerate(entries):
            found.append(known[keys[i]] if keys.get(i) in known else measure(entry))
            if i in keys:
                known[keys[i]] = found[-1]
            progress.advance(1)
    finally:
        _keep(store, known)
    return found


def _slow(entry: Entry) -> bool:
    return entry.kind == "videos" and suffix(entry.path.name) != QUICK


def _key(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        raise MissingData(f"{path}: {error.strerror}; get this file again or take it out") from error
    told = f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()


def _known(store: Path) -> dict[str, Measure]:
    if not store.exists():
        return {}
    try:
        found = {key: (int(n), int(height), int(width)) for key, (n, height, width) in read_json(store).items()}
    except (MissingData, TypeError, ValueError) as error:
        print(f"{store} cannot be used: {error}; looking again", file=sys.stderr)
        return {}
    return found


def _keep(store: Path, known: Mapping[str, Measure]) -> None:
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        write_json(store, known)
    except (OSError, BadEnvironment) as error:  # the next run looks again
        print(f"warning: what was found of videos is not kept in {store} ({error})", file=sys.stderr)
