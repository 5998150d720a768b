"""How fast clips come from video files: python benchmarks/decode_speed.py FOLDER [--clips 60] [--repeats 5]

16 frames from a random start of each of the AVIs below FOLDER in turn, cropped and resized to 128 pixels as
`ClipTransform` does,
by `vfbench.video.decode` and `ClipTransform.fit`, and by the loops that a user would write with decord, PyAV and
torchcodec (left
out where it is not installed), in turns, with one and with two threads. Prints for each the median of the repeats in
milliseconds a clip, and how many times as long it takes as ours; on each clip only those loops compete whose pixels are
ours within 2 grey levels. The target: no loop takes less than ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from vfbench import video
from vfbench.clips.transform import ClipTransform
from vfbench.interfaces import ClipShape
from vfbench.utils.environment import processor

FRAMES = 16
SIDE = 128  # pixels of a clip
CUT = ClipTransform("ucf101", ClipShape(FRAMES, SIDE, SIDE))
TOLERANCE = 2  # grey levels by which a right clip may differ

Clip: TypeAlias = tuple[Path, int]  # a file, and a first frame
Loop: TypeAlias = Callable[[Path, int, int], Tensor]  # of a clip and a number of threads: uint8 (T, 3, H, W)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="such as UCF-101")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    print(f"$ python {shlex.join(sys.argv)}")
    loops = {name: loop for name, loop in LOOPS.items() if importlib.util.find_spec(_module(name))}
    used = dict.fromkeys("pyav" if _module(name) == "av" else _module(name) for name in loops)
    print("; ".join([*(video.version(name) for name in used), f"torch {torch.__version__}"]))
    drawn = _drawn(sorted(arguments.folder.rglob("*.avi")), arguments.clips)
    print(f"{processor()}, {arguments.repeats} repeats")
    for right, clips in _grouped(loops, drawn).items():
        print(f"\n{len(clips)} clips that are read right by {', '.join(right)}")
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            _show(threads, _measured({name: loops[name] for name in right}, clips, threads, arguments.repeats))


def _drawn(paths: Sequence[Path], count: int) -> list[Clip]:
    """Clips of each file in turn, from starts anywhere in it, the same at every run."""
    if not paths:
        sys.exit("no AVI in this folder")
    frames = [video.count_frames(path) for path in paths[:count]]
    draw = random.Random(0)  # noqa: S311  # no secret
    return [(paths[i % len(frames)], draw.randrange(frames[i % len(frames)] - FRAMES + 1)) for i in range(count)]


def _ours(path: Path, start: int, threads: int) -> Tensor:
    return CUT.fit(video.decode(path, start=start, frames=FRAMES), str(path))


def _decord(path: Path, start: int, threads: int) -> Tensor:
    import decord

    reader = decord.VideoReader(str(path), num_threads=threads)
    frames = reader.get_batch(range(start, start + FRAMES)).asnumpy()
    return _resized(torch.from_numpy(frames).permute(0, 3, 1, 2))


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
    return _resized(torch.stack(frames).permute(0, 3, 1, 2))


def _torchcodec(path: Path, start: int, threads: int) -> Tensor:
    from torchcodec.decoders import VideoDecoder

    reader = VideoDecoder(str(path), num_ffmpeg_threads=threads)
    return _resized(reader.get_frames_in_range(start, start + FRAMES).data)


def _approximate(path: Path, start: int, threads: int) -> Tensor:
    """As above, without a look at all packets beforehand: the faster of its two ways to seek."""
    from torchcodec.decoders import VideoDecoder

    reader = VideoDecoder(str(path), num_ffmpeg_threads=threads, seek_mode="approximate")
    return _resized(reader.get_frames_in_range(start, start + FRAMES).data)


def _resized(frames: Tensor) -> Tensor:
    """The centred square, averaged in float32 as `ClipTransform` has it, as a user would write it."""
    side = min(frames.shape[-2:])
    top, left = (frames.shape[-2] - side) // 2, (frames.shape[-1] - side) // 2
    square = frames[..., top : top + side, left : left + side].contiguous().float()
    return F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True).round().to(torch.uint8)


LOOPS: dict[str, Loop] = {
    "vfbench": _ours,
    "decord": _decord,
    "av": _pyav,
    "torchcodec": _torchcodec,
    "torchcodec, approximate": _approximate,
}


def _module(name: str) -> str:
    """What a loop has to import."""
    return "av" if name == "vfbench" else name.partition(",")[0]


def _grouped(loops: Mapping[str, Loop], clips: Sequence[Clip]) -> dict[tuple[str, ...], list[Clip]]:
    """The clips by the loops that read them right: a wrong answer has no speed."""
    groups: dict[tuple[str, ...], list[Clip]] = {}
    for clip in clips:
        ours = _ours(*clip, 1)
        groups.setdefault(tuple(name for name, loop in loops.items() if _right(loop, clip, ours)), []).append(clip)
    return groups


def _right(loop: Loop, clip: Clip, ours: Tensor) -> bool:
    try:
        return int((loop(*clip, 1).int() - ours.int()).abs().max()) <= TOLERANCE
    except RuntimeError:  # torchcodec cannot read some clips of files with B-frames
        return False


def _measured(loops: Mapping[str, Loop], clips: Sequence[Clip], threads: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds a clip, of each repeat."""
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(repeats):
        for name, loop in loops.items():
            started = time.perf_counter()
            for clip in clips:
                loop(*clip, threads)
            found[name].append((time.perf_counter() - started) / len(clips) * 1000)
    return found


def _show(threads: int, found: Mapping[str, list[float]]) -> None:
    ours = statistics.median(found["vfbench"])
    title = f"{threads} thread{'s' * (threads > 1)}, load {os.getloadavg()[0]:.1f}"
    print(f"{title:24} {'ms a clip':>9} {'fastest, slowest':>16} {'times ours':>10}")
    for name, values in found.items():
        median, spread = statistics.median(values), f"{min(values):.2f}, {max(values):.2f}"
        print(f"{name:24} {median:9.2f} {spread:>16} {median / ours:10.2f}")


if __name__ == "__main__":
    main()
