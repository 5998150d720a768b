"""Cost of a clip: VideoFusion with a small residual generator against VDM of its base generator's width.

    python benchmarks/efficiency.py [--pair vdm:small-star videofusion:small-quarter] [--side 64] [--steps 25]

Corresponds to the efficiency table of the VideoFusion paper. Parameters and FLOPs are counted; seconds and memory are
measured, each model in its own process, with random weights, which cost as much as trained ones. Prints one JSON line
per model: parameters, FLOPs per clip, seconds per clip (the median and each repeat), peak memory with weights above
that of the process before the model was created, and the machine. Memory is that of the process on a CPU, and that of
torch on a GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial

import torch
from _measure import make_parser, print_report, time_repeats

from vfbench import plugins
from vfbench.diffusion.sampler import DiffusionSampler, SamplerOptions, preset_sampling
from vfbench.interfaces import Request, derive_seed
from vfbench.pipeline.cost import peak_memory
from vfbench.training import match_flops
from vfbench.utils.device import choose_device, choose_dtype

PAIR = ("vdm:small-star", "videofusion:small-quarter")


def main() -> None:
    parser = make_parser(__doc__, side=64, steps=25, batch_size=1, repeats=3, threads=torch.get_num_threads())
    parser.add_argument("--pair", nargs="+", default=PAIR, metavar="MODEL:PRESET")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    arguments = parser.parse_args()
    if len(arguments.pair) == 1:
        _measure(arguments)
        return
    for model in arguments.pair:  # one process each: peak memory covers the life of a process
        other_flags = [f"--{k.replace('_', '-')}={v}" for k, v in vars(arguments).items() if k != "pair"]
        subprocess.run([sys.executable, __file__, "--pair", model, *other_flags], check=True)  # noqa: S603  # this very file


def _measure(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype, device)
    model, preset = arguments.pair[0].split(":")
    data = plugins.load("dataset", f"shapes(height={arguments.side}, width={arguments.side})")
    size = match_flops.describe(model, preset, data)
    before = peak_memory(device)
    torch.manual_seed(0)
    network = match_flops.create(size, data).to(device).eval()
    sampler = DiffusionSampler(network, "none", device, dtype, SamplerOptions(steps=arguments.steps))
    labels, captions = data.labels("test", [0]), data.captions("test", [0])
    requests = [Request(i, derive_seed(0, i), labels[0], captions[0]) for i in range(arguments.batch_size)]
    runs = time_repeats(partial(sampler.sample, requests), arguments.repeats)
    defaults, _ = preset_sampling(network.config)
    measurements = {
        "model": model,
        "preset": preset,
        "clip": str(data.shape),
        "steps": arguments.steps,
        "parameters": size.parameters,
        "gflop_per_clip": round(size.flops_per_clip * arguments.steps / defaults / 1e9, 1),
        "seconds_per_clip": round(runs.median / len(requests), 3),
        "repeats": [round(seconds / len(requests), 3) for seconds in runs.seconds],
        "batch_size": arguments.batch_size,
        "memory_mb": round((peak_memory(device) - before) / 1e6),
        "dtype": str(dtype).removeprefix("torch."),
    }
    print_report(measurements, device)


if __name__ == "__main__":
    main()
