"""The scores as torchmetrics, for a training loop: update with batches of clips, compute when you like.

    fvd = FrechetVideoDistance()
    fvd.update(real_clips, real=True)
    fvd.update(generated_clips)
    fvd.compute()

Each keeps the features of every clip, not the clips: 1.6 kB a clip for I3D. Processes are merged by joining their
features, so the result is that of one process which saw all clips. Networks, input rules and formulas are those of
`vfbench run`; a network is built when first needed, on the device of the metric.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        self.add_state("fake", default=[], dist_reduce_fx="cat")
        self.add_state("real", default=[], dist_reduce_fx="cat")

    @property
    def extractor(self) -> Extractor:
        """The feature network, on the device of the metric."""
        if self._extractor is None:
            self._extractor = plugins.load("extractor", self.spec, torch.device(self.device))
        return self._extractor

    def update(self, clips: Clips, *, real: bool = False, prompts: Sequence[str] | None = None) -> None:
        """Add clips, uint8 (B, T, 3, H, W) on any device: generated ones, or real ones to score them against.

        `prompts` say what each was asked to show; only CLIPSIM reads them. Raises what the extractor raises.
        """
        texts = [""] * len(clips) if prompts is None else list(prompts)
        if len(texts) != len(clips):
            raise UserError(f"{len(texts)} prompts came with {len(clips)} clips: give one a clip")
        requests = [Request(index, 0, 0, text) for index, text in enumerate(texts)]
        features = self.extractor(clips.cpu(), requests, [self.output])[self.output].to(self.device)
        (self.real if real else self.fake).append(features)

    def score(self) -> Score:
        """Value, interval, floor and counts; raises `UserError` while there are too few clips."""
        fake = self._joined("fake")
        real = self._joined("real") if self.real or self.needs_real else fake
        return self.statistic.score(fake.numpy(), real.numpy())

    def compute(self) -> Tensor:
        """The value alone, float64."""
        return torch.tensor(self.score().value, dtype=torch.float64, device=self.device)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value or several, as every torchmetrics metric does; needs matplotlib."""
        return self._plot(val, ax)

    def _joined(self, side: str) -> Tensor:
        state: list[Tensor] | Tensor = getattr(self, side)
        if not isinstance(state, Tensor) and not state:
            flag = ", real=True" if side == "real" else ""
            raise UserError(f"{type(self).__name__} has seen no {side} clips: call update(clips{flag}) first")
        return dim_zero_cat(state).cpu()


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
