"""C3D prepares clips as TGAN or TGANv2 did, and computes what Caffe's layers do, written out another way."""

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
from vfbench.weights import WeightInfo, c3d

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> C3D:
    """Random weights, the same on every machine, and a mean clip whose numbers are all different."""
    filled = build(CPU, weights="random").network
    filled.mean.copy_(torch.linspace(80, 120, filled.mean.numel()).view_as(filled.mean))
    return filled


def extractor(network: C3D, preprocess: str = "tgan2") -> C3DExtractor:
    return C3DExtractor(network, WeightInfo("0" * 64, weight_status="nonstandard"), CPU, preprocess=preprocess)


def some_clips(count: int = 1, frames: int = 16, height: int = 20, width: int = 30) -> Clips:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, frames, 3, height, width), generator=generator, dtype=torch.uint8)


def asked(clips: Clips) -> list[Request]:
    return [Request(i, i, 0, "") for i in range(len(clips))]


# The network.


def last_block(network: C3D, x: Tensor) -> Tensor:
    """What goes into the last pool (B, 512, 2, 7, 7), in the order of Caffe's definition and without its odd pools."""
    state = network.state_dict()
    for name, window in (
        *(("1a", (1, 2, 2)), ("2a", (2, 2, 2)), ("3a", None), ("3b", (2, 2, 2))),
        *(("4a", None), ("4b", (2, 2, 2)), ("5a", None), ("5b", None)),
    ):
        x = F.conv3d(x, state[f"conv{name}.weight"].contiguous(), state[f"conv{name}.bias"], padding=1).relu()
        x = x if window is None else F.max_pool3d(x, window)
    return x


def classified(network: C3D, pooled: Tensor) -> Tensor:
    """Logits from the last pool, (B, channels, frames, rows, columns) against a kernel of that shape."""
    state = network.state_dict()
    x = torch.einsum("bctyx,octyx->bo", pooled, state["fc6.weight"].reshape(4096, 512, 1, 4, 4))
    for bias, weight in (("fc6.bias", "fc7.weight"), ("fc7.bias", "fc8.weight")):
        x = (x + state[bias]).relu() @ state[weight].T
    logits: Tensor = x + state["fc8.bias"]
    return logits


@pytest.mark.slow
def test_the_network_does_what_caffe_does_and_no_other_pool_does(network: C3D) -> None:
    x = extractor(network).network_input(some_clips())
    with torch.inference_mode():
        found, block = network(x), last_block(network, x)
        right = F.max_pool3d(F.pad(block, (0, 1, 0, 1)), 2)  # zeros: nothing is below them after a ReLU
        shifted = F.max_pool3d(block, 2, padding=(0, 1, 1))  # as common ports have it
        logits, others = classified(network, right), classified(network, shifted)
        answer = network.fc8(found["fc7"])
    assert {name: values.shape for name, values in found.items()} == {"logits": (1, 101), "fc7": (1, 4096)}
    scale = float(logits.abs().max())
    assert torch.allclose(found["logits"], logits, rtol=1e-4, atol=1e-5 * scale)
    assert not torch.allclose(others, logits, rtol=1e-4, atol=1e-2 * scale)
    assert float(found["fc7"].min()) == 0
    assert torch.allclose(found["logits"], answer, rtol=1e-4, atol=1e-5 * scale)


def test_it_has_the_tensors_of_the_published_file() -> None:
    with torch.device("meta"):
        assert {name: tuple(value.shape) for name, value in C3D().state_dict().items()} == c3d.shapes()


# What the network sees.


def read_between(frames: np.ndarray, size: int, *, corners: bool) -> np.ndarray:
    """Frames (..., H, W) at `size` x `size`, linearly between pixels, with corner upon corner or edge upon edge."""
    for axis in (-1, -2):
        length = frames.shape[axis]
        place = np.linspace(0, length - 1, size) if corners else (np.arange(size) + 0.5) * length / size - 0.5
        frames = np.apply_along_axis(partial(np.interp, place, np.arange(length)), axis, frames)
    return frames


def test_tgan2_reads_from_corner_to_corner_blue_first(network: C3D) -> None:
    clips = some_clips()
    found = extractor(network).network_input(clips)[0].numpy()
    mean = network.mean[:, :, 8:120, 8:120].numpy()
    pixels = clips[0].numpy().astype(float)[:, ::-1].swapaxes(0, 1)  # (3, 16, H, W), blue first
    assert np.allclose(found, read_between(pixels, 112, corners=True) - mean, atol=1e-3)
    assert not np.allclose(found, read_between(pixels, 112, corners=False) - mean, atol=1)


def test_both_preprocessings_take_their_part_of_the_mean_clip(network: C3D) -> None:
    grey = torch.full((1, 16, 3, 9, 9), 200, dtype=torch.uint8)  # the same at every size
    for preprocess, columns in (("tgan2", slice(8, 120)), ("tgan", slice(29, 141))):
        found = extractor(network, preprocess).network_input(grey)[0]
        assert torch.allclose(found, 200 - network.mean[:, :, 8:120, columns], atol=1e-3)


# (row, column, channel) of what OpenCV 4.10 and 5.0 make of random floats by `INTER_CUBIC` at 128 x 128.
PLACES = ((8, 9, 1), (60, 33, 1), (119, 119, 2), (100, 64, 0), (63, 119, 2), (8, 8, 0))
CUBIC = {
    (48, 64, 5): (130.3954, 56.8519, 36.2525, 73.4861, -7.5725, 119.0281),
    (240, 320, 6): (244.2507, 250.1853, 72.4264, 136.2303, 77.0482, 58.9659),
}


def image(height: int, width: int, seed: int) -> Tensor:
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def at_places(frames: Tensor) -> list[float]:
    """Of the rows and columns 8..120."""
    return [float(frames[0, c, y - 8, x - 8]) for y, x, c in PLACES]


@pytest.mark.parametrize("case", CUBIC, ids=lambda case: f"{case[0]}x{case[1]}")
def test_tgan_takes_the_centre_of_opencvs_bicubic(case: tuple[int, int, int]) -> None:
    assert at_places(resize_bicubic_crop(image(*case))) == pytest.approx(CUBIC[case], abs=1e-3)


def test_pils_bicubic_does_not_match() -> None:
    other = F.interpolate(image(240, 320, 6), (128, 128), mode="bicubic", antialias=True)  # A = -0.5 and wider
    assert at_places(other[..., 8:120, 8:120]) != pytest.approx(CUBIC[240, 320, 6], abs=10)


def test_tgan_prepares_by_it_and_keeps_what_overshoots(network: C3D) -> None:
    clips = some_clips()
    found = extractor(network, "tgan").network_input(clips) + network.mean[:, :, 8:120, 29:141]
    frames = clips[0].flip(1).float()
    assert torch.allclose(found[0].transpose(0, 1), resize_bicubic_crop(frames), atol=1e-3)
    assert float(found.min()) < -5
    assert float(found.max()) > 260


def test_bytes_enter_as_they_are(network: C3D) -> None:
    clips = some_clips(height=112, width=112)
    assert torch.equal(resize_align_corners(clips[0].float()), clips[0].float())


# What is around it.


class Still(C3D):
    """Looks at a few numbers only, in no time."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        rows = x.flatten(1)
        return {"logits": rows[:, ::5900][:, :101], "fc7": rows[:, -4096:]}


@pytest.fixture
def still(network: C3D) -> C3DExtractor:
    with torch.device("meta"):
        quick = Still()
    quick = quick.to_empty(device="cpu")
    quick.mean.copy_(network.mean)
    return extractor(quick)


def test_it_keeps_the_contract(still: C3DExtractor) -> None:
    clips = some_clips(count=5)
    check_extractor(still, clips, asked(clips))


def test_the_first_16_frames_of_a_longer_clip_count(still: C3DExtractor) -> None:
    clips = some_clips(count=2, frames=19)
    found = [still(part, asked(part), ["logits", "fc7"]) for part in (clips, clips[:, :16], clips[:, 3:])]
    for name in ("logits", "fc7"):
        assert torch.equal(found[0][name], found[1][name])
        assert not torch.equal(found[0][name], found[2][name])


def test_too_few_frames_are_refused(still: C3DExtractor) -> None:
    clips = some_clips(frames=15)
    with pytest.raises(UserError, match="clips have 15 frames, and C3D needs at least 16"):
        still(clips, asked(clips), ["logits"])


def test_whatever_moves_a_feature_moves_the_fingerprint(network: C3D) -> None:
    other = C3DExtractor(network, WeightInfo("1" * 64, weight_status="verified"), CPU)
    made = [extractor(network), extractor(network, "tgan"), other]
    assert len({one.fingerprint for one in made}) == 3
    assert made[0].fingerprint == extractor(network).fingerprint
    assert [one.weight_status for one in made] == ["nonstandard", "nonstandard", "verified"]


def test_another_preprocessing_is_refused() -> None:
    with pytest.raises(UserError, match="no option preprocess of extractor c3d called 'tgan3': did you mean 'tgan'"):
        build(CPU, preprocess="tgan3", weights="random")


@pytest.mark.slow
def test_a_clip_is_judged_alike_in_any_batch(network: C3D) -> None:
    made, clips = extractor(network), some_clips(count=3)
    whole, alone = (made(part, asked(part), ["logits", "fc7"]) for part in (clips, clips[2:]))
    for name, width in made.outputs.items():
        assert whole[name].shape == (3, width)
        largest = float(whole[name].abs().max())  # in the hundreds: bytes enter a random network as they are
        assert torch.allclose(whole[name][2:], alone[name], rtol=1e-4, atol=1e-5 * largest)
        assert not torch.allclose(whole[name][1:2], alone[name], rtol=1e-4, atol=1e-3 * largest)
