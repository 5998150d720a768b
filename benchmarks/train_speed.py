"""Training seconds per clip and step, plain and compiled, float32 and bfloat16: python benchmarks/train_speed.py"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from _measure import make_parser

from vfbench.training.train import TrainOptions, prepare_training, train

WARMUP_STEPS = 3  # not timed: compilation and first allocations


def main() -> None:
    parser = make_parser(__doc__, steps=10, batch_size=8, threads=1)
    parser.add_argument("--model", default="vdm", help="videofusion or vdm")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps = WARMUP_STEPS + arguments.steps + 1  # the last one also saves and samples
    plain = TrainOptions(steps=steps, batch_size=arguments.batch_size, sample_every=10**6, save_every=10**6)
    first = 0.0
    for dtype in ("float32", "bfloat16"):
        for compiled in (False, True):
            seconds = _seconds(arguments.model, replace(plain, dtype=dtype, compile=compiled))
            first = first or seconds
            name = f"{dtype}{', compiled' if compiled else ''}"
            rate = f"{seconds:.4f} s per clip and step, {first / seconds:.2f} times the speed of the first"
            print(f"{arguments.model}, {name:<19} {rate}")


def _seconds(model: str, options: TrainOptions) -> float:
    network, data = prepare_training(model, "shapes", "tiny")
    times: list[float] = []

    def stop() -> bool:
        times.append(time.perf_counter())
        return len(times) == options.steps - 1

    with tempfile.TemporaryDirectory() as folder:
        train(network, data, options, Path(folder), stop=stop)
    return (times[-1] - times[WARMUP_STEPS - 1]) / (len(times) - WARMUP_STEPS) / options.batch_size


if __name__ == "__main__":
    main()
