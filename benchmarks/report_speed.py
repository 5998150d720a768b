"""Size of a report and the seconds until it is open: python benchmarks/report_speed.py [--models 8] [--clips 64]

Makes a report of `--models` runs with `--clips` clips of 16 frames at `--side` pixels each, moving textures with a
little noise, and opens it in headless Chromium. Prints one JSON line. Target: open in under 2 s, weighs under 60 MB.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from _measure import Runs, make_parser, print_report, time_repeats
from playwright.sync_api import sync_playwright
from torch import Tensor

import vfbench
from vfbench.report.results import Result
from vfbench.utils import files
from vfbench.utils.tensor_files import write_tensors

FRAMES = 16
RECORD = Path(__file__).parent.parent / "results" / "records" / "videofusion.json"


def main() -> None:
    arguments = make_parser(__doc__, models=8, clips=64, side=128, repeats=5).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            write_run(Path(folder) / f"model{n}", n, arguments.clips, arguments.side) for n in range(arguments.models)
        ]
        page = vfbench.write_report(runs, Path(folder) / "report", num_clips=arguments.clips)
        size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
        opened = time_to_open(page, arguments.repeats)
    measurements = {
        "megabytes": round(size / 1e6, 1),
        "seconds_to_open": round(opened.median, 2),
        "repeats": [round(seconds, 2) for seconds in opened.seconds],
        "models": arguments.models,
        "clips": arguments.clips,
        "shape": f"{FRAMES}x{arguments.side}x{arguments.side}",
    }
    print_report(measurements)


def write_run(folder: Path, number: int, count: int, side: int) -> Path:
    """A run folder with clips, whose scores are those of a recorded run."""
    (folder / "chunks").mkdir(parents=True)
    (record,) = vfbench.load_results(RECORD)
    name = f"model{number}"
    changed = {"run_id": name, "run_dir": str(folder), "model": name, "model_spec": name}
    Result.model_validate({**record.to_json(), **changed}).write(folder / "results.json")
    files.write_json(folder / "run.json", {"id": name, "layout": {"requests": count, "chunk_size": count}})
    generator = torch.Generator().manual_seed(number)
    clips = torch.stack([moving_texture(side, generator) for _ in range(count)])
    write_tensors(folder / "chunks" / "000000.safetensors", {"clips": clips}, run=name)
    return folder


def moving_texture(side: int, generator: torch.Generator) -> Tensor:
    """A clip (16, 3, side, side) of smooth random colour that moves, with noise of one grey level in fifty."""
    coarse = torch.rand(1, 3, side // 8, side // 8, generator=generator)
    texture = torch.nn.functional.interpolate(coarse, size=(2 * side, 2 * side), mode="bicubic")[0]
    frames = torch.stack([texture[:, 4 * t : 4 * t + side, 2 * t : 2 * t + side] for t in range(FRAMES)])
    noise = torch.randn(frames.shape, generator=generator) / 50
    return ((frames + noise).clamp(0, 1) * 255).to(torch.uint8)


def time_to_open(page: Path, repeats: int) -> Runs[None]:
    """Seconds until the page is loaded and the clips in view are drawn."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def open_once() -> None:
            tab = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
            tab.goto(f"{page.as_uri()}#clips")
            tab.locator("#gallery canvas[data-frame]").first.wait_for()
            tab.close()

        opened = time_repeats(open_once, repeats)
        browser.close()
    return opened


if __name__ == "__main__":
    main()
