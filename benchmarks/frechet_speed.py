"""How fast the Frechet distance is: python benchmarks/frechet_speed.py [--clips 2048] [--dims 400 2048]

Prints one JSON line: seconds (the median of the repeats) for the distance, and for the influence of every clip on it,
by the number of features, and the machine. The targets for 2048 clips on 2 cores are 0.5 s at 400 features (I3D) and
15 s at 2048 (Inception) for the distance. The features are normal, with a spectrum that falls as those of networks do.
OMP_NUM_THREADS limits the threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from vfbench.metrics._frechet import frechet_distance, frechet_influence
from vfbench.utils.environment import processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--dims", type=int, nargs="+", default=[400, 2048])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    seconds = {str(dim): _times(arguments.clips, dim, arguments.repeats) for dim in arguments.dims}
    result = {
        "seconds": seconds,
        "clips": arguments.clips,
        "threads": os.environ.get("OMP_NUM_THREADS", os.cpu_count()),
        "machine": processor(),
        "load": round(os.getloadavg()[0], 1),  # a busy machine computes slower
        "numpy": np.__version__,
    }
    print(json.dumps(result))


def _times(clips: int, dim: int, repeats: int) -> dict[str, float]:
    rng, spectrum = np.random.default_rng(0), np.arange(1, dim + 1) ** -0.5
    x, y = 0.9 * rng.standard_normal((clips, dim)) * spectrum + 0.1, rng.standard_normal((clips, dim)) * spectrum
    work: dict[str, Callable[[], object]] = {
        "distance": partial(frechet_distance, x, y),
        "influence": partial(frechet_influence, x, y),
    }
    return {name: round(_median(each, repeats), 3) for name, each in work.items()}


def _median(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
