"""Examples from the gallery: clips nearest to a real one and farthest from all, best and worst fit to the caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vfbench.errors import UserError
from vfbench.report.clip_numbers import ClipNumbers
from vfbench.report.gallery import Gallery, Recall
from vfbench.report.sprites import Sprite, write_sprite

PER_GROUP = 3  # clips of each kind of example


@dataclass(frozen=True)
class Neighbour:
    """A real clip near a generated one: its sheet, and the distance of their features."""

    sprite: Sprite
    distance: float


@dataclass(frozen=True)
class Example:
    """A clip of the gallery by its row, the number that it was chosen by, and its nearest real clips."""

    row: int
    value: float
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class Group:
    """Examples of one kind from one column of the gallery."""

    column: int
    title: str
    examples: tuple[Example, ...]


def groups(gallery: Gallery, numbers: Mapping[int, ClipNumbers], folder: Path, recalled: Recall | None) -> list[Group]:
    """Examples of each column of generated clips; `numbers` are by run, sheets of real clips go below `folder`."""
    sheets = _Sheets(folder, recalled)
    found = []
    for column, shown in enumerate(gallery.columns):
        each = None if shown.row is None else numbers.get(shown.row)
        if shown.kind == "real" or each is None:
            continue
        # The numbers are of the first draw; a gallery may show clips of later ones.
        count = len(each.distances)
        shown_rows = enumerate(gallery.requests)
        rows = [row for row, request in shown_rows if request.pictures[column].sprite and request.index < count]
        nearest = {row: float(each.distances[gallery.requests[row].index, 0]) for row in rows}
        order = sorted(rows, key=nearest.__getitem__)
        for title, chosen in (
            ("nearest to a real clip", order[:PER_GROUP]),
            ("farthest from every real clip", order[::-1][:PER_GROUP]),
        ):
            found.append(Group(column, title, tuple(_neighbours(gallery, row, each, sheets) for row in chosen)))
        if len(each.fit):
            fits = {row: float(each.fit[gallery.requests[row].index]) for row in rows}
            order = sorted(rows, key=fits.__getitem__, reverse=True)
            for title, chosen in (("best fit to its caption", order), ("worst fit to its caption", order[::-1])):
                found.append(Group(column, title, tuple(Example(row, fits[row]) for row in chosen[: 2 * PER_GROUP])))
    return found


def _neighbours(gallery: Gallery, row: int, numbers: ClipNumbers, sheets: _Sheets) -> Example:
    index = gallery.requests[row].index
    pairs = zip(numbers.rows[index].tolist(), numbers.distances[index].tolist(), strict=True)
    near = tuple(Neighbour(sheet, distance) for real, distance in pairs if (sheet := sheets.of(real)))
    return Example(row, float(numbers.distances[index, 0]), near)


class _Sheets:
    """Sheets of scored real clips, each written once; none where the real clips cannot be had."""

    def __init__(self, folder: Path, recalled: Recall | None) -> None:
        self._folder, self._recalled = folder, recalled
        self._written: dict[int, Sprite] = {}

    def of(self, row: int) -> Sprite | None:
        """Sheet of a real clip by its row among the scored ones."""
        if row not in self._written and self._recalled:
            try:
                (clip,) = self._recalled.scored([row])
            except UserError:
                self._recalled = None  # said already, for the first column of the gallery
                return None
            self._written[row] = write_sprite(self._folder, f"clips/scored-{row:06d}.webp", clip)
        return self._written.get(row)
