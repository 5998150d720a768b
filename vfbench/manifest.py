"""The list of clips that a protocol scores: which video, from which frame on, which part of the picture.

    draw,role,split,video,start,stride,left,top,width,height
    0,real,train,Archery/v_Archery_g01_c01.avi,17,1,40,0,240,240

It is the whole choice of real clips: written beside every result, and given back by `--manifest` to repeat it, also one
that was published with somebody else's number.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from vfbench.errors import MissingData
from vfbench.files import replacing
from vfbench.interfaces import Place, Split

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
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((row.draw, row.role, *row.place[:-1], *row.place.crop) for row in self.rows)
        return file.getvalue()

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

    Raises `MissingData` naming file, line and value for what is no such list, for a clip that stands there twice in one
    draw, and where the draws do not have equally many real clips.
    """
    try:
        text = path.read_bytes().decode(errors="surrogateescape")
    except OSError as error:
        raise MissingData(f"--manifest {path}: {error.strerror}; a run writes such a file, manifest.csv") from error
    lines = csv.reader(io.StringIO(text, newline=""))
    if (header := next(lines, None)) != list(COLUMNS):
        raise MissingData(f"--manifest {path}: its first line is {','.join(header or [])!r}, not {','.join(COLUMNS)!r}")
    manifest = Manifest(tuple(_rows(path, lines)))
    _check(path, manifest)
    return manifest


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
    try:
        first, start, stride, left, top, width, height = map(int, (draw, *numbers))
    except ValueError as error:
        raise MissingData(f"{where}: a number is none ({error}): {','.join(cells)!r}") from error
    if min(first, start, left, top) < 0 or min(stride, width, height) < 1:
        raise MissingData(f"{where}: {','.join(cells)!r} is no place in a video: a number is too small")
    return Row(first, role, Place(split, video, start, stride, (left, top, width, height)))  # type: ignore[arg-type]


def _check(path: Path, manifest: Manifest) -> None:
    if twice := [row.place for row, count in Counter(manifest.rows).items() if count > 1]:
        raise MissingData(f"--manifest {path}: {twice[0].video} from {twice[0].start} on stands there twice")
    counts = [len(manifest.places(draw, "real")) for draw in range(manifest.draws)] if manifest.rows else [0]
    if len(set(counts)) > 1 or not counts[0]:
        found = ", ".join(map(str, counts))
        raise MissingData(f"--manifest {path}: its draws have {found} real clips; needed: as many in each, from 0 on")
