"""A training on its way: weights, their average, optimiser and step, and one step of them."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfbench.diffusion import flops
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Dataset
from vfbench.training import preview
from vfbench.training.batches import Batch, TrainingBatches
from vfbench.training.build import start_from
from vfbench.training.distributed import Team
from vfbench.training.options import TrainOptions, conditions, drawn
from vfbench.training.precision import autocast, kernels, recompute
from vfbench.training.resume import Part, forget_later, load_state, log, require_new, write
from vfbench.utils import checkpoint, memory
from vfbench.utils.files import file_sha256
from vfbench.utils.prefetch import ahead


class Trainer:
    """The state of a training run: weights, EMA, optimiser, step."""

    def __init__(
        self, model: DiffusionModel, dataset: Dataset, options: TrainOptions, output: Path, team: Team
    ) -> None:
        if dataset.size("train") == 0:
            raise MissingData(
                f"{dataset.name}: no train clips found; see `python -m vfbench show dataset {dataset.name}`"
            )
        self.options, self.output, self.dataset, self.team, self.step = options, output, dataset, team, 0
        self.saved: int | None = None  # the step that --resume goes on from
        self.sheets = memory.AdaptiveBatches()  # clips of a sheet that fit into the memory at once
        self.drawn, self.conditions = drawn(dataset, options), conditions(dataset, options)
        share, self.accumulate = team.share(options.batch_size, options.accumulate), options.accumulate
        model.record_conditions(self.conditions)
        self.raw = model.to(team.device)
        self.bare = flops.without_values(self.raw)  # before its way to compute is changed
        began = start_from(model, options.init_from) if options.init_from is not None else None
        self.ema = copy.deepcopy(self.raw).eval().requires_grad_(False)
        if options.checkpoint_activations:
            recompute(self.raw)
        if options.compile:
            for network in self.raw.networks().values():
                network.compile(dynamic=False)  # a program for each batch size: symbolic sizes take far longer
        optimizer = torch.optim.AdamW(model.groups(options.lr), weight_decay=options.weight_decay)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.model, self.optimizer = team.prepare(_Losses(self.raw), optimizer)
        fixed = {**options.of_the_weights(), **self.drawn, "init_from": began}
        self.spec: dict[str, Any] = {"config": asdict(model.config), "data": dataset.fingerprint, "options": fixed}
        # What is made by arithmetic alone would only compete with the step for the same cores.
        workers = options.workers if self.drawn or team.device.type == "cuda" else 0
        make = TrainingBatches(dataset, options, self.drawn, self.conditions, model.draw, share, team.device)
        self.batches = ahead(make, self._steps(), workers=workers, depth=max(2 * workers, 1))
        self.began = time.monotonic()

    def _steps(self) -> Iterator[int]:
        yield from range(self.step, self.options.steps)  # asked for when an earlier run has been taken up

    @cached_property
    def _flops(self) -> int | None:
        """What a step takes, where that can be counted; for the first card."""
        each = flops.training_flops_or_none(self.bare)
        return None if each is None else each * self.options.batch_size

    @property
    def seconds(self) -> float:
        """How long it has taken, all runs together."""
        return time.monotonic() - self.began

    @property
    def _parts(self) -> dict[str, Part]:
        return {"model": self.raw, "ema": self.ema, "optimizer": self.optimizer}

    def start(self, resume: bool) -> None:
        """Begin anew, or take up where an earlier run stopped."""
        if resume:
            self.step, before = load_state(self.output, self._parts, self.spec)
            self.began, self.saved = self.began - before, self.step
        else:
            require_new(self.output)
        if self.team.main:
            forget_later(self.output, self.step)

    def advance(self) -> dict[str, float]:
        """One optimiser step; returns the loss terms. Raises `UserError` in place of a step that is not finite."""
        with self.team.as_one():
            batch = next(self.batches)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * lr_factor(self.step, self.options)
        terms = self._gradients(batch)
        norm = nn.utils.clip_grad_norm_(self.raw.parameters(), self.options.clip_norm)
        losses = self._finite(terms, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._average()
        if self.step % 50 == 0 and self.team.main:
            log(self.output, {"step": self.step, **losses, "seconds": round(self.seconds, 1)})
        return losses

    def _finite(self, terms: Tensor, norm: Tensor) -> dict[str, float]:
        """The loss terms over all processes; raises `UserError` in each where one, or the gradients, are not finite.

        Before the step is made: a loss may be finite and its gradients not, and then clipping makes NaN of them, which
        would be averaged and saved.
        """
        *values, size = self.team.mean(torch.cat([terms, norm[None]])).tolist()  # one copy: each waits for the GPU
        losses = dict(zip(self._terms, values, strict=True))
        if all(math.isfinite(value) for value in (*values, size)):
            return losses
        found = f"loss {losses}, norm of the gradients {size}"
        raise UserError(f"step {self.step + 1} is not finite and was not made ({found}): {self._calmer()}")

    def _calmer(self) -> str:
        """What to do about a training that diverges; resuming alone would meet the same numbers again."""
        ways = "a lower --lr" if self.options.dtype == "float32" else "a lower --lr or --dtype float32"
        if self.saved is None:
            return f"give the same command with {ways}"
        return (
            f"begin anew from the weights of step {self.saved} with --init-from {self.output}, another --output and "
            f"{ways}; where the machine was at fault, go on from that step with --resume"
        )

    def _gradients(self, batch: Batch) -> Tensor:
        """Those of a step, in more parts from here on where there is too little memory; returns the loss terms."""
        while True:
            parts = batch.parts(self.accumulate)
            try:
                return torch.stack([self._learn(part, len(parts), last=part is parts[-1]) for part in parts]).mean(0)
            except memory.ERRORS as error:
                full = memory.full(error)
                if self.team.count > 1 or self.accumulate == len(batch.clips):  # the others would wait for this one
                    raise
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()  # here, where the error is gone, and with it what it held of the failed part
            if self.options.compile:
                torch._dynamo.reset()  # a network has programs for a few sizes only, and then runs uncompiled
            self.accumulate = more_parts(self.accumulate, len(batch.clips))
            said = f"step {self.step + 1} does not fit into {full}: each batch in {self.accumulate} parts"
            print(f"{said} from here on, the weights are the same but for the rounding of sums", file=sys.stderr)

    def _learn(self, part: Batch, count: int, *, last: bool) -> Tensor:
        """Add the gradients of one of `count` parts; returns the loss terms."""
        x = part.clips.to(self.team.device).float().div(127.5).sub(1)
        device, dtype = self.team.device, self.options.dtype
        with nullcontext() if last else self.team.alone(self.model), kernels(device, dtype):
            with autocast(device, dtype):
                losses: dict[str, Tensor] = self.model(x, part)
            terms = torch.stack(list(losses.values()))
            (terms.sum() / count).backward()  # type: ignore[no-untyped-call]  # torch has no type
        self._terms = list(losses)
        return terms.detach()

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))  # young averages forget faster
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.raw.parameters()), 1 - decay)

    def save(self) -> None:
        """Write the EMA model, then what resuming needs (a run that is done has its model), and the card.

        Where the model cannot be written, what resuming needs is, and resuming writes the model.
        """
        with self.team.as_one():
            if self.team.main:
                try:
                    self.ema.save(self.output, half=self.options.half)
                finally:
                    write(self.output, self._parts, self.step, self.seconds, self.spec)
                self._write_card()
        self.saved = self.step

    def save_model(self) -> None:
        """Write the EMA model and the card, as they are."""
        with self.team.as_one():
            if self.team.main:
                self.ema.save(self.output, half=self.options.half)
                self._write_card()

    def _write_card(self) -> None:
        from vfbench.training import model_card

        model_card.write(
            self.output,
            self.ema.config,
            dataset=self.dataset,
            options={**asdict(self.options), **self.spec["options"], "accumulate": self.accumulate},
            step=self.step,
            flops=None if self._flops is None else self._flops * self.step,
            sha256=file_sha256(self.output / checkpoint.TENSORS),
        )

    def show(self) -> None:
        """Sample a few held-out clips into `samples/`, to be looked at."""
        with self.team.as_one():
            if self.team.main:
                sampler = DiffusionSampler(self.ema, "none", self.team.device)
                preview.write(self.output / "samples" / f"step_{self.step:06d}", sampler, self.dataset, self.sheets)


class _Losses(nn.Module):
    """`training_losses` as a forward pass, so that accelerate can wrap it."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, batch: Batch) -> dict[str, Tensor]:
        return self.model.training_losses(x, batch.labels, batch.captions, batch.modes, batch.drawn)


def lr_factor(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then half a cosine down to a twentieth."""
    rising = min((step + 1) / max(options.warmup_steps, 1), 1.0)
    return rising * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))


def more_parts(parts: int, clips: int) -> int:
    """At least twice as many equal parts of so many clips."""
    return next(count for count in range(min(2 * parts, clips), clips + 1) if clips % count == 0)
