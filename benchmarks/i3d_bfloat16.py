"""What I3D in bfloat16 does to FVD: python benchmarks/i3d_bfloat16.py [--clips 64] [--device auto] [--weights default]

Prints one JSON line: FVD of clips of Moving Shapes against the same clips with noise of 0.05, by features in float32
and in bfloat16, their difference, also in standard errors of FVD, and the clips a second of both.
Fewer clips than 2,048 make both FVDs larger, and their difference with them.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from vfbench import plugins
from vfbench.clips.transform import resize
from vfbench.interfaces import BuildContext, Clips, Dataset, Metric, Request, Sampler
from vfbench.utils.device import choose

SIDE = 128  # pixels of a clip
DAMAGE = "corrupted(kind='noise', strength=0.05)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--weights", default="default", help="default, or random where there are none")
    arguments = parser.parse_args()
    device = choose(arguments.device)
    sides = _clips(arguments.clips, device)
    metric: Metric = plugins.load("metric", "fvd")
    found = {}
    for dtype in ("float32", "bfloat16"):
        spec = plugins.Spec("i3d", {"weights": arguments.weights, "dtype": dtype})
        extractor = plugins.load("extractor", spec, device)
        began = time.monotonic()
        features = [extractor(clips, [], ["logits"])["logits"].numpy() for clips in sides]
        seconds = time.monotonic() - began
        score = metric.score(features[1], features[0])
        found[dtype] = {"fvd": score.value, "error": score.error, "clips_per_second": 2 * arguments.clips / seconds}
    difference = found["bfloat16"]["fvd"] - found["float32"]["fvd"]
    told = {"difference": difference, "in_standard_errors": difference / found["float32"]["error"]}
    print(json.dumps({**found, **told, **vars(arguments), "device": str(device), "torch": torch.__version__}))


def _clips(count: int, device: torch.device) -> list[Clips]:
    """Real clips, and the same with noise."""
    dataset: Dataset = plugins.load("dataset", "shapes")
    damaged: Sampler = plugins.load("model", DAMAGE, BuildContext(dataset, device))
    requests = [Request(i, i, 0, "", source=i) for i in range(count)]
    sides = dataset.clips("test", range(count)), damaged.sample(requests)
    return [resize(clips.cpu(), SIDE, SIDE) for clips in sides]


if __name__ == "__main__":
    main()
