"""Tests of `vfbench.clips.transform`: start frames, crop and resize, refused options, fingerprints, presets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vfbench import plugins, video
from vfbench.clips.starts import clip_starts
from vfbench.clips.transform import ClipTransform
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape
from vfbench.plugins import Spec
from vfbench.protocol import presets, protocol
from vfbench.protocol.protocol import SPLITS, Protocol
from vfbench.protocol.resolve import DATASET_OPTIONS, resolve_rules

PLAIN = ClipTransform("folder", ClipShape(4, 5, 7))

# Start frames.


@pytest.mark.parametrize(
    ("count", "frames", "stride", "drop_first", "every", "chunks"),
    [
        (20, 16, 1, 0, [0, 1, 2, 3, 4], [0]),
        (16, 16, 1, 0, [0], [0]),
        (15, 16, 1, 0, [], []),
        (0, 16, 1, 0, [], []),
        (32, 16, 1, 0, list(range(17)), [0, 16]),
        (20, 4, 2, 0, list(range(14)), [0, 8]),  # a clip spans 7 frames and occupies 8
        (15, 4, 2, 0, list(range(9)), [0, 8]),  # the second ends with the last frame
        (14, 4, 2, 0, list(range(8)), [0]),
        (18, 4, 2, 3, list(range(3, 12)), [3, 11]),
        (5, 1, 3, 1, [1, 2, 3, 4], [1, 4]),
    ],
)
def test_starts_of_clips(
    count: int, frames: int, stride: int, drop_first: int, every: list[int], chunks: list[int]
) -> None:
    options = {"frames": frames, "stride": stride, "drop_first": drop_first}
    assert list(clip_starts("every", "v", count, **options)) == every
    assert list(clip_starts("chunks", "v", count, **options)) == chunks
    assert list(clip_starts("zero", "v", count, **options)) == [drop_first]
    (hashed,) = clip_starts("hashed", "v", count, **options)
    assert hashed in (every or [drop_first])


def test_the_hashed_start_depends_on_the_name() -> None:
    # SHA-256 of the empty name begins with e3b0c442 98fc1c14: little-endian 0x141cfc9842c4b0e3.
    number = 0x141CFC9842C4B0E3
    assert list(clip_starts("hashed", "", 20, frames=16)) == [number % 5]
    assert list(clip_starts("hashed", "", 20, frames=4, stride=2)) == [number % 14]
    assert list(clip_starts("hashed", "", 20, frames=4, stride=2, drop_first=3)) == [3 + number % 11]
    starts = {name: clip_starts("hashed", name, 116, frames=16)[0] for name in map(str, range(2000))}
    assert set(starts.values()) == set(range(101))  # every start, the last included


def digan_chunks(count: int, frames: int, stride: int) -> set[int]:
    """First frames by DIGAN's own rule: frame i of a chunk goes to list i mod stride, full chunks only."""
    starts = set()
    for first in range(0, count, frames * stride):
        chunk = list(range(first, min(first + frames * stride, count)))
        if len(chunk) == frames * stride:
            starts |= {chunk[offset::stride][0] for offset in range(stride)}
    return starts


# The starts that a program may draw for a video, from its length, and the stride that it has; empty: no clip.
PROGRAMS: Mapping[str, tuple[str, int, Callable[[int], set[int]]]] = {
    "tats on sky": ("hashed-not-last", 1, lambda n: set(range(n - 16))),
    "mcvd": ("hashed-not-last", 1, lambda n: set(range(n - 16))),
    "cd-fvd on sky": ("hashed-longer", 1, lambda n: set(range(n - 15)) if n > 16 else set()),
    "latte": ("hashed-interval", 3, lambda n: set(range(n - 47))),
    "latte on taichi": ("hashed-interval", 6, lambda n: set(range(n - 95))),
    "lvdm on taichi": ("hashed-quarter", 1, lambda n: set(range(math.ceil(n / 4) - 15))),
    "digan on taichi": ("interleaved", 4, lambda n: digan_chunks(n, 16, 4)),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.pitfall("clips that a program never takes")
def test_clips_start_where_the_program_may_start_them(program: str) -> None:
    start, stride, allowed = PROGRAMS[program]
    for count in range(5, 151, 5):  # thirty videos
        for frames in {count, count + 1, 16, 46, 47, 48, 63, 64}:
            possible = allowed(frames)
            fits = frames >= ClipTransform("v", ClipShape(16, 8, 8), stride, start=start).span
            assert fits == bool(possible), frames
            names = map(str, range(1 if start in protocol.MULTI_CLIP_STARTS else 400))
            starts = {s for name in names for s in clip_starts(start, name, frames, frames=16, stride=stride)}
            if fits:
                assert starts <= possible
                assert len(starts) == len(possible) or len(possible) > 60  # 400 names reach every one of a few


@pytest.mark.parametrize(
    ("preset", "dataset", "start"),
    [
        *(("tats", "sky_timelapse", "hashed-not-last"), ("mcvd", "ucf101", "hashed-not-last")),
        *(("cd-fvd", "sky_timelapse", "hashed-longer"), ("latte", "ucf101", "hashed-interval")),
        *(("latte", "taichi_hd", "hashed-interval"), ("lvdm", "taichi_hd", "hashed-quarter")),
        *(("digan", "taichi_hd", "interleaved"), ("tats", "ucf101", "every"), ("lvdm", "sky_timelapse", "hashed")),
    ],
)
def test_presets_start_clips_as_their_programs_do(preset: str, dataset: str, start: str) -> None:
    assert presets.for_dataset(presets.load(preset), dataset)["start"] == start


@pytest.mark.parametrize("start", [*protocol.ONE_CLIP_STARTS, *protocol.MULTI_CLIP_STARTS])
def test_a_transform_knows_its_starts_and_span(start: str) -> None:
    transform = replace(PLAIN, start=start, stride=2, drop_first=3)
    assert transform.clip_starts("v", 20) == clip_starts(start, "v", 20, frames=4, stride=2, drop_first=3)
    assert transform.span == {"zero": 10, "hashed": 10, "hashed-quarter": 13, "every": 10, "chunks": 10}.get(start, 11)
    assert transform.multi_clip is (start in ("every", "chunks", "interleaved"))
    assert len(clip_starts("every", "v", 10, frames=4, stride=2, drop_first=3)) == 1


# Crop and resize.


def resize_weights(size: int, new: int, kernel: Callable[[np.ndarray], np.ndarray], *, antialias: bool) -> np.ndarray:
    """Resampling weights (new, size) of one axis with half-pixel centres."""
    scale = max(size / new, 1.0) if antialias else 1.0
    centres = (np.arange(new)[:, None] + 0.5) * size / new - 0.5
    weights = kernel((np.arange(size) - centres) / scale)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def triangle(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(1 - abs(x), 0))


def lanczos3(x: np.ndarray) -> np.ndarray:
    return np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def expected_pixels(
    images: UInt8[np.ndarray, "t 3 _ _"], transform: ClipTransform
) -> Float[np.ndarray, "t 3 {transform.shape.height} {transform.shape.width}"]:
    """Unrounded output of a transform, computed from the definitions of its rules."""
    height, width = images.shape[-2:]
    if transform.geometry == "centre-crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side]
    kernel = lanczos3 if transform.filter == "lanczos" else triangle
    side, short, before = transform.shape.height, min(images.shape[-2:]), images.shape[-2:]
    after = {
        "resize-crop": tuple(-(-length * side // short) for length in before),  # rounded up
        "resize-crop-floor": tuple(length * side // short for length in before),
        "resize-crop-4:3": (side, side * 4 // 3),
    }.get(transform.geometry, (side, transform.shape.width))
    down, right = (
        resize_weights(*pair, kernel, antialias=transform.antialias) for pair in zip(before, after, strict=True)
    )
    rows = images.astype(np.float64) @ right.T
    if transform.filter == "lanczos":
        rows = np.clip(rows, 0, 255).round()  # Pillow rounds between the two axes
    fitted = np.clip(down @ rows, 0, 255)
    if not transform.geometry.startswith("resize-crop"):
        return np.asarray(fitted)
    rounding = round if transform.geometry == "resize-crop-floor" else int
    top, left = (rounding((length - side) / 2) for length in after)
    return np.asarray(fitted[..., top : top + side, left : left + side])


def check_pixels(pixels: Tensor, images: Tensor, transform: ClipTransform) -> None:
    """Require the rounded expected values. Pillow has integer weights: one value in a hundred may be off by one.

    Between the axes, too: there, a value that is off by one enters with a weight of up to 1.2.
    """
    difference = abs(pixels.numpy() - expected_pixels(images.numpy(), transform))
    assert difference.max() <= (1.7 if transform.filter == "lanczos" else 0.51)
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
def test_frames_are_resized_by_definition(size: tuple[int, int], geometry: str, filter: str, antialias: bool) -> None:
    images = torch.randint(0, 256, (4, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    transform = replace(PLAIN, shape=ClipShape(4, *size), geometry=geometry, filter=filter, antialias=antialias)
    pixels = transform.fit(images, "v")
    assert (pixels.dtype, tuple(pixels.shape), pixels.is_contiguous()) == (torch.uint8, (4, 3, *size), True)
    check_pixels(pixels, images, transform)


@RULES
def test_a_real_clip_is_resized_by_definition(real_data: Path, geometry: str, filter: str, antialias: bool) -> None:
    path = real_data / "ucf101/UCF-101/BaseballPitch/v_BaseballPitch_g01_c01.avi"
    images = video.decode(path, start=40, frames=2)
    transform = ClipTransform("x", ClipShape(2, 64, 64), geometry=geometry, filter=filter, antialias=antialias)
    check_pixels(transform.fit(images, "v"), images, transform)
    others = [replace(transform, geometry=other) for other in ("centre-crop", "squash") if other != geometry]
    others += [replace(transform, filter="bilinear", antialias=other) for other in (True, False) if other != antialias]
    for other in others:  # other rules give other pixels
        assert abs(expected_pixels(images.numpy(), transform) - expected_pixels(images.numpy(), other)).max() > 10


@pytest.mark.parametrize("filter", ["bilinear", "lanczos", "none"])
@pytest.mark.parametrize("geometry", ["centre-crop", "squash", "native"])
def test_frames_of_the_right_size_do_not_change(geometry: str, filter: str) -> None:
    frames = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    transform = ClipTransform("x", ClipShape(4, 6, 6), geometry=geometry, filter=filter)
    assert torch.equal(transform.fit(frames, "v"), frames)


def test_without_resizing_only_the_crop_is_taken() -> None:
    frames = torch.randint(0, 256, (4, 3, 6, 9), dtype=torch.uint8)
    cropped = replace(PLAIN, shape=ClipShape(4, 6, 6), filter="none")
    assert torch.equal(cropped.fit(frames, "v"), frames[..., 1:7])
    for geometry, filter in (("native", "bilinear"), ("squash", "none")):
        message = rf"a/v\.avi has 9x6 pixels .*folder\(geometry='{geometry}'.* 6x6.*set geometry='centre-crop'"
        with pytest.raises(MissingData, match=message):
            replace(cropped, geometry=geometry, filter=filter).fit(frames, "a/v.avi")


# Refused options and fingerprints.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": ClipShape(0, 8, 8)}, r"^folder\(frames=0\): frames must be at least 1$"),
        ({"shape": ClipShape(4, -1, 8)}, r"^folder\(height=-1\): height must be at least 1$"),
        ({"shape": ClipShape(4, 8, 0)}, r"^folder\(width=0\): width must be at least 1$"),
        ({"stride": 0}, r"^folder\(stride=0\): stride must be at least 1$"),
        ({"drop_first": -1}, r"^folder\(drop_first=-1\): drop_first must be at least 0$"),
        ({"start": "random"}, r"^folder\(start='random'\): start must be one of zero, hashed, .*interleaved$"),
        (
            {"geometry": "own"},
            r"^folder\(geometry='own'\): geometry must be one of centre-crop, resize-crop, .*native$",
        ),
        ({"filter": "bicubic"}, r"^folder\(filter='bicubic'\): filter must be one of bilinear, lanczos, none$"),
        ({"filter": "lanczos", "antialias": False}, r"^folder\(filter='lanczos', antialias=False\): .*antialias=True"),
    ],
)
def test_invalid_transforms_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(PLAIN, **options)


def test_fingerprints_differ_and_leave_out_defaults() -> None:
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


def test_choices_equal_those_of_the_protocol() -> None:
    schema = Protocol.model_json_schema()["properties"]
    for name, choices in protocol.CHOICES.items():
        assert {*choices, "own"} == set(schema[name]["enum"])


# Protocol presets.

TRANSFORM_FIELDS = ("start", "geometry", "filter", "antialias", "stride", "drop_first", "frames", "height", "width")


@pytest.mark.one_case
@pytest.mark.parametrize("dataset", ["ucf101", "folder"])
@pytest.mark.parametrize("name", presets.available())
def test_a_dataset_follows_a_preset_and_the_protocol_records_it(
    real_data: Path, tmp_path: Path, name: str, dataset: str
) -> None:
    for split in ("train", "test"):
        (tmp_path / split).symlink_to(real_data / "ucf101/UCF-101")
    preset = presets.for_dataset(presets.load(name), dataset)
    spec = Spec(dataset, {"root": str(real_data if dataset == "ucf101" else tmp_path)})
    fields = resolve_rules(spec, name, smoke=False)
    options = {field: getattr(fields, field) for field in DATASET_OPTIONS}
    assert options.keys() <= plugins.options("dataset", dataset).keys()
    data = plugins.load("dataset", spec.merged(options))
    known = {"dataset": dataset, "data_fingerprint": data.fingerprint, "n_real": 4, "n_fake": 4}
    record = fields.protocol(**known).to_json()
    assert {field: record[field] for field in TRANSFORM_FIELDS} == {field: preset[field] for field in TRANSFORM_FIELDS}
    assert record["selection"] == preset["selection"]
    _check_clip(data, preset)


def _check_clip(data: Any, preset: dict[str, Any]) -> None:
    """Compare the last clip of the split with one decoded and transformed without the dataset."""
    split = next(split for split in SPLITS[preset["split"]] if data.size(split))
    last = data.size(split) - 1
    number = data.videos(split, [last])[0]
    name, path = _video(data, split, number)
    spread = {"frames": preset["frames"], "stride": preset["stride"]}
    places = list(clip_starts(preset["start"], name, video.count_frames(path), **spread))
    images = video.decode(path, start=places[-1], **spread)
    shape = ClipShape(preset["frames"], preset["height"], preset["width"])
    resize_options = {key: preset[key] for key in ("geometry", "filter", "antialias")}
    check_pixels(data.clips(split, [last])[0], images, ClipTransform(data.name, shape, **resize_options))


def _video(data: Any, split: Any, number: int) -> tuple[str, Path]:
    entry = data.inventory.splits[split].entries[number]
    return str(entry.name), Path(entry.path)
