"""Speed of I3D on clips of 16 frames: python benchmarks/i3d_speed.py [--clips 16] [--device cpu] [--threads 2]

Prints one JSON line: clips per second of the extractor and of a plain port (defined below: channels first, explicit
zero padding, separate batch norm), timed in turn on the same clips and weights; their ratio, target at least 1.9 on 2
cores; the largest difference of two logits relative to the largest logit; and the float32 matrix-multiply rate of the
machine with the share that the extractor reaches. Each rate is a median. Both take bytes and return logits on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from _measure import make_parser, matmul_rate, print_report, time_interleaved
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vfbench.interfaces import Request
from vfbench.metrics import _i3d
from vfbench.metrics._i3d_network import I3D
from vfbench.utils.device import choose_device, exact_float32
from vfbench.weights.load import load_weights

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
    parser = make_parser(__doc__, clips=16, threads=torch.get_num_threads(), repeats=3)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with torch.inference_mode():
        _measure(choose_device(arguments.device), arguments.clips, arguments.repeats)


def _measure(device: torch.device, count: int, repeats: int) -> None:
    extractor, port = _i3d.build(device, weights="random"), _Port(device)
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (count, FRAMES, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    requests = [Request(i, i, 0, "") for i in range(count)]
    extractor(clips[:1], requests[:1], ["logits"])  # warm-up
    port(clips[:1])
    variants = {"vfbench": lambda: extractor(clips, requests, ["logits"])["logits"], "port": lambda: port(clips)}
    ours, theirs = time_interleaved(variants, repeats).values()
    with exact_float32(device):
        matmul_flops = matmul_rate(device)
    rate, flops, expected = count / ours.median, _flops(), theirs.results[-1]
    difference = (ours.results[-1] - expected).abs().max() / expected.abs().max()
    measurements = {
        "clips_per_second": round(rate, 3),
        "plain_port": round(count / theirs.median, 3),
        "ratio": round(theirs.median / ours.median, 2),
        "repeats": [[round(count / seconds, 3) for seconds in runs.seconds] for runs in (ours, theirs)],
        "largest_difference": float(f"{float(difference):.2e}"),
        "gflop_per_clip": round(flops / 1e9, 1),
        "matmul_gflop_per_second": round(matmul_flops / 1e9),
        "share_of_matmul_rate": round(rate * flops / matmul_flops, 2),
        "clips": count,
    }
    print_report(measurements, device)


def _flops() -> int:
    """FLOPs of one clip; a multiply-add counts two."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        I3D().eval()(torch.empty(1, 3, FRAMES, 224, 224))
    return int(counter.get_total_flops())


class _Port:
    """Plain I3D as in public ports, with the extractor's weights and batch size."""

    def __init__(self, device: torch.device) -> None:
        network = I3D()
        load_weights(network, "i3d", "random")
        self.device = device
        self.state: Mapping[str, Tensor] = {name: value.to(device) for name, value in network.state_dict().items()}

    def __call__(self, clips: Tensor) -> Tensor:
        frames = _i3d.FRAMES_PER_PASS.get(self.device.type, _i3d.DEFAULT_FRAMES_PER_PASS)
        with exact_float32(self.device):
            return torch.cat([self._logits(batch) for batch in torch.split(clips, frames // FRAMES)])

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
            return F.max_pool3d(_pad_same(x, kernel, stride), kernel, stride)
        weight, step = self.state[f"{name}.conv3d.weight"], 2 if name == LAYERS[0] else 1
        x = F.conv3d(_pad_same(x, weight.shape[2:], (step,) * 3), weight, stride=step)
        mean, variance, scale, shift = (
            self.state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, scale, shift, eps=1e-3))


def _pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    zeros: list[int] = []
    for size, k, d in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(k - (size % d or d), 0)
        zeros += [total // 2, total - total // 2]
    return F.pad(x, zeros)


if __name__ == "__main__":
    main()
