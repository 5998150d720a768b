"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vfbench.diffusion.schedule import Prediction

Conditional = Callable[[Tensor, Tensor, Tensor], Prediction]  # (z, t, condition)


def guided(predict: Conditional, z: Tensor, t: Tensor, condition: Tensor, null: Tensor, weight: float) -> Prediction:
    """unconditional + weight (conditional - unconditional), both in one call of the network on a doubled batch.

    Weight 1 is the plain conditional model and costs one half.
    """
    if weight == 1.0:
        return predict(z, t, condition)
    both = predict(torch.cat([z, z]), torch.cat([t, t]), torch.cat([condition, null]))
    given, free = zip(*(part.chunk(2) for part in both), strict=True)
    return Prediction(*(torch.lerp(without, with_, weight) for without, with_ in zip(free, given, strict=True)))
