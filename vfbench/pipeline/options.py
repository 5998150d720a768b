"""Options of the jobs that generate or measure clips. Python and the command line share them.

EvalOptions      what is measured: shared by run, score, sensitivity and data stats
SamplingOptions  what makes clips: shared by run and generate
MachineOptions   where it runs: shared by all
RunOptions       run and sensitivity
StatsOptions     data stats
ExportOptions    generate
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vfbench import plugins
from vfbench.diffusion import solver_options
from vfbench.errors import UserError, unknown
from vfbench.utils import checkpoint, hf_hub, store, trackers
from vfbench.utils.options import DEVICES, DTYPES, REQUIRED, flag

WEIGHTS = ("default", "random")
EXECUTORS = ("processes", "ray")
# Sampling options that are passed on to the model, which may have other defaults for each.
SAMPLING = ("steps", "solver", "guidance", "eta", "threshold")
MIN_REAL = 4  # real clips, two halves of two: fewer have no floor
MIN_SMOKE = 2  # clips of either side in a smoke run
MAX_CLIPS = 10_000_000  # of a run: a hundred times what any protocol asks for, and what a process can hold
MAX_WORKERS = 256


class CheckedOptions:
    """Base class of options that are checked when they are given: a mistake is refused before torch is imported."""

    def __post_init__(self) -> None:
        """Raise `UserError` for an option that is out of range or names something unknown."""


@dataclass(frozen=True, kw_only=True)
class MachineOptions(CheckedOptions):
    """Device, and folder of the dataset's files."""

    device: str = flag("auto", "auto, cpu or cuda.")
    data_root: Path | str | None = flag(
        None, "Folder of the dataset's files, or URL of a prepared one; VFBENCH_DATA by default."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device not in DEVICES:
            raise unknown("--device", self.device, DEVICES)
        if self.data_root is not None:
            store.Store.of(self.data_root)  # raises for a URL of no use


@dataclass(frozen=True, kw_only=True)
class EvalOptions(CheckedOptions):
    """Options of a measurement; None and () mean the protocol's own."""

    protocol: str | None = flag(None, "Protocol; the dataset's own by default, else strict.")
    metrics: Sequence[str] = flag((), "Comma-separated, see `ls metrics`; the protocol's by default.")
    num_real: int | None = flag(None, "Real clips; the protocol's by default.")
    manifest: Path | str | None = flag(None, "Real clips to score: a manifest.csv, which every run writes.")
    # Not from VFBENCH_WEIGHTS, which names the folder of the converted weights.
    weights: str = flag(
        "default",
        "default, or random to try without downloads (not comparable).",
        env=False,
    )
    extractors: Sequence[str] = flag(
        (),
        "Other feature network, e.g. \"i3d=i3d(dtype='bfloat16')\"; repeatable.",
        "--extractor",
        repeat=True,
    )
    smoke: bool = flag(False, "Try everything on a few clips, in a minute; the scores are not comparable.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol is not None:
            from vfbench.protocol import resolve  # imports pydantic, which `--help` does without

            resolve.require_known(self.protocol)
        if self.weights not in WEIGHTS:
            raise unknown("choice of --weights", self.weights, WEIGHTS)
        for metric in self.metrics:
            plugins.require("metric", plugins.parse(metric).name)
        if self.num_real is not None:
            _check_count("--num-real", self.num_real, self.min_real)

    @property
    def min_real(self) -> int:
        """Smallest number of real clips."""
        return MIN_SMOKE if self.smoke else MIN_REAL


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(CheckedOptions):
    """Options of sampling clips from a model; None means the default of the model or the device."""

    model: str = flag("videofusion", "Model, e.g. videofusion or 'vdm(steps=50)'.")
    dataset: str = flag("shapes", "Dataset that the model is asked to imitate, e.g. shapes or ucf101.")
    seed: int = flag(0, "Seed of all clips; clip i has its own, derived from (seed, i).")
    steps: int | None = flag(None, "Sampling steps.")
    solver: str | None = flag(None, "ddim, ddpm or dpm++2m.")
    guidance: float | None = flag(None, "Classifier-free guidance weight; 1 is none.")
    eta: float | None = flag(None, "Fresh noise of ddim: 0 is none, 1 as much as ddpm.")
    threshold: float | None = flag(None, "Dynamic thresholding: a quantile of each clip, e.g. 0.995.")
    batch_size: int | Literal["auto"] = flag(
        "auto", "Clips per network call; other sizes change clips by rounding only."
    )
    dtype: str = flag("auto", "auto, float32 or bfloat16 (auto on a GPU).")
    compile: bool = flag(False, "Compile the networks: a slower start, faster clips; part of the run's id.")
    checkpoint: Path | str | None = flag(None, "Folder that `train` wrote, or hub:owner/name[@revision].")
    workers: int = flag(1, "Processes that share the work: one for each GPU, or several that share the cores.")
    executor: Literal["processes", "ray"] = flag("processes", "Workers: processes of this machine, or ray actors.")
    ray_address: str | None = flag(None, "Ray cluster, e.g. auto or host:6379; by default one is started here.")

    def __post_init__(self) -> None:
        super().__post_init__()
        plugins.require("model", plugins.parse(self.model).name)
        plugins.require("dataset", plugins.parse(self.dataset).name)
        model = plugins.parse(self.model).name
        if plugins.is_built_in("model", model):  # a third party's model has its own checkpoints and ranges
            on_disk = self.checkpoint is not None and not str(self.checkpoint).startswith(hf_hub.HUB_PREFIX)
            if on_disk and plugins.defines("model", model, "create"):
                checkpoint.require_checkpoint(Path(str(self.checkpoint)), model)
            if self.solver is not None and self.solver not in solver_options.SOLVERS:
                raise unknown("solver", self.solver, solver_options.SOLVERS)
            if self.steps is not None and self.steps < 1:
                raise UserError(f"--steps {self.steps}: choose at least 1 sampling step")
            if self.guidance is not None:
                solver_options.check_guidance(self.guidance)
            solver_options.check_threshold(self.threshold)
        if abs(self.seed) >= 1 << 63:
            raise UserError(f"--seed {self.seed}: choose a number of less than 64 bits")
        if self.batch_size != "auto" and self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size}: must be at least 1, or auto")
        if self.executor not in EXECUTORS:
            raise unknown("--executor", self.executor, EXECUTORS)
        if self.ray_address is not None and self.executor != "ray":
            raise UserError(f"--ray-address {self.ray_address}: add --executor ray, or leave it out")
        if not 1 <= self.workers <= MAX_WORKERS:
            raise UserError(f"--workers {self.workers}: choose 1 to {MAX_WORKERS}")
        if self.dtype not in ("auto", *DTYPES):
            raise unknown("--dtype", self.dtype, ["auto", *DTYPES])

    @property
    def sampling(self) -> dict[str, Any]:
        """The options that are passed on to the model, by name; None means not given."""
        return {name: getattr(self, name) for name in SAMPLING}


@dataclass(frozen=True, kw_only=True)
class RunOptions(MachineOptions, EvalOptions, SamplingOptions):
    """Options of a run. `origins` says where each value came from: command line, environment or configuration file."""

    num_samples: int | None = flag(
        None,
        "Clips to generate; the protocol's by default, else 256 (on a GPU 2048).",
        "-n",
        "--num-samples",
    )
    output: Path | str | None = flag(
        None, "Run folder, or its URL, as s3://bucket/run; runs/<model>-<dataset>-<id> by default."
    )
    keep_clips: bool = flag(False, "Keep every generated clip, lossless, in the run folder.")
    log_to: str | None = flag(None, "Also pass the scores to wandb, mlflow, trackio or tensorboard.")
    profile: bool = flag(False, "Write a trace of one batch of each worker by torch's profiler, to see what is slow.")
    origins: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_samples is not None:
            _check_count("--num-samples", self.num_samples, 2)
        trackers.require(self.log_to)
        url = store.url_of(self.output) if self.output is not None else None
        if url and url.startswith("memory://") and (self.workers > 1 or self.executor == "ray"):
            raise UserError(f"--output {url}: this process alone sees it, so leave out --workers and --executor")
        store.Store.of(url or "")  # raises for a URL of no use


@dataclass(frozen=True, kw_only=True)
class StatsOptions(MachineOptions, EvalOptions):
    """Options of `data stats`, which computes and stores the features of real clips."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(MachineOptions, SamplingOptions):
    """Options of writing clips to files.

    `prompt` or `label` (a class name) is what every clip shows. With neither, each clip shows what a real clip of the
    dataset's test split does.
    """

    output: Path = flag(REQUIRED, "Folder of the clips; must not exist yet, or be empty.")
    prompt: str | None = flag(None, "What all clips show, in words; the dataset's test captions by default.")
    label: str | None = flag(None, "What all clips show, as the name of a class.")
    num_samples: int = flag(8, "Clips to generate.", "-n", "--num-samples")
    share_base_noise: bool = flag(False, "Give all clips the base noise of the first: one content, different motions.")
    frames: int | None = flag(None, "Frames of a clip, more than the model's own.")
    overlap: int | None = flag(None, "Frames that neighbouring windows of such a long clip share.")
    format: Literal["mp4", "webp", "npy", "png-folder"] = flag(
        "mp4", "File format, always lossless; webp merges equal frames, so do not score it."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("--num-samples", self.num_samples, 1)
        store.require_local("--output", self.output)
        if self.prompt is not None and self.label is not None:
            raise UserError("--prompt and --label exclude each other: leave one out")

    @property
    def sampling(self) -> dict[str, Any]:
        """The options that are passed on to the model, by name; None means not given."""
        return {"frames": self.frames, "overlap": self.overlap, **super().sampling}


def require_price(price_per_hour: float | None, *, dry_run: bool) -> None:
    """Raise `UserError` for a price that is no number above 0, and for one that nothing is computed from."""
    if price_per_hour is None:
        return
    if not dry_run:
        raise UserError(f"--price-per-hour {price_per_hour:g}: add --dry-run, which prints what the run would cost")
    if not (price_per_hour > 0 and math.isfinite(price_per_hour)):
        raise UserError(f"--price-per-hour {price_per_hour:g}: give a number above 0")


def _check_count(name: str, count: int, minimum: int) -> None:
    if not minimum <= count <= MAX_CLIPS:
        raise UserError(f"{name} {count:,}: choose {minimum} to {MAX_CLIPS:,} clips")
