from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vfbench import plugins, video
from vfbench.clips.transform import ClipTransform, clip_starts
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape
from vfbench.plugins import Spec
from vfbench.protocol import presets, protocol
from vfbench.protocol.protocol import SPLITS, Protocol
from vfbench.protocol.resolve import DATASET_OPTIONS, resolve_rules

PLAIN = ClipTransform("folder", ClipShape(4, 5, 7))

# Which frames


@pytest.mark.parametrize(
    ("count", "frames", "stride", "drop_first", "every", "chunks"),
    [
        (20, 16, 1, 0, [0, 1, 2, 3, 4], [0]),
        (16, 16, 1, 0, [0], [0]),
        (15, 16, 1, 0, [], []),
        (0, 16, 1, 0, [], []),
        (32, 16, 1, 0, list(range(17)), [0, 16]),
        (20, 4, 2, 0, list(range(14)), [0, 8]),  # a clip reaches over 7 frames, and takes up 8
        (15, 4, 2, 0, list(range(9)), [0, 8]),  # the second ends with the last frame
        (14, 4, 2, 0, list(range(8)), [0]),
        (18, 4, 2, 3, list(range(3, 12)), [3, 11]),
        (5, 1, 3, 1, [1, 2, 3, 4], [1, 4]),
    ],
)
def test_where_clips_begin(
    count: int, frames: int, stride: int, drop_first: int, every: list[int], chunks: list[int]
) -> None:
    options = {"frames": frames, "stride": stride, "drop_first": drop_first}
    assert list(clip_starts("every", "v", count, **options)) == every
    assert list(clip_starts("chunks", "v", count, **options)) == chunks
    assert list(clip_starts("zero", "v", count, **options)) == [drop_first]
    (hashed,) = clip_starts("hashed", "v", count, **options)
    assert hashed in (every or [drop_first])


def test_the_hashed_start_is_drawn_from_the_name() -> None:
    # By hand: the SHA-256 of the empty name begins with e3b0c442 98fc1c14, little-endian 0x141cfc9842c4b0e3.
    number = 0x141CFC9842C4B0E3
    assert list(clip_starts("hashed", "", 20, frames=16)) == [number % 5]
    assert list(clip_starts("hashed", "", 20, frames=4, stride=2)) == [number % 14]
    assert list(clip_starts("hashed", "", 20, frames=4, stride=2, drop_first=3)) == [3 + number % 11]
    drawn = {name: clip_starts("hashed", name, 116, frames=16)[0] for name in map(str, range(2000))}
    assert set(drawn.values()) == set(range(101))  # every place, the last included


@pytest.mark.parametrize("start", [*protocol.ONE_CLIP_STARTS, *protocol.MULTI_CLIP_STARTS])
def test_a_cut_has_the_rule_and_what_it_needs(start: str) -> None:
    made = replace(PLAIN, start=start, stride=2, drop_first=3)
    assert made.clip_starts("v", 20) == clip_starts(start, "v", 20, frames=4, stride=2, drop_first=3)
    assert made.span == 10
    assert made.multi_clip is (start in ("every", "chunks"))
    assert len(clip_starts("every", "v", made.span, frames=4, stride=2, drop_first=3)) == 1


# How they reach their size


def matrix(size: int, new: int, kernel: Callable[[np.ndarray], np.ndarray], *, antialias: bool) -> np.ndarray:
    """The weights (new, size) by which an axis is resampled on half-pixel centres, written down as it is defined."""
    wide = max(size / new, 1.0) if antialias else 1.0
    centres = (np.arange(new)[:, None] + 0.5) * size / new - 0.5
    weights = kernel((np.arange(size) - centres) / wide)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def triangle(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(1 - abs(x), 0))


def three_lobes(x: np.ndarray) -> np.ndarray:
    return np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def resampled(
    images: UInt8[np.ndarray, "t 3 _ _"], made: ClipTransform
) -> Float[np.ndarray, "t 3 {made.shape.height} {made.shape.width}"]:
    """What a cut should make of frames, before they are rounded, computed from the definitions of its rules."""
    height, width = images.shape[-2:]
    if made.geometry == "centre-crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side]
    kernel = three_lobes if made.filter == "lanczos" else triangle
    size = ((images.shape[-2], made.shape.height), (images.shape[-1], made.shape.width))
    down, right = (matrix(*pair, kernel, antialias=made.antialias) for pair in size)
    wide = images.astype(np.float64) @ right.T
    if made.filter == "lanczos":
        wide = np.clip(wide, 0, 255).round()  # bytes between the two axes
    return np.asarray(np.clip(down @ wide, 0, 255))


def check_pixels(found: Tensor, images: Tensor, made: ClipTransform) -> None:
    """Bytes are the expected values rounded. Pillow's weights are integers: a byte of a hundred may be one off."""
    difference = abs(found.numpy() - resampled(images.numpy(), made))
    assert difference.max() <= (1.6 if made.filter == "lanczos" else 0.51)
    assert (difference <= 0.51).mean() >= 0.99


RULES = pytest.mark.parametrize(
    ("geometry", "filter", "antialias"),
    [
        (geometry, *rule)
        for geometry in ("centre-crop", "squash")
        for rule in (("bilinear", True), ("bilinear", False), ("lanczos", True))
    ],
)


@RULES
@pytest.mark.parametrize("size", [(5, 7), (30, 40), (12, 9), (11, 16)])
def test_frames_are_fitted_as_the_rule_is_defined(
    size: tuple[int, int], geometry: str, filter: str, antialias: bool
) -> None:
    images = torch.randint(0, 256, (4, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = replace(PLAIN, shape=ClipShape(4, *size), geometry=geometry, filter=filter, antialias=antialias)
    found = made.fit(images, "v")
    assert (found.dtype, tuple(found.shape), found.is_contiguous()) == (torch.uint8, (4, 3, *size), True)
    check_pixels(found, images, made)


@RULES
def test_a_genuine_clip_is_fitted_as_the_rule_is_defined(
    real_data: Path, geometry: str, filter: str, antialias: bool
) -> None:
    path = real_data / "ucf101/UCF-101/BaseballPitch/v_BaseballPitch_g01_c01.avi"
    images = video.decode(path, start=40, frames=2)
    made = ClipTransform("x", ClipShape(2, 64, 64), geometry=geometry, filter=filter, antialias=antialias)
    check_pixels(made.fit(images, "v"), images, made)
    others = [replace(made, geometry=other) for other in ("centre-crop", "squash") if other != geometry]
    others += [replace(made, filter="bilinear", antialias=other) for other in (True, False) if other != antialias]
    for other in others:  # a rule that is not honoured would be seen
        assert abs(resampled(images.numpy(), made) - resampled(images.numpy(), other)).max() > 10


@pytest.mark.parametrize("filter", ["bilinear", "lanczos", "none"])
@pytest.mark.parametrize("geometry", ["centre-crop", "squash", "native"])
def test_frames_that_have_their_size_are_left_alone(geometry: str, filter: str) -> None:
    frames = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    made = ClipTransform("x", ClipShape(4, 6, 6), geometry=geometry, filter=filter)
    assert torch.equal(made.fit(frames, "v"), frames)


def test_nothing_is_resampled_where_that_is_asked_for() -> None:
    frames = torch.randint(0, 256, (4, 3, 6, 9), dtype=torch.uint8)
    cropped = replace(PLAIN, shape=ClipShape(4, 6, 6), filter="none")
    assert torch.equal(cropped.fit(frames, "v"), frames[..., 1:7])
    for geometry, filter in (("native", "bilinear"), ("squash", "none")):
        said = rf"a/v\.avi has 9x6 pixels .*folder\(geometry='{geometry}'.* 6x6.*set geometry='centre-crop'"
        with pytest.raises(MissingData, match=said):
            replace(cropped, geometry=geometry, filter=filter).fit(frames, "a/v.avi")


# What is refused, and what a fingerprint sees


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": ClipShape(0, 8, 8)}, r"^folder\(frames=0\): frames must be at least 1$"),
        ({"shape": ClipShape(4, -1, 8)}, r"^folder\(height=-1\): height must be at least 1$"),
        ({"shape": ClipShape(4, 8, 0)}, r"^folder\(width=0\): width must be at least 1$"),
        ({"stride": 0}, r"^folder\(stride=0\): stride must be at least 1$"),
        ({"drop_first": -1}, r"^folder\(drop_first=-1\): drop_first must be at least 0$"),
        ({"start": "random"}, r"^folder\(start='random'\): start must be one of zero, hashed, every, chunks$"),
        ({"geometry": "own"}, r"^folder\(geometry='own'\): geometry must be one of centre-crop, squash, native$"),
        ({"filter": "bicubic"}, r"^folder\(filter='bicubic'\): filter must be one of bilinear, lanczos, none$"),
        ({"filter": "lanczos", "antialias": False}, r"^folder\(filter='lanczos', antialias=False\): .*antialias=True"),
    ],
)
def test_a_cut_without_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(PLAIN, **options)


def test_the_text_tells_cuts_apart_and_leaves_out_the_usual() -> None:
    assert PLAIN.fingerprint() == "4x5x7/1/zero/0"
    others: list[dict[str, Any]] = [
        {"shape": ClipShape(5, 5, 7)},
        {"stride": 2},
        {"drop_first": 1},
        *({"start": start} for start in ("hashed", "every", "chunks")),
        *({"geometry": geometry} for geometry in ("squash", "native")),
        *({"filter": word} for word in ("lanczos", "none")),
        {"antialias": False},
    ]
    texts = [replace(PLAIN, **options).fingerprint() for options in others]
    assert len({PLAIN.fingerprint(), *texts}) == len(others) + 1
    assert texts[-1] == "4x5x7/1/zero/0/centre-crop/bilinear/False"


def test_the_words_are_those_of_a_protocol() -> None:
    schema = Protocol.model_json_schema()["properties"]
    for name, words in protocol.CHOICES.items():
        assert {*words, "own"} == set(schema[name]["enum"])


# What the protocols of the field ask for

CUTTING = ("start", "geometry", "filter", "antialias", "stride", "drop_first", "frames", "height", "width")


@pytest.mark.parametrize("dataset", ["ucf101", "folder"])
@pytest.mark.parametrize("name", presets.available())
def test_a_dataset_cuts_as_a_preset_says_and_the_protocol_records_it(
    real_data: Path, tmp_path: Path, name: str, dataset: str
) -> None:
    for split in ("train", "test"):
        (tmp_path / split).symlink_to(real_data / "ucf101/UCF-101")
    asked = presets.for_dataset(presets.load(name), dataset)
    spec = Spec(dataset, {"root": str(real_data if dataset == "ucf101" else tmp_path)})
    fields = resolve_rules(spec, name, smoke=False)
    wanted = {field: getattr(fields, field) for field in DATASET_OPTIONS}
    assert wanted.keys() <= plugins.options("dataset", dataset).keys()
    data = plugins.load("dataset", spec.merged(wanted))
    known = {"dataset": dataset, "data_fingerprint": data.fingerprint, "n_real": 4, "n_fake": 4}
    record = fields.protocol(**known).to_json()
    assert {field: record[field] for field in CUTTING} == {field: asked[field] for field in CUTTING}
    assert record["selection"] == asked["selection"]
    _check_clip(data, asked)


def _check_clip(data: Any, asked: dict[str, Any]) -> None:
    """The last clip of the split has the frames and pixels that the fields ask for, seen without the dataset."""
    split = next(split for split in SPLITS[asked["split"]] if data.size(split))
    last = data.size(split) - 1
    number = data.videos(split, [last])[0]
    name, path = _video(data, split, number)
    spread = {"frames": asked["frames"], "stride": asked["stride"]}
    places = list(clip_starts(asked["start"], name, video.count_frames(path), **spread))
    images = video.decode(path, start=places[-1], **spread)
    shape = ClipShape(asked["frames"], asked["height"], asked["width"])
    fitting = {key: asked[key] for key in ("geometry", "filter", "antialias")}
    check_pixels(data.clips(split, [last])[0], images, ClipTransform(data.name, shape, **fitting))


def _video(data: Any, split: Any, number: int) -> tuple[str, Path]:
    one = data.inventory.splits[split].entries[number]
    return str(one.name), Path(one.path)
