"""Features: of real clips, cached chunk by chunk, and of clips as they are generated."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vfbench.clips.manifest import Manifest
from vfbench.errors import BadEnvironment, UserError
from vfbench.interfaces import (
    Clips,
    Dataset,
    Extractor,
    Place,
    Request,
    Split,
)
from vfbench.pipeline.real_clips import by_split, located, videos
from vfbench.pipeline.workers import Worker
from vfbench.protocol.protocol import Protocol, RealSplit
from vfbench.utils import console
from vfbench.utils.environment import code_version
from vfbench.utils.files import cache_folder, json_digest
from vfbench.utils.memory import AdaptiveBatches
from vfbench.utils.progress import Progress
from vfbench.utils.tensor_files import read_tensors, write_tensors

BATCH = 64


CACHE_CHUNK = 128  # clips whose features are kept in one file


@dataclass(frozen=True)
class RealFeatures:
    """Features of the real clips of one draw, and of holdout clips that stand in for generated ones to find the floor.

    `groups` holds the number of the source video of each clip.
    """

    clips: Mapping[str, Tensor]
    holdout: Mapping[str, Tensor] | None
    groups: Int[np.ndarray, " real"]


def real_features(
    dataset: Dataset,
    protocol: Protocol,
    collector: FeatureCollector,
    device: torch.device,
    manifest: Manifest,
    worker: Worker | None = None,
) -> list[RealFeatures]:
    """Features of the real and the holdout clips of a manifest, for each draw.

    `worker` shares the work with the other workers of a run.
    """
    return [
        _features_of_draw(dataset, protocol, collector, device, manifest, number, worker)
        for number in range(protocol.repeats)
    ]


def _features_of_draw(
    dataset: Dataset,
    protocol: Protocol,
    collector: FeatureCollector,
    device: torch.device,
    manifest: Manifest,
    number: int,
    worker: Worker | None,
) -> RealFeatures:
    def compute(places: Sequence[Place], title: str) -> tuple[dict[str, Tensor], Int[np.ndarray, " clips"]]:
        placed, chosen = located(dataset, protocol.split, places)
        values = features(placed, protocol.split, collector, device, chosen, title=title, keys=places, worker=worker)
        return values, group_numbers(videos(placed, protocol.split, chosen))

    clips, groups = compute(manifest.places(number, "real"), "real clips")
    holdout = manifest.places(number, "spare")[: protocol.n_fake]
    complete = len(holdout) == protocol.n_fake
    return RealFeatures(clips, compute(holdout, "real clips for the floor")[0] if complete else None, groups)


def group_numbers(sources: Sequence[Hashable]) -> Int[np.ndarray, " _"]:
    """Number of each source, from 0: equal sources have equal numbers."""
    numbers = {source: number for number, source in enumerate(dict.fromkeys(sources))}
    return np.array([numbers[source] for source in sources])


def features(
    dataset: Dataset,
    split: RealSplit,
    collector: FeatureCollector,
    device: torch.device,
    chosen: Sequence[int],
    *,
    title: str = "real clips",
    keys: Sequence[object] | None = None,
    worker: Worker | None = None,
) -> dict[str, Tensor]:
    """Features of the chosen clips of a dataset, read from the cache where a file is there and its hash is right.

    `chosen` indexes the splits laid end to end. Features are cached in chunks, so that an interruption loses little.
    `keys` identify each clip in the dataset, by default its index. `title` names the clips in the progress. `worker`
    shares the chunks with the other workers of a run.
    """
    networks = {name: extractor.fingerprint for name, extractor in collector.extractors.items()}
    made_by = [dataset.fingerprint, networks, device.type, code_version(), split, sorted(collector.names)]
    chunks = [chosen[start : start + CACHE_CHUNK] for start in range(0, len(chosen), CACHE_CHUNK)]
    keys = chosen if keys is None else keys
    ids = [
        json_digest([*made_by, list(keys[start : start + CACHE_CHUNK])]) for start in range(0, len(chosen), CACHE_CHUNK)
    ]
    files = [cache_folder() / "real" / f"{dataset.name}-{identity[:16]}.safetensors" for identity in ids]
    parts = [_read_cache(path, identity) for path, identity in zip(files, ids, strict=True)]
    missing = {path.stem: number for number, path in enumerate(files) if not parts[number]}
    damaged = {path.stem for path in files if path.exists()} & missing.keys()

    def is_cached(name: str) -> bool:
        """True where another worker has written the chunk by now."""
        number = missing[name]
        if name not in damaged and files[number].exists():
            parts[number] = _read_cache(files[number], ids[number])
        return bool(parts[number])

    beat = worker.beat if worker else None
    with Progress(title, sum(len(chunks[number]) for number in missing.values()), "clips", on_move=beat) as progress:
        for name in worker.share(list(missing), is_cached) if worker else missing:
            number = missing[name]
            parts[number] = _compute_chunk(dataset, split, collector, device, chunks[number], progress)
            _write_cache(files[number], ids[number], parts[number], title)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _read_cache(path: Path, key: str) -> dict[str, Tensor]:
    """Cached features, empty where there are none; prints a warning for a file that is damaged."""
    if not path.exists():
        return {}
    try:
        return read_tensors(path, key=key)[0]
    except ValueError as error:
        console.warn(f"{path} cannot be used: {error}; making it again")
        return {}


def _write_cache(path: Path, key: str, values: Mapping[str, Tensor], title: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, values, key=key)
    except (OSError, BadEnvironment) as error:  # the next run makes them again
        console.warn(f"features of {title} are not kept in {path.parent} ({error})")


def _compute_chunk(
    dataset: Dataset,
    split: RealSplit,
    collector: FeatureCollector,
    device: torch.device,
    chosen: Sequence[int],
    progress: Progress,
) -> dict[str, Tensor]:
    parts, rows = [], []
    for part, by_row in by_split(dataset, split, chosen).items():
        rows += list(by_row)
        indices = list(by_row.values())
        for start in range(0, len(indices), BATCH):
            batch = indices[start : start + BATCH]
            parts.append(_features(dataset, part, batch, collector, device))
            progress.advance(len(batch))
    order = torch.tensor(rows).argsort()  # as chosen
    return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}


def _features(
    dataset: Dataset, split: Split, indices: Sequence[int], collector: FeatureCollector, device: torch.device
) -> dict[str, Tensor]:
    rows = zip(indices, dataset.labels(split, indices), dataset.captions(split, indices), strict=True)
    requests = [Request(index, 0, label, caption) for index, label, caption in rows]
    return collector.features(dataset.clips(split, indices, device).cpu(), requests)


@dataclass(frozen=True)
class FeatureCollector:
    """Collector of what is kept of each clip: outputs of extractors for its scored `frames`, and the clip where asked.

    `batches` remembers how many clips fit into the memory of each extractor.
    """

    extractors: Mapping[str, Extractor]
    outputs: Mapping[str, Sequence[str]]
    clips: bool = False
    frames: slice = field(default_factory=lambda: slice(None))
    batches: dict[str, AdaptiveBatches] = field(default_factory=dict, init=False, compare=False, repr=False)

    def features(self, clips: Clips, requests: Sequence[Request]) -> dict[str, Tensor]:
        """Features by name, `extractor.output`; each extractor sees the clips once.

        Raises `UserError` naming a clip with NaN or infinite features: they are neither scored nor written.
        """
        values = {}
        for name in self.extractors:
            for output, value in self._outputs(name, clips, requests).items():
                if len(bad := (~torch.isfinite(value).all(1)).nonzero()):
                    index = requests[int(bad[0])].index
                    raise UserError(
                        f"{name}.{output} of clip {index} is NaN or infinite: that network or clip is broken"
                    )
                values[f"{name}.{output}"] = value
        return values

    def _outputs(self, name: str, clips: Clips, requests: Sequence[Request]) -> dict[str, Tensor]:
        """The outputs of one extractor, from one pass of its network, or several where memory is short."""
        extractor, outputs = self.extractors[name], self.outputs[name]

        def run(rows: Sequence[int]) -> Mapping[str, Tensor]:
            part = slice(rows[0], rows[-1] + 1)
            return extractor(clips[part], requests[part], outputs)

        def describe(rows: Sequence[int]) -> str:
            return f"{name}: {len(rows)} clip{'s' * (len(rows) > 1)}"

        batches = self.batches.setdefault(name, AdaptiveBatches())
        parts = [part for _, part in batches.each(range(len(clips)), run, describe)]
        return {output: torch.cat([part[output] for part in parts]) for output in parts[0]}

    @property
    def widths(self) -> dict[str, int]:
        """Length of each feature by name, `extractor.output`."""
        return {f"{n}.{o}": self.extractors[n].outputs[o] for n, outputs in self.outputs.items() for o in outputs}

    @property
    def names(self) -> set[str]:
        """Names of the tensors that a chunk must hold."""
        return {*self.widths, *(["clips"] if self.clips else [])}
