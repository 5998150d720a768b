"""The scores as torchmetrics, for a training loop: update with batches of clips, compute when you like.

    fvd = FrechetVideoDistance()
    fvd.update(real_clips, real=True)
    fvd.update(generated_clips)
    fvd.compute()

Each keeps the features of every clip, not the clips: 1.6 kB a clip for I3D. Processes are merged by joining their
features, so the result is that of one process which saw all clips (but for what is drawn by the number of a clip, such
as Inception's random frame: each process numbers its own). Networks, input rules and formulas are those of
`vfbench run`; a network is built when first needed, on the device of the metric.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from vfbench import plugins
from vfbench.errors import UserError
from vfbench.interfaces import Clips, Extractor, Request, Score
from vfbench.interfaces import Metric as Statistic


class VideoMetric(Metric):
    """A metric of `vfbench.metrics` over an output of an extractor.

    `metric` and `extractor` are plug-ins as on the command line, such as `fvd(ddof=0)` and `i3d(weights='random')`.
    """

    is_differentiable = False
    full_state_update = False
    needs_real: ClassVar[bool] = True
    fake: list[Tensor]
    real: list[Tensor]

    def __init__(self, metric: str, extractor: str, output: str, **options: Any) -> None:
        super().__init__(**options)
        self.statistic: Statistic = plugins.load("metric", metric)
        self.spec, self.output = plugins.parse(extractor), output
        self._extractor: Extractor | None = None
        self._size: tuple[int, ...] = ()
        self.add_state("fake", default=[], dist_reduce_fx="cat")
        self.add_state("real", default=[], dist_reduce_fx="cat")

    @property
    def extractor(self) -> Extractor:
        """The feature network, on the device of the metric; warns where its weights are not the published ones."""
        if self._extractor is None:
            self._extractor = plugins.load("extractor", self.spec, torch.device(self.device))
            if self._extractor.weight_status == "nonstandard":
                said = f"NOT the published weights: {self.spec}; the numbers of this metric compare with nothing"
                warnings.warn(said, UserWarning, stacklevel=2)
        return self._extractor

    def update(self, clips: Clips, *, real: bool = False, prompts: Sequence[str] | None = None) -> None:
        """Add clips, uint8 (B, T, 3, H, W) on any device: generated ones, or real ones to score them against.

        `prompts` say what each was asked to show; only CLIPSIM reads them, and it needs them. Raises `UserError` for
        prompts that are missing or not one a clip, and what the extractor raises.
        """
        if prompts is None and self.output == "similarity":
            raise UserError(
                f"{type(self).__name__} compares clips with their prompts, and none came: "
                "call update(clips, prompts=[...]) with what each was asked to show"
            )
        texts = [""] * len(clips) if prompts is None else list(prompts)
        if len(texts) != len(clips):
            raise UserError(f"{len(texts)} prompts came with {len(clips)} clips: give one a clip")
        self._require_shape(clips)
        state = self.real if real else self.fake
        first = sum(map(len, state))  # a clip's number does not depend on the batches
        requests = [Request(first + index, 0, 0, text) for index, text in enumerate(texts)]
        state.append(self.extractor(clips.cpu(), requests, [self.output])[self.output].to(self.device))
        self._size = tuple(clips.shape[1:])

    def _require_shape(self, clips: Clips) -> None:
        """Raise `UserError` for clips of another size than those before: their features would not compare."""
        size = tuple(clips.shape[1:])
        if self._size and size != self._size:
            raise UserError(f"clips of shape {size} came after some of {self._size}: give all in one size (T, 3, H, W)")

    def reset(self) -> None:
        """Forget all clips."""
        super().reset()
        self._size = ()

    def forward(self, *_: Any, **__: Any) -> Any:
        """Raises `UserError`: a batch has no score of its own."""
        raise UserError(
            f"one batch is too few clips for {type(self).__name__}: call update(clips) with each, then compute()"
        )

    def score(self) -> Score:
        """Value, interval, floor and counts over the clips of all processes; a `floor` of NaN is none.

        Raises `UserError` while there are fewer clips than the metric's `minimum`.
        """
        alone = not self._is_synced  # else all are here already, as within `compute`
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn,
            should_sync=self._to_sync and alone,
            should_unsync=self._should_unsync and alone,
        ):
            fake, real = self._joined("fake"), self._joined("real")
        self._require("generated", fake)
        if self.needs_real:
            self._require("real", real)
        if len(real):
            return self.statistic.score(fake.numpy(), real.numpy())
        return _without_real(self.statistic.score(fake.numpy(), fake.numpy()))

    def compute(self) -> Tensor:
        """The value alone, float64."""
        try:
            value = self.score().value
        except UserError:
            self.unsync(self._is_synced and self._should_unsync)  # or the next update would join those of all processes
            raise
        return torch.tensor(value, dtype=torch.float64, device=self.device)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value or several, as every torchmetrics metric does; needs matplotlib."""
        return self._plot(val, ax)

    def _joined(self, side: str) -> Tensor:
        state: list[Tensor] | Tensor = getattr(self, side)
        return dim_zero_cat(state).cpu() if len(state) else torch.empty(0, 1)

    def _require(self, kind: str, features: Tensor) -> None:
        """Raise `UserError` where too few clips have been seen for the score to mean anything."""
        if len(features) < self.statistic.minimum:
            flag = ", real=True" if kind == "real" else ""
            raise UserError(
                f"{type(self).__name__} has seen {len(features)} {kind} clips, and needs at least "
                f"{self.statistic.minimum}: call update(clips{flag}) with more"
            )


def _without_real(score: Score) -> Score:
    """A score for which the generated clips stood in for real ones, without what it says of these."""
    said = [part for part in score.note.split("; ") if "real clips" not in part]
    return replace(score, floor=math.nan, n_real=0, note="; ".join(said))


class FrechetVideoDistance(VideoMetric):
    """FVD, lower is better; see `vfbench.metrics.fvd`."""

    higher_is_better = False

    def __init__(self, *, metric: str = "fvd", extractor: str = "i3d", output: str = "logits", **options: Any) -> None:
        super().__init__(metric, extractor, output, **options)


class KernelVideoDistance(VideoMetric):
    """KVD, lower is better; see `vfbench.metrics.kvd`."""

    higher_is_better = False

    def __init__(self, *, metric: str = "kvd", extractor: str = "i3d", output: str = "logits", **options: Any) -> None:
        super().__init__(metric, extractor, output, **options)


class VideoInceptionScore(VideoMetric):
    """IS, higher is better; real clips are not needed, and show what a perfect model reaches. See `inception_score`."""

    higher_is_better = True
    needs_real = False

    def __init__(self, *, metric: str = "is", extractor: str = "c3d", output: str = "logits", **options: Any) -> None:
        super().__init__(metric, extractor, output, **options)


class ClipSim(VideoMetric):
    """CLIPSIM, higher is better: needs the `prompts` of the generated clips. See `vfbench.metrics.clipsim`."""

    higher_is_better = True
    needs_real = False

    def __init__(
        self, *, metric: str = "clipsim", extractor: str = "clip", output: str = "similarity", **options: Any
    ) -> None:
        super().__init__(metric, extractor, output, **options)


__all__ = ["ClipSim", "FrechetVideoDistance", "KernelVideoDistance", "VideoInceptionScore", "VideoMetric"]
