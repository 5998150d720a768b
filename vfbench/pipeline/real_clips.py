"""Selection of the real clips that are scored. It follows from names and seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, count

import numpy as np
import torch
from jaxtyping import UInt64
from torch import Tensor

from vfbench.clips.manifest import Manifest, ManifestRow, Role
from vfbench.errors import MissingData
from vfbench.interfaces import (
    Clips,
    Dataset,
    GroupedClips,
    NamedClips,
    Place,
    PlacedClips,
    Split,
    derive_seed,
    derive_seeds,
)
from vfbench.protocol.protocol import SPLITS, Protocol, RealSplit

DRAWS = 4096  # hashes at once


def draw(dataset: Dataset, protocol: Protocol) -> Manifest:
    """The manifest of `n_real` real clips and, where there are enough, `n_fake` holdout clips for each draw.

    It follows from the protocol and the videos alone, not from workers, the order of files or the platform.
    """
    rows: list[ManifestRow] = []
    for number in range(protocol.repeats):
        chosen = select(dataset, protocol, protocol.n_real, number)
        holdout = holdout_clips(dataset, protocol, chosen, number)
        roles: Mapping[Role, Sequence[int]] = {
            "real": chosen,
            "spare": holdout if len(holdout) == protocol.n_fake else [],
        }
        for role, indices in roles.items():
            places = _places(dataset, protocol, indices, number)
            rows += [ManifestRow(number, role, place) for place in places]
    return Manifest(tuple(rows))


def _places(dataset: Dataset, protocol: Protocol, chosen: Sequence[int], number: int) -> list[Place]:
    """Positions of the chosen clips; without `PlacedClips`, each clip is a video of its own."""
    by_row: dict[int, Place] = {}
    whole = (0, 0, dataset.shape.width, dataset.shape.height)
    for part, rows in by_split(dataset, protocol.split, chosen).items():
        indices = list(rows.values())
        if isinstance(dataset, PlacedClips):
            places = dataset.places(part, indices, protocol.selection_seed + number)
        else:
            places = [Place(part, str(index), 0, 1, whole) for index in indices]
        by_row |= dict(zip(rows, places, strict=True))
    return [by_row[row] for row in range(len(chosen))]


def located(dataset: Dataset, split: RealSplit, places: Sequence[Place]) -> tuple[Dataset, list[int]]:
    """A dataset that has the clips at these places, and their indices into its splits laid end to end.

    Raises `MissingData` where the dataset has no such clip.
    """
    if outside := [place for place in places if place.split not in SPLITS[split]]:
        raise MissingData(f"{outside[0].video} is of split {outside[0].split}, and the protocol scores {split}")
    placed: Dataset = dataset.at(places) if isinstance(dataset, PlacedClips) else dataset
    ends = accumulate((placed.size(part) for part in SPLITS[split]), initial=0)
    starts = dict(zip(SPLITS[split], ends, strict=False))
    if isinstance(dataset, PlacedClips):
        counts = {part: count(start) for part, start in starts.items()}
        return placed, [next(counts[place.split]) for place in places]
    for place in places:
        if not (place.video.isdecimal() and int(place.video) < placed.size(place.split)):
            raise MissingData(f"{dataset.name} has no {place.split} clip {place.video}")
    return placed, [starts[place.split] + int(place.video) for place in places]


def preview_clips(dataset: Dataset, places: Sequence[Place]) -> tuple[Clips, list[str]]:
    """The clips at these places, uint8 (B, T, 3, H, W) on the CPU, and their captions."""
    placed, chosen = located(dataset, "both", places)
    clips: dict[int, Tensor] = {}
    captions: dict[int, str] = {}
    for part, rows in by_split(placed, "both", chosen).items():
        indices = list(rows.values())
        clips |= dict(zip(rows, placed.clips(part, indices).cpu(), strict=True))
        captions |= dict(zip(rows, placed.captions(part, indices), strict=True))
    order = range(len(places))
    return torch.stack([clips[row] for row in order]), [captions[row] for row in order]


def holdout_clips(dataset: Dataset, protocol: Protocol, chosen: Sequence[int], draw: int) -> list[int]:
    """`n_fake` clips, or as many as there are, of other videos: one of a scored video would make the floor too low."""
    size, count = available(dataset, protocol.split), protocol.n_real
    others: list[int] = []
    while len(others) < protocol.n_fake and count < size:
        count = min(size, 2 * count + protocol.n_fake)
        candidates = select(dataset, protocol, count, draw)
        if count == size:  # all in order, which is by class more often than not
            candidates = _shuffled(dataset, protocol, candidates)
        scored = set(videos(dataset, protocol.split, chosen))
        sources = videos(dataset, protocol.split, candidates)
        others = [index for index, video in zip(candidates, sources, strict=True) if video not in scored]
    return others[: protocol.n_fake]


def select(dataset: Dataset, protocol: Protocol, count: int, draw: int) -> list[int]:
    """Indices of the first `count` real clips in the order of the protocol's `selection`.

    `sorted` and `all` order clips by name, the others by a hash of name and seed. `every-tenth` takes evenly spaced
    clips of every tenth one by name, then the others if these are too few. Without `NamedClips`, the number of a clip
    stands for its name.
    """
    size, seed = available(dataset, protocol.split), protocol.selection_seed + draw
    if protocol.selection in ("sorted", "all", "every-tenth"):
        order = list(range(size))
        if isinstance(dataset, NamedClips):
            names = [name for part in SPLITS[protocol.split] for name in dataset.names(part)]
            order.sort(key=names.__getitem__)
        return (_every_tenth(order, count) if protocol.selection == "every-tenth" else order)[:count]
    keys = _keys(dataset, protocol, seed)
    return choose(size, count, seed) if keys is None else [int(i) for i in np.argsort(keys, kind="stable")[:count]]


def _every_tenth(order: Sequence[int], count: int) -> list[int]:
    """`count` of every tenth of `order`, evenly spaced, then all others.

    As MCVD's datasets/ucf101.py takes them, but that it repeats some where every tenth gives fewer than `count`.
    """
    tenths = order[: len(order) // 10 * 10 : 10]
    rows = range(min(count, len(tenths)))
    spaced = [tenths[round(row / max(len(rows) - 1, 1) * (len(tenths) - 1))] for row in rows]
    taken = set(spaced)
    return [*spaced, *(index for index in order if index not in taken)]


def _keys(dataset: Dataset, protocol: Protocol, seed: int) -> UInt64[np.ndarray, " clips"] | None:
    """Sort keys of all clips, None where they have no names."""
    if not isinstance(dataset, NamedClips):
        return None
    return np.concatenate([dataset.keys(part, seed) for part in SPLITS[protocol.split]])


def _shuffled(dataset: Dataset, protocol: Protocol, indices: Sequence[int]) -> list[int]:
    """The clips `indices`, in an order drawn by the seed."""
    keys = _keys(dataset, protocol, derive_seed(protocol.selection_seed, 0, "spare"))
    if keys is not None:
        return sorted(indices, key=keys.__getitem__)
    return _sorted_by(derive_seeds(protocol.selection_seed, indices, "spare"), indices)


def videos(dataset: Dataset, split: RealSplit, chosen: Sequence[int]) -> list[tuple[Split, int]]:
    """Split and number of each clip's video; without `GroupedClips`, each clip is a video of its own."""
    by_row: dict[int, tuple[Split, int]] = {}
    for part, rows in by_split(dataset, split, chosen).items():
        indices = list(rows.values())
        numbers = dataset.videos(part, indices) if isinstance(dataset, GroupedClips) else indices
        by_row |= {row: (part, number) for row, number in zip(rows, numbers, strict=True)}
    return [by_row[row] for row in range(len(chosen))]


def choose(size: int, count: int, seed: int) -> list[int]:
    """`count` different indices below `size`, drawn by hash; all of them in order where `count >= size`."""
    if count >= size:
        return list(range(size))
    chosen: dict[int, None] = {}
    for start in range(0, 100 * count, DRAWS):
        draws = derive_seeds(seed, range(start, start + DRAWS), "choice")
        chosen |= dict.fromkeys(draw % size for draw in draws)
        if len(chosen) >= count:
            return list(chosen)[:count]
    return _sorted_by(derive_seeds(seed, range(size), "choice"), range(size))[:count]  # count is close to size


def _sorted_by(keys: Sequence[int], values: Sequence[int]) -> list[int]:
    return [values[int(row)] for row in np.argsort(np.array(keys), kind="stable")]


def available(dataset: Dataset, split: RealSplit) -> int:
    """Number of real clips in the splits that the protocol scores."""
    return sum(dataset.size(part) for part in SPLITS[split])


def by_split(dataset: Dataset, split: RealSplit, chosen: Sequence[int]) -> dict[Split, dict[int, int]]:
    """For each split, position in `chosen` -> index into that split; `chosen` indexes the splits laid end to end."""
    indices: dict[Split, dict[int, int]] = {}
    start = 0
    for part in SPLITS[split]:
        inside = range(start, start := start + dataset.size(part))
        if rows := {row: index - inside.start for row, index in enumerate(chosen) if index in inside}:
            indices[part] = rows
    return indices
