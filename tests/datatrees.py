"""Small datasets on disk, intact or with planted faults, for the tests of `vfbench data`."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np

from vfbench.data.verify_report import VerifyReport

CLASSES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")
FILES = {"HandstandPushups": "HandStandPushups"}  # file names spelled unlike their folder
TRAIN = tuple(f"{name}/v_{FILES.get(name, name)}_g{group:02}_c01.avi" for name in CLASSES for group in (8, 9))
TEST = tuple(f"{name}/v_{FILES.get(name, name)}_g01_c01.avi" for name in CLASSES)
FRAMES = 20


@functools.cache
def avi(frames: int = FRAMES, height: int = 16, width: int = 32, seed: int = 0) -> bytes:
    """Small AVI with MPEG-4 video, as in UCF101."""
    import av

    file = io.BytesIO()
    rng = np.random.default_rng(seed)
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25, pix_fmt="yuv420p", height=height, width=width)
        for _ in range(frames):
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def with_declared_frames(content: bytes, frames: int) -> bytes:
    """Copy of an AVI whose stream header declares `frames` frames."""
    offset = content.index(b"strh") + 8 + 32
    return content[:offset] + frames.to_bytes(4, "little") + content[offset + 4 :]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_lists(root: Path, train: tuple[str, ...] = TRAIN, test: tuple[str, ...] = TEST) -> None:
    """UCF101 split lists of three classes in the official format: CRLF, labels from 1, in train lists only."""
    labels = {name: i + 1 for i, name in enumerate(CLASSES)}
    lines = {
        "classInd": [f"{label} {name}" for name, label in labels.items()],
        "trainlist01": [f"{name} {labels[name.split('/')[0]]}" for name in train],
        "testlist01": list(test),
    }
    for name, text in lines.items():
        write(root / "ucfTrainTestlist" / f"{name}.txt", "".join(f"{line}\r\n" for line in text).encode())


def ucf101(root: Path) -> Path:
    """Complete UCF101 of three classes and nine different clips."""
    write_lists(root)
    for seed, name in enumerate((*TRAIN, *TEST)):
        write(root / "UCF-101" / name, avi(seed=seed))
    return root


def findings(report: VerifyReport) -> dict[str, list[tuple[str, str]]]:
    """Name and detail of every example in a report, by kind of finding."""
    return {finding.kind: [(each.name, each.detail) for each in finding.examples] for finding in report.findings}
