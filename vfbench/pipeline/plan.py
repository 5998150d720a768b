"""A run before it starts: everything is loaded and checked, and what is missing is named, before the first hour is
spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from vfbench import plugins
from vfbench.clips.inventory import require_apart
from vfbench.diffusion import hub
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext, ClipShape, Dataset, Request, Sampler
from vfbench.pipeline.cost import Cost, measure
from vfbench.pipeline.eval_setup import EvalOptions, EvalSetup, prepare
from vfbench.pipeline.features import FeatureCollector
from vfbench.pipeline.folder import RUNS
from vfbench.pipeline.requests import make_requests
from vfbench.pipeline.sample import require_sampler
from vfbench.plugins import Spec
from vfbench.protocol import protocol as protocols
from vfbench.utils import device as devices
from vfbench.utils import environment, files, memory, tensor_files
from vfbench.utils.progress import clock

SAMPLING = ("steps", "solver", "guidance", "eta", "threshold")  # options of models that have flags of their own
SLACK = 20_000_000  # bytes for samples, tables and what a file system takes for itself


@runtime_checkable
class RequireTrained(Protocol):
    """A check, before anything is loaded, that a checkpoint of the model comes with vfbench for these clips."""

    def __call__(self, model: Spec, dataset: Spec, root: str | None, protocol: str | None, *, smoke: bool) -> None:
        """Raise `MissingData` with the command that trains one where there is none."""


@dataclass(frozen=True)
class RunOptions:
    """What a user may say of a run; None means the default of the model, dataset or device."""

    model: str = "videofusion"
    dataset: str = "shapes"
    protocol: str | None = None
    metrics: Sequence[str] = ()
    num_samples: int | None = None
    num_real: int | None = None
    manifest: Path | str | None = None
    weights: str = "default"
    extractors: Sequence[str] = ()
    seed: int = 0
    steps: int | None = None
    solver: str | None = None
    guidance: float | None = None
    eta: float | None = None
    threshold: float | None = None
    batch_size: int | Literal["auto"] = "auto"
    device: str = "auto"
    dtype: str = "auto"
    data_root: Path | str | None = None
    checkpoint: Path | str | None = None
    output: Path | str | None = None
    keep_clips: bool = False
    smoke: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> EvalOptions:
        """What of it is about measuring."""
        numbers = {"n_fake": self.num_samples, "n_real": self.num_real}
        return EvalOptions(
            self.protocol,
            self.metrics,
            weights=self.weights,
            extractors=self.extractors,
            smoke=self.smoke,
            manifest=self.manifest,
            **numbers,
        )


@dataclass(frozen=True)
class Plan:
    """A run, ready to start."""

    options: RunOptions
    model: Spec
    measuring: EvalSetup
    sampler: Sampler
    wanted: FeatureCollector
    requests: Sequence[Request]
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    folder: Path
    disk: int
    specification: Mapping[str, Any]
    cost: Cost

    def describe(self) -> str:
        """The plan as lines to read."""
        count, size = len(self.requests), int(self.specification["chunk_size"])
        dataset, protocol, note = self.measuring.dataset, self.measuring.protocol, self.measuring.note
        lines = {
            "run": str(self.folder),
            "model": f"{self.model}, {self.cost.parameters:,} parameters, weights {self.sampler.weights[:12]}",
            "dataset": f"{dataset.name}, {protocol.split}, at {dataset.shape}{f' ({note})' if note else ''}",
            "protocol": f"{protocol.id} ({protocol.name})" + ("" if protocol.comparable else ", not comparable"),
            "metrics": ", ".join(self.measuring.metrics),
            "clips": f"{count} in {-(-count // size)} chunks{self._cut()}, against {protocol.n_real} real ones",
            "cost": f"{self.cost.flops_per_clip / 1e9:,.1f} GFLOP and {self.cost.evaluations} evaluations a clip",
            "time": f"at most {clock(self.cost.seconds * count)} on {self.device}, batches of {self.batch_size}",
            "disk": f"about {self.disk / 1e6:,.0f} MB",
        }
        return "\n".join(f"{name:<9} {line}" for name, line in lines.items())

    def _cut(self) -> str:
        """A word on frames that are made and not scored, where there are any."""
        made, end = self.sampler.shape.frames, self.wanted.frames.stop
        return f", each of {made} frames of which the first {end} are looked at" if made > end else ""


def plan(options: RunOptions, require_trained: RequireTrained | None = None) -> Plan:
    """Load and check everything a run needs, the cheap first; raises a `UserError` for whatever would stop it later."""
    with memory.needed(f"{options.model}, or a network that scores,"):
        return _plan(options, require_trained)


def _plan(options: RunOptions, require_trained: RequireTrained | None) -> Plan:
    device = devices.choose(options.device)
    dtype = devices.precision(options.dtype, device)
    batch_size = devices.batch_size(options.batch_size, device)
    given = {name: getattr(options, name) for name in SAMPLING}
    model = plugins.parse(options.model).merged(given)
    root = str(options.data_root) if options.data_root else None
    dataset = plugins.parse(options.dataset).merged({"root": root})
    plugins.accepted("model", model)
    plugins.accepted("dataset", dataset)
    files.require_writable(Path(options.output or RUNS))
    if options.checkpoint is None and require_trained is not None:
        clips = plugins.parse(options.dataset)
        require_trained(model, clips, root, options.protocol, smoke=options.smoke)
    measuring = prepare(dataset, device, options.measured)
    protocol = measuring.protocol
    asked = make_requests(measuring.dataset, protocol.prompts, protocol.n_fake * protocol.repeats, options.seed)
    checkpoint = hub.checkpoint(options.checkpoint) if options.checkpoint is not None else None
    setting = BuildContext(measuring.dataset, device, dtype, checkpoint, protocol.quantise, asked)
    sampler: Sampler = plugins.load("model", model, setting)
    require_sampler(model.name, sampler)
    if options.checkpoint and sampler.weights == "none":
        raise UserError(f"{model.name} has no weights: leave out --checkpoint, or name the model that it is of")
    require_clips(model.name, sampler.shape, protocol)
    require_conditioning(model.name, sampler, measuring.dataset)
    wanted = FeatureCollector(measuring.extractors, measuring.outputs, options.keep_clips, scored(protocol))
    specification = _specification(options, model, sampler, protocol, device, dtype, batch_size)
    folder = Path(options.output or RUNS / f"{model.name}-{measuring.dataset.name}-{specification['id'][:8]}")
    require_apart(folder, measuring.dataset)
    disk = _disk(wanted, sampler.shape, len(asked))
    files.require_space(folder, disk)
    return Plan(
        options=options,
        model=model,
        measuring=measuring,
        sampler=sampler,
        wanted=wanted,
        requests=asked,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        folder=folder,
        disk=disk,
        specification=specification,
        cost=measure(sampler, asked[0]),
    )


def require_clips(model: str, shape: ClipShape, protocol: protocols.Protocol) -> None:
    """Raise `UserError` where clips of this shape are not what the protocol scores."""
    wanted = ClipShape(_length(protocol), protocol.height, protocol.width)
    if (shape.height, shape.width) != (wanted.height, wanted.width) or shape.frames < wanted.frames:
        raise UserError(
            f"{model} makes clips of {shape}, and protocol {protocol.name} scores {wanted}: choose a model of that "
            f"size, or have real clips as the model's: --dataset '{protocol.dataset}({shape.options})'"
        )


def require_conditioning(model: str, sampler: Sampler, dataset: Dataset) -> None:
    """Raise `UserError` where a model wants to be told what the dataset does not say: classes, or captions."""
    if getattr(sampler, "reference", False):  # it looks at real clips
        return
    said = {"class": ("classes", dataset.classes), "text": ("captions", dataset.words)}
    name, there = said.get(sampler.conditioning, ("", ("nothing is asked",)))
    if there:
        return
    others = [way for way, (_, words) in said.items() if words] + ["none"]
    ways = " or ".join(f"--model \"{model}(condition='{way}')\"" for way in others)
    able = "condition" in plugins.options("model", model)
    mend = f"ask it otherwise: {ways}" if able else f"choose a dataset with {name}, or another model"
    raise UserError(f"{model} goes by {name}, and {dataset.name} has none: {mend}")


def scored(protocol: protocols.Protocol) -> slice:
    """The frames of a generated clip that enter a score."""
    return slice(protocol.drop_first, _length(protocol), protocol.fake_stride)


def _length(protocol: protocols.Protocol) -> int:
    """How many frames a generated clip must have."""
    return protocols.frames_needed(protocol.frames, protocol.fake_stride, protocol.drop_first)


def _disk(wanted: FeatureCollector, shape: ClipShape, count: int) -> int:
    """Bytes that `count` clips will take, about."""
    values = sum(wanted.extractors[name].outputs[o] for name, outputs in wanted.outputs.items() for o in outputs)
    pixels = 3 * shape.frames * shape.height * shape.width
    return count * (4 * values + pixels * wanted.clips) + SLACK


def _specification(
    options: RunOptions,
    model: Spec,
    sampler: Sampler,
    protocol: protocols.Protocol,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
) -> dict[str, Any]:
    determines = {
        "model": str(plugins.whole("model", model)),
        "weights": sampler.weights,
        "configuration": getattr(sampler, "configuration", None),
        "protocol": protocol.record(),
        "seed": options.seed,
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "code": environment.code_version(),
    }
    return {
        "id": tensor_files.digest(determines),
        "determines": determines,
        "chunk_size": max(devices.BATCH[device.type], batch_size),
        "options": environment.options(options, options.origins),
        "environment": environment.environment(device),
    }
