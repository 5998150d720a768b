"""Numbers about single clips, from the features that a run keeps: nearest real clips, and fit to the caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vfbench.report.kept_clips import read_features
from vfbench.report.results import Result

NEIGHBOURS = 3
_ROWS = 512  # compared at once
_REAL_ROWS = 2048  # whose distance to other real clips is measured


@dataclass(frozen=True)
class ClipNumbers:
    """Numbers about the generated clips of the first draw, in the order of the requests.

    `rows` are the nearest scored real clips of each clip, and `distances` those to them, nearest first: Euclidean, in
    the features named `source`. `between_real` are the distances of real clips to the nearest real clip of another
    video. `fit` is the similarity of each clip to its caption; empty where no such features are kept.
    """

    source: str
    rows: Int[Tensor, "clips neighbours"]
    distances: Float[Tensor, "clips neighbours"]
    between_real: Float[Tensor, " real"]
    fit: Float[Tensor, " clips_with_a_caption"]

    def of(self, index: int) -> dict[str, float]:
        """Numbers about one clip, by title; none for a clip of a later draw."""
        if index >= len(self.distances):
            return {}
        distance = {"nearest real": float(self.distances[index, 0])}
        return {**distance, "fit": float(self.fit[index])} if len(self.fit) else distance


def clip_numbers(record: Result) -> ClipNumbers | None:
    """Numbers about the clips of a run; None where it keeps no features of generated and real clips."""
    features = read_features(record)
    source = _source(record, features, "features")
    if not source:
        return None
    fake, real = features[f"fake.{source}"].double(), features[f"real.0.{source}"].double()
    fake = fake[: record.protocol.n_fake or len(fake)]
    distances, rows = _nearest(fake, real, min(NEIGHBOURS, len(real)))
    groups = features.get("real.0.groups", torch.arange(len(real)))
    fit_source = _source(record, features, "similarity")
    fit = features[f"fake.{fit_source}"].flatten().double()[: len(fake)] if fit_source else torch.zeros(0).double()
    return ClipNumbers(source, rows, distances, _between(real, groups), fit)


def _source(record: Result, features: Mapping[str, Tensor], output: str) -> str:
    """First source with this output that is kept of both sides, of the order of the metrics; empty for none."""
    sources = dict.fromkeys(measure.source for measure in record.protocol.measures.values())
    kept = [name for name in sources if f"fake.{name}" in features and f"real.0.{name}" in features]
    return next((name for name in kept if name.endswith(f".{output}")), "")


def _nearest(
    fake: Float[Tensor, "clips dim"], real: Float[Tensor, "real dim"], count: int
) -> tuple[Float[Tensor, "clips count"], Int[Tensor, "clips count"]]:
    """Distances to the `count` nearest rows of `real`, nearest first, and the numbers of these rows."""
    parts = [torch.cdist(part, real).topk(count, largest=False) for part in torch.split(fake, _ROWS)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _between(real: Float[Tensor, "real dim"], groups: Int[Tensor, " real"]) -> Float[Tensor, " some"]:
    """Distance of the first real clips to the nearest one of another video."""
    nearest = []
    for start in range(0, min(len(real), _REAL_ROWS), _ROWS):
        rows = slice(start, start + _ROWS)
        distances = torch.cdist(real[rows], real)
        distances[groups[rows, None] == groups[None, :]] = torch.inf
        nearest.append(distances.min(dim=1).values)
    return torch.cat(nearest)
