"""Verification speed of a dataset of UCF101's size: python benchmarks/verify_speed.py [--full 400] [--workers N]

Builds two temporary copies of the official tree of 13,320 names: `links` to the five real clips in VFBENCH_TEST_DATA,
and separate `files` with the first bytes of these clips. Prints one JSON line:

- for `links`, seconds to list the videos (`find`), to draw a manifest of 2,048 clips of 16 frames (`manifest`), and to
  verify without decoding (`quick`); targets: 10 s for the first two together, 2 minutes for the third;
- the same for `files`, where 13,320 headers are read and all files compared;
- `--full`: videos and frames decoded per second over that many copies of the real clips, by a plain PyAV loop in one
  process, with threads and with processes; median of the repeats, timed in turn;
- peak memory in MB of a process that lists, draws and verifies: total, and above its memory after imports. Target:
  500 MB; shared libraries count in full, and torch's CUDA build alone exceeds that.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
from _measure import CPU, make_parser, print_report, time_interleaved, timed

from vfbench import plugins
from vfbench.clips import ClipFile
from vfbench.data import parallel
from vfbench.data.inspect_video import VideoInfo, inspect_entry
from vfbench.data.verify import verify_inventory
from vfbench.pipeline import real_clips
from vfbench.pipeline.cost import peak_memory
from vfbench.protocol.resolve import resolve_rules
from vfbench.utils.device import available_cores

HEADER_BYTES = 60_000  # enough for the header of a clip
N_REAL = 2048


def main() -> None:
    parser = make_parser(__doc__, workers=available_cores(), repeats=3)
    parser.add_argument("--full", type=int, default=400, help="copies of real clips to decode")
    arguments = parser.parse_args()
    data = Path(os.environ.get("VFBENCH_TEST_DATA", "../shared/data")).resolve() / "ucf101"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = _build_trees(data, root)
        measurements = {
            **_measure_quick(root / "links", "links"),
            **_measure_quick(root / "files", "files"),
            **_measure_full(_copies(data, root / "copies", arguments.full), arguments.workers, arguments.repeats),
        }
    versions = {"python": platform.python_version(), "av": av.__version__}
    print_report({"videos": len(names), **measurements, **versions, "command": shlex.join(["python", *sys.argv])})


def _build_trees(data: Path, root: Path) -> list[str]:
    """Create the trees `links` and `files` below `root`; returns the official names."""
    clips = sorted((data / "UCF-101").glob("*/*.avi"))
    heads = [clip.read_bytes()[:HEADER_BYTES] for clip in clips]
    lists = data / "ucfTrainTestlist"
    texts = [(lists / f"{part}list01.txt").read_text() for part in ("train", "test")]
    names = [line.split()[0] for text in texts for line in text.splitlines() if line.strip()]
    for number, name in enumerate(names):
        link, file = (root / kind / "UCF-101" / name for kind in ("links", "files"))
        for path in (link, file):
            path.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(clips[number % len(clips)])
        # Two or three files per size, so that all are compared; the RIFF size matches, so that none seems truncated.
        head = heads[number % len(heads)][: HEADER_BYTES - number % 5000]
        file.write_bytes(head[:4] + (len(head) - 8).to_bytes(4, "little") + head[8:-8] + number.to_bytes(8, "little"))
    for kind in ("links", "files"):
        (root / kind / lists.name).symlink_to(lists)
    return names


def _copies(data: Path, folder: Path, count: int) -> list[ClipFile]:
    """Copies of the real clips as separate files."""
    folder.mkdir()
    clips = [clip.read_bytes() for clip in sorted((data / "UCF-101").glob("*/*.avi"))]
    paths = [folder / f"{number}.avi" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(clips[number % len(clips)])
    return [ClipFile(path.name, path) for path in paths]


def _measure_quick(root: Path, kind: str) -> dict[str, object]:
    """Time listing, drawing and quick verification in a new process, so that its peak memory is theirs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return {f"{kind}_{name}": value for name, value in pool.apply(_time_quick, (root,)).items()}


def _time_quick(root: Path) -> dict[str, object]:
    before = peak_memory(CPU)
    spec = plugins.parse("ucf101").merged({"root": str(root)})
    find_seconds, inventory = timed(lambda: plugins.module("dataset", "ucf101").find(str(root)))
    manifest_seconds, rows = timed(lambda: _draw(spec))
    quick_seconds, verified = timed(lambda: verify_inventory(inventory))
    assert len(verified.videos) == 13_320
    return {
        "find_seconds": round(find_seconds, 2),
        "manifest_seconds": round(manifest_seconds, 2),
        "manifest_rows": rows,
        "quick_seconds": round(quick_seconds, 2),
        "findings": {finding.kind: finding.count for finding in verified.findings},
        "peak_mb": round(peak_memory(CPU) / 1e6),
        "peak_above_imports_mb": round((peak_memory(CPU) - before) / 1e6),
    }


def _draw(spec: plugins.Spec) -> int:
    """Build the dataset and draw its clips as a run does, without reading any; returns their number."""
    dataset: Any = plugins.load("dataset", spec)
    shape = dataset.shape
    protocol = resolve_rules(plugins.parse("ucf101"), "ucf101-smoke", smoke=True).protocol(
        frames=shape.frames,
        height=shape.height,
        width=shape.width,
        n_real=N_REAL,
        n_fake=N_REAL,
        dataset="ucf101",
        data_fingerprint="",
    )
    return len(real_clips.draw(dataset, protocol).rows)


def _measure_full(entries: Sequence[ClipFile], workers: int, repeats: int) -> dict[str, object]:
    """Frames and videos decoded per second by the plain loop, with threads and with processes."""
    full = partial(inspect_entry, full=True)
    variants: dict[str, Callable[[], list[int]]] = {
        "plain": lambda: [_count_frames(entry.path) for entry in entries],
        "threads": lambda: _decoded(parallel.map_ordered(full, entries, workers=workers)),
        "processes": lambda: _decoded(parallel.map_ordered(full, entries, processes=True, workers=workers)),
    }
    timings = time_interleaved(variants, repeats)
    (frames,) = {sum(counts) for runs in timings.values() for counts in runs.results}  # equal in all runs
    measurements: dict[str, object] = {"full_videos": len(entries), "full_frames": frames, "workers": workers}
    for name, runs in timings.items():
        measurements[f"{name}_videos_per_second"] = round(len(entries) / runs.median, 1)
        measurements[f"{name}_frames_per_second"] = round(frames / runs.median)
    return measurements


def _decoded(videos: Iterable[VideoInfo]) -> list[int]:
    """Decoded frames of each video."""
    infos = list(videos)
    assert not any(info.problem for info in infos)
    return [info.decoded for info in infos]


def _count_frames(path: Path) -> int:
    """Number of frames, decoded in a plain PyAV loop."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


if __name__ == "__main__":
    main()
