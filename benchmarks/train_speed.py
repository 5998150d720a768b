"""Seconds a clip and training step, plain and compiled, in float32 and bfloat16: python benchmarks/train_speed.py"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from vfbench.training.train import TrainOptions, prepare, train

WARM = 3  # steps before the clock starts: compilation, and what is allocated once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vdm", help="videofusion or vdm")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    plain = TrainOptions(
        steps=WARM + arguments.steps, batch_size=arguments.batch_size, sample_every=10**6, save_every=10**6
    )
    first = 0.0
    for dtype in ("float32", "bfloat16"):
        for compiled in (False, True):
            seconds = _seconds(arguments.model, replace(plain, dtype=dtype, compile=compiled))
            first = first or seconds
            name = f"{dtype}{', compiled' if compiled else ''}"
            print(
                f"{arguments.model}, {name:<19} {seconds:.4f} s a clip and step, {first / seconds:.2f} times the first"
            )


def _seconds(model: str, options: TrainOptions) -> float:
    network, data = prepare(model, "shapes", "tiny")
    times: list[float] = []

    def stop() -> bool:
        times.append(time.perf_counter())
        return len(times) == options.steps - 1  # the last step also saves and samples

    with tempfile.TemporaryDirectory() as folder:
        train(network, data, options, Path(folder), stop=stop)
    return (times[-1] - times[WARM - 1]) / (len(times) - WARM) / options.batch_size


if __name__ == "__main__":
    main()
