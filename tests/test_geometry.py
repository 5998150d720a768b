"""Tests of crop and resize against pictures made by the programs whose protocols are presets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vfbench.clips.transform import RESIZE_FIRST, ClipTransform, resized_sides
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape
from vfbench.protocol import presets

DATA = Path(os.environ.get("VFBENCH_TEST_DATA", Path(__file__).parent.parent / "../shared/data"))
GOLDEN = DATA.parent / "reference" / "geometry_golden.npz"
CROP = 24  # side of the pictures kept


def picture(width: int, height: int) -> Tensor:
    """The pattern that the programs were given, uint8 (1, 3, H, W)."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3].astype(np.float64)
    pattern = 128 + 60 * np.sin(x / 3.1 + y / 7.3 + c) + 40 * np.sin(x * y / 900 + 2 * c) + 20 * np.sin(y / 1.7 - c)
    return torch.from_numpy(np.rint(pattern).clip(0, 255).astype(np.uint8)).permute(2, 0, 1)[None]


def golden_keys() -> list[str]:
    """`preset/dataset/WxH/size` of each picture; one key where there are none, so that the skip is seen."""
    if not GOLDEN.is_file():
        return ["none"]
    with np.load(GOLDEN) as golden:
        return sorted({key.rpartition("/")[0] for key in golden.files})


@pytest.mark.parametrize("key", golden_keys())
@pytest.mark.pitfall("resize and crop in another order")
def test_a_preset_fits_pictures_as_its_program_does(key: str) -> None:
    if key == "none":
        pytest.skip(f"no {GOLDEN}")
    preset, dataset, size, side = key.split("/")
    width, height = map(int, size.split("x"))
    rules = presets.for_dataset(presets.load(preset), dataset)
    fitting = {name: rules[name] for name in ("geometry", "filter", "antialias")}
    transform = ClipTransform(dataset, ClipShape(1, int(side), int(side)), **fitting)
    fitted = transform.fit(picture(width, height), "picture")[0].permute(1, 2, 0).double().numpy()
    middle = int(side) // 2 - CROP // 2
    parts = {"corner": fitted[:CROP, :CROP], "centre": fitted[middle : middle + CROP, middle : middle + CROP]}
    with np.load(GOLDEN) as golden:
        for name, part in parts.items():
            # Half a grey level for the rounding to bytes, which some programs leave out, and a little for float32.
            assert np.abs(part - golden[f"{key}/{name}"]).max() <= 0.5 + 1e-3, name


@pytest.mark.parametrize(
    ("geometry", "frame", "side", "expected"),
    [
        ("resize-crop", (240, 320), 128, (128, 171, 0, 21)),  # 170.67 rounded up
        ("resize-crop-floor", (240, 320), 128, (128, 170, 0, 21)),
        ("resize-crop-floor", (243, 320), 161, (161, 212, 0, 26)),  # half of 51 to even
        ("resize-crop-4:3", (240, 320), 64, (64, 85, 0, 10)),
        ("resize-crop-4:3", (100, 100), 64, (64, 85, 0, 10)),
        ("resize-crop", (300, 214), 128, (180, 128, 26, 0)),
    ],
)
def test_sides_and_offsets_of_resize_before_crop(
    geometry: str, frame: tuple[int, int], side: int, expected: tuple[int, int, int, int]
) -> None:
    assert resized_sides(geometry, *frame, side) == expected


@pytest.mark.parametrize("geometry", RESIZE_FIRST)
def test_resize_before_crop_makes_squares_only(geometry: str) -> None:
    with pytest.raises(UserError, match="height = width"):
        ClipTransform("folder", ClipShape(4, 32, 48), geometry=geometry)
