"""Video metrics as torchmetrics for training loops: update with batches of clips, compute at any time.

    fvd = FrechetVideoDistance()
    fvd.update(real_clips, real=True)
    fvd.update(generated_clips)
    fvd.compute()

A metric stores the features of every clip, not the clips: 1.6 kB per clip for I3D. Distributed processes concatenate
their features, so the result is that of a single process with all clips, also where a process has none; except for
Inception's random frame, which depends on the index of a clip within its process. Networks, preprocessing and formulas
are those of `vfbench run`. The network is built on first use, on the device of the metric.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from vfbench import plugins
from vfbench.errors import UserError
from vfbench.interfaces import Clips, Extractor, Request, Score
from vfbench.interfaces import Metric as PluginMetric
from vfbench.pipeline.scores import require_finite
from vfbench.utils import text


class VideoMetric(Metric):
    """Metric of `vfbench.metrics` on one output of an extractor.

    `metric` and `extractor` are plug-in specs of the command line, such as `fvd(ddof=0)` and `i3d(weights='random')`.
    With `reset_real_features=False`, `reset` keeps the real clips, which then need one update for the whole training.
    """

    is_differentiable = False
    full_state_update = False
    needs_real: ClassVar[bool] = True
    fake: list[Tensor]
    real: list[Tensor]

    def __init__(
        self, metric: str, extractor: str, output: str, *, reset_real_features: bool = True, **options: Any
    ) -> None:
        super().__init__(**options)
        self.reset_real_features = reset_real_features
        self.metric: PluginMetric = plugins.load("metric", metric)
        self.spec, self.output = plugins.parse(extractor), output
        self._extractor: Extractor | None = None
        self._clip_shape: tuple[int, ...] = ()
        self.add_state("fake", default=[], dist_reduce_fx="cat")
        self.add_state("real", default=[], dist_reduce_fx="cat")

    @property
    def extractor(self) -> Extractor:
        """Feature network, on the device of the metric; warns if its weights are nonstandard."""
        if self._extractor is None:
            with _float32_default():
                self._extractor = plugins.load("extractor", self.spec, torch.device(self.device))
            if self._extractor.weight_status == "nonstandard":
                message = f"NOT the published weights: {self.spec}; the scores are not comparable with any others"
                warnings.warn(message, UserWarning, stacklevel=2)
        return self._extractor

    def update(self, clips: Tensor, *, real: bool = False, prompts: Sequence[str] | None = None) -> None:
        """Add clips, uint8 (B, T, 3, H, W) on any device: generated ones, or with `real` the real ones.

        `prompts` are the captions of the clips, required by CLIPSIM and ignored otherwise. Raises `UserError` for
        another shape, with the call that mends it, for missing prompts or a wrong number of them, and any error of the
        extractor.
        """
        _require_layout(clips)
        if prompts is None and self.output == "similarity":
            raise UserError(
                f"{type(self).__name__} compares clips with their prompts, and got none: "
                "call update(clips, prompts=[...]) with one prompt per clip"
            )
        texts = [""] * len(clips) if prompts is None else list(prompts)
        if len(texts) != len(clips):
            raise UserError(f"{len(texts)} prompts for {len(clips)} clips: give one per clip")
        self._require_shape(clips)
        if not len(clips):
            return
        state = self.real if real else self.fake
        first = sum(map(len, state))  # so that the index of a clip does not depend on the batches
        requests = [Request(first + index, 0, 0, text) for index, text in enumerate(texts)]
        extractor = self.extractor
        with _float32_default():
            state.append(extractor(clips.cpu(), requests, [self.output])[self.output].to(self.device))
        self._clip_shape = tuple(clips.shape[1:])

    def _require_shape(self, clips: Clips) -> None:
        """Raise `UserError` for clips of another shape than the previous ones: their features are not comparable."""
        shape = tuple(clips.shape[1:])
        if self._clip_shape and shape != self._clip_shape:
            raise UserError(f"clips of shape {shape} after clips of {self._clip_shape}: use one shape (T, 3, H, W)")

    def reset(self) -> None:
        """Clear the features of all clips; of the generated ones alone with `reset_real_features=False`."""
        kept = [] if self.reset_real_features else list(self.real)
        super().reset()
        self.real.extend(kept)
        self._clip_shape = self._clip_shape if kept else ()

    def forward(self, *_: Any, **__: Any) -> Any:
        """Raise `UserError`: a single batch has no score. Call `update` for each batch, then `compute`."""
        raise UserError(
            f"one batch is too few clips for {type(self).__name__}: call update(clips) with each, then compute()"
        )

    def score(self) -> Score:
        """Score of the clips of all processes, with interval and floor; `floor` is NaN without real clips.

        Raises `UserError` for fewer clips than the metric's `minimum`, and for a score that is not finite.
        """
        needs_sync = not self._is_synced  # `compute` has already synchronised
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn,
            should_sync=self._to_sync and needs_sync,
            should_unsync=self._should_unsync and needs_sync,
        ):
            fake, real = self._all_features("fake"), self._all_features("real")
        self._require_minimum("generated", fake)
        if self.needs_real:
            self._require_minimum("real", real)
        score = self.metric.score(fake.numpy(), (real if len(real) else fake).numpy())
        return require_finite(self.metric, score if len(real) else _without_real(score))

    def compute(self) -> Tensor:
        """Value of the score, float64."""
        try:
            value = self.score().value
        except UserError:
            self.unsync(
                self._is_synced and self._should_unsync
            )  # else the next update would add to the merged features
            raise
        return torch.tensor(value, dtype=torch.float64, device=self.device)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one or several values, as in torchmetrics; needs matplotlib."""
        return self._plot(val, ax)

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any = None) -> None:
        """Concatenate the features of all processes.

        A process without clips takes part with no rows. torchmetrics gives such a state one dimension where the others
        have two, on which the processes fail or wait for each other.
        """
        for side in ("fake", "real"):
            parts: list[Tensor] = getattr(self, side)
            # Always float32: a process without clips does not know the type of the others.
            local = dim_zero_cat(parts).float() if parts else torch.empty(0, 0, dtype=torch.float32, device=self.device)
            gathered = dist_sync_fn(local, group=process_group or self.process_group)
            filled = [features for features in gathered if len(features)]
            setattr(self, side, torch.cat(filled) if filled else [])

    def _all_features(self, side: str) -> Tensor:
        state: list[Tensor] | Tensor = getattr(self, side)
        return dim_zero_cat(state).cpu() if len(state) else torch.empty(0, 1)

    def _require_minimum(self, kind: str, features: Tensor) -> None:
        """Raise `UserError` for fewer clips than the metric's `minimum`."""
        if len(features) < self.metric.minimum:
            flag = ", real=True" if kind == "real" else ""
            raise UserError(
                f"{type(self).__name__} has {text.count(len(features), f'{kind} clip')}, and needs at least "
                f"{self.metric.minimum}: call update(clips{flag}) with more"
            )


@contextmanager
def _float32_default() -> Iterator[None]:
    """Context manager: build and run networks in float32, as published, whatever the training loop computes in."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)


def _require_layout(clips: object) -> None:
    """Raise `UserError` for anything but a tensor (B, T, 3, H, W), with the call that makes it one."""
    if not isinstance(clips, Tensor):
        raise UserError(f"clips are {type(clips).__name__}: give a torch tensor of uint8 (B, T, 3, H, W)")
    shape = tuple(clips.shape)
    if len(shape) == 5 and shape[2] == 3:
        return
    mends = {
        "one clip: clips[None]": len(shape) == 4 and shape[1] == 3,
        "channels last: clips.permute(0, 1, 4, 2, 3)": len(shape) == 5 and shape[4] == 3,
        "channels before frames: clips.transpose(1, 2)": len(shape) == 5 and shape[1] == 3,
        "grey: clips.expand(-1, -1, 3, -1, -1)": len(shape) == 5 and shape[2] == 1,
    }
    mend = next((f"; {mend}" for mend, fits in mends.items() if fits), "")
    raise UserError(f"clips of shape {shape}: needed is uint8 (B, T, 3, H, W){mend}")


def _without_real(score: Score) -> Score:
    """Score without floor and notes on real clips, for a metric computed without any."""
    notes = [note for note in score.note.split("; ") if "real clips" not in note]
    return replace(score, floor=math.nan, n_real=0, note="; ".join(notes))


class FrechetVideoDistance(VideoMetric):
    """FVD; lower is better. See `vfbench.metrics.fvd`."""

    higher_is_better = False

    def __init__(self, *, metric: str = "fvd", extractor: str = "i3d", output: str = "logits", **options: Any) -> None:
        super().__init__(metric, extractor, output, **options)


class KernelVideoDistance(VideoMetric):
    """KVD; lower is better. See `vfbench.metrics.kvd`."""

    higher_is_better = False

    def __init__(self, *, metric: str = "kvd", extractor: str = "i3d", output: str = "logits", **options: Any) -> None:
        super().__init__(metric, extractor, output, **options)


class VideoInceptionScore(VideoMetric):
    """IS; higher is better. Real clips are optional and give the floor. See `vfbench.metrics.inception_score`."""

    higher_is_better = True
    needs_real = False

    def __init__(self, *, metric: str = "is", extractor: str = "c3d", output: str = "logits", **options: Any) -> None:
        super().__init__(metric, extractor, output, **options)


class ClipSim(VideoMetric):
    """CLIPSIM; higher is better. Needs the `prompts` of the generated clips. See `vfbench.metrics.clipsim`."""

    higher_is_better = True
    needs_real = False

    def __init__(
        self, *, metric: str = "clipsim", extractor: str = "clip", output: str = "similarity", **options: Any
    ) -> None:
        super().__init__(metric, extractor, output, **options)


__all__ = ["ClipSim", "FrechetVideoDistance", "KernelVideoDistance", "VideoInceptionScore", "VideoMetric"]
