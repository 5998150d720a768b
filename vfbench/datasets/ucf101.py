"""UCF101: 13,320 real clips of 101 human actions, in the official layout and the official splits.

    root/UCF-101/<Class>/v_<Class>_g01_c01.avi
    root/ucfTrainTestlist/{classInd,trainlist01,testlist01, ... 03}.txt

Soomro, Zamir and Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild" (2012).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from vfbench import folders, video
from vfbench.cut import Cut
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips, ClipShape, Dataset, Split
from vfbench.protocol import WORDLESS
from vfbench.windows import Windows, frame_counts

VIDEOS, LISTS = "UCF-101", "ucfTrainTestlist"
SPLITS: tuple[Split, ...] = ("train", "test")
# Plumbing on real video: the judge of Moving Shapes stands in for I3D and C3D. Real clips are taken from both splits,
# so that a handful of files is enough.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "ucf101-smoke": {
        "comparable": False,
        "split": "both",
        "start": "hashed",
        "geometry": "centre-crop",
        "filter": "bilinear",
        "antialias": True,
        "n_real": 16,
        "measures": WORDLESS,
    }
}
SAMPLE = 1 << 14  # bytes hashed at the head, the middle and the tail of every file

HOW_TO_GET = f"""Get it once (7 GB; for research use):
  1. from https://www.crcv.ucf.edu/data/UCF101.php download UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip
  2. unpack both in one folder DIR: unrar x UCF101.rar DIR/ && unzip UCF101TrainTestSplits-RecognitionTask.zip -d DIR
     so that DIR holds {VIDEOS}/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi and {LISTS}/classInd.txt
  3. repeat your command with --data-root DIR, or set VFBENCH_DATA=DIR"""


def build(
    *,
    root: str | None = None,
    frames: int = 16,
    height: int = 64,
    width: int = 64,
    stride: int = 1,
    drop_first: int = 0,
    start: str = "hashed",
    geometry: str = "centre-crop",
    filter: str = "bilinear",
    antialias: bool = True,
    split_list: int = 1,
) -> Dataset:
    """UCF101 as clips of `frames` frames, `stride` apart, by default cropped to the centred square and resized.

    `root` holds `UCF-101` and `ucfTrainTestlist`, itself or in its child `ucf101`; without it VFBENCH_DATA is used.
    `split_list` is 1, 2 or 3, the other options are those of `vfbench.cut`; with start `every` or `chunks` the frames
    of every video are counted first, once. Raises `MissingData` with the way to get the dataset where it is not found,
    or naming videos that are too short, and `UserError` for an impossible option.
    """
    cut = Cut("ucf101", ClipShape(frames, height, width), stride, drop_first, start, geometry, filter, antialias)
    if split_list not in (1, 2, 3):
        raise UserError(f"ucf101(split_list={split_list}): UCF101 has split lists 1, 2 and 3, try ucf101(split_list=1)")
    return Ucf101(_find(root), cut, split_list)


class _Video(NamedTuple):
    name: str  # as the split list spells it
    path: Path  # as the disk spells it
    label: int


class Ucf101:
    """The clips that the split lists name and the disk holds; `missing` and `note` say what is not there.

    By default each video gives one clip, which begins where a hash of the video's name says.
    """

    name = "ucf101"

    def __init__(self, root: Path, cut: Cut, split_list: int) -> None:
        self.shape, self.stride, self._cut = cut.shape, cut.stride, cut
        self.classes = _read_classes(root / LISTS / "classInd.txt")
        self.words = tuple(sorted({word for name in self.classes for word in folders.in_words(name).split()}))
        on_disk = _scan(root / VIDEOS)
        self._listed: dict[Split, int] = {}
        self._videos: dict[Split, list[_Video]] = {}
        for split in SPLITS:
            listed = _read_list(root / LISTS / f"{split}list{split_list:02}.txt", self.classes)
            self._listed[split] = len(listed)
            self._videos[split] = [
                _Video(name, on_disk[name.lower()], label) for name, label in listed if name.lower() in on_disk
            ]
        if not any(self._videos.values()):
            raise MissingData(f"{root / VIDEOS} holds none of the clips named in {root / LISTS}.\n{HOW_TO_GET}")
        self._windows = {split: _windows(cut, self._videos[split]) for split in SPLITS} if cut.several else {}

    def size(self, split: Split) -> int:
        """How many clips the videos on disk give."""
        return len((self._windows or self._videos)[split])

    def missing(self, split: Split) -> int:
        """How many of the listed videos are not on disk."""
        return self._listed[split] - len(self._videos[split])

    @property
    def note(self) -> str:
        """What a reader must know of a partial copy, such as `5 of 9,537 listed train clips present`; else empty."""
        partial = [split for split in SPLITS if self.missing(split)]
        return ", ".join(
            f"{len(self._videos[split]):,} of {self._listed[split]:,} listed {split} clips present" for split in partial
        )

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """The clips at `indices`, uint8 (B, T, 3, H, W), resized on the CPU so that no device changes a pixel.

        Raises `MissingData` naming the first clip that is cut off, damaged or too short, and IndexError.
        """
        clips = [self._clip(split, *self._place(split, index)) for index in indices]
        shape = (0, self.shape.frames, 3, self.shape.height, self.shape.width)
        return (torch.stack(clips) if clips else torch.empty(shape, dtype=torch.uint8)).to(device)

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """The class of each clip, an index into `classes`: one less than in the official lists."""
        return [self._videos[split][number].label for number in self.videos(split, indices)]

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """The class of each clip in words, such as `apply eye makeup`."""
        return [folders.in_words(self.classes[label]) for label in self.labels(split, indices)]

    def names(self, split: Split) -> list[str]:
        """The name of each clip's video, with its class, as the split list has it."""
        return [self._videos[split][number].name for number in self.videos(split, range(self.size(split)))]

    def videos(self, split: Split, indices: Sequence[int]) -> list[int]:
        """The number of the video that each clip is cut from."""
        return [self._place(split, index)[0] for index in indices]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the clips present, of all that cuts and scales them, and of the decoder. Read when first asked.

        A file stands for itself by name, size and 48 KiB of its content, so a change of few bytes can escape.
        """
        cut = self._cut.text().removesuffix("/hashed/0")  # which went without saying in the first results
        digest = hashlib.sha256(f"{cut}/{video.decoder()}".encode())
        for split in SPLITS:
            for name, path, _ in sorted(self._videos[split]):
                digest.update(f"\n{split} {name} {_digest(path)}".encode())
        return digest.hexdigest()

    def _place(self, split: Split, index: int) -> tuple[int, int | None]:
        """The number of a clip's video, and its first frame where that is known before the video is read."""
        if not 0 <= index < self.size(split):
            raise IndexError(f"ucf101 has {self.size(split)} {split} clips: no clip {index}")
        return self._windows[split][index] if self._windows else (index, None)

    def _clip(self, split: Split, number: int, first: int | None) -> UInt8[Tensor, "frames 3 height width"]:
        clip = self._videos[split][number]
        video.check_whole(clip.path)
        if first is None:
            count = video.count_frames(clip.path) if self._cut.start == "hashed" else 0
            (first,) = self._cut.starts(clip.name, count)
        images = video.decode(clip.path, start=first, frames=self.shape.frames, stride=self.stride)
        return self._cut.fit(images, str(clip.path))


def _windows(cut: Cut, videos: Sequence[_Video]) -> Windows:
    return Windows(cut, [clip.name for clip in videos], frame_counts([clip.path for clip in videos]))


def _find(root: str | None) -> Path:
    """The folder with both parts of the dataset."""
    given = root or os.environ.get("VFBENCH_DATA")
    if not given:
        raise MissingData(f"UCF101: no --data-root given and VFBENCH_DATA not set.\n{HOW_TO_GET}")
    places = [Path(given).expanduser(), Path(given).expanduser() / "ucf101"]
    for place in places:
        if (place / VIDEOS).is_dir() and (place / LISTS).is_dir():
            return place
    looked = " nor ".join(map(str, places))
    raise MissingData(f"UCF101: neither {looked} holds both {VIDEOS} and {LISTS}.\n{HOW_TO_GET}")


def _scan(folder: Path) -> dict[str, Path]:
    """Every clip on disk by its lower-case name: copies differ in case (HandstandPushups/v_HandStandPushups_...)."""
    return {"/".join(path.parts[-2:]).lower(): path for path in folder.glob("*/*.avi")}


def _read(path: Path) -> list[list[str]]:
    """The words of each line that has any."""
    try:
        return [line.split() for line in path.read_text("ascii").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MissingData(f"{path}: cannot be read ({error}).\n{HOW_TO_GET}") from error


def _read_classes(path: Path) -> tuple[str, ...]:
    """Class names in the order of their numbers; a line is `1 ApplyEyeMakeup`."""
    lines = _read(path)
    if not lines or [line[0] for line in lines] != [str(i + 1) for i in range(len(lines))]:
        raise MissingData(f"{path}: is not the official class list, numbered from 1.\n{HOW_TO_GET}")
    return tuple(line[-1] for line in lines)


def _read_list(path: Path, classes: Sequence[str]) -> list[tuple[str, int]]:
    """Clips with the label of their folder, from 0; a train list repeats it, counted from 1, a test list does not."""
    numbers = {name.lower(): i for i, name in enumerate(classes)}
    clips = []
    for name, *number in _read(path):
        label = numbers.get(name.split("/")[0].lower())
        if label is None or number not in ([], [str(label + 1)]):
            raise MissingData(f"{path}: '{' '.join([name, *number])}' does not fit classInd.txt.\n{HOW_TO_GET}")
        clips.append((name, label))
    return clips


def _digest(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for offset in (0, size // 2, max(size - SAMPLE, 0)):
            file.seek(offset)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()
