"""How many frames entries have and how large they are; what takes time to find out is kept in the cache."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from vfbench import video
from vfbench.clips.layout import ClipFile
from vfbench.clips.read import measure
from vfbench.clips.scan import suffix
from vfbench.utils.files import cache, load_cache, save_cache, stamp
from vfbench.utils.progress import Progress

Measure = tuple[int, int, int]
STORE = "videos.json"
FORMAT = 1  # of what is kept: raise it whenever another number would be found
QUICK = ".avi"  # its header stands at the file's head: to read it again costs less than to look it up


def measures(entries: Sequence[ClipFile]) -> list[Measure]:
    """Number of frames, height and width of every entry, as `vfbench.clips.measure` finds them.

    The cache knows a file by its place, size and time, and by who looked. Raises `MissingData` naming the first entry
    that is cut off or cannot be read; what was found before it is kept.
    """
    keys = {i: _key(entry.path) for i, entry in enumerate(entries) if _slow(entry)}
    known = _known() if keys else {}
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
        save_cache(STORE, known)
    return found


def _slow(entry: ClipFile) -> bool:
    return entry.kind == "videos" and suffix(entry.path.name) != QUICK


def _key(path: Path) -> str:
    told = f"{FORMAT}\n{video.version('pyav')}\n{stamp(path)}"
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()


def _known() -> dict[str, Measure]:
    try:
        return {key: (int(n), int(height), int(width)) for key, (n, height, width) in load_cache(STORE).items()}
    except (TypeError, ValueError) as error:
        print(f"{cache() / STORE} cannot be used: {error}; looking again", file=sys.stderr)
        return {}
