"""Loading speed of training clips: python benchmarks/loading_speed.py FOLDER [--threads 2] [--seconds 4]

FOLDER holds AVIs of UCF101; a dataset of 100 videos is built from links to them. A clip has 16 frames from a random
start; batches of 16 are prefetched as in training. Timed in turn at 64 and at 128 pixels:

    prepared   a prepared folder in memory, without disk access; target 300 MB/s on 2 cores
    files      the AVIs, with a random crop
    plain      a loop of `vfbench.video.decode` and `ClipTransform.fit` over the same number of frames and threads
    decoder    the loop `plain` without `ClipTransform.fit`

Prints one JSON line: megabytes (10^6 bytes) of clips per second, median of the repeats. `decoder` counts the bytes of
the clips that its frames would give.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import torch
from _measure import make_parser, print_report, time_interleaved
from torch import Tensor

from vfbench import clips, plugins, video
from vfbench.clips.transform import ClipTransform
from vfbench.data.prepare import prepare
from vfbench.datasets._video_dataset import VideoDataset
from vfbench.interfaces import ClipShape, derive_seed
from vfbench.utils.prefetch import prefetch

FRAMES, BATCH, VIDEOS = 16, 16, 100
SIDES = (64, 128)
MakeBatch = Callable[[int], object]  # step -> batch


def main() -> None:
    parser = make_parser(__doc__, threads=2, repeats=3)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # only the loading threads run in parallel
    with tempfile.TemporaryDirectory() as temporary:
        root = _link_videos(sorted(arguments.folder.rglob("*.avi")), Path(temporary) / "ucf101")
        rates = {
            f"{side}px": _measure(_loops(root, Path(temporary) / f"prepared{side}", side), side, arguments)
            for side in SIDES
        }
        decoder = clips.decoder_versions(clips.detect(root / "UCF-101"))
    print_report({**rates, "threads": arguments.threads, "cores": os.cpu_count(), "decoder": decoder})


def _link_videos(paths: Sequence[Path], root: Path) -> Path:
    """Create a UCF101 folder of `VIDEOS` links to these files, with official names; returns `root`."""
    for i in range(VIDEOS):
        path = paths[i % len(paths)]
        name = path.name.split("_")[1]
        link = root / "UCF-101" / path.parent.name / f"v_{name}_g{i // 4 + 1:02}_c{i % 4 + 1:02}.avi"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return root


def _loops(root: Path, output: Path, side: int) -> dict[str, MakeBatch]:
    spec = plugins.parse(f"ucf101(frames={FRAMES}, height={side}, width={side})")
    prepare(str(spec), output, data_root=root)
    prepared, original = (plugins.load("dataset", spec.merged({"root": str(folder)})) for folder in (output, root))
    transform = ClipTransform("ucf101", ClipShape(FRAMES, side, side))
    plain = _decode_loop(original, lambda frames: transform.fit(frames, "clip"))
    loops = {"plain": plain, "decoder": _decode_loop(original)}
    return {"prepared": _training_loop(prepared), "files": _training_loop(original), **loops}


def _training_loop(dataset: VideoDataset) -> MakeBatch:
    """Batches as in training."""
    size, crop = dataset.size("train"), "centre" if dataset.inventory.fitted else "random"

    def make(step: int) -> object:
        seeds = [derive_seed(0, step * BATCH + i) for i in range(BATCH)]
        return dataset.draw("train", [seed % size for seed in seeds], seeds, crop=crop)

    return make


def _decode_loop(dataset: VideoDataset, fit: Callable[[Tensor], Tensor] = lambda frames: frames) -> MakeBatch:
    """Decode the frames of a batch, clip by clip."""
    entries = dataset.inventory.splits["train"].entries
    counts = [frames for frames, _, _ in clips.measure_all(entries)]

    def make(step: int) -> object:
        for i in range(BATCH):
            seed = derive_seed(0, step * BATCH + i)
            number = seed % len(entries)
            start = derive_seed(seed, 0, "start") % (counts[number] - FRAMES + 1)
            fit(video.decode(entries[number].path, start=start, frames=FRAMES))
        return None

    return make


def _measure(loops: dict[str, MakeBatch], side: int, arguments: argparse.Namespace) -> dict[str, object]:
    megabytes = FRAMES * 3 * side * side / 1e6  # per clip
    variants = {name: partial(_rate, make, arguments.threads, arguments.seconds) for name, make in loops.items()}
    results = {name: runs.results for name, runs in time_interleaved(variants, arguments.repeats).items()}
    return {
        **{name: round(statistics.median(rates) * megabytes, 1) for name, rates in results.items()},
        "repeats": [[round(rate * megabytes, 1) for rate in rates] for rates in results.values()],
    }


def _rate(make: MakeBatch, threads: int, seconds: float) -> float:
    """Clips per second, after a warm-up of all threads."""
    with closing(prefetch(make, count(), workers=threads, depth=2 * threads)) as batches:
        for _ in range(2 * threads):
            next(batches)
        started, done = time.perf_counter(), 0
        while time.perf_counter() < started + seconds:
            next(batches)
            done += BATCH
        return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
