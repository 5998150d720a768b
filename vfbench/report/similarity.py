"""Likeness of two clips frame by frame: PSNR, SSIM and LPIPS as torchmetrics compute them.

    PSNR    10 log10(255^2 / mean squared error) of a frame in dB; higher is closer
    SSIM    structural similarity, 1 for equal frames, in Gaussian windows of 11 pixels (Wang et al., IEEE TIP 13, 2004)
    LPIPS   distance between features of AlexNet, 0 for equal frames (Zhang et al., arXiv 1801.03924)

A value of a clip is the mean over its frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

import torch
from jaxtyping import UInt8
from scipy.special import stdtrit
from torch import Tensor

from vfbench.errors import MissingData
from vfbench.interfaces import Better
from vfbench.report.results import ALPHA
from vfbench.utils.text import count
from vfbench.weights import cache, catalogue
from vfbench.weights.load import load_weights

BACKBONE = "alexnet"  # name of the network of LPIPS among the weights
EQUAL_PSNR = 100.0  # dB of two equal frames, whose PSNR is infinite; as other video evaluation code has it
SSIM_SIDE, LPIPS_SIDE = 11, 31  # pixels of the smallest frame that each can compare
TITLES: Mapping[str, tuple[str, Better]] = {
    "psnr": ("PSNR", "higher"),
    "ssim": ("SSIM", "higher"),
    "lpips": ("LPIPS", "lower"),
}
Measure = Callable[[Tensor, Tensor], Tensor]  # of frames (T, 3, H, W), floats in 0..255, to a value each (T,)


@dataclass(frozen=True)
class PairScores:
    """Values of one measure for pairs of clips, in their order; none where `missing` says why."""

    title: str
    better: Better
    values: tuple[float, ...] = ()
    missing: str = ""

    @property
    def value(self) -> float:
        """Mean over the pairs; NaN without any."""
        return fmean(self.values) if self.values else math.nan

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval of the mean, from Student's t; NaN for fewer than two pairs."""
        pairs = len(self.values)
        if pairs < 2:
            return math.nan
        return float(stdtrit(pairs - 1, 1 - ALPHA / 2)) * stdev(self.values) / math.sqrt(pairs)


@dataclass
class Similarity:
    """PSNR, SSIM and LPIPS of pairs of clips, added one by one.

    A measure that the frames are too small for, or whose network is not installed, is left out, and `scores` says why.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    equal: int = 0  # pairs of identical clips
    _values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TITLES})
    _missing: dict[str, str] = field(default_factory=dict)

    def add(self, a: UInt8[Tensor, "frames 3 height width"], b: UInt8[Tensor, "frames 3 height width"]) -> None:
        """Compare two clips of one shape, uint8 (T, 3, H, W)."""
        self.equal += torch.equal(a, b)
        side = min(a.shape[-2:])
        frames = a.to(self.device).float(), b.to(self.device).float()
        with torch.inference_mode():
            for name, measure in self._measures(side).items():
                self._values[name].append(float(measure(*frames).double().mean()))

    def unavailable(self, side: int) -> dict[str, str]:
        """Titles of the measures that frames of `side` pixels, the shorter side, do not have, each with the reason."""
        self._measures(side)
        return {TITLES[name][0]: reason for name, reason in self._missing.items()}

    def _measures(self, side: int) -> dict[str, Measure]:
        measures: dict[str, Measure] = {"psnr": _psnr}
        if side >= SSIM_SIDE:
            measures["ssim"] = _ssim
        else:
            self._missing["ssim"] = f"frames of {count(side, 'pixel')} are smaller than its window of {SSIM_SIDE}"
        if side < LPIPS_SIDE:
            self._missing["lpips"] = f"frames of {count(side, 'pixel')} are too small for AlexNet, {LPIPS_SIDE} or more"
        elif self._lpips is not None:
            measures["lpips"] = self._lpips
        return measures

    @cached_property
    def _lpips(self) -> Measure | None:
        try:
            network = perceptual_network().to(self.device)
        except MissingData as error:
            damage = str(error) if cache.weights_path(BACKBONE).exists() else "AlexNet, its network, is not installed"
            self._missing["lpips"] = f"{damage}; {catalogue.import_command(BACKBONE)}"
            return None
        return lambda a, b: network(a / 127.5 - 1, b / 127.5 - 1).reshape(-1)

    @property
    def scores(self) -> dict[str, PairScores]:
        """Values of the pairs by name of the measure."""
        return {
            name: PairScores(*TITLES[name], tuple(values), self._missing.get(name, "" if values else "no pair"))
            for name, values in self._values.items()
        }


def _psnr(a: Tensor, b: Tensor) -> Tensor:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    values: Tensor = peak_signal_noise_ratio(a, b, data_range=255.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=EQUAL_PSNR)


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, windows = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none", return_full_image=True)
    border = SSIM_SIDE // 2  # torchmetrics reflects frames there; the authors take whole windows alone
    values: Tensor = windows[..., border:-border, border:-border].mean(dim=(1, 2, 3))
    return values


def perceptual_network() -> Any:
    """LPIPS by AlexNet: two batches of frames in -1..1 to distances; raises `MissingData` without AlexNet's weights.

    torchmetrics holds the weights on top of AlexNet's features, and would download AlexNet itself.
    """
    from torchmetrics.functional.image.lpips import _LPIPS
    from torchvision.models import alexnet

    with torch.random.fork_rng(devices=[]):
        backbone = alexnet(weights=None)
        load_weights(backbone, BACKBONE)
        network = _LPIPS(net="alex", pnet_rand=True)
    for part in network.net.children():
        for number, layer in part.named_children():
            layer.load_state_dict(backbone.features[int(number)].state_dict())
    return network.requires_grad_(False)
