"""Inception's features are pytorch-fid's, whatever the batch; which frames they come from is said, and seeded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contract import check_extractor
from pytorch_fid.inception import InceptionV3
from torch import Tensor, nn

from vfbench import plugins
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips, Request
from vfbench.metrics import _inception
from vfbench.metrics._inception import DIM, SIDE, InceptionExtractor, create
from vfbench.weights import WeightInfo

CPU = torch.device("cpu")


class Glance(nn.Module):
    """Stands in for the network where only its input matters: colours, then the first row of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (3, SIDE, SIDE)
        self.sizes.append(len(x))
        return F.pad(torch.cat([x.mean((2, 3)), x[:, :, 0].flatten(1)], dim=1), (0, DIM - 3 - 3 * SIDE))


def glancing(digest: str = "0" * 64, **options: Any) -> InceptionExtractor:
    return InceptionExtractor(Glance(), WeightInfo(digest, weight_status="nonstandard"), CPU, **options)


def some_clips(count: int = 3, frames: int = 4, height: int = 24, width: int = 30) -> Clips:
    coarse = torch.rand(count * frames, 3, 5, 6, generator=torch.Generator().manual_seed(3))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return smooth.mul(255).round().to(torch.uint8).reshape(count, frames, 3, height, width)


def asked(count: int = 3, seed: int = 0) -> list[Request]:
    return [Request(i, seed, 0, "") for i in range(count)]


def features(extractor: InceptionExtractor, clips: Clips, requests: Sequence[Request] | None = None) -> Tensor:
    return extractor(clips, asked(len(clips)) if requests is None else requests, ["features"])["features"]


# The network.


def test_features_are_those_of_pytorch_fid(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_rng_state()
    extractor: InceptionExtractor = plugins.load("extractor", "inception(frames='middle', weights='random')", CPU)
    assert torch.equal(before, torch.get_rng_state())
    assert extractor.weight_status == "nonstandard"
    whole = {**extractor.network.state_dict(), "fc.weight": torch.zeros(1008, DIM), "fc.bias": torch.zeros(1008)}
    monkeypatch.setattr("pytorch_fid.inception.load_state_dict_from_url", lambda *_, **__: whole)
    theirs = InceptionV3().eval()  # loads strictly: the tensors have the names of its published file
    clips = some_clips(2)
    with torch.no_grad():
        expected = theirs(clips[:, 2].float() / 255)[0].flatten(1)
    found = features(extractor, clips)
    assert found.shape == (2, DIM)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.std() > 0.01
    assert (found[0] - found[1]).abs().max() > 0.01


def test_all_of_it_is_to_be_filled() -> None:
    shapes = {name: tuple(value.shape) for name, value in create().state_dict().items()}
    assert shapes["fc.weight"] == (1008, DIM)
    assert sum(1 for name in shapes if name.endswith("conv.weight")) == 94


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "frames='all', count=4, ", "resize='tf1', "])
def test_it_keeps_the_contract(options: str) -> None:
    extractor = plugins.load("extractor", f"inception({options}weights='random')", CPU)
    check_extractor(extractor, some_clips(), asked())


def test_missing_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingData, match="python -m vfbench weights fetch inception"):
        plugins.load("extractor", "inception", CPU)


# What it sees.


def test_half_pixel_is_the_input_of_pytorch_fid() -> None:
    frames = some_clips()[:, 0]
    theirs = 2 * F.interpolate(frames.float() / 255, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1
    torch.testing.assert_close(glancing().network_input(frames), theirs, atol=1e-6, rtol=0)


def test_tf1_is_the_input_of_torch_fidelity() -> None:
    extractor = glancing(resize="tf1")
    same_size = some_clips(1, 1, SIDE, SIDE)[0]
    torch.testing.assert_close(extractor.network_input(same_size), (same_size.float() - 128) / 128)
    ramp = torch.arange(0, 250, 10, dtype=torch.uint8).expand(1, 3, 25, 25)
    found = extractor.network_input(ramp)[0, 0, 0] * 128 + 128
    expected = (torch.arange(SIDE) * (25 / SIDE)).clamp(max=24) * 10  # read at i * in / out, and no half pixel
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_channels_have_an_order_and_bytes_a_range() -> None:
    clips, extractor = some_clips(), glancing(frames="middle")
    found = features(extractor, clips)
    torch.testing.assert_close(features(extractor, clips.flip(2))[:, :3], found[:, :3].flip(1))
    torch.testing.assert_close(found[:, :3], clips[:, 2].float().mean((2, 3)) / 127.5 - 1, atol=0.02, rtol=0)
    with pytest.raises(TypeError):
        features(extractor, clips.float() / 255)
    with pytest.raises(UserError, match="0 or 1"):
        features(extractor, clips.clamp(max=1))


# Which frames.


def test_a_random_frame_belongs_to_its_request_alone() -> None:
    clips, extractor = some_clips(12, 4), glancing()
    state = torch.get_rng_state()
    found = features(extractor, clips)
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(features(extractor, clips.flip(0), asked(12)[::-1]).flip(0), found)
    torch.testing.assert_close(features(extractor, clips[5:6], asked(12)[5:6]), found[5:6])
    every = features(glancing(frames="all", count=4), clips).reshape(12, 4, DIM)
    places = (every - found[:, None]).abs().amax(2).argmin(1)
    assert torch.equal(every[range(12), places], found)
    assert len(set(places.tolist())) == 4
    assert (features(extractor, clips, asked(12, seed=1)) != found).any(1).float().mean() > 0.4


def test_the_middle_frame() -> None:
    clips = some_clips(2, 5)
    torch.testing.assert_close(features(glancing(frames="middle"), clips), features(glancing(), clips[:, 2:3]))


def test_all_frames_lie_side_by_side() -> None:
    clips, extractor = some_clips(3, 4), glancing(frames="all", count=4)
    assert extractor.outputs == {"features": 4 * DIM}
    found = features(extractor, clips).reshape(3, 4, DIM)
    for place in range(4):
        torch.testing.assert_close(found[:, place], features(glancing(), clips[:, place : place + 1]))


def test_another_number_of_frames_is_refused() -> None:
    with pytest.raises(UserError, match=r"4 frames, but .* count=16: use inception\(frames='all', count=4\)"):
        features(glancing(frames="all"), some_clips())


def test_passes_are_small_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = glancing(frames="all", count=4)
    whole = features(extractor, some_clips())
    monkeypatch.setattr(_inception, "BATCH_SIZE", 5)
    torch.testing.assert_close(features(extractor, some_clips()), whole)
    assert extractor.network.sizes == [12, 5, 5, 2]


# Options.


@pytest.mark.parametrize("option", ["frames='first'", "resize='bicubic'", "count=0"])
def test_unknown_options_are_refused(option: str) -> None:
    with pytest.raises(UserError, match=rf"option {option[:5]}\w* ?.*of extractor inception"):
        plugins.load("extractor", f"inception({option})", CPU)


def test_whatever_moves_a_number_moves_the_fingerprint() -> None:
    options: list[dict[str, Any]] = [
        {},
        {"frames": "middle"},
        {"frames": "all", "count": 4},
        {"frames": "all", "count": 5},
        {"resize": "tf1"},
        {"digest": "1" * 64},
    ]
    assert len({glancing(**each).fingerprint for each in options}) == len(options)
    assert glancing(count=4).fingerprint == glancing(count=5).fingerprint  # one frame of a clip, however many it has
