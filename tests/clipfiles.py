"""Small lossless clips in every layout that `vfbench.clips` reads."""

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


def grey_clip(value: int = 0, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Clip (T, H, W, 3) whose frame k is uniformly of grey `value` + 10 k."""
    greys = value + 10 * np.arange(frames, dtype=np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (frames, height, width, 3)).copy()


def write_video(path: Path, images: np.ndarray, times: Sequence[int] = ()) -> None:
    """Lossless video with frames 1/25 s apart, or at `times` in units of 1/25 s."""
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


def write_frames(folder: Path, images: np.ndarray, name: str = "{:04}.png", **options: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(k), **options)


def touch(root: Path, *clip_names: str) -> Path:
    """Create empty files, and folders where a name ends with a slash; layout detection opens no video or image."""
    for name in clip_names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return root


def clip_names(folder: clips.ClipFolder) -> list[str]:
    return [entry.name for entry in folder.entries]


def grey_levels(clip: Tensor) -> list[float]:
    return [round(frame.float().mean().item(), 4) for frame in clip]


def write_list(path: Path, *lines: str) -> Path:
    path.write_bytes("\r\n".join(lines).encode())
    return path


def grey_clips(count: int = 3, frames: int = FRAMES) -> np.ndarray:
    """Clips (B, T, H, W, 3); the first frame of clip i is of grey i."""
    return np.stack([grey_clip(i, frames) for i in range(count)])


def all_kinds(root: Path) -> dict[str, clips.ClipFolder]:
    """Two clips as videos, as frame folders and as arrays, by kind."""
    for i in range(2):
        write_video(root / "videos" / f"v{i}.avi", grey_clip(i))
        write_frames(root / "frames" / f"v{i}", grey_clip(i))
    (root / "arrays").mkdir()
    np.save(root / "arrays/v.npy", grey_clips(2))
    return {kind: clips.detect(root / kind) for kind in ("videos", "frames", "arrays")}
