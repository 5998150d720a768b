"""Which frames of a video a clip has, and how these reach the size of the clip: every rule that a protocol can name.

    start      zero: with the first frame; hashed: at one place drawn from the video's name
               every: at each frame where a clip fits; chunks: where the clip before has ended
    geometry   centre-crop: the largest centred square; squash: the whole picture; native: the picture in its own size
    filter     bilinear: on half-pixel centres, in float32; lanczos: that of Pillow; none: nothing is resampled

The rules of the field and who has which: `vfbench/presets`.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8, UInt64
from PIL import Image
from torch import Tensor

from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape
from vfbench.protocol.protocol import SEVERAL, WORDS, frames_needed
from vfbench.video import to_bytes

USUAL = ("centre-crop", "bilinear", True)  # how frames are fitted where nobody says it

FEW = 4  # frames resized at once: their floats stay in a core's cache

Box: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True)
class ClipTransform:
    """How a dataset makes clips of `shape` from its videos; raises `UserError` naming an option that makes no sense.

    The frames of a clip are `stride` apart; the first `drop_first` of a video are in none. `antialias` averages what
    `bilinear` shrinks; `lanczos` always does.
    """

    dataset: str  # whose options these are, for messages
    shape: ClipShape
    stride: int = 1
    drop_first: int = 0
    start: str = "zero"
    geometry: str = "centre-crop"
    filter: str = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        sides = {"frames": self.shape.frames, "height": self.shape.height, "width": self.shape.width}
        for name, value in {**sides, "stride": self.stride, "drop_first": self.drop_first}.items():
            if value < (least := 0 if name == "drop_first" else 1):
                raise UserError(f"{self.dataset}({name}={value}): {name} must be at least {least}")
        for name, words in WORDS.items():
            if (word := getattr(self, name)) not in words:
                raise UserError(f"{self.dataset}({name}={word!r}): {name} must be one of {', '.join(words)}")
        if self.filter == "lanczos" and not self.antialias:
            said = f"{self.dataset}(filter='lanczos', antialias=False): Lanczos always averages what it shrinks"
            raise UserError(f"{said}; say antialias=True, or filter='bilinear'")

    @property
    def several(self) -> bool:
        """Whether a video gives as many clips as fit into it."""
        return self.start in SEVERAL

    @property
    def span(self) -> int:
        """The frames that a video needs for one clip, with those that are dropped."""
        return frames_needed(self.shape.frames, self.stride, self.drop_first)

    def clip_starts(self, name: str, count: int, seed: int = 0) -> range:
        """The first frame of each clip of the video called `name`, which has `count` frames; see `clip_starts`."""
        length = {"frames": self.shape.frames, "stride": self.stride, "drop_first": self.drop_first}
        return clip_starts(self.start, name, count, **length, seed=seed)

    @property
    def fitting(self) -> str:
        """How frames are fitted, such as `64x64 centre-crop bilinear antialias=True`."""
        shape = f"{self.shape.height}x{self.shape.width}"
        return f"{shape} {self.geometry} {self.filter} antialias={self.antialias}"

    def box(self, height: int, width: int) -> Box:
        """What of a frame of this size the clip shows: left, top, width and height."""
        return centre_box(height, width) if self.geometry == "centre-crop" else (0, 0, width, height)

    def fit(
        self, frames: UInt8[Tensor, "frames 3 _ _"], name: str, box: Box | None = None
    ) -> UInt8[Tensor, "frames 3 height width"]:
        """Frames (T, 3, H, W) of any size as the clip has them, on the CPU; of another `box` than the usual if given.

        Raises `MissingData` naming the video where nothing may be resampled and the size is another.
        """
        height, width = self.shape.height, self.shape.width
        left, top, wide, tall = box or self.box(frames.shape[-2], frames.shape[-1])
        if left + wide > frames.shape[-1] or top + tall > frames.shape[-2]:
            size = f"{frames.shape[-1]}x{frames.shape[-2]}"
            raise MissingData(f"{name} has {size} pixels (width x height): the crop {box} does not lie within")
        seen = frames[..., top : top + tall, left : left + wide]
        if self.geometry == "native" or self.filter == "none":
            if seen.shape[-2:] != (height, width):
                raise self._other_size(name, frames)
            return seen
        if self.filter == "lanczos":
            return lanczos(seen, height, width)
        return resize(seen, height, width, antialias=self.antialias)

    def text(self) -> str:
        """All that changes a clip, for fingerprints. The usual fitting goes without saying, as in the first results."""
        frames = f"{self.shape}/{self.stride}/{self.start}/{self.drop_first}"
        fitting = (self.geometry, self.filter, self.antialias)
        return frames if fitting == USUAL else "/".join(map(str, (frames, *fitting)))

    def _other_size(self, name: str, frames: Tensor) -> MissingData:
        there, wanted = f"{frames.shape[-1]}x{frames.shape[-2]}", f"{self.shape.width}x{self.shape.height}"
        rules = f"geometry={self.geometry!r}, filter={self.filter!r}"
        return MissingData(
            f"{name} has {there} pixels (width x height), and {self.dataset}({rules}) makes no {wanted} of them; "
            f"say geometry='centre-crop', filter='bilinear', or give clips of that size"
        )


def clip_starts(
    start: str, name: str, count: int, *, frames: int, stride: int = 1, drop_first: int = 0, seed: int = 0
) -> range:
    """First frames of the clips cut from the video `name`, which has `count` frames.

    `zero` gives frame `drop_first` and ignores `count`. `hashed` picks one position by `name_hash`, the same on every
    machine. Where no clip fits, `every` and `chunks` give none, and `zero` and `hashed` give the first frame: reading
    the clip then raises the error that names the short video.
    """
    if start == "zero":
        return range(drop_first, drop_first + 1)
    places = count - frames_needed(frames, stride, drop_first) + 1
    if start == "hashed":
        first = drop_first + name_hash(name, seed) % max(places, 1)
        return range(first, first + 1)
    return range(drop_first, drop_first + max(places, 0), 1 if start == "every" else frames * stride)


def name_hash(name: str, seed: int = 0) -> int:
    """64 bits by which a video is drawn: the first 8 bytes (little-endian) of the SHA-256 of `seed/name`.

    The same on every machine, whatever other videos there are. With seed 0 it is the name's own.
    """
    text = f"{seed}/{name}" if seed else name
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:8], "little")


def centre_box(height: int, width: int) -> Box:
    """The largest centred square of a frame; where the margin is odd, the extra pixel is cut right or below."""
    side = min(height, width)
    return (width - side) // 2, (height - side) // 2, side, side


def resize(
    clips: UInt8[Tensor, "*batch 3 height width"], height: int, width: int, *, antialias: bool = True
) -> UInt8[Tensor, "*batch 3 new_height new_width"]:
    """Resize by bilinear interpolation on half-pixel centres in float32, without keeping the aspect: uint8 to uint8.

    `antialias` widens the filter when shrinking, as PIL does. The same size comes back unchanged.
    """
    if clips.dtype != torch.uint8:
        raise TypeError(f"resize takes uint8 clips, got {clips.dtype}")
    if clips.shape[-2:] == (height, width):
        return clips
    images = clips.reshape(-1, *clips.shape[-3:])
    sized = torch.empty((len(images), images.shape[1], height, width), dtype=torch.uint8, device=clips.device)
    for part, place in zip(torch.split(images, FEW), torch.split(sized, FEW), strict=True):
        floats = part.to(torch.float32, memory_format=torch.contiguous_format)
        floats = F.interpolate(floats, (height, width), mode="bilinear", align_corners=False, antialias=antialias)
        place.copy_(to_bytes(floats))
    return sized.reshape(*clips.shape[:-2], height, width)


def lanczos(frames: UInt8[Tensor, "frames 3 _ _"], height: int, width: int) -> UInt8[Tensor, "frames 3 tall wide"]:
    """Resize each frame by Pillow's Lanczos filter over three lobes, without keeping the aspect: uint8 to uint8.

    What the field's scripts call LANCZOS or ANTIALIAS; Pillow widens the filter when it shrinks. The same size comes
    back unchanged.
    """
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames.permute(0, 2, 3, 1).numpy()]
    # Bytes are made after each axis, so their order counts. Pillow 13 begins with the cheaper one; those before it, by
    # which the field's data was made, with the width.
    wide = [image.resize((width, image.height), Image.Resampling.LANCZOS) for image in images]
    sized = [np.array(image.resize((width, height), Image.Resampling.LANCZOS)) for image in wide]
    return torch.from_numpy(np.stack(sized)).permute(0, 3, 1, 2).contiguous()


class WindowIndex:
    """All clips of videos that are long enough, video by video: `windows[i]` is a video's number and a first frame.

    `counts` has the frames of each of the videos called `names`.
    """

    def __init__(self, cut: ClipTransform, names: Sequence[str], counts: Sequence[int]) -> None:
        self._names = names
        self._starts = [cut.clip_starts(name, count) for name, count in zip(names, counts, strict=True)]
        self._ends = list(accumulate(map(len, self._starts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} windows: no window {index}")
        number = bisect_right(self._ends, index)
        return number, self._starts[number][index - self._ends[number]]  # counted from the end of the video's own

    def keys(self, seed: int) -> UInt64[np.ndarray, " windows"]:
        """What each window is drawn by: 64 bits of its video's name, its first frame and the seed."""
        parts = [
            _mixed(np.uint64(name_hash(name, seed)) + np.array(clip_starts, dtype=np.uint64))
            for name, clip_starts in zip(self._names, self._starts, strict=True)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _mixed(bits: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """The bits well mixed, one to one: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = bits ^ (bits >> np.uint64(31))
    return mixed
