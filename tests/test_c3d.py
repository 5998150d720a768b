"""Tests of the `c3d` extractor: preprocessing of TGAN and TGANv2, layers of Caffe, and the extractor contract."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract import check_extractor
from torch import Tensor

from vfbench.errors import UserError
from vfbench.interfaces import Clips, Request
from vfbench.metrics._c3d import C3D, C3DExtractor, build, resize_align_corners, resize_bicubic_crop
from vfbench.weights import c3d
from vfbench.weights.load import WeightInfo

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> C3D:
    """C3D with reproducible random weights and a mean clip of all different values."""
    network = build(CPU, weights="random").network
    network.mean.copy_(torch.linspace(80, 120, network.mean.numel()).view_as(network.mean))
    return network


def make_extractor(network: C3D, preprocess: str = "tgan2") -> C3DExtractor:
    return C3DExtractor(network, WeightInfo("0" * 64, weight_status="nonstandard"), CPU, preprocess=preprocess)


def random_clips(count: int = 1, frames: int = 16, height: int = 20, width: int = 30) -> Clips:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, frames, 3, height, width), generator=generator, dtype=torch.uint8)


def requests_for(clips: Clips) -> list[Request]:
    return [Request(i, i, 0, "") for i in range(len(clips))]


# Network.


def last_block(network: C3D, x: Tensor) -> Tensor:
    """Input of the last pool (B, 512, 2, 7, 7), from the layers of Caffe's definition with plain pools."""
    state = network.state_dict()
    for name, window in (
        *(("1a", (1, 2, 2)), ("2a", (2, 2, 2)), ("3a", None), ("3b", (2, 2, 2))),
        *(("4a", None), ("4b", (2, 2, 2)), ("5a", None), ("5b", None)),
    ):
        x = F.conv3d(x, state[f"conv{name}.weight"].contiguous(), state[f"conv{name}.bias"], padding=1).relu()
        x = x if window is None else F.max_pool3d(x, window)
    return x


def classify(network: C3D, pooled: Tensor) -> Tensor:
    """Logits (B, 101) from the output of the last pool (B, C, T, H, W)."""
    state = network.state_dict()
    x = torch.einsum("bctyx,octyx->bo", pooled, state["fc6.weight"].reshape(4096, 512, 1, 4, 4))
    for bias, weight in (("fc6.bias", "fc7.weight"), ("fc7.bias", "fc8.weight")):
        x = (x + state[bias]).relu() @ state[weight].T
    logits: Tensor = x + state["fc8.bias"]
    return logits


@pytest.mark.slow
def test_the_network_equals_caffe_with_its_asymmetric_last_pool(network: C3D) -> None:
    x = make_extractor(network).network_input(random_clips())
    with torch.inference_mode():
        outputs, block = network(x), last_block(network, x)
        padded_right = F.max_pool3d(F.pad(block, (0, 1, 0, 1)), 2)  # zeros are the minimum after a ReLU
        padded_evenly = F.max_pool3d(block, 2, padding=(0, 1, 1))  # as in common ports
        logits, other_logits = classify(network, padded_right), classify(network, padded_evenly)
        logits_of_fc7 = network.fc8(outputs["fc7"])
    assert {name: values.shape for name, values in outputs.items()} == {"logits": (1, 101), "fc7": (1, 4096)}
    scale = float(logits.abs().max())
    assert torch.allclose(outputs["logits"], logits, rtol=1e-4, atol=1e-5 * scale)
    assert not torch.allclose(other_logits, logits, rtol=1e-4, atol=1e-2 * scale)
    assert float(outputs["fc7"].min()) == 0
    assert torch.allclose(outputs["logits"], logits_of_fc7, rtol=1e-4, atol=1e-5 * scale)


def test_the_network_has_the_tensors_of_the_published_file() -> None:
    with torch.device("meta"):
        assert {name: tuple(value.shape) for name, value in C3D().state_dict().items()} == c3d.shapes()


# Preprocessing.


def resize_linear(frames: np.ndarray, size: int, *, align_corners: bool) -> np.ndarray:
    """Resize frames (..., H, W) to (..., size, size) by linear interpolation, axis by axis."""
    for axis in (-1, -2):
        length = frames.shape[axis]
        points = np.linspace(0, length - 1, size) if align_corners else (np.arange(size) + 0.5) * length / size - 0.5
        frames = np.apply_along_axis(partial(np.interp, points, np.arange(length)), axis, frames)
    return frames


@pytest.mark.slow
def test_tgan2_resizes_with_aligned_corners_in_bgr_order(network: C3D) -> None:
    clips = random_clips()
    frames = make_extractor(network).network_input(clips)[0].numpy()
    mean = network.mean[:, :, 8:120, 8:120].numpy()
    pixels = clips[0].numpy().astype(float)[:, ::-1].swapaxes(0, 1)  # (3, 16, H, W), BGR
    assert np.allclose(frames, resize_linear(pixels, 112, align_corners=True) - mean, atol=1e-3)
    assert not np.allclose(frames, resize_linear(pixels, 112, align_corners=False) - mean, atol=1)


@pytest.mark.slow
def test_each_preprocessing_subtracts_its_crop_of_the_mean_clip(network: C3D) -> None:
    grey = torch.full((1, 16, 3, 9, 9), 200, dtype=torch.uint8)  # unchanged by resizing
    for preprocess, columns in (("tgan2", slice(8, 120)), ("tgan", slice(29, 141))):
        frames = make_extractor(network, preprocess).network_input(grey)[0]
        assert torch.allclose(frames, 200 - network.mean[:, :, 8:120, columns], atol=1e-3)


# Values of OpenCV 4.10 and 5.0 (`INTER_CUBIC`, random floats to 128 x 128) at these (row, column, channel).
POSITIONS = ((8, 9, 1), (60, 33, 1), (119, 119, 2), (100, 64, 0), (63, 119, 2), (8, 8, 0))
CUBIC = {
    (48, 64, 5): (130.3954, 56.8519, 36.2525, 73.4861, -7.5725, 119.0281),
    (240, 320, 6): (244.2507, 250.1853, 72.4264, 136.2303, 77.0482, 58.9659),
}


def random_image(height: int, width: int, seed: int) -> Tensor:
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def at_positions(frames: Tensor) -> list[float]:
    """Values at `POSITIONS`, from a crop to rows and columns 8..120."""
    return [float(frames[0, c, y - 8, x - 8]) for y, x, c in POSITIONS]


@pytest.mark.parametrize("case", CUBIC, ids=lambda case: f"{case[0]}x{case[1]}")
def test_tgan_crops_the_centre_of_opencvs_bicubic_resize(case: tuple[int, int, int]) -> None:
    assert at_positions(resize_bicubic_crop(random_image(*case))) == pytest.approx(CUBIC[case], abs=1e-3)


def test_antialiased_bicubic_does_not_match() -> None:
    other = F.interpolate(
        random_image(240, 320, 6), (128, 128), mode="bicubic", antialias=True
    )  # PIL's filter: A = -0.5, wider support
    assert at_positions(other[..., 8:120, 8:120]) != pytest.approx(CUBIC[240, 320, 6], abs=10)


@pytest.mark.slow
def test_tgan_resizes_bicubically_without_clipping(network: C3D) -> None:
    clips = random_clips()
    frames = make_extractor(network, "tgan").network_input(clips) + network.mean[:, :, 8:120, 29:141]
    expected = resize_bicubic_crop(clips[0].flip(1).float())
    assert torch.allclose(frames[0].transpose(0, 1), expected, atol=1e-3)
    assert float(frames.min()) < -5
    assert float(frames.max()) > 260


def test_frames_of_the_network_size_are_unchanged(network: C3D) -> None:
    clips = random_clips(height=112, width=112)
    assert torch.equal(resize_align_corners(clips[0].float()), clips[0].float())


# Extractor.


class FastC3D(C3D):
    """C3D that returns a subset of its input as outputs."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        rows = x.flatten(1)
        return {"logits": rows[:, ::5900][:, :101], "fc7": rows[:, -4096:]}


@pytest.fixture
def fast_extractor(network: C3D) -> C3DExtractor:
    with torch.device("meta"):
        fast = FastC3D()
    fast = fast.to_empty(device="cpu")
    fast.mean.copy_(network.mean)
    return make_extractor(fast)


def test_the_extractor_keeps_the_contract(fast_extractor: C3DExtractor) -> None:
    clips = random_clips(count=5)
    check_extractor(fast_extractor, clips, requests_for(clips))


def test_only_the_first_16_frames_count(fast_extractor: C3DExtractor) -> None:
    clips = random_clips(count=2, frames=19)
    outputs = [
        fast_extractor(part, requests_for(part), ["logits", "fc7"]) for part in (clips, clips[:, :16], clips[:, 3:])
    ]
    for name in ("logits", "fc7"):
        assert torch.equal(outputs[0][name], outputs[1][name])
        assert not torch.equal(outputs[0][name], outputs[2][name])


def test_too_few_frames_are_refused(fast_extractor: C3DExtractor) -> None:
    clips = random_clips(frames=15)
    with pytest.raises(UserError, match=r"15 frames.* 16"):
        fast_extractor(clips, requests_for(clips), ["logits"])


def test_the_fingerprint_covers_weights_and_preprocessing(network: C3D) -> None:
    other = C3DExtractor(network, WeightInfo("1" * 64, weight_status="verified"), CPU)
    extractors = [make_extractor(network), make_extractor(network, "tgan"), other]
    assert len({each.fingerprint for each in extractors}) == 3
    assert extractors[0].fingerprint == make_extractor(network).fingerprint
    assert [each.weight_status for each in extractors] == ["nonstandard", "nonstandard", "verified"]


def test_an_unknown_preprocessing_is_refused() -> None:
    with pytest.raises(UserError, match=r"preprocess of extractor c3d.*'tgan3'.*'tgan'"):
        build(CPU, preprocess="tgan3", weights="random")


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch(network: C3D) -> None:
    extractor, clips = make_extractor(network), random_clips(count=3)
    batch, alone = (extractor(part, requests_for(part), ["logits", "fc7"]) for part in (clips, clips[2:]))
    for name, width in extractor.outputs.items():
        assert batch[name].shape == (3, width)
        largest = float(batch[name].abs().max())  # in the hundreds, as inputs are not scaled
        assert torch.allclose(batch[name][2:], alone[name], rtol=1e-4, atol=1e-5 * largest)
        assert not torch.allclose(batch[name][1:2], alone[name], rtol=1e-4, atol=1e-3 * largest)
