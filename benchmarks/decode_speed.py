"""Speed of reading clips from video files: python benchmarks/decode_speed.py FOLDER [--clips 60] [--repeats 5]

Reads 16 frames from a random start in each of the AVIs below FOLDER, cropped and resized to 128 pixels: with
`vfbench.video.decode` and `ClipTransform.fit`, and with typical user loops for decord, PyAV and torchcodec, skipping
those that are not installed. All run in turn, with one and with two threads. Prints for each the median of the repeats
in milliseconds per clip, and its ratio to vfbench; a clip counts only for loops whose pixels are within 2 grey levels
of those of vfbench. Target: no loop is faster than vfbench.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from _measure import Runs, make_parser, time_interleaved
from torch import Tensor

from vfbench import video
from vfbench.clips.transform import ClipTransform
from vfbench.interfaces import ClipShape
from vfbench.utils.environment import cpu_name

FRAMES = 16
SIDE = 128  # pixels of a clip
TRANSFORM = ClipTransform("ucf101", ClipShape(FRAMES, SIDE, SIDE))
TOLERANCE = 2  # largest difference of a correct clip, in grey levels

Clip: TypeAlias = tuple[Path, int]  # file and first frame
Loop: TypeAlias = Callable[[Path, int, int], Tensor]  # file, first frame, threads -> uint8 (T, 3, H, W)


def main() -> None:
    parser = make_parser(__doc__, clips=60, repeats=5)
    parser.add_argument("folder", type=Path, help="folder with AVIs, such as UCF-101")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    print(f"$ python {shlex.join(sys.argv)}")
    loops = {name: loop for name, loop in LOOPS.items() if importlib.util.find_spec(_module(name))}
    modules = dict.fromkeys("pyav" if _module(name) == "av" else _module(name) for name in loops)
    print("; ".join([*(video.decoder_version(name) for name in modules), f"torch {torch.__version__}"]))
    sampled = _sample_clips(sorted(arguments.folder.rglob("*.avi")), arguments.clips)
    print(f"{cpu_name()}, {arguments.repeats} repeats")
    for names, clips in _group_by_correct_loops(loops, sampled).items():
        print(f"\n{len(clips)} clips that are read correctly by {', '.join(names)}")
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            variants = {name: partial(_read_all, loops[name], clips, threads) for name in names}
            _print_table(threads, len(clips), time_interleaved(variants, arguments.repeats))


def _sample_clips(paths: Sequence[Path], count: int) -> list[Clip]:
    """Clips of the files in turn, from random starts with a fixed seed."""
    if not paths:
        sys.exit("no AVI in this folder")
    frames = [video.count_frames(path) for path in paths[:count]]
    rng = random.Random(0)  # noqa: S311  # no secret
    return [(paths[i % len(frames)], rng.randrange(frames[i % len(frames)] - FRAMES + 1)) for i in range(count)]


def _vfbench(path: Path, start: int, threads: int) -> Tensor:
    return TRANSFORM.fit(video.decode(path, start=start, frames=FRAMES), str(path))


def _decord(path: Path, start: int, threads: int) -> Tensor:
    import decord

    reader = decord.VideoReader(str(path), num_threads=threads)
    frames = reader.get_batch(range(start, start + FRAMES)).asnumpy()
    return _resize(torch.from_numpy(frames).permute(0, 3, 1, 2))


def _pyav(path: Path, start: int, threads: int) -> Tensor:
    import av

    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number >= start:
                frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
            if len(frames) == FRAMES:
                break
    return _resize(torch.stack(frames).permute(0, 3, 1, 2))


def _torchcodec(path: Path, start: int, threads: int) -> Tensor:
    from torchcodec.decoders import VideoDecoder

    reader = VideoDecoder(str(path), num_ffmpeg_threads=threads)
    return _resize(reader.get_frames_in_range(start, start + FRAMES).data)


def _torchcodec_approximate(path: Path, start: int, threads: int) -> Tensor:
    """`_torchcodec` with the faster seek mode, which does not scan all packets first."""
    from torchcodec.decoders import VideoDecoder

    reader = VideoDecoder(str(path), num_ffmpeg_threads=threads, seek_mode="approximate")
    return _resize(reader.get_frames_in_range(start, start + FRAMES).data)


def _resize(frames: Tensor) -> Tensor:
    """Crop to the central square and resize in float32, as `ClipTransform` does."""
    side = min(frames.shape[-2:])
    top, left = (frames.shape[-2] - side) // 2, (frames.shape[-1] - side) // 2
    square = frames[..., top : top + side, left : left + side].contiguous().float()
    return F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True).round().to(torch.uint8)


LOOPS: dict[str, Loop] = {
    "vfbench": _vfbench,
    "decord": _decord,
    "av": _pyav,
    "torchcodec": _torchcodec,
    "torchcodec, approximate": _torchcodec_approximate,
}


def _module(name: str) -> str:
    """Module that a loop imports."""
    return "av" if name == "vfbench" else name.partition(",")[0]


def _group_by_correct_loops(loops: Mapping[str, Loop], clips: Sequence[Clip]) -> dict[tuple[str, ...], list[Clip]]:
    """Clips grouped by the loops that read them correctly: speed counts only for correct pixels."""
    groups: dict[tuple[str, ...], list[Clip]] = {}
    for clip in clips:
        expected = _vfbench(*clip, 1)
        groups.setdefault(tuple(name for name, loop in loops.items() if _is_correct(loop, clip, expected)), []).append(
            clip
        )
    return groups


def _is_correct(loop: Loop, clip: Clip, expected: Tensor) -> bool:
    try:
        return int((loop(*clip, 1).int() - expected.int()).abs().max()) <= TOLERANCE
    except RuntimeError:  # torchcodec cannot read some clips of files with B-frames
        return False


def _read_all(loop: Loop, clips: Sequence[Clip], threads: int) -> None:
    for clip in clips:
        loop(*clip, threads)


def _print_table(threads: int, count: int, timings: Mapping[str, Runs[None]]) -> None:
    title = f"{threads} thread{'s' * (threads > 1)}, load {os.getloadavg()[0]:.1f}"
    print(f"{title:24} {'ms / clip':>9} {'fastest, slowest':>16} {'ratio':>10}")
    for name, runs in timings.items():
        median, fastest, slowest = (
            seconds / count * 1000 for seconds in (runs.median, min(runs.seconds), max(runs.seconds))
        )
        spread, ratio = f"{fastest:.2f}, {slowest:.2f}", runs.median / timings["vfbench"].median
        print(f"{name:24} {median:9.2f} {spread:>16} {ratio:10.2f}")


if __name__ == "__main__":
    main()
