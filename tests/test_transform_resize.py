"""Tests of `vfbench.clips.transform.resize`: half-pixel centres, antialiasing, rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vfbench.clips import transform


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(4, 4), (13, 7), (50, 60)])
@pytest.mark.parametrize("antialias", [True, False])
def test_resize_keeps_a_constant(size: tuple[int, int], antialias: bool) -> None:
    for value in (0, 1, 127, 254, 255):
        clips = torch.full((2, 3, 3, 16, 20), value, dtype=torch.uint8)
        assert torch.equal(transform.resize(clips, *size, antialias=antialias), clips.new_full((2, 3, 3, *size), value))


def test_resize_to_the_same_size_changes_nothing() -> None:
    clips = noise(2, 3, 3, 9, 12)
    assert torch.equal(transform.resize(clips, 9, 12), clips)


def test_resize_has_half_pixel_centres_and_rounds() -> None:
    row = torch.tensor([0, 100], dtype=torch.uint8).expand(3, 1, 2)
    assert transform.resize(row, 1, 4)[0, 0].tolist() == [0, 25, 75, 100]
    row = torch.tensor([0, 0, 11, 11], dtype=torch.uint8).expand(3, 1, 4)
    assert transform.resize(row, 1, 2, antialias=False)[0, 0].tolist() == [0, 11]
    assert transform.resize(row, 1, 2)[0, 0].tolist() == [2, 9]  # 11/7 and 66/7, rounded


def test_resize_shrinks_like_pil() -> None:
    image = noise(3, 40, 50)
    resized = transform.resize(image, 16, 20).permute(1, 2, 0)
    expected = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((20, 16), Image.Resampling.BILINEAR)
    assert (resized.int() - torch.from_numpy(np.array(expected)).int()).abs().max() <= 1


def test_resize_refuses_floats() -> None:
    with pytest.raises(TypeError):
        transform.resize(torch.rand(3, 4, 4), 2, 2)


def test_centre_box() -> None:
    assert transform.centre_box(3, 7) == (2, 0, 3, 3)  # left, top, width, height
    assert transform.centre_box(6, 3) == (0, 1, 3, 3)  # an odd margin is cut at the bottom
