"""Features of real clips, computed piece by piece and cached; and what is kept of generated ones."""

from __future__ import annotations

import sys
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
from vfbench.protocol.protocol import Protocol, RealSplit
from vfbench.utils.environment import code_version
from vfbench.utils.files import cache
from vfbench.utils.memory import AdaptiveBatches
from vfbench.utils.progress import Progress
from vfbench.utils.tensor_files import digest, read_tensors, write_tensors

BATCH = 64


CACHE_CHUNK = 128  # clips whose features are kept in one file


@dataclass(frozen=True)
class Real:
    """Features of the real clips that the generated ones are scored against, and of others that find the floor.

    `groups` has the number of its source video for each of `clips`.
    """

    clips: Mapping[str, Tensor]
    holdout: Mapping[str, Tensor] | None
    groups: Int[np.ndarray, " real"]


def real_features(
    dataset: Dataset, protocol: Protocol, wanted: FeatureCollector, device: torch.device, manifest: Manifest
) -> list[Real]:
    """Features of the listed real clips, and of `n_fake` spare ones where there are as many, for each draw."""
    return [_drawn(dataset, protocol, wanted, device, manifest, number) for number in range(protocol.repeats)]


def _drawn(
    dataset: Dataset,
    protocol: Protocol,
    wanted: FeatureCollector,
    device: torch.device,
    manifest: Manifest,
    number: int,
) -> Real:
    def get(places: Sequence[Place], what: str) -> tuple[dict[str, Tensor], Int[np.ndarray, " clips"]]:
        there, chosen = located(dataset, protocol.split, places)
        found = features(there, protocol.split, wanted, device, chosen, what=what, keys=places)
        return found, numbered(videos(there, protocol.split, chosen))

    clips, groups = get(manifest.places(number, "real"), "real clips")
    holdout = manifest.places(number, "spare")[: protocol.n_fake]
    return Real(clips, get(holdout, "spare real clips")[0] if len(holdout) == protocol.n_fake else None, groups)


def numbered(things: Sequence[Hashable]) -> Int[np.ndarray, " _"]:
    """Equal things by equal numbers, from 0 on."""
    numbers = {thing: number for number, thing in enumerate(dict.fromkeys(things))}
    return np.array([numbers[thing] for thing in things])


def features(
    dataset: Dataset,
    split: RealSplit,
    wanted: FeatureCollector,
    device: torch.device,
    chosen: Sequence[int],
    *,
    what: str = "real clips",
    keys: Sequence[object] | None = None,
) -> dict[str, Tensor]:
    """Features of the chosen clips of a dataset, from the cache where they are there and their hash is right.

    `chosen` are indices into the splits laid end to end; `what` the clips are is told by the progress. They are kept
    piece by piece, so that an interruption loses little; `keys` tell a clip from all others of the dataset, by default
    its index.
    """
    networks = {name: extractor.fingerprint for name, extractor in wanted.extractors.items()}
    made_by = [dataset.fingerprint, networks, device.type, code_version(), split, sorted(wanted.names)]
    pieces = [chosen[start : start + CACHE_CHUNK] for start in range(0, len(chosen), CACHE_CHUNK)]
    known = chosen if keys is None else keys
    ids = [digest([*made_by, list(known[start : start + CACHE_CHUNK])]) for start in range(0, len(chosen), CACHE_CHUNK)]
    files = [cache() / "real" / f"{dataset.name}-{identity[:16]}.safetensors" for identity in ids]
    parts = [_kept(path, identity) for path, identity in zip(files, ids, strict=True)]
    progress = Progress(what, sum(len(piece) for piece, part in zip(pieces, parts, strict=True) if not part), "clips")
    for number, piece in enumerate(pieces):
        if not parts[number]:
            parts[number] = _made(dataset, split, wanted, device, piece, progress)
            _keep(files[number], ids[number], parts[number], what)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _kept(path: Path, key: str) -> dict[str, Tensor]:
    """Features that were kept, or nothing; says so when a file is there that is not right."""
    if not path.exists():
        return {}
    try:
        return read_tensors(path, key=key)[0]
    except ValueError as error:
        print(f"{path} cannot be used: {error}; making it again", file=sys.stderr)
        return {}


def _keep(path: Path, key: str, found: Mapping[str, Tensor], what: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, found, key=key)
    except (OSError, BadEnvironment) as error:  # the next run makes them again
        print(f"warning: features of {what} are not kept in {path.parent} ({error})", file=sys.stderr)


def _made(
    dataset: Dataset,
    split: RealSplit,
    wanted: FeatureCollector,
    device: torch.device,
    chosen: Sequence[int],
    progress: Progress,
) -> dict[str, Tensor]:
    parts, rows = [], []
    for part, places in by_split(dataset, split, chosen).items():
        rows += list(places)
        indices = list(places.values())
        for start in range(0, len(indices), BATCH):
            batch = indices[start : start + BATCH]
            parts.append(_features(dataset, part, batch, wanted, device))
            progress.advance(len(batch))
    order = torch.tensor(rows).argsort()  # as chosen
    return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}


def _features(
    dataset: Dataset, split: Split, indices: Sequence[int], wanted: FeatureCollector, device: torch.device
) -> dict[str, Tensor]:
    rows = zip(indices, dataset.labels(split, indices), dataset.captions(split, indices), strict=True)
    described = [Request(index, 0, label, caption) for index, label, caption in rows]
    return wanted.features(dataset.clips(split, indices, device).cpu(), described)


@dataclass(frozen=True)
class FeatureCollector:
    """What is to be kept of each clip: outputs of extractors, of its frames that are scored, and the clip itself.

    `batches` says how many clips each extractor has found to fit into the memory.
    """

    extractors: Mapping[str, Extractor]
    outputs: Mapping[str, Sequence[str]]
    clips: bool = False
    frames: slice = field(default_factory=lambda: slice(None))
    batches: dict[str, AdaptiveBatches] = field(default_factory=dict, init=False, compare=False, repr=False)

    def features(self, clips: Clips, requests: Sequence[Request]) -> dict[str, Tensor]:
        """All asked outputs as `extractor.output`, each from one pass of its network.

        Raises `UserError` naming the clip for NaN or infinity: no score is made of it, and no file keeps it.
        """
        found = {}
        for name in self.extractors:
            for output, value in self._outputs(name, clips, requests).items():
                if len(bad := (~torch.isfinite(value).all(1)).nonzero()):
                    broken = requests[int(bad[0])].index
                    raise UserError(
                        f"{name}.{output} of clip {broken} is NaN or infinite: that network or clip is broken"
                    )
                found[f"{name}.{output}"] = value
        return found

    def _outputs(self, name: str, clips: Clips, requests: Sequence[Request]) -> dict[str, Tensor]:
        """The asked outputs of one extractor, from one pass of its network or from as many as its memory wants."""
        extractor, outputs = self.extractors[name], self.outputs[name]

        def run(rows: Sequence[int]) -> Mapping[str, Tensor]:
            part = slice(rows[0], rows[-1] + 1)
            return extractor(clips[part], requests[part], outputs)

        def named(rows: Sequence[int]) -> str:
            return f"{name}: {len(rows)} clip{'s' * (len(rows) > 1)}"

        batches = self.batches.setdefault(name, AdaptiveBatches())
        found = [part for _, part in batches.each(range(len(clips)), run, named)]
        return {output: torch.cat([part[output] for part in found]) for output in found[0]}

    @property
    def names(self) -> set[str]:
        """The tensors a chunk must hold."""
        features = {f"{name}.{output}" for name, outputs in self.outputs.items() for output in outputs}
        return features | ({"clips"} if self.clips else set())
