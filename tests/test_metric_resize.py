"""Tests of `vfbench.metrics._resize`: golden pixels of published implementations, and closed forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vfbench.clips import transform
from vfbench.metrics import _resize

Rule = Callable[[Tensor], Tensor]

SQUASH: Rule = lambda frames: _resize.bilinear(frames, 224, 224)  # noqa: E731
TF1: Rule = lambda frames: _resize.tf1_bilinear(frames, 224, 224)  # noqa: E731
CROP: Rule = lambda frames: _resize.short_side_crop(frames, 224)  # noqa: E731

# Values of the published code (TATS; DIGAN and VideoGPT; the grid of TensorFlow 1) for the clip below, in [-1, 1]:
# mean, standard deviation, and pixels at (channel, frame, row, column) in `POSITIONS`.
GOLDEN = {
    "squash": (SQUASH, -0.00234529892984, 0.38918559062302, (0.37254905700684, -0.64151644706726, -0.06666666269302)),
    "crop": (CROP, -0.00270083275656, 0.38874892269384, (0.36386656761169, -0.03017753362656, 0.42781829833984)),
    "tf1": (TF1, -0.00220933219482, 0.39286686493029, (0.37254905700684, -0.20832270383835, -0.06666666269302)),
}
POSITIONS = ((0, 0, 0, 0), (1, 7, 100, 50), (2, 15, 223, 223))


@pytest.fixture(scope="module")
def noise() -> Tensor:
    """Frames of uniform noise, float32 (16, 3, 48, 64) in 0..255."""
    clip = np.random.RandomState(7).randint(0, 256, (1, 16, 48, 64, 3)).astype(np.uint8)
    return torch.from_numpy(clip[0]).permute(0, 3, 1, 2).float()


def summarise(frames: Tensor) -> tuple[float, float, list[float]]:
    """Mean, standard deviation and three pixels of frames in 0..255, scaled to [-1, 1]."""
    scaled = (frames * 2 / 255 - 1).transpose(0, 1).double()
    return float(scaled.mean()), float(scaled.std()), [float(scaled[position]) for position in POSITIONS]


def matches(rule: Rule, noise: Tensor, golden: str) -> bool:
    _, golden_mean, golden_std, golden_pixels = GOLDEN[golden]
    mean, std, pixels = summarise(rule(noise))
    equal = mean == pytest.approx(golden_mean, abs=1e-6) and std == pytest.approx(golden_std, abs=1e-6)
    return equal and pixels == pytest.approx(golden_pixels, abs=1e-6)


@pytest.mark.parametrize("name", GOLDEN)
def test_each_rule_equals_only_its_published_code(name: str, noise: Tensor) -> None:
    assert matches(GOLDEN[name][0], noise, name)
    others = [other for other in GOLDEN if other != name]
    assert not any(matches(GOLDEN[other][0], noise, name) for other in others)


def test_antialias_has_no_effect_on_upscaling(noise: Tensor) -> None:
    grown = [_resize.bilinear(noise, 224, 224, antialias=antialias) for antialias in (False, True)]
    assert torch.allclose(grown[0], grown[1], atol=1e-3)
    shrunk = [_resize.short_side_crop(noise, 16, antialias=antialias) for antialias in (False, True)]
    assert float(shrunk[1].std()) < 0.6 * float(shrunk[0].std())  # noise is averaged


def test_downscaling_with_antialias_equals_the_dataset_transform(noise: Tensor) -> None:
    expected = transform.resize(noise.to(torch.uint8), 20, 28)
    assert torch.equal(_resize.bilinear(noise, 20, 28, antialias=True).round().to(torch.uint8), expected)


@pytest.mark.parametrize(("size", "new"), [(64, 224), (128, 224), (256, 224), (240, 224), (3, 7)])
def test_the_grid_of_tensorflow_1_has_no_half_pixel_offset(size: int, new: int) -> None:
    ramp = torch.arange(float(size)).expand(1, 3, size, size).contiguous()
    points = np.minimum(np.arange(new) * size / new, size - 1)
    assert np.allclose(_resize.tf1_bilinear(ramp, new, new)[0, 0, 0], points, atol=1e-4)
    assert np.allclose(_resize.tf1_bilinear(ramp.mT.contiguous(), new, new)[0, 0, :, 0], points, atol=1e-4)
    shift = _resize.bilinear(ramp, new, new)[0, 0, 0] - _resize.tf1_bilinear(ramp, new, new)[0, 0, 0]
    assert float(shift[new // 2]) == pytest.approx((size / new - 1) / 2, abs=1e-4)


def test_rules_commute_with_transposition(noise: Tensor) -> None:
    for rule in (SQUASH, TF1, CROP):
        assert torch.allclose(rule(noise.mT.contiguous()), rule(noise).mT, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "long"),
    [((48, 64), (224, 299)), ((64, 48), (299, 224)), ((240, 320), (224, 299)), ((100, 100), (225, 224))],
)
def test_crop_rounds_the_long_side_up_and_keeps_the_centre(size: tuple[int, int], long: tuple[int, int]) -> None:
    frames = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    top, left = (long[0] - 224) // 2, (long[1] - 224) // 2
    expected = _resize.bilinear(frames, *long)[..., top : top + 224, left : left + 224]
    assert torch.equal(_resize.short_side_crop(frames, 224), expected)


def test_squash_equals_crop_on_a_square(noise: Tensor) -> None:
    square = noise[..., :48, :48].contiguous()
    assert torch.equal(SQUASH(square), CROP(square))
    assert not torch.allclose(SQUASH(square), TF1(square), atol=1)


@pytest.mark.parametrize("rule", [SQUASH, TF1, CROP])
def test_frames_of_the_target_size_are_unchanged(rule: Rule, noise: Tensor) -> None:
    frames = rule(noise)
    assert frames.shape == (16, 3, 224, 224)
    assert float(frames.min()) >= 0
    assert float(frames.max()) <= 255
    assert torch.equal(rule(frames), frames)
