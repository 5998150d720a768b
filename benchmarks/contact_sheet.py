"""README picture of Moving Shapes, one clip per motion: python benchmarks/contact_sheet.py [--output FILE]"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vfbench import video
from vfbench.datasets import shapes
from vfbench.datasets._shapes_scene import MOTIONS, SHAPES

SHEET = Path(__file__).parent.parent / "results" / "shapes" / "shapes.png"
FRAMES = 6  # per clip
GAP = 24  # pixels between the two columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=SHEET)
    output = parser.parse_args().output
    data = shapes.build()
    indices = one_of_every_motion(data)
    half = len(indices) // 2
    left, right = _column(data, indices[:half]), _column(data, indices[half:])
    sheet = Image.new("RGB", (left.width + GAP + right.width, max(left.height, right.height)), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + GAP, 0))
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(output, optimize=True)
    print(f"wrote {output}: {sheet.width}x{sheet.height}, {output.stat().st_size:,} bytes")


def one_of_every_motion(data: shapes.Shapes) -> list[int]:
    """Indices of one test clip per motion, with alternating shapes."""
    labels = data.labels("test", range(600))
    classes = [motion * len(SHAPES) + motion % len(SHAPES) for motion in range(len(MOTIONS))]
    # The i-th clip of the i-th class, so that sizes, colours and textures vary down the sheet.
    return [[k for k, label in enumerate(labels) if label == target][i] for i, target in enumerate(classes)]


def _column(data: shapes.Shapes, indices: Sequence[int]) -> Image.Image:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "column.png"
        clips, captions = data.clips("test", indices), data.captions("test", indices)
        video.write_sheet(path, clips, captions=captions, columns=FRAMES, scale=2)
        return Image.open(path).convert("RGB")


if __name__ == "__main__":
    main()
