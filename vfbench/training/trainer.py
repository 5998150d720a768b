"""Training state (weights, EMA, optimiser, step) and one optimiser step."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from vfbench.diffusion import flops
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.priors import noise_generator
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.diffusion.super_resolution import real_small_clips
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Dataset
from vfbench.nets.unet import place
from vfbench.training import preview
from vfbench.training.batches import Batch, TrainingBatches
from vfbench.training.build import load_initial_weights
from vfbench.training.clip_sampling import conditioning_probs, crop_options
from vfbench.training.distributed import ProcessGroup
from vfbench.training.options import TrainOptions
from vfbench.training.precision import autocast, kernels, recompute
from vfbench.training.readings import Readings
from vfbench.training.resume import (
    Extension,
    Settings,
    Stateful,
    append_log,
    load_state,
    require_new,
    save_state,
    truncate_log,
)
from vfbench.utils import checkpoint, console, memory
from vfbench.utils.device import to_device
from vfbench.utils.files import file_sha256
from vfbench.utils.prefetch import prefetch
from vfbench.utils.trackers import Log

_NORM = "gradient norm"  # name of the reading beside those of the losses
LOG_EVERY = 50  # steps of a line of the log, which has their mean loss


class Trainer:
    """Training run: raw weights, EMA, optimiser and step. Raises `MissingData` for an empty train split."""

    def __init__(
        self, model: DiffusionModel, dataset: Dataset, options: TrainOptions, output: Path, processes: ProcessGroup
    ) -> None:
        if dataset.size("train") == 0:
            raise MissingData(
                f"{dataset.name}: no train clips found; see `python -m vfbench show dataset {dataset.name}`"
            )
        self.options, self.output, self.dataset, self.processes, self.step = options, output, dataset, processes, 0
        self.saved: int | None = None  # last saved step, from which --resume continues
        self.preview_batches = memory.AdaptiveBatches()
        self.crop_options = crop_options(dataset, options)
        self.conditioning_probs = conditioning_probs(dataset, options)
        share, self.accumulate = processes.share(options.batch_size, options.accumulate), options.accumulate
        model.record_conditioning(self.conditioning_probs)
        place(model, processes.device)
        self.raw = model
        self.meta_model = flops.meta_copy(self.raw)  # copied before recomputation and compilation are turned on
        init_sha256 = load_initial_weights(model, options.init_from) if options.init_from is not None else None
        self.ema = copy.deepcopy(self.raw).eval().requires_grad_(False)
        if options.checkpoint_activations:
            recompute(self.raw)
        if options.compile:
            for network in self.raw.networks().values():
                network.compile(dynamic=False)  # one program per batch size: symbolic sizes take far longer
        fused = True if processes.device.type == "cuda" else None
        groups = model.parameter_groups(options.lr)
        optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay, fused=fused)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.model, self.optimizer = processes.prepare(_Losses(self.raw), optimizer)
        crop, flip = self.crop_options or (None, None)
        resolved = replace(options, warmup=options.warmup_steps, crop=crop, flip=flip, init_from=init_sha256)
        noise = noise_generator(processes.device)
        self.settings = Settings(model.config, dataset.fingerprint, resolved, options.warmup is None, noise)
        self.extensions: tuple[Extension, ...] = ()  # of a resumed run to more steps
        self._share = share
        self._readings = Readings(processes.device)
        self._losses: dict[str, float] = {}  # loss terms of the last step that was read
        self._since_log: list[dict[str, float]] = []  # loss terms of the steps since the last line of the log
        self.started = time.monotonic()
        self.log: Log = lambda step, numbers: None  # passes mean losses to a tracker

    @cached_property
    def batches(self) -> Generator[Batch, None, None]:
        """The batches of all steps to come, after `start`."""
        options, device = self.options, self.processes.device
        # Rendered clips on a CPU are computed without prefetching: threads would compete with the step for the cores.
        workers = options.workers if self.crop_options or device.type == "cuda" else 0
        draw, noise = self.raw.draw, self.settings.noise
        batches = TrainingBatches(
            self.dataset, options, self.crop_options, self.conditioning_probs, draw, self._share, device, noise
        )
        return prefetch(batches, self._steps(), workers=workers, depth=max(2 * workers, 1))

    def _steps(self) -> Iterator[int]:
        yield from range(self.step, self.options.steps)  # lazy: `start` may set the step of a resumed run first

    @cached_property
    def _training_flops(self) -> int | None:
        """FLOPs of a step, None where they cannot be counted; computed for the first model card."""
        per_clip = flops.training_flops_or_none(self.meta_model)
        return None if per_clip is None else per_clip * self.options.batch_size

    @property
    def seconds(self) -> float:
        """Training time in seconds, including the runs before a resume."""
        return time.monotonic() - self.started

    @property
    def _parts(self) -> dict[str, Stateful]:
        return {"model": self.raw, "ema": self.ema, "optimizer": self.optimizer}

    def start(self, resume: bool) -> None:
        """Start a new run, or restore the saved one; raises as `resume.load_state` and `resume.require_new`."""
        if resume:
            saved = load_state(self.output, self._parts, self.settings)
            self.step, self.extensions = saved.step, saved.extensions
            self.started, self.saved = self.started - saved.seconds, self.step
            self.options = replace(self.options, warmup=saved.warmup)
            resolved = replace(self.settings.options, warmup=saved.warmup)
            self.settings = replace(self.settings, options=resolved, noise=saved.noise)
        else:
            require_new(self.output)
        if self.processes.is_main:
            truncate_log(self.output, self.step)
            for extension in self.extensions:
                if extension.step == self.step and extension.after == self.options.steps:
                    console.info(str(extension))
                    append_log(self.output, extension._asdict())

    def advance(self) -> dict[str, float]:
        """Make one optimiser step; returns the loss terms of the last step that was read, none before the first.

        Raises `UserError` where a loss or the norm of the gradients is not finite: on a CPU before the weights change,
        on a GPU one step later.
        """
        with self.processes.collective():
            batch = next(self.batches)
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * lr_factor(self.step, self.options)
        terms = self._accumulate_gradients(batch)
        norm = nn.utils.clip_grad_norm_(self.raw.parameters(), self.options.clip_norm)
        # One tensor, so one copy.
        mean = self.processes.mean(torch.cat([terms, norm[None]]))
        self._readings.add(self.step + 1, [*self._loss_names, _NORM], mean)
        self._read_losses()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._update_ema()
        if self.step % LOG_EVERY == 0:
            self._read_losses(wait=True)
            if self.processes.is_main:
                means = {name: fmean(step[name] for step in self._since_log) for name in self._losses}
                append_log(self.output, {"step": self.step, **means, "seconds": round(self.seconds, 1)})
                self.log(self.step, means)
            self._since_log.clear()
        return self._losses

    def _read_losses(self, *, wait: bool = False) -> None:
        """Read the loss terms that are due, averaged over all processes; with `wait`, those of all steps made.

        Raises `UserError` on all processes where a loss or the gradient norm is not finite. Must precede the optimiser
        step on a CPU, and any save or preview: a finite loss may have infinite gradients, which clipping turns into
        NaN, and these would enter the EMA and the saved state.
        """
        for step, values in self._readings.read(wait=wait):
            self._losses = {name: value for name, value in values.items() if name != _NORM}
            if not all(map(math.isfinite, values.values())):
                reason = f"loss {self._losses}, gradient norm {values[_NORM]}"
                raise UserError(f"step {step} is not finite, training stopped ({reason}): {self._divergence_advice()}")
            self._since_log.append(self._losses)

    def _divergence_advice(self) -> str:
        """Flags to try after divergence; --resume alone would repeat the same numbers."""
        flags = "a lower --lr" if self.options.dtype == "float32" else "a lower --lr or --dtype float32"
        if self.saved is None:
            return f"repeat the command with {flags}"
        return (
            f"start a new run from the weights of step {self.saved} with --init-from {self.output}, another --output "
            f"and {flags}; after a hardware fault, continue from that step with --resume"
        )

    def _accumulate_gradients(self, batch: Batch) -> Tensor:
        """Accumulate gradients; on out-of-memory, split the batch further and retry. Returns the loss terms."""
        while True:
            parts = batch.parts(self.accumulate)
            try:
                return torch.stack([self._backward(part, len(parts), last=part is parts[-1]) for part in parts]).mean(0)
            except memory.MEMORY_ERRORS as error:
                full = memory.exhausted_memory(error)
                # With several processes the others would wait for this one.
                if self.processes.world_size > 1 or self.accumulate == len(batch.clips):
                    raise
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()  # outside of `except`: the error holds the tensors of the failed part
            if self.options.compile:
                torch._dynamo.reset()  # torch compiles a network for a few batch sizes only, then runs it uncompiled
            self.accumulate = more_parts(self.accumulate, len(batch.clips))
            message = f"step {self.step + 1} does not fit into {full}: continuing with --accumulate {self.accumulate}"
            console.warn(f"{message}, which changes the weights by rounding only")

    def _backward(self, part: Batch, count: int, *, last: bool) -> Tensor:
        """Add the gradients of one of `count` parts; returns its loss terms, detached."""
        x = to_device(part.clips, self.processes.device).float().div(127.5).sub(1)
        device, dtype = self.processes.device, self.options.dtype
        with nullcontext() if last else self.processes.no_sync(self.model), kernels(device, dtype):
            with autocast(device, dtype):
                losses: dict[str, Tensor] = self.model(x, part)
            terms = torch.stack(list(losses.values()))
            (terms.sum() / count).backward()  # type: ignore[no-untyped-call]  # torch has no type
        self._loss_names = list(losses)
        return terms.detach()

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))  # smaller in the first steps
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.raw.parameters()), 1 - decay)

    def save(self) -> None:
        """Write the EMA model, the training state and the model card.

        The state is written even where writing the model fails: a resumed run then writes the model. Raises `UserError`
        for a step that was not finite.
        """
        self._read_losses(wait=True)
        with self.processes.collective():
            if self.processes.is_main:
                try:
                    self.ema.save(self.output, half=self.options.half)
                finally:
                    save_state(self.output, self._parts, self.step, self.seconds, self.settings, self.extensions)
                self._write_card()
        self.saved = self.step

    def save_model(self) -> None:
        """Write the EMA model and the model card alone."""
        with self.processes.collective():
            if self.processes.is_main:
                self.ema.save(self.output, half=self.options.half)
                self._write_card()

    def _write_card(self) -> None:
        from vfbench.training import model_card

        model_card.write(
            self.output,
            self.ema.config,
            dataset=self.dataset,
            options=replace(self.settings.options, accumulate=self.accumulate),
            step=self.step,
            extensions=self.extensions,
            flops=None if self._training_flops is None else self._training_flops * self.step,
            sha256=file_sha256(self.output / checkpoint.TENSORS),
        )

    def write_preview(self) -> None:
        """Sample a few test clips into `samples/`; raises `UserError` for a step that was not finite."""
        self._read_losses(wait=True)
        with self.processes.collective():
            if self.processes.is_main:
                small_clips, noise = real_small_clips(self.ema, self.dataset), self.settings.noise
                device = self.processes.device
                sampler = DiffusionSampler(self.ema, "none", device, noise=noise, small_clips=small_clips)
                path = self.output / "samples" / f"step_{self.step:06d}"
                preview.write(path, sampler, self.dataset, self.preview_batches)


class _Losses(nn.Module):
    """`DiffusionModel.training_losses` as a forward pass, so that accelerate can wrap it."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, batch: Batch) -> dict[str, Tensor]:
        return self.model.training_losses(x, batch.labels, batch.captions, batch.conditioning, batch.draws)


def lr_factor(step: int, options: TrainOptions) -> float:
    """Factor on the learning rate: linear warm-up times 1, or a cosine decay from 1 to 0.05 at the last step."""
    warmup = min((step + 1) / max(options.warmup_steps, 1), 1.0)
    if options.lr_schedule == "constant":
        return warmup
    return warmup * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))


def more_parts(parts: int, clips: int) -> int:
    """Smallest number of equal parts of `clips` clips that is at least twice `parts`, or `clips`."""
    return next(count for count in range(min(2 * parts, clips), clips + 1) if clips % count == 0)
