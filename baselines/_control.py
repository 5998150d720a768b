"""What the controls share: they are samplers without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from vfbench.interfaces import Clips, ClipShape, Conditioning, Dataset, Request, Split

PROMPTS: Split = "test"  # the split that requests, and so the controls' clips, are taken from


class Control:
    """A reference row: a sampler that needs no training. A subclass says what its clips are."""

    conditioning: Conditioning = "class"
    networks: ClassVar[Mapping[str, nn.Module]] = {}
    weights = "none"

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.shape: ClipShape = dataset.shape

    def real(self, requests: Sequence[Request]) -> Clips:
        """The held-out real clips that the requests were taken from."""
        return self.dataset.clips(PROMPTS, [request.source for request in requests])
