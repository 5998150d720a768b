"""How fast training clips are loaded: python benchmarks/loading_speed.py FOLDER [--threads 2] [--seconds 4]

FOLDER holds AVIs of UCF101; a dataset of 100 videos is made of links to them. A clip has 16 frames from a random start,
in batches of 16 that are made ahead as training has them. At 64 and at 128 pixels, in turns:

    prepared   from the prepared folder, whose target is 300 MB/s on 2 cores; it is in memory, no disk is measured
    files      from the AVIs, with a random crop
    plain      a loop of `vfbench.video.decode` and `ClipTransform.fit` over as many such frames, in as many threads
    decoder    the same loop without the fit

Prints one JSON line: megabytes (10^6 bytes) of clips a second, the median of the repeats. What is decoded counts as
the clips that would be made of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from vfbench import clips, plugins, video
from vfbench.clips.transform import ClipTransform
from vfbench.data.prepare import prepare
from vfbench.datasets._video_dataset import Videos
from vfbench.interfaces import ClipShape, derive_seed
from vfbench.utils.prefetch import ahead

FRAMES, BATCH, VIDEOS = 16, 16, 100
SIDES = (64, 128)
Make = Callable[[int], object]  # a batch, by its number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the threads are those that load
    with tempfile.TemporaryDirectory() as place:
        root = _linked(sorted(arguments.folder.rglob("*.avi")), Path(place) / "ucf101")
        rates = {
            f"{side}px": _measured(_loops(root, Path(place) / f"prepared{side}", side), side, arguments)
            for side in SIDES
        }
        decoder = clips.decoder(clips.detect(root / "UCF-101"))
    machine = {"threads": arguments.threads, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    print(json.dumps({**rates, **machine, "torch": torch.__version__, "decoder": decoder}))


def _linked(paths: Sequence[Path], root: Path) -> Path:
    """A UCF101 of as many videos as wanted: links to these, by official names."""
    for i in range(VIDEOS):
        path = paths[i % len(paths)]
        name = path.name.split("_")[1]
        link = root / "UCF-101" / path.parent.name / f"v_{name}_g{i // 4 + 1:02}_c{i % 4 + 1:02}.avi"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return root


def _loops(root: Path, output: Path, side: int) -> dict[str, Make]:
    spec = plugins.parse(f"ucf101(frames={FRAMES}, height={side}, width={side})")
    prepare(str(spec), output, data_root=root)
    made, plain = (plugins.load("dataset", spec.merged({"root": str(place)})) for place in (output, root))
    cut = ClipTransform("ucf101", ClipShape(FRAMES, side, side))
    plain_loops = {"plain": _decoding(plain, lambda frames: cut.fit(frames, "clip")), "decoder": _decoding(plain)}
    return {"prepared": _drawing(made), "files": _drawing(plain), **plain_loops}


def _drawing(dataset: Videos) -> Make:
    """Batches as the trainer has them."""
    size, crop = dataset.size("train"), "centre" if dataset.inventory.fitted else "random"

    def make(step: int) -> object:
        seeds = [derive_seed(0, step * BATCH + i) for i in range(BATCH)]
        return dataset.draw("train", [seed % size for seed in seeds], seeds, crop=crop)

    return make


def _decoding(dataset: Videos, fit: Callable[[Tensor], Tensor] = lambda frames: frames) -> Make:
    """The frames of such batches, one clip after another."""
    entries = dataset.inventory.splits["train"].entries
    counts = [frames for frames, _, _ in clips.measures(entries)]

    def make(step: int) -> object:
        for i in range(BATCH):
            seed = derive_seed(0, step * BATCH + i)
            number = seed % len(entries)
            start = derive_seed(seed, 0, "start") % (counts[number] - FRAMES + 1)
            fit(video.decode(entries[number].path, start=start, frames=FRAMES))
        return None

    return make


def _measured(loops: dict[str, Make], side: int, arguments: argparse.Namespace) -> dict[str, object]:
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(arguments.repeats):
        for name, make in loops.items():
            found[name].append(_rate(make, arguments.threads, arguments.seconds) * FRAMES * 3 * side * side / 1e6)
    middle = {name: statistics.median(values) for name, values in found.items()}
    return {**{name: round(value, 1) for name, value in middle.items()}, "repeats": _rounded(found)}


def _rounded(found: dict[str, list[float]]) -> list[list[float]]:
    return [[round(value, 1) for value in values] for values in found.values()]


def _rate(make: Make, threads: int, seconds: float) -> float:
    """Clips a second, once all threads are at work."""
    with closing(ahead(make, count(), workers=threads, depth=2 * threads)) as batches:
        for _ in range(2 * threads):
            next(batches)
        started, done = time.perf_counter(), 0
        while time.perf_counter() < started + seconds:
            next(batches)
            done += BATCH
        return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
