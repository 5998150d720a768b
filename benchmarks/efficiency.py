"""What a clip costs: VideoFusion with a small residual generator against VDM of its base generator's width.

    python benchmarks/efficiency.py [--pair vdm:small-star videofusion:small-quarter] [--side 64] [--steps 25]

The paper's table in our form. Parameters and FLOPs are counted, seconds and memory are measured: of each model in a
process of its own, with random weights, which cost what trained ones do. Prints one JSON line a model: parameters,
FLOPs a clip, seconds a clip (the median of the repeats, and each of them), the most memory held, weights
and all, above what the process had before the model was made, and the machine. On a CPU memory is what the system gave
the process; on a GPU, what torch held.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch

from vfbench import plugins
from vfbench.diffusion.sampler import DiffusionSampler, Sampling
from vfbench.interfaces import Request, derive_seed
from vfbench.pipeline.cost import peak_memory
from vfbench.training import match_flops
from vfbench.utils.device import DTYPES, choose, precision
from vfbench.utils.environment import processor

PAIR = ("vdm:small-star", "videofusion:small-quarter")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", nargs="+", default=PAIR, metavar="MODEL:PRESET")
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if len(arguments.pair) == 1:
        print(json.dumps(_measured(arguments)))
        return
    for one in arguments.pair:  # the peak of a process is that of all it ever did
        rest = [f"--{k.replace('_', '-')}={v}" for k, v in vars(arguments).items() if k != "pair"]
        subprocess.run([sys.executable, __file__, "--pair", one, *rest], check=True)  # noqa: S603  # this very file


def _measured(arguments: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(arguments.threads)
    device = choose(arguments.device)
    dtype = precision(arguments.dtype, device)
    model, preset = arguments.pair[0].split(":")
    data = plugins.load("dataset", f"shapes(height={arguments.side}, width={arguments.side})")
    size = match_flops.describe(model, preset, data)
    before = peak_memory(device)
    torch.manual_seed(0)
    network = match_flops.create(size, data).to(device).eval()
    sampler = DiffusionSampler(network, "none", device, dtype, Sampling(steps=arguments.steps))
    labels, captions = data.labels("test", [0]), data.captions("test", [0])
    requests = [Request(i, derive_seed(0, i), labels[0], captions[0]) for i in range(arguments.batch_size)]
    times = [_seconds(sampler, requests) / len(requests) for _ in range(arguments.repeats + 1)][1:]
    defaults = plugins.options("model", model)["steps"]
    return {
        "model": model,
        "preset": preset,
        "clip": str(data.shape),
        "steps": arguments.steps,
        "parameters": size.parameters,
        "gflop_per_clip": round(size.flops_per_clip * arguments.steps / defaults / 1e9, 1),
        "seconds_per_clip": round(statistics.median(times), 3),
        "repeats": [round(seconds, 3) for seconds in times],
        "batch_size": arguments.batch_size,
        "memory_mb": round((peak_memory(device) - before) / 1e6),
        "dtype": next(name for name, value in DTYPES.items() if value == dtype),
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }


def _seconds(sampler: DiffusionSampler, requests: list[Request]) -> float:
    started = time.perf_counter()
    sampler.sample(requests)  # ends with bytes on the CPU, so a GPU is waited for
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
