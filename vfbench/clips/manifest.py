"""The list of clips that a protocol scores: which video, from which frame on, which part of the picture.

    draw,role,split,video,start,stride,left,top,width,height
    0,real,train,Archery/v_Archery_g01_c01.avi,17,1,40,0,240,240

It is the whole choice of real clips: written beside every result, and given back by `--manifest` to repeat it, also one
that was published with somebody else's number.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from vfbench.clips import few
from vfbench.errors import MissingData
from vfbench.interfaces import Place, Split
from vfbench.utils.files import replacing

Role = Literal["real", "spare"]
COLUMNS = ("draw", "role", "split", "video", "start", "stride", "left", "top", "width", "height")


class Row(NamedTuple):
    """A clip: of which draw, whether it is scored or stands in for generated ones to find the floor, and its place."""

    draw: int
    role: Role
    place: Place


@dataclass(frozen=True)
class Manifest:
    """The real clips of all draws, in the order in which they are scored."""

    rows: tuple[Row, ...]

    def places(self, draw: int, role: Role) -> list[Place]:
        """Where the clips of a draw come from."""
        return [row.place for row in self.rows if (row.draw, row.role) == (draw, role)]

    @property
    def real(self) -> list[Row]:
        """The clips that are scored, without the spare ones."""
        return [row for row in self.rows if row.role == "real"]

    @property
    def draws(self) -> int:
        """How many draws there are."""
        return 1 + max(row.draw for row in self.rows)

    @cached_property
    def text(self) -> str:
        """The rows as CSV with a header, lines ending in a line feed on every machine."""
        rows = ((row.draw, row.role, *row.place[:-1], *row.place.crop) for row in self.rows)
        return "".join(",".join(map(_cell, cells)) + "\n" for cells in (COLUMNS, *rows))

    @property
    def sha256(self) -> str:
        """The hash of the text: equal for equal choices, on every machine."""
        return hashlib.sha256(self.text.encode(errors="surrogateescape")).hexdigest()

    def write(self, path: Path) -> None:
        """Write the text, whole or not at all; raises `BadEnvironment` when the disk does not take it."""
        with replacing(path) as file:
            file.write_bytes(self.text.encode(errors="surrogateescape"))


def read(path: Path) -> Manifest:
    """A list of clips from its file.

    Raises `MissingData` naming the file, the clip by its number and the value for what is no such list, for a clip that
    stands there twice, or a video on both sides, in one draw, and where draws have other numbers of real clips.
    """
    try:
        text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    except OSError as error:
        raise MissingData(f"--manifest {path}: {error.strerror}; a run writes such a file, manifest.csv") from error
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(lines, [])
        if header != list(COLUMNS):
            said = few([",".join(header)[:80]])
            raise MissingData(f"--manifest {path}: its first line is '{said}', not '{','.join(COLUMNS)}'")
        manifest = Manifest(tuple(_rows(path, lines)))
    except csv.Error as error:
        raise MissingData(f"--manifest {path}: no list of clips ({error}); a run writes one, manifest.csv") from error
    _check(path, manifest)
    return manifest


def _cell(value: object) -> str:
    """A value as CSV has it; the standard library leaves a carriage return unquoted, which no reader takes."""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _rows(path: Path, lines: Iterator[list[str]]) -> Iterator[Row]:
    for number, cells in enumerate(lines, 2):
        if cells:
            yield _row(f"--manifest {path}, clip {number - 1}", cells)


def _row(where: str, cells: list[str]) -> Row:
    if len(cells) != len(COLUMNS):
        raise MissingData(f"{where}: {len(cells)} columns, not {len(COLUMNS)}: {','.join(cells)!r}")
    draw, role, split, video, *numbers = cells
    for name, value, words in (("role", role, get_args(Role)), ("split", split, get_args(Split))):
        if value not in words:
            raise MissingData(f"{where}: {name} is {value!r}, not one of {', '.join(words)}")
    if odd := [cell for cell in (draw, *numbers) if not (cell.isascii() and cell.removeprefix("-").isdecimal())]:
        raise MissingData(f"{where}: '{odd[0]}' is no whole number: {','.join(cells)!r}")
    first, start, stride, left, top, width, height = map(int, (draw, *numbers))
    if min(first, start, left, top) < 0 or min(stride, width, height) < 1:
        raise MissingData(f"{where}: {','.join(cells)!r} is no place in a video: a number is too small")
    return Row(first, role, Place(split, video, start, stride, (left, top, width, height)))  # type: ignore[arg-type]


def _check(path: Path, manifest: Manifest) -> None:
    if twice := [row.place for row, count in Counter(manifest.rows).items() if count > 1]:
        raise MissingData(f"--manifest {path}: {twice[0].video} from {twice[0].start} on stands there twice")
    counts = Counter(row.draw for row in manifest.real)
    if not counts or len(set(counts.values())) > 1 or {row.draw for row in manifest.rows} != set(range(len(counts))):
        found = few([f"{counts[draw]} in {draw}" for draw in sorted({row.draw for row in manifest.rows})]) or "none"
        raise MissingData(f"--manifest {path}: real clips in its draws: {found}; needed: as many in each, from 0 on")
    sides: dict[tuple[int, Role], set[tuple[Split, str]]] = defaultdict(set)
    for row in manifest.rows:
        sides[row.draw, row.role].add((row.place.split, row.place.video))
    if both := [video for draw in counts for _, video in sorted(sides[draw, "real"] & sides[draw, "spare"])]:
        raise MissingData(
            f"--manifest {path}: {few(both)}: a video is both scored and spare, so the floor would be too low; "
            "keep it on one side"
        )
