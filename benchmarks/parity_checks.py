"""Comparisons for parity.py: vfbench and a published package on the same input.

Tolerances, relative to the largest number: 1e-6; float32 1e-5 after a resize, the distance of both sides from float64,
and 1e-4 after a network. tests/test_inception.py compares with the network of pytorch-fid.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from vfbench import plugins
from vfbench.interfaces import Clips, Metric, Request
from vfbench.metrics import _i3d, _resize, _videomae
from vfbench.metrics._frechet import frechet_distance
from vfbench.metrics._i3d_network import I3D
from vfbench.metrics._mmd import kernel_distance, subset_distances
from vfbench.metrics.inception_score import inception_score, split_scores
from vfbench.weights.load import WeightInfo

CPU = torch.device("cpu")
EXACT, PIXELS, NETWORK = 1e-6, 1e-5, 1e-4
RANDOM = WeightInfo("0" * 64, weight_status="nonstandard")


@dataclass(frozen=True)
class Check:
    """Number or array from vfbench (`ours`) and from a package (`theirs`)."""

    what: str
    ours: Any
    theirs: Any
    tolerance: float = EXACT

    @property
    def difference(self) -> float:
        """Largest difference relative to the largest of their numbers; NaN if any number is NaN."""
        ours, theirs = (np.asarray(value, dtype=np.float64) for value in (self.ours, self.theirs))
        if ours.shape != theirs.shape:
            raise ValueError(f"{self.what}: our shape is {ours.shape}, theirs {theirs.shape}")
        return float(np.abs(ours - theirs).max() / np.abs(theirs).max())

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance


# Inputs of both sides.


def random_features(clips: int, dim: int = 400, *, seed: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Features like those of I3D: float64 (clips, dim), normal with a decaying spectrum."""
    white = np.random.default_rng(seed).standard_normal((clips, dim))
    features: np.ndarray = (scale * white + shift) * np.arange(1, dim + 1) ** -0.5
    return features


FAKE, REAL = random_features(500, seed=1, scale=0.9, shift=0.1), random_features(600, seed=2)


def random_clip(frames: int = 16) -> Clips:
    """Batch of one clip of 48 x 64 pixels, every byte random: uint8 (1, T, 3, 48, 64)."""
    return torch.from_numpy(np.random.default_rng(3).integers(0, 256, (1, frames, 3, 48, 64), dtype=np.uint8))


def channels_last(clips: Clips) -> np.ndarray:
    """Clips as (B, T, H, W, 3), the layout of cd-fvd."""
    return clips.permute(0, 1, 3, 4, 2).numpy()


def random_weights(module: nn.Module) -> dict[str, Tensor]:
    """Random state dict of a network, scaled so that features neither vanish nor explode."""
    generator, state = torch.Generator().manual_seed(4), module.state_dict()
    return {
        name: _random_tensor(name, state[name].shape, generator) for name in sorted(state) if "num_batches" not in name
    }


def _random_tensor(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if name.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=generator)
    normal = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return normal * math.sqrt(2 / math.prod(shape[1:]))
    return 0.1 * normal + (1.0 if name.endswith("weight") else 0.0)


def extract(extractor: Any, clips: Clips, output: str) -> Tensor:
    requests = [Request(i, i, 0, "") for i in range(len(clips))]
    return torch.as_tensor(extractor(clips, requests, [output])[output])


@contextlib.contextmanager
def older_scipy() -> Iterator[None]:
    """Context manager: restore the argument `disp` of `scipy.linalg.sqrtm`, which SciPy 1.18 removed."""
    sqrtm = scipy.linalg.sqrtm
    with mock.patch.object(scipy.linalg, "sqrtm", lambda matrix, disp: (sqrtm(matrix), 0.0)):
        yield


# Packages, each imported only where it is compared.


def pytorch_fid() -> Iterator[Check]:
    from pytorch_fid.fid_score import calculate_frechet_distance

    moments = [moment for x in (FAKE, REAL) for moment in (x.mean(axis=0), np.cov(x, rowvar=False))]
    with older_scipy():
        yield Check("Frechet distance, N - 1", frechet_distance(FAKE, REAL), calculate_frechet_distance(*moments))


def torch_fidelity() -> Iterator[Check]:
    from torch_fidelity import metric_fid, metric_kid, metric_prc

    fake, real = torch.from_numpy(FAKE), torch.from_numpy(REAL)
    statistics = [metric_fid.fid_features_to_statistics(x) for x in (fake, real)]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[metric_fid.KEY_METRIC_FID]
    yield Check("Frechet distance, N - 1", frechet_distance(FAKE, REAL), theirs)

    kid = metric_kid.kid_features_to_metric(fake, real, kid_subsets=10, kid_subset_size=200, rng_seed=5, verbose=False)
    subsets = subset_distances(FAKE, REAL, subsets=10, size=200, seed=5)
    yield Check("KID, mean of 10 subsets of 200", subsets.mean(), kid[metric_kid.KEY_METRIC_KID_MEAN])
    yield Check("KID, deviation of these", subsets.std(), kid[metric_kid.KEY_METRIC_KID_STD])

    cubic, square = ({f"kid_kernel_poly_{k}": v for k, v in (("degree", d), ("coef0", c))} for d, c in ((3, 1), (2, 0)))
    equal_size = REAL[: len(FAKE)]  # torch-fidelity requires equal sample sizes
    ours = kernel_distance(FAKE, equal_size)
    yield Check("MMD^2, cubic, unbiased", ours, metric_kid.kernel_mmd(FAKE, equal_size, **cubic))
    pairs = ((FAKE, FAKE), (FAKE, equal_size), (equal_size, equal_size))
    grams = [metric_kid.kernel_poly(x, y, **square) for x, y in pairs]
    ours = kernel_distance(FAKE, equal_size, degree=2, coef0=0.0, estimator="biased")
    yield Check("MMD^2, square, biased", ours, metric_kid.mmd2(*grams, mmd_est="biased"))

    low_dim = FAKE[:, :8], REAL[:, :8]
    prc = metric_prc.prc_features_to_metric(*map(torch.from_numpy, low_dim), prc_neighborhood=3, verbose=False)
    for name in ("precision", "recall"):
        metric: Metric = plugins.load("metric", f"{name}(k=3)")
        yield Check(f"{name}, k = 3", metric.score(*low_dim).value, prc[name])
    yield from _inception_scores()
    yield from _pixels_of_tensorflow_1()
    yield from _inception_of_tensorflow()


def _inception_scores() -> Iterator[Check]:
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    logits = 20 * random_features(505, 101, seed=6)  # 505 is not divisible by 10: unequal splits
    single = isc_features_to_metric(torch.from_numpy(logits), splits=1, shuffle=False)
    yield Check("IS, one split", inception_score(logits), single[KEY_METRIC_ISC_MEAN])
    ten = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=True, rng_seed=7)
    metric: Metric = plugins.load("metric", "is(splits=10, shuffle_seed=7)")
    yield Check("IS, mean of 10 splits", metric.score(logits, logits).value, ten[KEY_METRIC_ISC_MEAN])
    shuffled = logits[np.random.RandomState(7).permutation(505)]
    yield Check("IS, deviation of these", split_scores(shuffled, splits=10).std(), ten[KEY_METRIC_ISC_STD])


def _pixels_of_tensorflow_1() -> Iterator[Check]:
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as theirs

    frames = random_clip(2)[0].float()
    for side in (299, 224, 40):
        ours = _resize.tf1_bilinear(frames, side, side)
        expected = theirs(frames, size=(side, side), align_corners=False)
        yield Check(f"48 x 64 to {side} x {side}, TensorFlow 1", ours, expected, PIXELS)


def _inception_of_tensorflow() -> Iterator[Check]:
    from torch_fidelity import FeatureExtractorInceptionV3

    extractor: Any = plugins.load("extractor", "inception(frames='middle', resize='tf1', weights='random')", CPU)
    classifier = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save({**extractor.network.state_dict(), **classifier}, file)
        theirs = FeatureExtractorInceptionV3("parity", ["2048"], feature_extractor_weights_path=str(file))
    clips = random_clip(1)
    yield Check(
        "Inception, features of a frame", extract(extractor, clips, "features"), theirs(clips[:, 0])[0], NETWORK
    )


def cd_fvd() -> Iterator[Check]:
    from cdfvd.fvd import cdfvd
    from cdfvd.third_party.i3d.utils import frechet_distance as tats_distance
    from cdfvd.utils.metric_utils import FeatureStats

    arrays = [x.astype(np.float32) for x in (FAKE, REAL)]  # cd-fvd converts to float32 first
    statistics = [FeatureStats(capture_mean_cov=True) for _ in arrays]
    for moments, x in zip(statistics, arrays, strict=True):
        moments.append(x)
    with older_scipy():
        theirs = cdfvd.compute_fvd_from_stats(None, *statistics)
    yield Check("Frechet distance, N", frechet_distance(*arrays, ddof=0), theirs)
    expected = tats_distance(torch.from_numpy(FAKE), torch.from_numpy(REAL))
    yield Check("Frechet distance, N - 1, of TATS", frechet_distance(FAKE, REAL), float(expected))
    yield from _i3d_of_tats()
    yield from _videomae_of_cd_fvd()


def _i3d_of_tats() -> Iterator[Check]:
    from cdfvd.third_party.i3d.pytorch_i3d import InceptionI3d
    from cdfvd.third_party.i3d.utils import preprocess_i3d

    theirs = InceptionI3d(400, in_channels=3).eval()
    state, clips = random_weights(theirs), random_clip()
    theirs.load_state_dict(state, strict=False)  # without batch counters
    pixels = preprocess_i3d(channels_last(clips))
    for bn_eps in (1e-5, 1e-3):  # the values of cd-fvd and of the original network
        network = I3D(bn_eps).eval()
        network.load_state_dict(state, strict=False)
        for norm in (layer for layer in theirs.modules() if isinstance(layer, nn.BatchNorm3d)):
            norm.eps = bn_eps
        ours = _i3d.I3DExtractor(network.fold(), RANDOM, CPU, bn_eps=bn_eps)
        with torch.inference_mode():
            expected = theirs(pixels)
        yield Check(f"I3D, logits at epsilon {bn_eps:g}", extract(ours, clips, "logits"), expected, NETWORK)
    yield Check("I3D, pixels", ours.network_input(clips), pixels, PIXELS)


def _videomae_of_cd_fvd() -> Iterator[Check]:
    from cdfvd.third_party.VideoMAEv2.utils import preprocess_videomae
    from cdfvd.third_party.VideoMAEv2.videomaev2_finetune import VisionTransformer

    ours = _videomae.VideoMAE(side=16, patch=1, dim=24, depth=2, heads=4, hidden=48, classes=5).eval()
    sizes = {"img_size": 16, "patch_size": 1, "embed_dim": 24, "depth": 2, "num_heads": 4, "mlp_ratio": 2}
    norm = partial(nn.LayerNorm, eps=1e-6)
    theirs = VisionTransformer(**sizes, num_classes=5, qkv_bias=True, norm_layer=norm).eval()
    state = random_weights(ours)
    for network in (ours, theirs):
        network.load_state_dict(state)
    for frames in (16, 20):
        x = torch.rand(1, 3, frames, 16, 16, generator=torch.Generator().manual_seed(8))
        with torch.inference_mode():
            features, expected = ours(x), theirs.forward_features(x)
        yield Check(f"VideoMAE, small, features of {frames} frames", features, expected, NETWORK)
    full_size = _videomae.VideoMAE(dim=8, depth=1, heads=2, hidden=8)  # published input size
    pixels = _videomae.VideoMAEExtractor(full_size, RANDOM, CPU).network_input(random_clip())
    yield Check("VideoMAE, pixels", pixels, preprocess_videomae(channels_last(random_clip())), PIXELS)


def prdc() -> Iterator[Check]:
    """Checks against prdc, also where generated clips are copies of real ones, so that distances are tied."""
    from prdc import compute_prdc

    for kind, fake in {"": FAKE, ", copies": np.concatenate([FAKE[:250], REAL[:250]])}.items():
        with contextlib.redirect_stdout(None):  # it prints the numbers of clips
            theirs = compute_prdc(real_features=REAL, fake_features=fake, nearest_k=5)
        for name, value in theirs.items():
            metric: Metric = plugins.load("metric", f"{name}(k=5)")
            yield Check(f"{name}{kind}", metric.score(fake, REAL).value, value)


PACKAGES: Mapping[str, Callable[[], Iterator[Check]]] = {
    "pytorch-fid": pytorch_fid,
    "torch-fidelity": torch_fidelity,
    "cd-fvd": cd_fvd,
    "prdc": prdc,
}
