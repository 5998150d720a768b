"""Tests of the `i3d` extractor: golden logits of published implementations, layers, options and the contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract import check_extractor
from torch import Tensor, nn

from vfbench.errors import UserError
from vfbench.interfaces import Clips, Request
from vfbench.metrics import _i3d, _i3d_network
from vfbench.metrics._i3d import I3DExtractor, build
from vfbench.metrics._i3d_network import I3D, FoldedI3D, Mixed, Pool, Unit, same_padding
from vfbench.weights import i3d
from vfbench.weights.load import WeightInfo

CPU = torch.device("cpu")
EPSILONS = (1e-3, 1e-5)

# Logits of VideoGPT's network (at 1e-3 also of hassony2's) on the clip and weights below, preprocessed as by TATS,
# DIGAN or TensorFlow 1: norm, mean, and the first five values.
SQUASH_3 = (73.145361, -0.03799039, 0.57098895, 3.07294226, 3.56140447, 4.42310667, 4.03160238)
SQUASH_5 = (73.859225, -0.03869931, 0.58138019, 3.10536766, 3.59320569, 4.46573067, 4.07206059)
CROP_3 = (72.288108, -0.03471852, 0.58734971, 3.03987312, 3.52192640, 4.39748192, 4.03878450)
CROP_5 = (72.990923, -0.03534983, 0.59783584, 3.07261920, 3.55307841, 4.43827963, 4.07899809)
TF1_3 = (73.731977, -0.03158448, 0.55702811, 3.14537811, 3.57235646, 4.41643715, 4.07016039)
TF1_5 = (74.451065, -0.03223801, 0.56607753, 3.17875528, 3.60412574, 4.45792103, 4.11051321)
NINE_FRAMES = (60.326880, -0.00402785, 0.65349323, 2.10144663, 1.96175826, 3.08042026, 3.49326205)  # squash, 1e-3
GOLDEN = {
    **{("squash", 1e-3): SQUASH_3, ("squash", 1e-5): SQUASH_5},
    **{("crop", 1e-3): CROP_3, ("crop", 1e-5): CROP_5},
    **{("tf1", 1e-3): TF1_3, ("tf1", 1e-5): TF1_5},
}


@pytest.fixture(scope="module")
def weights() -> Mapping[str, Tensor]:
    """Weights of the golden logits: one random stream over the sorted names."""
    rng = np.random.RandomState(1234)
    state = meta_network().state_dict()
    return {
        name: random_tensor(rng, name, tuple(state[name].shape)) for name in sorted(state) if "num_batches" not in name
    }


def meta_network(bn_eps: float = 1e-3) -> I3D:
    """I3D on the meta device."""
    with torch.device("meta"):
        return I3D(bn_eps)


def random_tensor(rng: np.random.RandomState, name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("bn.weight"):
        return torch.ones(shape)
    if name.endswith("running_var"):
        return torch.from_numpy((0.5 + rng.random_sample(shape)).astype(np.float32))
    scale = math.sqrt(2 / math.prod(shape[1:])) if len(shape) == 5 else 0.1
    return torch.from_numpy((rng.standard_normal(shape) * scale).astype(np.float32))


def filled_network(weights: Mapping[str, Tensor], bn_eps: float = 1e-3) -> I3D:
    module = meta_network(bn_eps).to_empty(device="cpu").eval()
    module.load_state_dict(dict(weights), strict=False)
    return module


@pytest.fixture(scope="module")
def folded_networks(weights: Mapping[str, Tensor]) -> Mapping[float, FoldedI3D]:
    return {bn_eps: filled_network(weights, bn_eps).fold() for bn_eps in EPSILONS}


def make_extractor(
    folded: FoldedI3D, resize: str = "squash", bn_eps: float = 1e-3, dtype: str = "float32"
) -> I3DExtractor:
    return I3DExtractor(
        folded, WeightInfo("0" * 64, weight_status="nonstandard"), CPU, resize=resize, bn_eps=bn_eps, dtype=dtype
    )


@pytest.fixture(scope="module")
def noise() -> Clips:
    """Clip of uniform noise, uint8 (1, 16, 3, 48, 64)."""
    clips = np.random.RandomState(7).randint(0, 256, (1, 16, 48, 64, 3)).astype(np.uint8)
    return torch.from_numpy(clips).permute(0, 1, 4, 2, 3)


def requests_for(clips: Clips) -> list[Request]:
    return [Request(i, i, 0, "") for i in range(len(clips))]


def logits_of(make_extractor: I3DExtractor, clips: Clips) -> Tensor:
    return make_extractor(clips, requests_for(clips), ["logits"])["logits"]


def matches(logits: Tensor, golden: tuple[float, ...]) -> bool:
    """Compare norm, mean and first logits with golden ones to 1e-4, the mean relative to the logits' size."""
    norm, mean, *first = golden
    equal = float(logits.double().norm()) == pytest.approx(norm, rel=1e-4)
    equal = equal and float(logits.double().mean()) == pytest.approx(mean, abs=1e-4 * norm / 20)
    return equal and logits[0, :5].tolist() == pytest.approx(first, rel=1e-4)


# Golden logits.


QUICK = ("crop", 1e-5)  # half a second; the others are marked slow


@pytest.mark.parametrize(
    ("resize", "bn_eps"), [pytest.param(*case, marks=[] if case == QUICK else [pytest.mark.slow]) for case in GOLDEN]
)
def test_logits_match_the_published_networks(
    resize: str, bn_eps: float, folded_networks: Mapping[float, FoldedI3D], noise: Clips
) -> None:
    logits = logits_of(make_extractor(folded_networks[bn_eps], resize, bn_eps), noise)
    assert [case for case, golden in GOLDEN.items() if matches(logits, golden)] == [(resize, bn_eps)]


@pytest.mark.slow
def test_the_folded_network_equals_the_published_one(
    weights: Mapping[str, Tensor], folded_networks: Mapping[float, FoldedI3D], noise: Clips
) -> None:
    extractor = make_extractor(folded_networks[1e-3])
    clips = noise[:, :9]
    with torch.inference_mode():
        plain = filled_network(weights)(extractor.network_input(clips))
    folded = extractor(clips, requests_for(clips), ["logits", "pool"])
    assert matches(plain["logits"], NINE_FRAMES)
    assert matches(folded["logits"], NINE_FRAMES)
    for name, width in extractor.outputs.items():
        assert folded[name].shape == (1, width)
        assert torch.allclose(folded[name], plain[name], rtol=1e-4, atol=1e-5 * float(plain[name].abs().max()))


@pytest.mark.slow
def test_symmetric_padding_does_not_match(
    folded_networks: Mapping[float, FoldedI3D], noise: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_i3d_network, "same_padding", lambda size, kernel, stride: [(k // 2, k // 2) for k in kernel])
    assert not matches(logits_of(make_extractor(folded_networks[1e-3]), noise), SQUASH_3)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [10, 17])
def test_the_folded_network_equals_the_plain_one_for_longer_clips(frames: int, weights: Mapping[str, Tensor]) -> None:
    plain = filled_network(weights)
    x = torch.rand(1, 3, frames, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        unfolded, folded = plain(x), plain.fold()(x)
    for name in ("logits", "pool"):
        assert torch.allclose(folded[name], unfolded[name], rtol=1e-4, atol=1e-5 * float(unfolded[name].abs().max()))


@pytest.mark.slow
def test_bfloat16_is_close_but_different(folded_networks: Mapping[float, FoldedI3D], noise: Clips) -> None:
    full, half = (
        logits_of(make_extractor(folded_networks[1e-3], dtype=dtype), noise[:, :9]) for dtype in ("float32", "bfloat16")
    )
    assert 1e-4 < float((half - full).norm() / full.norm()) < 0.03


# Layers.


def test_padding_equals_tensorflow() -> None:
    assert same_padding((16, 224, 224), (7, 7, 7), (2, 2, 2)) == [(2, 3)] * 3
    assert same_padding((9, 112, 113), (1, 3, 3), (1, 2, 2)) == [(0, 0), (0, 1), (1, 1)]
    assert same_padding((5, 6, 7), (3, 3, 3), (1, 1, 1)) == [(1, 1)] * 3
    for size in range(2, 20):
        for kernel, stride in ((1, 1), (3, 1), (3, 2), (2, 2), (7, 2)):
            [(before, after)] = same_padding((size,), (kernel,), (stride,))
            assert (size + before + after - kernel) // stride + 1 == math.ceil(size / stride)
            assert 0 <= after - before <= 1


LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    "stem": lambda: Unit(3, 5, 1e-3, 7, 2),
    "unit": lambda: Unit(3, 5, 1e-3, 3),
    "point": lambda: Unit(3, 5, 1e-3),
    "pool of frames": lambda: Pool((1, 3, 3), (1, 2, 2)),
    "pool": lambda: Pool((3, 3, 3), (2, 2, 2)),
    "pool in place": lambda: Pool((3, 3, 3), (1, 1, 1)),
    "pool of pairs": lambda: Pool((2, 2, 2), (2, 2, 2)),
    "mixed": lambda: Mixed(3, (2, 3, 4, 5, 6, 7), 1e-3),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [(4, 7, 6), (5, 8, 9)])
def test_a_folded_layer_equals_the_plain_one(name: str, size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    layer = LAYERS[name]().eval()
    for key, value in layer.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + (0.1 if "var" in key else -0.3))
    x = torch.rand(2, 3, *size, generator=generator)  # non-negative, as after a ReLU
    with torch.inference_mode():
        assert torch.allclose(_i3d_network._fold(layer)(x), layer(x), rtol=1e-5, atol=1e-6)


def test_the_network_has_the_tensors_of_the_published_file() -> None:
    state = meta_network().state_dict().items()
    shapes = {name: tuple(value.shape) for name, value in state if "num_batches_tracked" not in name}
    assert len(shapes) == 287
    assert sum(parameter.numel() for parameter in meta_network().parameters()) == 12_697_264
    published = {row.piergiaj: row.shape for row in i3d.table()}
    assert {name: shape for name, shape in shapes.items() if not name.endswith("bn.weight")} == published


# Extractor.


class FastTrunk(nn.Module):
    """Trunk that averages 2 x 7 x 7 cells, with another factor in each of 1024 channels."""

    def forward(self, x: Tensor) -> Tensor:
        means = F.adaptive_avg_pool3d(x.mean(1, keepdim=True), (2, 7, 7))
        return means * torch.arange(1.0, 1025)[:, None, None, None]


@pytest.fixture(scope="module")
def fast_extractor(weights: Mapping[str, Tensor]) -> I3DExtractor:
    folded = filled_network(weights).fold()
    folded.trunk = FastTrunk()  # type: ignore[assignment]
    return make_extractor(folded)


def test_the_extractor_keeps_the_contract(fast_extractor: I3DExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = torch.randint(0, 256, (5, 12, 3, 20, 30), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    check_extractor(fast_extractor, clips, requests_for(clips))
    expected = logits_of(fast_extractor, clips)
    monkeypatch.setattr(_i3d, "DEFAULT_FRAMES_PER_PASS", 5)  # less than one clip
    assert torch.allclose(logits_of(fast_extractor, clips), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.pitfall("padded short clips")
def test_too_few_frames_are_refused(fast_extractor: I3DExtractor) -> None:
    clips = torch.zeros(2, 8, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"8 frames.* 9"):
        logits_of(fast_extractor, clips)


@pytest.mark.pitfall("the epsilon of batch norm")
def test_the_fingerprint_covers_weights_and_options(fast_extractor: I3DExtractor) -> None:
    options = [{}, {"resize": "crop"}, {"resize": "tf1"}, {"bn_eps": 1e-5}, {"dtype": "bfloat16"}]
    prints = [make_extractor(fast_extractor.network, **option).fingerprint for option in options]  # type: ignore[arg-type]
    other = I3DExtractor(fast_extractor.network, WeightInfo("1" * 64, weight_status="verified"), CPU)
    assert len({*prints, other.fingerprint}) == 6
    assert prints[0] == make_extractor(fast_extractor.network).fingerprint
    assert (other.weight_status, make_extractor(fast_extractor.network).weight_status) == ("verified", "nonstandard")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"resize": "squish"}, "resize of extractor i3d.*'squish'.*'squash'"),
        ({"dtype": "float16"}, "dtype of extractor i3d.*'float16'"),
        ({"bn_eps": 0.0}, r"bn_eps=0.0 of extractor i3d: .*1e-3 or 1e-5"),
    ],
)
def test_invalid_options_are_refused(option: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(CPU, weights="random", **option)  # type: ignore[arg-type]


def test_random_weights_are_nonstandard() -> None:
    first, second = build(CPU, weights="random"), build(CPU, weights="random", bn_eps=1e-5)
    assert first.weight_status == "nonstandard"
    assert first.fingerprint != second.fingerprint
    kernels = [each.network.state_dict()["trunk.0.kernel"] for each in (first, second)]
    assert torch.allclose(kernels[1] / kernels[0], torch.tensor(math.sqrt(1.001 / 1.00001)), rtol=1e-5)
