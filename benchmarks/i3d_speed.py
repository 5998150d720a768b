"""How fast I3D reads clips of 16 frames: python benchmarks/i3d_speed.py [--clips 16] [--device cpu] [--threads 2]

Prints one JSON line: clips a second of the extractor and of a plain port, which is written below as such ports are
(channels first, zeros written out before every layer, batch norm on its own), in turns on the same clips and weights;
their ratio, whose target is at least 1.9 on 2 cores; the largest difference of two logits, relative to the largest
logit; and the float32 matrix-multiply rate of the machine, with the share of it that the extractor reaches. Each rate
is the median of the repeats. Both begin with bytes, and end with logits on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vfbench import weights
from vfbench.interfaces import Request
from vfbench.metrics import _i3d
from vfbench.metrics._i3d_network import I3D
from vfbench.utils.device import choose, exact_float32
from vfbench.utils.environment import processor

Result = TypeVar("Result")

FRAMES = 16
SIDE = 128  # pixels of a clip
BRANCHES = (("b0",), ("b1a", "b1b"), ("b2a", "b2b"), ("pool", "b3b"))
POOLS = {"2a": ((1, 3, 3), (1, 2, 2)), "3a": ((1, 3, 3), (1, 2, 2)), "4a": ((3,) * 3, (2,) * 3), "5a": ((2,) * 3,) * 2}
LAYERS = (
    *("Conv3d_1a_7x7", "2a", "Conv3d_2b_1x1", "Conv3d_2c_3x3", "3a", "Mixed_3b", "Mixed_3c", "4a"),
    *(f"Mixed_4{letter}" for letter in "bcdef"),
    *("5a", "Mixed_5b", "Mixed_5c"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with torch.inference_mode():
        print(json.dumps(_measured(choose(arguments.device), arguments.clips, arguments.repeats)))


def _measured(device: torch.device, count: int, repeats: int) -> dict[str, object]:
    extractor, port = _i3d.build(device, weights="random"), _Port(device)
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (count, FRAMES, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    requests = [Request(i, i, 0, "") for i in range(count)]
    extractor(clips[:1], requests[:1], ["logits"])  # the first call also loads what later ones find ready
    port(clips[:1])
    ours, theirs, products = [], [], []
    for _ in range(repeats):
        seconds, found = _timed(lambda: extractor(clips, requests, ["logits"])["logits"])
        ours.append(count / seconds)
        seconds, expected = _timed(lambda: port(clips))
        theirs.append(count / seconds)
        products.append(_product(device))
    rate, plain, product = (statistics.median(values) for values in (ours, theirs, products))
    flops = _flops()
    return {
        "clips_per_second": round(rate, 3),
        "plain_port": round(plain, 3),
        "ratio": round(rate / plain, 2),
        "repeats": [[round(value, 3) for value in values] for values in (ours, theirs)],
        "largest_difference": float(f"{float((found - expected).abs().max() / expected.abs().max()):.2e}"),
        "gflop_per_clip": round(flops / 1e9, 1),
        "matmul_gflop_per_second": round(product / 1e9),
        "share_of_matmul_rate": round(rate * flops / product, 2),
        "clips": count,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "load": round(os.getloadavg()[0], 1),  # a busy machine is slower, and not alike for both
        "torch": torch.__version__,
    }


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def _product(device: torch.device) -> float:
    """Floating-point operations a second of a large float32 matrix product, the best of three."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.rand(size, size, device=device)
    with exact_float32(device):
        seconds = min(_timed(lambda: float((matrix @ matrix)[0, 0]))[0] for _ in range(3))
    return 2 * size**3 / seconds


def _flops() -> int:
    """Of one clip, a multiply-add counting two."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        I3D().eval()(torch.empty(1, 3, FRAMES, 224, 224))
    return int(counter.get_total_flops())


class _Port:
    """I3D as repositories carry it, with the weights of the extractor above and in batches of the same size."""

    def __init__(self, device: torch.device) -> None:
        network = I3D()
        weights.fill(network, "i3d", "random")
        self.device = device
        self.state: Mapping[str, Tensor] = {name: value.to(device) for name, value in network.state_dict().items()}

    def __call__(self, clips: Tensor) -> Tensor:
        frames = _i3d.FRAMES.get(self.device.type, _i3d.FRAMES_ELSEWHERE)
        with exact_float32(self.device):
            return torch.cat([self._logits(part) for part in torch.split(clips, frames // FRAMES)])

    def _logits(self, clips: Tensor) -> Tensor:
        frames = clips.to(self.device).flatten(0, 1).float()
        x = F.interpolate(frames, (224, 224), mode="bilinear", align_corners=False) * 2 / 255 - 1
        x = x.reshape(*clips.shape[:3], 224, 224).transpose(1, 2).contiguous()
        for name in LAYERS:
            x = self._mixed(x, name) if name.startswith("Mixed") else self._layer(x, name)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)
        x = F.conv3d(x, self.state["logits.conv3d.weight"], self.state["logits.conv3d.bias"])
        return x.mean((2, 3, 4)).cpu()

    def _mixed(self, x: Tensor, name: str) -> Tensor:
        branches = []
        for chain in BRANCHES:
            y = x
            for part in chain:
                y = self._layer(y, part if part == "pool" else f"{name}.{part}")
            branches.append(y)
        return torch.cat(branches, dim=1)

    def _layer(self, x: Tensor, name: str) -> Tensor:
        if name == "pool" or name in POOLS:
            kernel, stride = POOLS.get(name, ((3, 3, 3), (1, 1, 1)))
            return F.max_pool3d(_padded(x, kernel, stride), kernel, stride)
        weight, step = self.state[f"{name}.conv3d.weight"], 2 if name == LAYERS[0] else 1
        x = F.conv3d(_padded(x, weight.shape[2:], (step,) * 3), weight, stride=step)
        mean, variance, scale, shift = (
            self.state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, scale, shift, eps=1e-3))


def _padded(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    zeros: list[int] = []
    for size, k, d in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(k - (size % d or d), 0)
        zeros += [total // 2, total - total // 2]
    return F.pad(x, zeros)


if __name__ == "__main__":
    main()
