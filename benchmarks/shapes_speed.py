"""How fast Moving Shapes renders at 16x32x32 on the CPU: python benchmarks/shapes_speed.py [--clips 2048] [--threads 2]

Prints one JSON line: clips a second (the median of the repeats, and each of them), the machine and its threads.
The target is 1,500 clips/s on 2 cores. Labels and captions are not part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import torch

from vfbench.datasets import shapes
from vfbench.utils.environment import processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = shapes.build()
    data.clips("train", range(shapes.BATCH))  # the first call also fills caches
    rates = [_rate(data, arguments.clips) for _ in range(arguments.repeats)]
    result = {
        "clips_per_second": round(statistics.median(rates)),
        "repeats": [round(rate) for rate in rates],
        "shape": str(data.shape),
        "clips": arguments.clips,
        "threads": torch.get_num_threads(),
        "machine": processor(),
        "load": round(os.getloadavg()[0], 1),  # a busy machine renders slower
        "torch": torch.__version__,
    }
    print(json.dumps(result))


def _rate(data: shapes.Shapes, clips: int) -> float:
    started = time.perf_counter()
    data.clips("train", range(clips))
    return clips / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
