"""Speed of the Frechet distance: python benchmarks/frechet_speed.py [--clips 2048] [--dims 400 2048]

Prints one JSON line: seconds (median of the repeats) for the distance and for the influence of every clip on it, by
number of features, and the machine. Targets for the distance of 2048 clips on 2 cores: 0.5 s at 400 features (I3D) and
15 s at 2048 (Inception). The features are normal with a decaying spectrum, like those of networks. OMP_NUM_THREADS
limits the threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from _measure import make_parser, print_report, time_interleaved

from vfbench.metrics._frechet import frechet_distance, frechet_influence


def main() -> None:
    parser = make_parser(__doc__, clips=2048, repeats=3)
    parser.add_argument("--dims", type=int, nargs="+", default=[400, 2048])
    arguments = parser.parse_args()
    seconds = {str(dim): _median_seconds(arguments.clips, dim, arguments.repeats) for dim in arguments.dims}
    print_report({"seconds": seconds, "clips": arguments.clips, "numpy": np.__version__})


def _median_seconds(clips: int, dim: int, repeats: int) -> dict[str, float]:
    rng, spectrum = np.random.default_rng(0), np.arange(1, dim + 1) ** -0.5
    x, y = 0.9 * rng.standard_normal((clips, dim)) * spectrum + 0.1, rng.standard_normal((clips, dim)) * spectrum
    variants: dict[str, Callable[[], object]] = {
        "distance": partial(frechet_distance, x, y),
        "influence": partial(frechet_influence, x, y),
    }
    return {name: round(runs.median, 3) for name, runs in time_interleaved(variants, repeats).items()}


if __name__ == "__main__":
    main()
