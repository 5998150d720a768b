"""Features -> scores. Real features go the same way as generated ones and are cached by what determines them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vfbench.errors import BadEnvironment, UserError
from vfbench.files import cache
from vfbench.generate import Wanted, choose
from vfbench.interfaces import Dataset, Metric, Request, Score, Split
from vfbench.progress import Progress
from vfbench.protocol import SPLITS, Protocol, RealSplit
from vfbench.store import code_version, digest, read_tensors, write_tensors

BATCH = 64


@dataclass(frozen=True)
class Real:
    """Features of the real clips that the generated ones are scored against, and of others that find the floor."""

    clips: Mapping[str, Tensor]
    spare: Mapping[str, Tensor] | None


def real_features(dataset: Dataset, protocol: Protocol, wanted: Wanted, device: torch.device) -> Real:
    """Features of the protocol's `n_real` real clips, and of `n_fake` more where there are as many."""
    size = available(dataset, protocol.split)
    chosen = choose(size, protocol.n_real, protocol.selection_seed)
    taken = set(chosen)
    more = choose(size, protocol.n_real + protocol.n_fake, protocol.selection_seed)
    spare = [index for index in more if index not in taken][: protocol.n_fake]
    get = partial(_cached, dataset, protocol, wanted, device)
    return Real(get(chosen), get(spare) if len(spare) == protocol.n_fake else None)


def _cached(
    dataset: Dataset, protocol: Protocol, wanted: Wanted, device: torch.device, chosen: Sequence[int]
) -> dict[str, Tensor]:
    """Features of the chosen real clips, from the cache when they are there and their hash is right."""
    made_by = [dataset.fingerprint, protocol.extractors, device.type, code_version()]
    key = digest([*made_by, protocol.split, chosen, sorted(wanted.names)])
    path = cache() / "real" / f"{dataset.name}-{key[:16]}.safetensors"
    if path.exists():
        try:
            return read_tensors(path, key=key)[0]
        except ValueError as error:
            print(f"{path} cannot be used: {error}; making it again", file=sys.stderr)
    progress = Progress("real clips", len(chosen), "clips")
    parts = []
    for split, indices in _by_split(dataset, protocol.split, chosen).items():
        for start in range(0, len(indices), BATCH):
            batch = indices[start : start + BATCH]
            parts.append(_features(dataset, split, batch, wanted, device))
            progress.advance(len(batch))
    features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, features, key=key)
    except (OSError, BadEnvironment) as error:  # the next run makes them again
        print(f"warning: features of real clips are not kept in {path.parent} ({error})", file=sys.stderr)
    return features


def _features(
    dataset: Dataset, split: Split, indices: Sequence[int], wanted: Wanted, device: torch.device
) -> dict[str, Tensor]:
    rows = zip(indices, dataset.labels(split, indices), dataset.captions(split, indices), strict=True)
    described = [Request(index, 0, label, caption) for index, label, caption in rows]
    return wanted.features(dataset.clips(split, indices, device).cpu(), described)


def available(dataset: Dataset, split: RealSplit) -> int:
    """How many real clips there are to choose from."""
    return sum(dataset.size(part) for part in SPLITS[split])


def _by_split(dataset: Dataset, split: RealSplit, chosen: Sequence[int]) -> dict[Split, list[int]]:
    """Indices into the splits laid end to end, as indices into each of them."""
    found: dict[Split, list[int]] = {}
    start = 0
    for part in SPLITS[split]:
        inside = range(start, start := start + dataset.size(part))
        found[part] = [index - inside.start for index in chosen if index in inside]
    return found


def require_enough(metrics: Mapping[str, Metric], count: int) -> None:
    """Raise `UserError` when a metric means nothing with so few clips."""
    if short := {name: metric.minimum for name, metric in metrics.items() if count < metric.minimum}:
        named = ", ".join(f"{name} needs {minimum}" for name, minimum in short.items())
        raise UserError(
            f"--num-samples {count} is too few: {named}; --smoke tries the path with fewer (not comparable)"
        )


def scores(
    protocol: Protocol, metrics: Mapping[str, Metric], fake: Mapping[str, Tensor], real: Real
) -> dict[str, dict[str, Any]]:
    """Every metric's score as it stands in results.json."""
    found = {}
    for name, metric in metrics.items():
        source = protocol.measures[name].source
        spare = real.spare[source].numpy() if real.spare else None
        score = metric.score(
            fake[source].numpy(), real.clips[source].numpy(), spare=spare, seed=protocol.selection_seed
        )
        found[name] = {**_plain(score), "title": metric.title, "better": metric.better}
    return found


def _plain(score: Score) -> dict[str, Any]:
    """A score for JSON, which knows no NaN and no infinity: a number that is none is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(score).items()
    }
