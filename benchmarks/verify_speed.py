"""How fast a dataset of UCF101's size is verified: python benchmarks/verify_speed.py [--full 400] [--workers N]

Builds, in a temporary folder, the official tree of 13,320 names as links to the five real clips in VFBENCH_TEST_DATA,
and a second one with as many files of their own, made of those clips' heads. Prints one JSON line:

- seconds to list the first (`find`), to draw the list of 2,048 clips of 16 frames (`manifest`), and to verify it
  quickly; the target is 10 s for the first two together, and 2 minutes for the third;
- the same for the second, where no two names are one file: 13,320 headers are read, and all files compared;
- `--full`: videos and frames a second over that many copies of the real clips, of the plain PyAV loop in one process,
  and with threads and with processes; each the median of the repeats, all in turns;
- peak memory in MB of a process that lists, draws and verifies quickly: in all, and above what it has after its
  imports. The target is 500 MB; shared libraries count in full, and torch's CUDA build alone has more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import av
import torch

from vfbench import plugins
from vfbench.clips import ClipFile
from vfbench.data import parallel
from vfbench.data.inspect_video import VideoInfo, look
from vfbench.data.verify import examine
from vfbench.pipeline import real_clips
from vfbench.protocol.protocol import Protocol
from vfbench.protocol.resolve import rules
from vfbench.utils.device import cores
from vfbench.utils.environment import processor

Result = TypeVar("Result")

HEAD = 60_000  # bytes of a clip that are enough for its header
N_REAL = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=int, default=400, help="copies of real clips that are decoded")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    data = Path(os.environ.get("VFBENCH_TEST_DATA", "../shared/data")).resolve() / "ucf101"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        names = _tree(data, place)
        measured = {
            **_quick(place / "links", "links"),
            **_quick(place / "files", "files"),
            **_decoding(_copies(data, place / "copies", arguments.full), arguments.workers, arguments.repeats),
        }
    print(json.dumps({"videos": len(names), **measured, **_machine()}))


def _tree(data: Path, place: Path) -> list[str]:
    """The official names as links to the real clips, and as files of their own; returns the names."""
    clips = sorted((data / "UCF-101").glob("*/*.avi"))
    heads = [clip.read_bytes()[:HEAD] for clip in clips]
    lists = data / "ucfTrainTestlist"
    texts = [(lists / f"{part}list01.txt").read_text() for part in ("train", "test")]
    names = [line.split()[0] for text in texts for line in text.splitlines() if line.strip()]
    for number, name in enumerate(names):
        link, file = (place / kind / "UCF-101" / name for kind in ("links", "files"))
        for path in (link, file):
            path.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(clips[number % len(clips)])
        # Two or three of each size, so that all are compared; RIFF's size is the file's, so that none is cut off.
        head = heads[number % len(heads)][: HEAD - number % 5000]
        file.write_bytes(head[:4] + (len(head) - 8).to_bytes(4, "little") + head[8:-8] + number.to_bytes(8, "little"))
    for kind in ("links", "files"):
        (place / kind / lists.name).symlink_to(lists)
    return names


def _copies(data: Path, folder: Path, count: int) -> list[ClipFile]:
    """Real clips, each a file of its own."""
    folder.mkdir()
    clips = [clip.read_bytes() for clip in sorted((data / "UCF-101").glob("*/*.avi"))]
    paths = [folder / f"{number}.avi" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(clips[number % len(clips)])
    return [ClipFile(path.name, path) for path in paths]


def _quick(root: Path, kind: str) -> dict[str, object]:
    """Listing, drawing and the quick look, in a process of their own, so that its memory is theirs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return {f"{kind}_{name}": value for name, value in pool.apply(_looked, (root,)).items()}


def _looked(root: Path) -> dict[str, object]:
    before = _memory()
    spec = plugins.parse("ucf101").merged({"root": str(root)})
    listing, inventory = _timed(lambda: plugins.module("dataset", "ucf101").find(str(root)))
    drawing, drawn = _timed(lambda: _draw(spec))
    looking, report = _timed(lambda: examine(inventory))
    assert len(report.items) == 13_320
    return {
        "find_seconds": round(listing, 2),
        "manifest_seconds": round(drawing, 2),
        "manifest_rows": drawn,
        "quick_seconds": round(looking, 2),
        "findings": {found.kind: found.count for found in report.findings},
        "peak_mb": round(_memory()),
        "peak_above_imports_mb": round(_memory() - before),
    }


def _draw(spec: plugins.Spec) -> int:
    """The dataset is built and the clips are drawn, as a run does it before any is read."""
    dataset: Any = plugins.load("dataset", spec)
    given = {**rules(plugins.parse("ucf101"), "ucf101-smoke", smoke=True), "n_real": N_REAL, "n_fake": N_REAL}
    shape = dataset.shape
    sizes = {"frames": shape.frames, "height": shape.height, "width": shape.width}
    protocol = Protocol(**{**given, **sizes, "dataset": "ucf101", "data_fingerprint": "", "extractors": {}})
    return len(real_clips.draw(dataset, protocol).rows)


def _decoding(entries: Sequence[ClipFile], workers: int, repeats: int) -> dict[str, object]:
    """Frames and videos a second of every way to decode all, in turns."""
    ways: dict[str, Callable[[], list[int]]] = {
        "plain": lambda: [_plain(entry.path) for entry in entries],
        "threads": lambda: _all(parallel.each(partial(look, full=True), entries, workers=workers)),
        "processes": lambda: _all(parallel.each(partial(look, full=True), entries, processes=True, workers=workers)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    counts: dict[str, list[int]] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            seconds, counts[name] = _timed(way)
            rates[name].append(len(entries) / seconds)
    assert counts["plain"] == counts["threads"] == counts["processes"]
    each = sum(counts["plain"]) / len(entries)
    found: dict[str, object] = {"full_videos": len(entries), "full_frames": sum(counts["plain"]), "workers": workers}
    for name, values in rates.items():
        rate = statistics.median(values)
        found |= {f"{name}_videos_per_second": round(rate, 1), f"{name}_frames_per_second": round(rate * each)}
    return found


def _all(seen: Any) -> list[int]:
    done: list[VideoInfo] = list(seen)
    assert not any(one.trouble for one in done)
    return [one.decoded for one in done]


def _plain(path: Path) -> int:
    """The loop that a user would write."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def _memory() -> float:
    """The most memory that this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _machine() -> dict[str, object]:
    return {
        "processor": processor(),
        "load": round(os.getloadavg()[0], 1),  # a busy machine is slower
        "python": platform.python_version(),
        "av": av.__version__,
        "torch": torch.__version__,
        "command": shlex.join(["python", *sys.argv]),
    }


if __name__ == "__main__":
    main()
