"""Small lossless clips in every layout that `vfbench.clips` reads, for its tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from vfbench import clips

KINDS = pytest.mark.parametrize("kind", ["videos", "frames", "arrays"])
FRAMES, HEIGHT, WIDTH = 12, 8, 10


def pictures(value: int = 0, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A clip (T, H, W, 3) of greys: frame k is of grey value + 10 k."""
    greys = value + 10 * np.arange(frames, dtype=np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (frames, height, width, 3)).copy()


def write_video(path: Path, images: np.ndarray, times: Sequence[int] = ()) -> None:
    """Frames 1/25 s apart, or at these multiples of it."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(f"file:{path}", "w") as container:
        size = {"height": images.shape[1], "width": images.shape[2]}
        stream = container.add_stream("ffv1", rate=25, pix_fmt="bgr0", **size)
        for image, time in zip_longest(images, times):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_frames(place: Path, images: np.ndarray, name: str = "{:04}.png", **options: Any) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        Image.fromarray(image).save(place / name.format(k), **options)


def touch(root: Path, *names: str) -> Path:
    """Empty files, or folders where the name ends with a slash: looking at a layout opens no video and no image."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return root


def names(found: clips.ClipFolder) -> list[str]:
    return [entry.name for entry in found.entries]


def levels(clip: Tensor) -> list[float]:
    return [round(frame.float().mean().item(), 4) for frame in clip]


def write_list(path: Path, *lines: str) -> Path:
    path.write_bytes("\r\n".join(lines).encode())
    return path


def stack(count: int = 3, frames: int = FRAMES) -> np.ndarray:
    """Clips (B, T, H, W, 3): clip i begins at grey i."""
    return np.stack([pictures(i, frames) for i in range(count)])


def all_kinds(root: Path) -> dict[str, clips.ClipFolder]:
    """The same two clips as videos, as frame folders and as arrays."""
    for i in range(2):
        write_video(root / "videos" / f"v{i}.avi", pictures(i))
        write_frames(root / "frames" / f"v{i}", pictures(i))
    (root / "arrays").mkdir()
    np.save(root / "arrays/v.npy", stack(2))
    return {kind: clips.detect(root / kind) for kind in ("videos", "frames", "arrays")}
