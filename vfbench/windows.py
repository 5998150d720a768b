"""Windows: the clips of videos that give several, as many as fit. How many there are, and where each begins."""

from __future__ import annotations

import hashlib
import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from vfbench import video
from vfbench.cut import Cut
from vfbench.errors import BadEnvironment, MissingData
from vfbench.files import cache, read_json, write_json
from vfbench.folders.scan import few
from vfbench.progress import Progress


class Windows:
    """All clips that a cut finds in videos, video by video: `windows[i]` is the number of a video and a first frame.

    `counts` has the frames of each of the videos called `names`. Raises `MissingData` naming videos that are too short
    for one clip.
    """

    def __init__(self, cut: Cut, names: Sequence[str], counts: Sequence[int]) -> None:
        pairs = list(zip(names, counts, strict=True))
        if short := [f"{name} ({count})" for name, count in pairs if count < cut.span]:
            raise MissingData(
                f"{cut.dataset}: {len(short):,} of {len(pairs):,} videos have fewer frames than the {cut.span} that a "
                f"clip needs: {few(short)}; take them out or ask for fewer, since none is repeated"
            )
        self._starts = [cut.starts(name, count) for name, count in pairs]
        self._ends = list(accumulate(map(len, self._starts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} windows: no window {index}")
        number = bisect_right(self._ends, index)
        return number, self._starts[number][index - self._ends[number]]  # counted from the end of the video's own


def frame_counts(paths: Sequence[Path]) -> list[int]:
    """How many frames each video file decodes to: counted, which takes minutes for thousands, and then kept.

    The cache knows a file by its place, size and time, and by the decoder. Raises `MissingData` naming the first file
    that is cut off or cannot be decoded; what was counted before it is kept.
    """
    keys = [_key(path) for path in paths]
    store = cache() / "frames.json"
    known = _known(store)
    todo = {key: path for key, path in zip(keys, paths, strict=True) if key not in known}
    if not todo:
        return [known[key] for key in keys]
    progress = Progress("frames counted", len(todo), "videos")
    try:
        for key, path in todo.items():
            known[key] = video.count_frames(path)
            progress.advance(1)
    finally:
        _keep(store, known)
    return [known[key] for key in keys]


def _key(path: Path) -> str:
    """What a whole video is known by."""
    video.check_whole(path)
    stat = path.stat()
    told = f"{video.decoder()}\n{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    return hashlib.sha256(told.encode()).hexdigest()


def _known(store: Path) -> dict[str, int]:
    if not store.exists():
        return {}
    try:
        return {key: int(count) for key, count in read_json(store).items()}
    except (MissingData, TypeError, ValueError) as error:
        print(f"{store} cannot be used: {error}; counting again", file=sys.stderr)
        return {}


def _keep(store: Path, known: Mapping[str, int]) -> None:
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        write_json(store, known)
    except (OSError, BadEnvironment) as error:  # the next run counts again
        print(f"warning: numbers of frames are not kept in {store} ({error})", file=sys.stderr)
