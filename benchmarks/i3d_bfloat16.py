"""Effect of bfloat16 in I3D on FVD: python benchmarks/i3d_bfloat16.py [--clips 64] [--device auto] [--weights default]

Prints one JSON line: FVD between clips of Moving Shapes and the same clips with noise of 0.05, from float32 and from
bfloat16 features, their difference, also in standard errors of FVD, and the clips per second of both. With fewer than
2,048 clips both FVDs and their difference are larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from _measure import make_parser, print_report, timed

from vfbench import plugins
from vfbench.clips.transform import resize
from vfbench.interfaces import BuildContext, Clips, Dataset, Extractor, Metric, Request, Sampler
from vfbench.utils.device import choose_device

SIDE = 128  # pixels of a clip
DAMAGE = "corrupted(kind='noise', strength=0.05)"


def main() -> None:
    parser = make_parser(__doc__, clips=64)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--weights", default="default", help="default, or random if none are installed")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    clip_sets = _load_clips(arguments.clips, device)
    metric: Metric = plugins.load("metric", "fvd")
    results = {}
    for dtype in ("float32", "bfloat16"):
        spec = plugins.Spec("i3d", {"weights": arguments.weights, "dtype": dtype})
        extractor = plugins.load("extractor", spec, device)
        seconds, (real, damaged) = timed(partial(_logits, extractor, clip_sets))
        score = metric.score(damaged, real)
        results[dtype] = {"fvd": score.value, "error": score.error, "clips_per_second": 2 * arguments.clips / seconds}
    difference = results["bfloat16"]["fvd"] - results["float32"]["fvd"]
    differences = {"difference": difference, "in_standard_errors": difference / results["float32"]["error"]}
    print_report({**results, **differences, **vars(arguments), "device": str(device)}, device)


def _logits(extractor: Extractor, clip_sets: Sequence[Clips]) -> list[np.ndarray]:
    return [extractor(clips, [], ["logits"])["logits"].numpy() for clips in clip_sets]


def _load_clips(count: int, device: torch.device) -> list[Clips]:
    """Real clips and noisy copies, each uint8 (count, T, 3, 128, 128)."""
    dataset: Dataset = plugins.load("dataset", "shapes")
    noise: Sampler = plugins.load("model", DAMAGE, BuildContext(dataset, device))
    requests = [Request(i, i, 0, "", source=i) for i in range(count)]
    clip_sets = dataset.clips("test", range(count)), noise.sample(requests)
    return [resize(clips.cpu(), SIDE, SIDE) for clips in clip_sets]


if __name__ == "__main__":
    main()
