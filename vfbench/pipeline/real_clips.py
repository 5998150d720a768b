"""Which real clips are scored: drawn, found again, looked at. A choice follows from names and seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, count

import numpy as np
import torch
from jaxtyping import UInt64
from torch import Tensor

from vfbench.clips.manifest import Manifest, Role, Row
from vfbench.errors import MissingData
from vfbench.interfaces import Clips, Dataset, Place, Split, derive_seed
from vfbench.protocol.protocol import SPLITS, Protocol, RealSplit


def draw(dataset: Dataset, protocol: Protocol) -> Manifest:
    """The list of the protocol's `n_real` real clips, and of `n_fake` spare ones if there are as many, for each draw.

    It follows from the protocol and the videos alone: from no worker, no order of files, no platform.
    """
    rows: list[Row] = []
    for number in range(protocol.repeats):
        chosen = select(dataset, protocol, protocol.n_real, number)
        holdout = holdout_clips(dataset, protocol, chosen, number)
        roles: Mapping[Role, Sequence[int]] = {
            "real": chosen,
            "spare": holdout if len(holdout) == protocol.n_fake else [],
        }
        for role, indices in roles.items():
            places = _places(dataset, protocol, indices, number)
            rows += [Row(number, role, place) for place in places]
    return Manifest(tuple(rows))


def _places(dataset: Dataset, protocol: Protocol, chosen: Sequence[int], number: int) -> list[Place]:
    """Where the chosen clips come from; in a dataset that does not cut its clips from videos, each is one itself."""
    found: dict[int, Place] = {}
    shape = dataset.shape
    for part, rows in by_split(dataset, protocol.split, chosen).items():
        indices = list(rows.values())
        if tell := getattr(dataset, "places", None):
            places = tell(part, indices, protocol.selection_seed + number)
        else:
            places = [Place(part, str(index), 0, 1, (0, 0, shape.width, shape.height)) for index in indices]
        found |= dict(zip(rows, places, strict=True))
    return [found[row] for row in range(len(chosen))]


def located(dataset: Dataset, split: RealSplit, places: Sequence[Place]) -> tuple[Dataset, list[int]]:
    """A dataset that has the clips at these places, and their indices into its splits laid end to end.

    Raises `MissingData` where the dataset has no such clip.
    """
    if beyond := [place for place in places if place.split not in SPLITS[split]]:
        raise MissingData(f"{beyond[0].video} is of split {beyond[0].split}, and the protocol scores {split}")
    cut = getattr(dataset, "at", None)
    there: Dataset = cut(places) if cut else dataset
    ends = accumulate((there.size(part) for part in SPLITS[split]), initial=0)
    starts = dict(zip(SPLITS[split], ends, strict=False))
    if cut:
        counts = {part: count(start) for part, start in starts.items()}
        return there, [next(counts[place.split]) for place in places]
    for place in places:
        if not (place.video.isdecimal() and int(place.video) < there.size(place.split)):
            raise MissingData(f"{dataset.name} has no {place.split} clip {place.video}")
    return there, [starts[place.split] + int(place.video) for place in places]


def shown(dataset: Dataset, places: Sequence[Place]) -> tuple[Clips, list[str]]:
    """The clips at these places, uint8 (B, T, 3, H, W) on the CPU, and their captions."""
    there, chosen = located(dataset, "both", places)
    clips: dict[int, Tensor] = {}
    captions: dict[int, str] = {}
    for part, rows in by_split(there, "both", chosen).items():
        indices = list(rows.values())
        clips |= dict(zip(rows, there.clips(part, indices).cpu(), strict=True))
        captions |= dict(zip(rows, there.captions(part, indices), strict=True))
    order = range(len(places))
    return torch.stack([clips[row] for row in order]), [captions[row] for row in order]


def holdout_clips(dataset: Dataset, protocol: Protocol, chosen: Sequence[int], draw: int) -> list[int]:
    """`n_fake` clips, or as many as there are, of other videos: one of a scored video would make the floor too low."""
    size, count = available(dataset, protocol.split), protocol.n_real
    found: list[int] = []
    while len(found) < protocol.n_fake and count < size:
        count = min(size, 2 * count + protocol.n_fake)
        rest = select(dataset, protocol, count, draw)
        if count == size:  # all in order, which is by class more often than not
            rest = _shuffled(dataset, protocol, rest)
        more = [*chosen, *rest]
        sources = videos(dataset, protocol.split, more)
        taken = set(sources[: len(chosen)])
        found = [index for index, video in zip(more, sources, strict=True) if video not in taken]
    return found[: protocol.n_fake]


def select(dataset: Dataset, protocol: Protocol, count: int, draw: int) -> list[int]:
    """Which real clips are scored, in order: the first by name, or those drawn by hash of name and seed.

    A dataset tells `names` and, for the draw, `keys`; one that does not has its clips taken, and drawn, by number.
    """
    size, seed = available(dataset, protocol.split), protocol.selection_seed + draw
    if protocol.selection in ("sorted", "all"):
        order = list(range(size))
        if tell := getattr(dataset, "names", None):
            names = [name for part in SPLITS[protocol.split] for name in tell(part)]
            order.sort(key=names.__getitem__)
        return order[:count]
    keys = _keys(dataset, protocol, seed)
    return choose(size, count, seed) if keys is None else [int(i) for i in np.argsort(keys, kind="stable")[:count]]


def _keys(dataset: Dataset, protocol: Protocol, seed: int) -> UInt64[np.ndarray, " clips"] | None:
    """What each clip is drawn by, if the dataset tells it."""
    tell = getattr(dataset, "keys", None)
    return np.concatenate([tell(part, seed) for part in SPLITS[protocol.split]]) if tell else None


def _shuffled(dataset: Dataset, protocol: Protocol, indices: Sequence[int]) -> list[int]:
    """The same clips in an order drawn by the seed: by what each is drawn by, or by its number."""
    keys = _keys(dataset, protocol, derive_seed(protocol.selection_seed, 0, "spare"))
    if keys is not None:
        return sorted(indices, key=keys.__getitem__)
    return sorted(indices, key=lambda index: derive_seed(protocol.selection_seed, index, "spare"))


def videos(dataset: Dataset, split: RealSplit, chosen: Sequence[int]) -> list[tuple[Split, int]]:
    """Each clip's source video, known by its number; a dataset that cuts several clips from one says so by `videos`."""
    tell = getattr(dataset, "videos", lambda _, indices: indices)
    found: dict[int, tuple[Split, int]] = {}
    for part, places in by_split(dataset, split, chosen).items():
        found |= {row: (part, video) for row, video in zip(places, tell(part, list(places.values())), strict=True)}
    return [found[row] for row in range(len(chosen))]


def choose(size: int, count: int, seed: int) -> list[int]:
    """`count` different indices below `size`, by hash: the same on every machine; all in order if there are no more."""
    if count >= size:
        return list(range(size))
    chosen: dict[int, None] = {}
    for draw in range(100 * count):
        chosen[derive_seed(seed, draw, "choice") % size] = None
        if len(chosen) == count:
            return list(chosen)
    return sorted(range(size), key=lambda index: derive_seed(seed, index, "choice"))[:count]  # count is close to size


def available(dataset: Dataset, split: RealSplit) -> int:
    """How many real clips there are to choose from."""
    return sum(dataset.size(part) for part in SPLITS[split])


def by_split(dataset: Dataset, split: RealSplit, chosen: Sequence[int]) -> dict[Split, dict[int, int]]:
    """Indices into the splits laid end to end, as indices into each of them by their place in `chosen`."""
    found: dict[Split, dict[int, int]] = {}
    start = 0
    for part in SPLITS[split]:
        inside = range(start, start := start + dataset.size(part))
        if rows := {row: index - inside.start for row, index in enumerate(chosen) if index in inside}:
            found[part] = rows
    return found
