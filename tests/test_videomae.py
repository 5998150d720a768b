"""Tests of `vfbench.metrics._videomae`: features equal to cd-fvd and transformers, input, weights."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract import check_extractor
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEModel

from vfbench import plugins
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips, Request
from vfbench.metrics import _videomae
from vfbench.metrics._videomae import VideoMAE, VideoMAEExtractor
from vfbench.weights.load import WeightInfo, load_weights

CPU = torch.device("cpu")


build_small = functools.partial(VideoMAE, side=8, patch=4, dim=8, depth=2, heads=2, hidden=16, classes=5)


def tiny_videomae(side: int = 16, patch: int = 1) -> VideoMAE:
    """Small network with fixed weights; with `patch=1` its token grid is that of the full size."""
    with torch.random.fork_rng():
        network = VideoMAE(side=side, patch=patch, dim=8, depth=2, heads=2, hidden=16, classes=5)
    stream = np.random.RandomState(1234)
    state = network.state_dict()
    weights = {name: 0.5 * stream.standard_normal(tuple(state[name].shape)) for name in sorted(state)}
    network.load_state_dict({name: torch.from_numpy(values).float() for name, values in weights.items()})
    return network.eval()


@pytest.fixture
def extractor() -> VideoMAEExtractor:
    return VideoMAEExtractor(tiny_videomae(side=8, patch=4), WeightInfo("0" * 64, weight_status="nonstandard"), CPU)


def some_clips(count: int = 3, frames: int = 16) -> Clips:
    coarse = torch.rand(count * frames, 3, 5, 6, generator=torch.Generator().manual_seed(3))
    smooth = F.interpolate(coarse, (20, 30), mode="bilinear")
    return smooth.mul(255).round().to(torch.uint8).reshape(count, frames, 3, 20, 30)


def empty_requests(count: int = 3) -> list[Request]:
    return [Request(i, i, 0, "") for i in range(count)]


def features(extractor: VideoMAEExtractor, clips: Clips) -> Tensor:
    return extractor(clips, empty_requests(len(clips)), ["features"])["features"]


def test_the_extractor_meets_the_contract(extractor: VideoMAEExtractor) -> None:
    check_extractor(extractor, some_clips(), empty_requests())
    assert extractor.outputs == {"features": 8}


# Network.


@pytest.mark.parametrize(
    ("frames", "expected"),  # of cd-fvd 0.1.1's VisionTransformer with equal weights
    [
        (16, [0.2707628, -0.7295915, -0.0932925, 0.4706604, -0.0856942, -0.5501464, -1.0884023, -0.7589684]),
        (8, [0.2702819, -0.7317724, -0.0933084, 0.4703561, -0.0863739, -0.5165836, -1.1281416, -0.760953]),
        (20, [0.2687732, -0.7295135, -0.0933109, 0.4732141, -0.0858781, -0.5341421, -1.111685, -0.759629]),
    ],
)
def test_features_equal_those_of_cd_fvd(frames: int, expected: list[float]) -> None:
    clip = torch.from_numpy(np.random.RandomState(7).random_sample((1, 3, frames, 16, 16))).float()
    with torch.inference_mode():
        actual = tiny_videomae()(clip)
    np.testing.assert_allclose(actual[0], expected, rtol=1e-4)


def test_features_equal_those_of_transformers() -> None:
    network = tiny_videomae(side=12, patch=4)
    sizes = {"image_size": 12, "patch_size": 4, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"intermediate_size": 16, "layer_norm_eps": 1e-6, "use_mean_pooling": True, "qv_bias": True}
    reference: Any = VideoMAEModel(VideoMAEConfig.from_dict({**sizes, **more}))
    reference.load_state_dict(transformers_state(network))
    reference.eval()
    clip = torch.rand(2, 3, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tokens = reference(clip.transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(network(clip), network.fc_norm(tokens.mean(1)), atol=1e-5, rtol=1e-4)


def transformers_state(network: VideoMAE) -> dict[str, Tensor]:
    """State dict under the names of transformers."""
    replacements = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "blocks": "encoder.layer",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "attn.q_bias": "attention.attention.query.bias",
        "attn.v_bias": "attention.attention.value.bias",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    state = {}
    for name, tensor in network.state_dict().items():
        if name.startswith(("fc_norm", "head")):
            continue
        for ours, other in replacements.items():
            name = name.replace(ours, other)
        if name.endswith("attn.qkv.weight"):
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                state[name.replace("attn.qkv", f"attention.attention.{part}")] = rows
        else:
            state[name] = tensor
    return state


def test_the_full_size_equals_the_published_file() -> None:
    with torch.device("meta"):
        network = VideoMAE()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == sum(value.numel() for value in network.state_dict().values())
    assert 0 < 2_023_804_201 - 2 * parameters < 100_000  # bytes of the file, in half precision
    assert network.state_dict()["blocks.39.mlp.fc1.weight"].shape == (int(1408 * 48 / 11), 1408)
    assert network.positions.shape == (1, 2048, 1408)
    pattern = r"(patch_embed\.proj|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])|fc_norm|head)\.(weight|bias)"
    other_names = {name.split(".", 2)[-1] for name in network.state_dict() if not re.fullmatch(pattern, name)}
    assert other_names == {"attn.q_bias", "attn.v_bias"}


def test_missing_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(_videomae, "VideoMAE", build_small)  # instead of 4 GB
    with pytest.raises(MissingData, match="python -m vfbench weights fetch videomae"):
        plugins.load("extractor", "videomae", CPU)


def test_random_weights_are_reproducible_and_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_videomae, "VideoMAE", build_small)
    before = torch.get_rng_state()
    extractors = [plugins.load("extractor", "videomae(weights='random')", CPU) for _ in range(2)]
    assert torch.equal(before, torch.get_rng_state())
    first, second = (features(extractor, some_clips()) for extractor in extractors)
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()
    assert extractors[0].weight_status == "nonstandard"
    filled = build_small()
    load_weights(filled, "videomae", "random")
    torch.testing.assert_close(extractors[0].network.state_dict(), filled.state_dict())


# Input.


def test_the_input_is_resized_and_in_0_to_1(extractor: VideoMAEExtractor) -> None:
    clips = some_clips(2)
    frame = clips[1, 5].float()[None] / 255
    expected = F.interpolate(frame, (8, 8), mode="bilinear", align_corners=False)[0]
    actual = extractor.network_input(clips)
    assert actual.shape == (2, 3, 16, 8, 8)
    torch.testing.assert_close(actual[1, :, 5], expected, atol=1e-6, rtol=0)


def test_channel_order_time_order_and_range_change_features(extractor: VideoMAEExtractor) -> None:
    clips = some_clips()
    original = features(extractor, clips)
    for other in (clips.flip(2), clips.flip(1)):
        assert (features(extractor, other) - original).abs().max() > 1e-3
    with torch.inference_mode():
        unscaled = extractor.network(255 * extractor.network_input(clips))
    assert (unscaled - original).abs().max() > 0.1
    assert not torch.equal(original[0], original[1])


def test_an_odd_number_of_frames_is_refused(extractor: VideoMAEExtractor) -> None:
    with pytest.raises(UserError, match="clips have 15 frames, and VideoMAE reads 2 at a time"):
        features(extractor, some_clips(1, 15))


def test_features_do_not_depend_on_the_batch_size(
    extractor: VideoMAEExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = some_clips(5)
    expected = features(extractor, clips)
    monkeypatch.setattr(_videomae, "BATCH_SIZE", 2)
    sizes: list[int] = []
    extractor.network.register_forward_hook(lambda *arguments: sizes.append(len(arguments[-1])))
    torch.testing.assert_close(features(extractor, clips.flip(0)).flip(0), expected, atol=1e-5, rtol=1e-4)
    assert sizes == [2, 2, 1]


def test_the_fingerprint_depends_on_the_weights(extractor: VideoMAEExtractor) -> None:
    other = VideoMAEExtractor(tiny_videomae(side=8, patch=4), WeightInfo("1" * 64, weight_status="verified"), CPU)
    assert extractor.fingerprint != other.fingerprint
    assert (extractor.weight_status, other.weight_status) == ("nonstandard", "verified")
