"""Tests of the `inception` extractor: equality with pytorch-fid and torch-fidelity, frame choice, options."""

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
from vfbench.weights.load import WeightInfo

CPU = torch.device("cpu")


class InputProbe(nn.Module):
    """Network whose features are its input's mean colour and first row of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (3, SIDE, SIDE)
        self.sizes.append(len(x))
        return F.pad(torch.cat([x.mean((2, 3)), x[:, :, 0].flatten(1)], dim=1), (0, DIM - 3 - 3 * SIDE))


def probe_extractor(digest: str = "0" * 64, **options: Any) -> InceptionExtractor:
    return InceptionExtractor(InputProbe(), WeightInfo(digest, weight_status="nonstandard"), CPU, **options)


def random_clips(count: int = 3, frames: int = 4, height: int = 24, width: int = 30) -> Clips:
    coarse = torch.rand(count * frames, 3, 5, 6, generator=torch.Generator().manual_seed(3))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return smooth.mul(255).round().to(torch.uint8).reshape(count, frames, 3, height, width)


def requests_for(count: int = 3, seed: int = 0) -> list[Request]:
    return [Request(i, seed, 0, "") for i in range(count)]


def features(extractor: InceptionExtractor, clips: Clips, requests: Sequence[Request] | None = None) -> Tensor:
    return extractor(clips, requests_for(len(clips)) if requests is None else requests, ["features"])["features"]


# Network.


@pytest.mark.slow
def test_features_match_pytorch_fid(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_rng_state()
    extractor: InceptionExtractor = plugins.load("extractor", "inception(frames='middle', weights='random')", CPU)
    assert torch.equal(before, torch.get_rng_state())
    assert extractor.weight_status == "nonstandard"
    state = {**extractor.network.state_dict(), "fc.weight": torch.zeros(1008, DIM), "fc.bias": torch.zeros(1008)}
    monkeypatch.setattr("pytorch_fid.inception.load_state_dict_from_url", lambda *_, **__: state)
    reference = InceptionV3().eval()  # loads strictly: tensor names are those of the published file
    clips = random_clips(2)
    with torch.no_grad():
        expected = reference(clips[:, 2].float() / 255)[0].flatten(1)
    computed = features(extractor, clips)
    assert computed.shape == (2, DIM)
    torch.testing.assert_close(computed, expected, atol=1e-5, rtol=1e-4)
    assert computed.std() > 0.01
    assert (computed[0] - computed[1]).abs().max() > 0.01


def test_the_network_has_94_convolutions_and_a_head() -> None:
    shapes = {name: tuple(value.shape) for name, value in create().state_dict().items()}
    assert shapes["fc.weight"] == (1008, DIM)
    assert sum(1 for name in shapes if name.endswith("conv.weight")) == 94


@pytest.mark.slow
@pytest.mark.parametrize("options", ["frames='all', count=4, ", "resize='tf1', "])
def test_the_extractor_keeps_the_contract(options: str) -> None:
    extractor = plugins.load("extractor", f"inception({options}weights='random')", CPU)
    check_extractor(extractor, random_clips(), requests_for())


def test_missing_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingData, match="vfbench weights fetch inception"):
        plugins.load("extractor", "inception", CPU)


# Preprocessing.


def test_resize_half_pixel_equals_pytorch_fid() -> None:
    frames = random_clips()[:, 0]
    expected = 2 * F.interpolate(frames.float() / 255, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1
    torch.testing.assert_close(probe_extractor().network_input(frames), expected, atol=1e-6, rtol=0)


def test_resize_tf1_equals_torch_fidelity() -> None:
    extractor = probe_extractor(resize="tf1")
    same_size = random_clips(1, 1, SIDE, SIDE)[0]
    torch.testing.assert_close(extractor.network_input(same_size), (same_size.float() - 128) / 128)
    ramp = torch.arange(0, 250, 10, dtype=torch.uint8).expand(1, 3, 25, 25)
    row = extractor.network_input(ramp)[0, 0, 0] * 128 + 128
    expected = (torch.arange(SIDE) * (25 / SIDE)).clamp(max=24) * 10  # sampled at i * in / out, without half pixels
    torch.testing.assert_close(row, expected, atol=1e-3, rtol=0)


def test_channel_order_and_value_range_matter() -> None:
    clips, extractor = random_clips(), probe_extractor(frames="middle")
    rgb = features(extractor, clips)
    torch.testing.assert_close(features(extractor, clips.flip(2))[:, :3], rgb[:, :3].flip(1))
    torch.testing.assert_close(rgb[:, :3], clips[:, 2].float().mean((2, 3)) / 127.5 - 1, atol=0.02, rtol=0)
    with pytest.raises(TypeError):
        features(extractor, clips.float() / 255)
    with pytest.raises(UserError, match="0 or 1"):
        features(extractor, clips.clamp(max=1))


# Frame choice.


def test_the_random_frame_depends_on_the_request_only() -> None:
    clips, extractor = random_clips(12, 4), probe_extractor()
    state = torch.get_rng_state()
    chosen = features(extractor, clips)
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(features(extractor, clips.flip(0), requests_for(12)[::-1]).flip(0), chosen)
    torch.testing.assert_close(features(extractor, clips[5:6], requests_for(12)[5:6]), chosen[5:6])
    every = features(probe_extractor(frames="all", count=4), clips).reshape(12, 4, DIM)
    frame_indices = (every - chosen[:, None]).abs().amax(2).argmin(1)
    assert torch.equal(every[range(12), frame_indices], chosen)
    assert len(set(frame_indices.tolist())) == 4
    assert (features(extractor, clips, requests_for(12, seed=1)) != chosen).any(1).float().mean() > 0.4


def test_frames_middle_takes_the_middle_frame() -> None:
    clips = random_clips(2, 5)
    torch.testing.assert_close(
        features(probe_extractor(frames="middle"), clips), features(probe_extractor(), clips[:, 2:3])
    )


def test_frames_all_concatenates_the_features_of_all_frames() -> None:
    clips, extractor = random_clips(3, 4), probe_extractor(frames="all", count=4)
    assert extractor.outputs == {"features": 4 * DIM}
    per_frame = features(extractor, clips).reshape(3, 4, DIM)
    for frame in range(4):
        torch.testing.assert_close(per_frame[:, frame], features(probe_extractor(), clips[:, frame : frame + 1]))


def test_another_number_of_frames_is_refused() -> None:
    with pytest.raises(UserError, match=r"4 frames.*inception\(frames='all', count=4\)"):
        features(probe_extractor(frames="all"), random_clips())


def test_the_batch_size_does_not_change_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = probe_extractor(frames="all", count=4)
    expected = features(extractor, random_clips())
    monkeypatch.setattr(_inception, "BATCH_SIZE", 5)
    torch.testing.assert_close(features(extractor, random_clips()), expected)
    assert extractor.network.sizes == [12, 5, 5, 2]


# Options.


@pytest.mark.parametrize("option", ["frames='first'", "resize='bicubic'", "count=0"])
def test_unknown_options_are_refused(option: str) -> None:
    with pytest.raises(UserError, match=rf"option {option[:5]}\w* ?.*of extractor inception"):
        plugins.load("extractor", f"inception({option})", CPU)


def test_the_fingerprint_covers_weights_and_options() -> None:
    options: list[dict[str, Any]] = [
        {},
        {"frames": "middle"},
        {"frames": "all", "count": 4},
        {"frames": "all", "count": 5},
        {"resize": "tf1"},
        {"digest": "1" * 64},
    ]
    assert len({probe_extractor(**each).fingerprint for each in options}) == len(options)
    assert (
        probe_extractor(count=4).fingerprint == probe_extractor(count=5).fingerprint
    )  # no effect with one frame per clip
