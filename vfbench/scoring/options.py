"""Options of scoring clips or features made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vfbench.pipeline.options import EvalOptions, MachineOptions
from vfbench.utils import store
from vfbench.utils.options import REQUIRED, flag


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(MachineOptions, EvalOptions):
    """Options of a score. `origins` says where each value came from: command line, environment, configuration file."""

    real: str = flag(REQUIRED, "Dataset, e.g. ucf101 or 'shapes(frames=8)', or a folder of clips.")
    fake: Path | str = flag(REQUIRED, "Generated clips: folder of videos, frame folders, .npy or .npz.")
    listing: Path | str | None = flag(None, "File of the generated clips that count, a relative path a line.", "--list")
    prompts: Path | str | None = flag(
        None, "Prompt of each clip, for CLIPSIM: file of path, tab, prompt; or CSV, JSON."
    )
    paired: bool = flag(False, "Add PSNR, SSIM and LPIPS against the real clips of the same names.")
    output: Path | str | None = flag(None, "Folder of the result; runs/score-<name>-<id of the score> by default.")
    name: str | None = flag(None, "Row in tables; the folder's name by default.")
    origins: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        store.require_local("--output", self.output)
