"""Manifest of the real clips that a protocol scores: video, first frame, stride and crop of each.

    draw,role,split,video,start,stride,left,top,width,height
    0,real,train,Archery/v_Archery_g01_c01.avi,17,1,40,0,240,240

Every run writes its manifest beside the result. `--manifest FILE` scores the same clips again, also those of a
published result.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from vfbench.clips import first_few
from vfbench.clips.text import shortened
from vfbench.errors import MissingData
from vfbench.interfaces import Place, Split
from vfbench.utils.files import atomic_path, read_bytes

Role = Literal["real", "spare"]
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}")
COLUMNS = ("draw", "role", "split", "video", "start", "stride", "left", "top", "width", "height")


class ManifestRow(NamedTuple):
    """A clip: its draw, role and place. `real` clips are scored; `spare` clips are the holdout for the floor."""

    draw: int
    role: Role
    place: Place


@dataclass(frozen=True)
class Manifest:
    """Real clips of all draws, in scoring order."""

    rows: tuple[ManifestRow, ...]

    def places(self, draw: int, role: Role) -> list[Place]:
        """Places of the clips of one draw with one role."""
        return [row.place for row in self.rows if (row.draw, row.role) == (draw, role)]

    @property
    def real(self) -> list[ManifestRow]:
        """Rows of the scored clips, without the holdout clips."""
        return [row for row in self.rows if row.role == "real"]

    @property
    def draws(self) -> int:
        """Number of draws."""
        return 1 + max(row.draw for row in self.rows)

    @cached_property
    def text(self) -> str:
        """CSV with a header; lines end in a line feed on every platform."""
        rows = ((row.draw, row.role, *row.place[:-1], *row.place.crop) for row in self.rows)
        return "".join(",".join(map(_cell, cells)) + "\n" for cells in (COLUMNS, *rows))

    @property
    def encoded(self) -> bytes:
        """`text` as bytes; names of videos that are not UTF-8 keep theirs."""
        return self.text.encode(errors="surrogateescape")

    @property
    def sha256(self) -> str:
        """SHA-256 of `encoded`, 64 hexadecimal digits."""
        return hashlib.sha256(self.encoded).hexdigest()

    def write(self, path: Path) -> None:
        """Write `encoded` atomically; raises `BadEnvironment` where the file cannot be written."""
        with atomic_path(path) as file:
            file.write_bytes(self.encoded)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises `MissingData` naming the file, the clip number and the value for an invalid file, for a repeated clip, for a
    video that is both real and spare in one draw, and for draws with different numbers of real clips.
    """
    try:
        text = read_bytes(path).removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    except OSError as error:
        raise MissingData(f"--manifest {path}: {error.strerror}; a run writes such a file, manifest.csv") from error
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(lines, [])
        if header != list(COLUMNS):
            first_line = first_few([",".join(header)[:80]])
            raise MissingData(f"--manifest {path}: its first line is '{first_line}', not '{','.join(COLUMNS)}'")
        manifest = Manifest(tuple(_rows(path, lines)))
    except csv.Error as error:
        raise MissingData(f"--manifest {path}: not a manifest ({error}); a run writes one, manifest.csv") from error
    _check(path, manifest)
    return manifest


def _cell(value: object) -> str:
    """Value as a CSV cell. The csv module leaves a carriage return unquoted, and readers then fail."""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _rows(path: Path, lines: Iterator[list[str]]) -> Iterator[ManifestRow]:
    for number, cells in enumerate(lines, 2):
        if cells:
            yield _row(f"--manifest {path}, clip {number - 1}", cells)


def _row(where: str, cells: list[str]) -> ManifestRow:
    if len(cells) != len(COLUMNS):
        raise MissingData(f"{where}: {len(cells)} columns, not {len(COLUMNS)}: '{shortened(','.join(cells))}'")
    draw, role, split, video, *numbers = cells
    for name, value, words in (("role", role, get_args(Role)), ("split", split, get_args(Split))):
        if value not in words:
            raise MissingData(f"{where}: {name} is '{shortened(value)}', not one of {', '.join(words)}")
    if invalid := [cell for cell in (draw, *numbers) if not _WHOLE_NUMBER.fullmatch(cell)]:
        raise MissingData(f"{where}: '{shortened(invalid[0])}' is not a whole number: '{shortened(','.join(cells))}'")
    draw_number, start, stride, left, top, width, height = map(int, (draw, *numbers))
    if min(draw_number, start, left, top) < 0 or min(stride, width, height) < 1:
        raise MissingData(f"{where}: '{shortened(','.join(cells))}' is not a place in a video: a number is too small")
    return ManifestRow(draw_number, role, Place(split, video, start, stride, (left, top, width, height)))  # type: ignore[arg-type]


def _check(path: Path, manifest: Manifest) -> None:
    if repeated := [row.place for row, count in Counter(manifest.rows).items() if count > 1]:
        raise MissingData(f"--manifest {path}: {repeated[0].video} from frame {repeated[0].start} is listed twice")
    counts = Counter(row.draw for row in manifest.real)
    if not counts or len(set(counts.values())) > 1 or {row.draw for row in manifest.rows} != set(range(len(counts))):
        clips = first_few([f"{counts[draw]} in {draw}" for draw in sorted({row.draw for row in manifest.rows})])
        raise MissingData(
            f"--manifest {path}: real clips in its draws: {clips or 'none'}; needed: draws 0, 1, ..., equally large"
        )
    videos: dict[tuple[int, Role], set[tuple[Split, str]]] = defaultdict(set)
    for row in manifest.rows:
        videos[row.draw, row.role].add((row.place.split, row.place.video))
    if both := [video for draw in counts for _, video in sorted(videos[draw, "real"] & videos[draw, "spare"])]:
        raise MissingData(
            f"--manifest {path}: {first_few(both)}: a video is both real and spare, so the floor would be too low; "
            "keep it in one role"
        )
