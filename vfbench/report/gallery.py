"""Clips of several runs side by side: one row a request, one column a run, the real clip first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from vfbench.errors import UserError
from vfbench.report.results import Result
from vfbench.report.sprites import Sprite, write_sprite

if TYPE_CHECKING:
    from vfbench.interfaces import Clips
    from vfbench.report.clip_numbers import ClipNumbers
    from vfbench.report.kept_clips import KeptClips

KEEP = "run it with --keep-clips to see its clips"
REAL = "real"  # model whose clips are the real clips of the requests


@runtime_checkable
class Recall(Protocol):
    """Requests of a run and the real clips that belong to it, as `vfbench.pipeline.recall` has them."""

    @property
    def captions(self) -> Sequence[str]:
        """Caption of each request."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Class of each request by name; empty texts where there are none."""
        ...

    def asked(self, indices: Sequence[int]) -> Clips:
        """Real clips that the requests take label and caption from, uint8 (B, T, 3, H, W)."""
        ...

    def scored(self, rows: Sequence[int]) -> Clips:
        """Real clips that the scores are against, by their rows, uint8 (B, T, 3, H, W)."""
        ...


RecallRun = Callable[[Path], Recall]  # raises `UserError` where dataset or requests cannot be had


@dataclass(frozen=True)
class Picture:
    """A clip on the page: its sprite sheet, or the file that is missing. `values` are numbers about it, by title."""

    sprite: Sprite | None
    missing: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A row of the gallery: number, caption and class of a request, and a picture for each column."""

    index: int
    caption: str
    class_name: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Column:
    """A column of the gallery: clips of the run in this row of the table, or real clips of the dataset (None)."""

    label: str
    kind: Literal["real", "model", "reference"]
    row: int | None = None


@dataclass(frozen=True)
class Gallery:
    """Clips side by side; `notes` say which runs have none, and `incomplete` names the files that are missing."""

    columns: tuple[Column, ...] = ()
    requests: tuple[Request, ...] = ()
    notes: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()


def same_requests(records: Sequence[Result]) -> list[int]:
    """Rows of the runs that answer the same requests: of one dataset, prompts and seed, the most common ones."""
    keys = {row: _requests_key(record) for row, record in enumerate(records) if record.seed is not None}
    main = Counter(keys.values()).most_common(1)
    return [row for row, key in keys.items() if key == main[0][0]]


def _requests_key(record: Result) -> tuple[object, ...]:
    return record.dataset, record.protocol.to_json().get("prompts"), record.seed


def recall_any(records: Sequence[Result], recall: RecallRun) -> tuple[Recall | None, str]:
    """Requests and real clips from the first of these runs that has them, or the reason why none has."""
    reason = "no run folder is given"
    for record in records:
        record.fetch("run.json", "manifest.csv")
        if (folder := record.folder) and (folder / "run.json").is_file():
            try:
                return recall(folder), ""
            except UserError as error:
                reason = str(error)
    return None, f"no captions and no real clips: {reason}"


def build(
    records: Sequence[Result],
    labels: Sequence[str],
    rows: Sequence[int],
    folder: Path,
    count: int,
    recalled: Recall | None,
    numbers: Mapping[int, ClipNumbers],
) -> Gallery:
    """Write the first `count` clips of the runs in `rows` below `folder`, and put them side by side.

    `numbers` about clips are by row of the table.
    """
    columns, pictures, notes, incomplete = list[Column](), list[Mapping[int, Picture]](), list[str](), list[str]()
    for row, (record, label) in enumerate(zip(records, labels, strict=True)):
        if record.seed is None:
            notes.append(f"{label}: clips made elsewhere are not shown")
        elif row not in rows:
            notes.append(f"{label}: its clips answer other requests (--seed {record.seed}), and are not shown")
        elif not (kept := _read(record, count)):
            notes.append(f"{label}: no clips in its folder: {KEEP}")
        else:
            columns.append(Column(label, _kind(record), row))
            pictures.append(_write(kept, folder, f"clips/{row}", numbers.get(row)))
            incomplete += [f"{label}: {file} is missing or damaged" for file in dict.fromkeys(kept.missing.values())]
    if not columns:
        return Gallery(notes=(f"no clips to show: no run keeps any; {KEEP}",))
    incomplete += _put_real_first(columns, pictures, folder, recalled)
    requests = [_request(index, pictures, recalled) for index in sorted({i for each in pictures for i in each})]
    return Gallery(tuple(columns), tuple(requests), tuple(notes), tuple(incomplete))


def _kind(record: Result) -> Literal["real", "model", "reference"]:
    return "real" if record.model == REAL else "reference" if record.reference else "model"


def _read(record: Result, count: int) -> KeptClips | None:
    """Clips of a run; None where it keeps none."""
    if not record.url and not (record.folder and (record.folder / "chunks").is_dir()):
        return None
    from vfbench.report.kept_clips import read_clips  # imports torch

    kept = read_clips(record, count)
    return kept if kept.clips or kept.missing else None


def _write(kept: KeptClips, folder: Path, name: str, numbers: ClipNumbers | None) -> dict[int, Picture]:
    """Sheets of the clips, and a placeholder for each that is missing."""
    pictures = {index: Picture(None, file) for index, file in kept.missing.items()}
    for index, clip in kept.clips.items():
        sprite = write_sprite(folder, f"{name}-{index:06d}.webp", clip)
        pictures[index] = Picture(sprite, values=numbers.of(index) if numbers else {})
    return pictures


def _put_real_first(
    columns: list[Column], pictures: list[Mapping[int, Picture]], folder: Path, recalled: Recall | None
) -> list[str]:
    """Give the real clips the first column: those of a run of the model `real`, else those of the dataset.

    Returns a line for each that cannot be read.
    """
    for number, column in enumerate(columns):
        if column.kind == "real":
            columns.insert(0, columns.pop(number))
            pictures.insert(0, pictures.pop(number))
            return []
    if not recalled:
        return []
    real = {index: _real(recalled, index, folder) for index in sorted({i for each in pictures for i in each})}
    columns.insert(0, Column("real", "real"))
    pictures.insert(0, real)
    return [f"real: {picture.missing}" for picture in real.values() if picture.missing]


def _real(recalled: Recall, index: int, folder: Path) -> Picture:
    try:
        (clip,) = recalled.asked([index])
    except UserError as error:  # such as a damaged video
        return Picture(None, str(error))
    return Picture(write_sprite(folder, f"clips/real-{index:06d}.webp", clip))


def _request(index: int, pictures: Sequence[Mapping[int, Picture]], recalled: Recall | None) -> Request:
    caption = recalled.captions[index] if recalled else ""
    class_name = recalled.classes[index] if recalled else ""
    empty = Picture(None, "no clip of this request")
    return Request(index, caption, class_name, tuple(each.get(index, empty) for each in pictures))
