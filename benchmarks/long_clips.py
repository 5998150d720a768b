"""Score clips of 512 frames in windows of 16, and compare each window with the first: python benchmarks/long_clips.py

The shipped VideoFusion makes long clips as its paper does (arXiv 2303.08320, discussion): windows of the training
length that share their base noise. Each scored window is a set of short clips, against 2,048 real ones. Likeness is the
mean cosine of the judge's features, of a window and the first: of the same clip, and of another clip. Finished parts
are kept in --output, so the same command goes on. Writes results/shapes/long-clips.jsonl and long-clips.png.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import machine, make_parser
from torch.nn.functional import cosine_similarity

import vfbench
from vfbench import video
from vfbench.utils import tensor_files
from vfbench.utils.device import choose_device

SHAPES = Path(__file__).parent.parent / "results" / "shapes"
LINES, SHEET = SHAPES / "long-clips.jsonl", SHAPES / "long-clips.png"
LENGTH = 16  # frames of a window
STARTS = (0, 16, 32, 64, 128, 256, 496)  # first frames of the scored windows
SHOWN = 4  # clips on the sheet


def main() -> None:
    parser = make_parser(__doc__, clips=96, frames=512, device="auto", output="runs/long-clips")
    arguments = parser.parse_args()
    folder = Path(arguments.output)
    command = ["generate", "--model", "videofusion", "--frames", str(arguments.frames), "-n", str(arguments.clips)]
    command += ["--format", "npy", "--device", arguments.device, "--output", str(folder / "clips")]
    subprocess.run([sys.executable, "-m", "vfbench", *command], check=True)  # noqa: S603  # this program
    files = sorted((folder / "clips" / "clips").glob("*.npy"))
    clips = [np.load(file, mmap_mode="r") for file in files]  # (1, T, H, W, 3) each
    starts = [start for start in STARTS if start + LENGTH <= arguments.frames]
    windows = [_score(folder, start, files, clips, arguments.device) for start in starts]
    first = windows[0][1]
    with LINES.open("w") as lines:
        for start, (scores, features) in zip(starts, windows, strict=True):
            line: dict[str, Any] = {"first_frame": start, **scores}
            line["likeness"] = float(cosine_similarity(features, first).mean())
            line["likeness_to_another"] = float(cosine_similarity(features, first.roll(1, 0)).mean())
            line |= {"clips": arguments.clips, "frames": arguments.frames, **machine(choose_device(arguments.device))}
            lines.write(json.dumps(line) + "\n")
    shown = [[clip[0, start + LENGTH // 2] for start in starts] for clip in clips[:SHOWN]]
    sheet = torch.from_numpy(np.array(shown)).permute(0, 1, 4, 2, 3)
    prompts = (folder / "clips" / "prompts.tsv").read_text().splitlines()[:SHOWN]
    captions = [line.split("\t")[1] for line in prompts]
    video.write_sheet(SHEET, sheet, captions=captions, columns=len(starts), scale=2)


def _score(
    folder: Path, start: int, files: list[Path], clips: list[np.ndarray], device: str
) -> tuple[dict[str, float], torch.Tensor]:
    """Scores of the windows that begin at a frame, and their features (N, 64)."""
    cut, scored = folder / "windows" / f"{start:03}", folder / "scores" / f"{start:03}"
    cut.mkdir(parents=True, exist_ok=True)
    for file, clip in zip(files, clips, strict=True):
        np.save(cut / file.name, clip[:, start : start + LENGTH])
    prompts = folder / "clips" / "prompts.tsv"
    result = vfbench.score(real="shapes", fake=cut, prompts=prompts, device=device, output=scored)
    features = tensor_files.read(scored / "scored.safetensors")["fake.shapes_judge.features"]
    return {name: score.value for name, score in result.scores.items()}, features


if __name__ == "__main__":
    main()
