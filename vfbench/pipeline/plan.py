"""The plan of a run: everything loaded and checked, and what is missing named, before the first hour is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vfbench import plugins
from vfbench.clips.inventory import require_outside_dataset
from vfbench.diffusion import hub
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext, ClipShape, Configured, Dataset, Request, Sampler
from vfbench.pipeline import compiling
from vfbench.pipeline.batch_size import USUAL, choose_batch_size
from vfbench.pipeline.chunk_layout import ChunkLayout
from vfbench.pipeline.cost import ClipCost, measure
from vfbench.pipeline.eval_setup import EvalSetup, prepare
from vfbench.pipeline.features import FeatureCollector
from vfbench.pipeline.folder import RUNS, Specification
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.requests import make_requests
from vfbench.pipeline.sample import is_control, noise_generator, require_sampler
from vfbench.pipeline.workers import PATIENCE
from vfbench.plugins import Spec
from vfbench.protocol import protocol as protocols
from vfbench.utils import device as devices
from vfbench.utils import environment, files, memory, store
from vfbench.utils.progress import format_duration
from vfbench.utils.text import count

EXTRA_DISK = 20_000_000  # bytes for samples, tables and what a file system takes for itself


@dataclass(frozen=True)
class Plan:
    """A run, ready to start."""

    options: RunOptions
    model: Spec
    setup: EvalSetup
    sampler: Sampler
    collector: FeatureCollector
    requests: Sequence[Request]
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    folder: Path
    disk: int  # bytes
    specification: Specification
    cost: ClipCost

    @property
    def patience(self) -> float:
        """Seconds of silence after which a worker is lost: three network calls, at least 60, or 900 while compiling."""
        call = self.cost.seconds * self.batch_size / max(self.cost.evaluations, 1)
        return max(compiling.PATIENCE if self.options.compile else PATIENCE, 3 * call)

    @property
    def profiled_batch(self) -> int | None:
        """Number of the batch that is profiled: the first, or after one that compiles the second; None for none."""
        return int(self.options.compile) if self.options.profile else None

    def describe(self) -> str:
        """The plan as lines to read."""
        clips, duration = len(self.requests), format_duration(self.cost.seconds * len(self.requests))
        layout = self.specification.layout
        chunks = count(len(layout.sizes) if layout else 1, "chunk")
        evaluations = count(self.cost.evaluations, "evaluation")
        dataset, protocol, note = self.setup.dataset, self.setup.protocol, self.setup.note
        lines = {
            "run": store.name(self.folder),
            "model": f"{self.model}, {self.cost.parameters:,} parameters, weights {self.sampler.weights[:12]}",
            "dataset": f"{dataset.name}, {protocol.split}, at {dataset.shape}{f' ({note})' if note else ''}",
            "protocol": f"{protocol.id} ({protocol.name})" + ("" if protocol.comparable else ", not comparable"),
            "metrics": ", ".join(self.setup.metrics),
            "clips": f"{clips:,} in {chunks}{self._unscored_frames()}, against {protocol.n_real:,} real ones",
            "cost": f"{self.cost.flops_per_clip / 1e9:,.1f} GFLOP and {evaluations} a clip",
            "time": f"at most {duration} to generate them on {self.device}, batches of {self.batch_size}",
            "disk": f"about {self.disk / 1e6:,.0f} MB",
        }
        return "\n".join(f"{name:<9} {line}" for name, line in lines.items())

    def _unscored_frames(self) -> str:
        """Remark on frames that are generated and not scored; empty where there are none."""
        generated = self.sampler.shape.frames
        scored = len(range(generated)[self.collector.frames])
        return f", {scored} of the {generated} frames of each scored" if generated > scored else ""


def plan(options: RunOptions) -> Plan:
    """Load and check everything a run needs, the cheap first; raises a `UserError` for whatever would stop it later."""
    with memory.require_memory(f"{options.model}, or a network that scores,"):
        return _plan(options)


def _plan(options: RunOptions) -> Plan:
    device = devices.choose_device(options.device)
    devices.choose_local_gpu(device)
    dtype = devices.choose_dtype(options.dtype, device)
    model = plugins.parse(options.model).merged(options.sampling)
    dataset = plugins.parse(options.dataset).merged({"root": str(options.data_root) if options.data_root else None})
    plugins.validated_options("model", model)
    plugins.validated_options("dataset", dataset)
    _require_writable(options.output or RUNS)
    setup = prepare(dataset, device, options, options.num_samples)
    protocol = setup.protocol
    requests = make_requests(setup.dataset, protocol.prompts, protocol.n_fake * protocol.repeats, options.seed)
    checkpoint = hub.resolve_checkpoint(options.checkpoint) if options.checkpoint is not None else None
    context = BuildContext(setup.dataset, device, dtype, checkpoint, protocol.quantise, requests)
    sampler: Sampler = plugins.load("model", model, context)
    require_sampler(model.name, sampler)
    if options.checkpoint and sampler.weights == "none":
        raise UserError(f"{model.name} has no weights: leave out --checkpoint, or name the model that it is of")
    require_clips(model.name, sampler.shape, protocol)
    require_conditioning(model.name, sampler, setup.dataset)
    collector = FeatureCollector(setup.extractors, setup.outputs, options.keep_clips, scored_frames(protocol))
    specification = Specification(
        determines={
            "model": str(plugins.with_defaults("model", model)),
            "weights": sampler.weights,
            "configuration": sampler.configuration if isinstance(sampler, Configured) else None,
            "protocol": protocol.to_json(),
            "seed": options.seed,
            "device": device.type,
            **noise_generator(sampler),
            "dtype": str(dtype).removeprefix("torch."),
            **({"compile": True} if options.compile else {}),
            "code": environment.code_version(),
        },
        options=environment.options_record(options, options.origins),
        environment=environment.environment(device.type),
    )
    folder = Path(options.output or RUNS / f"{model.name}-{setup.dataset.name}-{specification.id[:8]}")
    require_outside_dataset(store.local_path(folder), setup.dataset)
    disk = _disk(collector, sampler.shape, len(requests))
    files.require_space(store.local_path(folder), disk)
    begun = store.local_path(folder).joinpath("run.json").exists()
    batch_size = choose_batch_size(options.batch_size, model, sampler, requests, device, dtype, begun=begun)
    layout = ChunkLayout(
        requests=len(requests),
        chunk_size=max(USUAL[device.type], batch_size),
        batch_size=batch_size,
        threads=torch.get_num_threads(),
    )
    cost = measure(sampler, requests[0])  # before compilation, which hides FLOPs and would compile a batch of one
    if options.compile:
        compiling.compile_blocks(model.name, sampler, device)
    return Plan(
        options=options,
        model=model,
        setup=setup,
        sampler=sampler,
        collector=collector,
        requests=requests,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        folder=folder,
        disk=disk,
        specification=replace(specification, layout=layout),
        cost=cost,
    )


def _require_writable(output: Path | str) -> None:
    """Raise `BadEnvironment` where the folder cannot be written, on this machine or in an object store."""
    files.require_writable(store.local_path(output))
    if remote := store.Store.of(output):
        remote.require_writable()


def require_clips(model: str, shape: ClipShape, protocol: protocols.Protocol) -> None:
    """Raise `UserError` where the protocol cannot score clips of this shape."""
    needed = ClipShape(_num_frames(protocol), protocol.height, protocol.width)
    if (shape.height, shape.width) != (needed.height, needed.width) or shape.frames < needed.frames:
        raise UserError(
            f"{model} makes clips of {shape}, but protocol {protocol.name} scores {needed}: choose a model of that "
            f"size, or cut the real clips to the model's: --dataset '{protocol.dataset}({shape.options})'"
        )


def require_conditioning(model: str, sampler: Sampler, dataset: Dataset) -> None:
    """Raise `UserError` where a model needs classes or captions that the dataset does not have."""
    if is_control(sampler):  # it reads real clips instead
        return
    available = {"none": True, "class": bool(dataset.classes), "text": bool(dataset.words)}
    if available[sampler.conditioning]:
        return
    needed = {"class": "classes", "text": "captions"}[sampler.conditioning]
    choices = " or ".join(
        f"--model \"{model}(condition='{name}')\"" for name in ("class", "text", "none") if available[name]
    )
    if "condition" in plugins.options("model", model):
        mend = f"use {choices}"
    else:
        mend = f"choose a dataset with {needed}, or another model"
    raise UserError(f"{model} is conditioned on {needed}, but {dataset.name} has none: {mend}")


def scored_frames(protocol: protocols.Protocol) -> slice:
    """The frames of a generated clip that enter a score."""
    return slice(protocol.drop_first, _num_frames(protocol), protocol.fake_stride)


def _num_frames(protocol: protocols.Protocol) -> int:
    """Number of frames that a generated clip must have."""
    return protocols.frames_needed(protocol.frames, protocol.fake_stride, protocol.drop_first)


def _disk(collector: FeatureCollector, shape: ClipShape, count: int) -> int:
    """Bytes that `count` clips will take, about."""
    values = sum(collector.widths.values())
    pixels = 3 * shape.frames * shape.height * shape.width
    return count * (4 * values + pixels * collector.clips) + EXTRA_DISK
