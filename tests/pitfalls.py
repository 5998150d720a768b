"""What the tests of the pitfalls share: a protocol to change a field of, and metrics as one asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from samples import FAKE, LOGITS, REAL
from torch import Tensor

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.interfaces import Metric
from vfbench.protocol.presets import for_dataset, load
from vfbench.protocol.protocol import Protocol
from vfbench.torchmetrics import FrechetVideoDistance, VideoMetric

CPU = torch.device("cpu")
DATA = shapes.build()
COSINES = np.random.default_rng(0).uniform(0.1, 0.9, (96, 1))
INPUTS = {"features": (FAKE, REAL), "logits": (LOGITS[:80], LOGITS)}


def protocol(**changes: Any) -> Protocol:
    """The strict protocol of UCF101, with other fields."""
    fields = for_dataset(load("strict"), "ucf101")
    return Protocol(**{**fields, "name": "mine", "dataset": "ucf101", "data_fingerprint": "00ff", **changes})


def metric(spec: str) -> Metric:
    loaded: Metric = plugins.load("metric", spec)
    return loaded


def inputs(scored: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Generated and real values that a metric reads."""
    return INPUTS.get(scored.output, (COSINES[:80], COSINES))


def judged(kind: type[VideoMetric] = FrechetVideoDistance, **options: Any) -> VideoMetric:
    """A metric of a training loop, with the network that comes with the package."""
    return kind(extractor="shapes_judge", **options)


def seen(loop: VideoMetric, fakes: Sequence[Tensor], reals: Sequence[Tensor]) -> float:
    """What it says after some batches of clips."""
    for real in reals:
        loop.update(real, real=True)
    for fake in fakes:
        loop.update(fake)
    return float(loop.compute())
