"""Features -> scores. Real features go the same way as generated ones and are cached by what determines them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vfbench.errors import UserError
from vfbench.generate import Wanted, choose
from vfbench.interfaces import Dataset, Metric, Request
from vfbench.progress import Progress
from vfbench.protocol import Protocol
from vfbench.store import digest, read_tensors, write_tensors

BATCH = 64


def cache() -> Path:
    """Where real features are kept: VFBENCH_CACHE, or `vfbench` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("VFBENCH_CACHE") or Path(base) / "vfbench")


def real_features(dataset: Dataset, protocol: Protocol, wanted: Wanted, device: torch.device) -> dict[str, Tensor]:
    """Features of the protocol's real clips, from the cache when their hash is right."""
    indices = choose(dataset.size(protocol.split), protocol.n_real, protocol.selection_seed)
    key = digest([dataset.fingerprint, protocol.split, indices, protocol.extractors, sorted(wanted.names), device.type])
    path = cache() / "real" / f"{dataset.name}-{key[:16]}.safetensors"
    if path.exists():
        try:
            return read_tensors(path)[0]
        except ValueError as error:
            print(f"{path} is damaged: {error}; making it again", file=sys.stderr)
    progress = Progress("real clips", len(indices), "clips")
    parts = []
    for start in range(0, len(indices), BATCH):
        batch = indices[start : start + BATCH]
        captions, labels = dataset.captions(protocol.split, batch), dataset.labels(protocol.split, batch)
        rows = zip(batch, labels, captions, strict=True)
        described = [Request(index, 0, label, caption) for index, label, caption in rows]
        parts.append(wanted.features(dataset.clips(protocol.split, batch, device).cpu(), described))
        progress.advance(len(batch))
    features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, features)
    return features


def require_enough(metrics: Mapping[str, Metric], count: int) -> None:
    """Raise `UserError` when a metric means nothing with so few clips."""
    if short := {name: metric.minimum for name, metric in metrics.items() if count < metric.minimum}:
        named = ", ".join(f"{name} needs {minimum}" for name, minimum in short.items())
        raise UserError(
            f"--num-samples {count} is too few: {named}; --smoke tries the path with fewer (not comparable)"
        )


def scores(
    protocol: Protocol, metrics: Mapping[str, Metric], fake: Mapping[str, Tensor], real: Mapping[str, Tensor]
) -> dict[str, dict[str, Any]]:
    """Every metric's score as it stands in results.json."""
    found = {}
    for name, metric in metrics.items():
        source = protocol.measures[name].source
        score = metric.score(fake[source].numpy(), real[source].numpy(), seed=protocol.selection_seed)
        found[name] = {**asdict(score), "title": metric.title, "better": metric.better}
    return found
