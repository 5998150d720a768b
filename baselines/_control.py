"""What the controls share: they are samplers without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn

from vfbench.interfaces import Clips, ClipShape, Conditioning, Dataset, Request


class Control:
    """A reference row: a sampler that needs no training. A subclass says what its clips are."""

    conditioning: Conditioning = "class"
    networks: ClassVar[Mapping[str, nn.Module]] = {}
    weights = "none"
    reference = True  # a table sets it apart, and never calls it the best

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.shape: ClipShape = dataset.shape

    def real(self, requests: Sequence[Request]) -> Clips:
        """The held-out real clips that the requests were taken from."""
        return torch.cat([self.dataset.clips(request.split, [request.source]) for request in requests])
