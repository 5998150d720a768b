"""Time and money of a run, by a few batches that are made and looked at, and then thrown away: for `--dry-run`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vfbench.interfaces import Request
from vfbench.pipeline.plan import Plan
from vfbench.pipeline.sample import clip_numbers, sample
from vfbench.utils.memory import AdaptiveBatches
from vfbench.utils.progress import format_duration, format_rate

BATCHES = 3  # of which the first warms up, and is not counted
BATCH_SECONDS = 3.0  # on a CPU, where a smaller batch is about as fast a clip
LONGEST = 60.0  # seconds after which no other batch is begun


@dataclass(frozen=True)
class Estimate:
    """Measured speed of one worker, and the time and money that a run takes with it.

    `clips_per_second` counts clips that are sampled and pass through the feature networks. `speed_up` is that of all
    workers together: one for each GPU that they have, and 1 on a CPU, whose cores they share. `price_per_hour` is that
    of a GPU, or of the whole machine for a CPU; None where it is not given.
    """

    clips: int
    clips_measured: int
    clips_per_second: float
    workers: int
    speed_up: int
    price_per_hour: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of the run with one worker."""
        return self.clips / self.clips_per_second

    @property
    def price(self) -> float | None:
        """Price of the run, by the hours of one worker: several take less time, and cost as much."""
        return None if self.price_per_hour is None else self.price_per_hour * self.seconds / 3600

    def to_json(self) -> dict[str, float | int | None]:
        """The estimate as JSON values."""
        return {
            "clips_measured": self.clips_measured,
            "clips_per_second": self.clips_per_second,
            "seconds": self.seconds,
            "workers": self.workers,
            "seconds_with_workers": self.seconds / self.speed_up,
            "price": self.price,
        }

    def describe(self) -> str:
        """The estimate as lines to read."""
        share = f"on {self.speed_up} GPUs" if self.speed_up > 1 else "which share the device"
        together = f", {format_duration(self.seconds / self.speed_up)} with {self.workers} ({share})"
        lines = [
            ("measured", f"{format_rate(self.clips_per_second)} clips/s by one worker, over {self.clips_measured}"),
            ("takes", f"{format_duration(self.seconds)} with one worker{together * (self.workers > 1)}"),
        ]
        if self.price is not None:
            lines.append(("price", f"{self.price:,.2f} at {self.price_per_hour:g} an hour"))
        return "\n".join(f"{name:<9} {line}" for name, line in lines)


def estimate(plan: Plan, price_per_hour: float | None = None) -> Estimate:
    """Estimate the time and the price of a run from a few of its batches.

    Raises `UserError` where a batch cannot be sampled or its features cannot be computed: the run would fail as well.
    """
    size, is_cpu = min(plan.batch_size, len(plan.requests)), plan.device.type == "cpu"
    if is_cpu:
        size = max(1, min(size, int(BATCH_SECONDS / max(plan.cost.seconds, 1e-9))))
    measured = _measure(plan, size)
    counted = measured[1:] or measured
    clips, seconds = sum(clips for clips, _ in counted), sum(seconds for _, seconds in counted)
    workers = plan.options.workers
    speed_up = 1 if is_cpu else max(1, min(workers, torch.cuda.device_count()))
    return Estimate(len(plan.requests), clips, clips / max(seconds, 1e-9), workers, speed_up, price_per_hour)


def _measure(plan: Plan, size: int) -> list[tuple[int, float]]:
    """Clips and seconds of each batch."""

    def timed(batch: Sequence[Request]) -> float:
        start = time.monotonic()
        plan.collector.features(sample(plan.sampler, batch)[:, plan.collector.frames], batch)
        return time.monotonic() - start

    measured, begun = list[tuple[int, float]](), time.monotonic()
    for batch, seconds in AdaptiveBatches(size).each(list(plan.requests[: BATCHES * size]), timed, clip_numbers):
        measured.append((len(batch), seconds))
        if time.monotonic() - begun > LONGEST:
            break
    return measured
