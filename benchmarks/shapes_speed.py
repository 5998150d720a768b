"""CPU rendering speed of Moving Shapes at 16x32x32: python benchmarks/shapes_speed.py [--clips 2048] [--threads 2]

Prints one JSON line: clips per second (the median and each repeat), the machine and its threads. Target: 1,500 clips/s
on 2 cores, without labels and captions.
"""

from __future__ import annotations

from functools import partial

import torch
from _measure import make_parser, print_report, time_repeats

from vfbench.datasets import shapes


def main() -> None:
    arguments = make_parser(__doc__, clips=2048, threads=torch.get_num_threads(), repeats=5).parse_args()
    torch.set_num_threads(arguments.threads)
    data, count = shapes.build(), arguments.clips
    runs = time_repeats(partial(data.clips, "train", range(count)), arguments.repeats)
    measurements = {
        "clips_per_second": round(count / runs.median),
        "repeats": [round(count / seconds) for seconds in runs.seconds],
        "shape": str(data.shape),
        "clips": count,
    }
    print_report(measurements)


if __name__ == "__main__":
    main()
