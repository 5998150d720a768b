"""Base class of the controls: samplers without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn

from vfbench.interfaces import Clips, ClipShape, Conditioning, Dataset, Request


class Control:
    """A reference row: a sampler that needs no training. A subclass implements `sample`."""

    conditioning: Conditioning = "class"
    networks: ClassVar[Mapping[str, nn.Module]] = {}
    weights = "none"
    reference = True  # tables set it apart and never mark it as the best

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.shape: ClipShape = dataset.shape

    def real(self, requests: Sequence[Request]) -> Clips:
        """The real clips that the requests' labels and prompts come from, uint8 (B, T, 3, H, W)."""
        return torch.cat([self.dataset.clips(request.split, [request.source]) for request in requests])
