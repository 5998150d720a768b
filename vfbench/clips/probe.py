"""Frame counts and sizes of entries; slow measurements are cached."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vfbench import video
from vfbench.clips.layout import ClipFile
from vfbench.clips.read import measure
from vfbench.clips.scan import suffix
from vfbench.utils import console
from vfbench.utils.files import cache_folder, file_key, load_cache, save_cache
from vfbench.utils.progress import Progress

Measure = tuple[int, int, int]
CACHE_FILE = "videos.json"
FORMAT = 2  # of the cache: raise it when measurements change
UNCACHED_SUFFIX = ".avi"  # the header is at the start of the file: reading it is faster than the cache


def measure_all(entries: Sequence[ClipFile]) -> list[Measure]:
    """Number of frames, height and width of every entry, as `vfbench.clips.measure` reads them.

    Cached by path, size, mtime and decoder version. Raises `MissingData` naming the first entry that is cut off or
    cannot be read; earlier measurements stay cached.
    """
    keys = {i: _key(entry.path) for i, entry in enumerate(entries) if _slow(entry)}
    cached = _load() if keys else {}
    if all(key in cached for key in keys.values()):
        return [cached[keys[i]] if i in keys else measure(entry) for i, entry in enumerate(entries)]
    sizes = []
    try:
        with Progress("measured", len(entries), "videos") as progress:
            for i, entry in enumerate(entries):
                sizes.append(cached[keys[i]] if keys.get(i) in cached else measure(entry))
                if i in keys:
                    cached[keys[i]] = sizes[-1]
                progress.advance(1)
    finally:
        save_cache(CACHE_FILE, cached)
    return sizes


def _slow(entry: ClipFile) -> bool:
    return entry.kind == "videos" and suffix(entry.path.name) != UNCACHED_SUFFIX


def _key(path: Path) -> str:
    text = f"{FORMAT}\n{video.decoder_version('pyav')}\n{file_key(path)}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _load() -> dict[str, Measure]:
    try:
        return {key: (int(n), int(height), int(width)) for key, (n, height, width) in load_cache(CACHE_FILE).items()}
    except (TypeError, ValueError) as error:
        console.warn(f"{cache_folder() / CACHE_FILE} cannot be used: {error}; measuring again")
        return {}
