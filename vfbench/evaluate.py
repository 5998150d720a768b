"""Features -> scores. Real features go the same way as generated ones and are cached by what determines them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vfbench.errors import BadEnvironment, UserError
from vfbench.files import cache
from vfbench.generate import Wanted, choose
from vfbench.interfaces import Dataset, Groups, Metric, Request, Score, Split, derive_seed
from vfbench.progress import Progress
from vfbench.protocol import SPLITS, Protocol, RealSplit
from vfbench.store import code_version, digest, read_tensors, write_tensors

BATCH = 64
PIECE = 128  # clips whose features are kept in one file


@dataclass(frozen=True)
class Real:
    """Features of the real clips that the generated ones are scored against, and of others that find the floor.

    `groups` has the number of its source video for each of `clips`.
    """

    clips: Mapping[str, Tensor]
    spare: Mapping[str, Tensor] | None
    groups: Int[np.ndarray, " real"]


def real_features(dataset: Dataset, protocol: Protocol, wanted: Wanted, device: torch.device) -> list[Real]:
    """Features of the protocol's `n_real` real clips, and of `n_fake` more where there are as many, for each draw."""
    get = partial(features, dataset, protocol.split, wanted, device)
    return [_drawn(dataset, protocol, get, draw) for draw in range(protocol.repeats)]


def _drawn(dataset: Dataset, protocol: Protocol, get: Callable[[Sequence[int]], dict[str, Tensor]], draw: int) -> Real:
    chosen = select(dataset, protocol, protocol.n_real, draw)
    spare = spares(dataset, protocol, chosen, draw)
    groups = videos(dataset, protocol.split, chosen)
    return Real(get(chosen), get(spare) if len(spare) == protocol.n_fake else None, groups)


def spares(dataset: Dataset, protocol: Protocol, chosen: Sequence[int], draw: int) -> list[int]:
    """`n_fake` clips, or as many as there are, of other videos: one of a scored video would make the floor too low."""
    size, count = available(dataset, protocol.split), protocol.n_real
    found: list[int] = []
    while len(found) < protocol.n_fake and count < size:
        count = min(size, 2 * count + protocol.n_fake)
        more = [*chosen, *select(dataset, protocol, count, draw)]
        if count == size:  # all in order, which is by class more often than not
            more[len(chosen) :] = sorted(
                more[len(chosen) :], key=lambda i: derive_seed(protocol.selection_seed, i, "spare")
            )
        sources = videos(dataset, protocol.split, more)
        taken = set(sources[: len(chosen)].tolist())
        found = [index for index, video in zip(more, sources, strict=True) if video not in taken]
    return found[: protocol.n_fake]


def select(dataset: Dataset, protocol: Protocol, count: int, draw: int) -> list[int]:
    """Which real clips are scored: the first by name, where the dataset tells the `names`, or drawn by hash."""
    size = available(dataset, protocol.split)
    if protocol.selection not in ("sorted", "all"):
        return choose(size, count, protocol.selection_seed + draw)
    order = list(range(size))
    if tell := getattr(dataset, "names", None):
        names = [name for part in SPLITS[protocol.split] for name in tell(part)]
        order.sort(key=names.__getitem__)
    return order[:count]


def videos(dataset: Dataset, split: RealSplit, chosen: Sequence[int]) -> Int[np.ndarray, " real"]:
    """The number of each clip's source video; a dataset that cuts several clips from one says so by `videos`."""
    tell = getattr(dataset, "videos", lambda _, indices: indices)
    found: list[Hashable] = [None] * len(chosen)
    for part, places in _by_split(dataset, split, chosen).items():
        for row, video in zip(places, tell(part, list(places.values())), strict=True):
            found[row] = part, video
    return _numbered(found)


def _numbered(things: Sequence[Hashable]) -> Int[np.ndarray, " _"]:
    """Equal things by equal numbers, from 0 on."""
    numbers = {thing: number for number, thing in enumerate(dict.fromkeys(things))}
    return np.array([numbers[thing] for thing in things])


def features(
    dataset: Dataset,
    split: RealSplit,
    wanted: Wanted,
    device: torch.device,
    chosen: Sequence[int],
    *,
    what: str = "real clips",
) -> dict[str, Tensor]:
    """Features of the chosen clips of a dataset, from the cache where they are there and their hash is right.

    `chosen` are indices into the splits laid end to end; `what` the clips are is told by the progress. They are kept
    piece by piece, so that an interruption loses little.
    """
    networks = {name: extractor.fingerprint for name, extractor in wanted.extractors.items()}
    made_by = [dataset.fingerprint, networks, device.type, code_version(), split, sorted(wanted.names)]
    pieces = [chosen[start : start + PIECE] for start in range(0, len(chosen), PIECE)]
    keys = [digest([*made_by, piece]) for piece in pieces]
    places = [cache() / "real" / f"{dataset.name}-{key[:16]}.safetensors" for key in keys]
    parts = [_kept(path, key) for path, key in zip(places, keys, strict=True)]
    progress = Progress(what, sum(len(piece) for piece, part in zip(pieces, parts, strict=True) if not part), "clips")
    for number, piece in enumerate(pieces):
        if not parts[number]:
            parts[number] = _made(dataset, split, wanted, device, piece, progress)
            _keep(places[number], keys[number], parts[number], what)
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
    wanted: Wanted,
    device: torch.device,
    chosen: Sequence[int],
    progress: Progress,
) -> dict[str, Tensor]:
    parts, rows = [], []
    for part, places in _by_split(dataset, split, chosen).items():
        rows += list(places)
        indices = list(places.values())
        for start in range(0, len(indices), BATCH):
            batch = indices[start : start + BATCH]
            parts.append(_features(dataset, part, batch, wanted, device))
            progress.advance(len(batch))
    order = torch.tensor(rows).argsort()  # as chosen
    return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}


def _features(
    dataset: Dataset, split: Split, indices: Sequence[int], wanted: Wanted, device: torch.device
) -> dict[str, Tensor]:
    rows = zip(indices, dataset.labels(split, indices), dataset.captions(split, indices), strict=True)
    described = [Request(index, 0, label, caption) for index, label, caption in rows]
    return wanted.features(dataset.clips(split, indices, device).cpu(), described)


def available(dataset: Dataset, split: RealSplit) -> int:
    """How many real clips there are to choose from."""
    return sum(dataset.size(part) for part in SPLITS[split])


def _by_split(dataset: Dataset, split: RealSplit, chosen: Sequence[int]) -> dict[Split, dict[int, int]]:
    """Indices into the splits laid end to end, as indices into each of them by their place in `chosen`."""
    found: dict[Split, dict[int, int]] = {}
    start = 0
    for part in SPLITS[split]:
        inside = range(start, start := start + dataset.size(part))
        found[part] = {row: index - inside.start for row, index in enumerate(chosen) if index in inside}
    return found


def require_enough(metrics: Mapping[str, Metric], fakes: int, reals: int | None = None) -> None:
    """Raise `UserError` when a metric means nothing with so few generated, or real, clips."""
    for kind, count in {"generated": fakes, "real": reals}.items():
        short = {
            name: metric.minimum for name, metric in metrics.items() if count is not None and count < metric.minimum
        }
        if short:
            named = ", ".join(f"{name} needs {minimum}" for name, minimum in short.items())
            raise UserError(
                f"{count:,} {kind} clips are too few: {named}; --smoke tries the path with fewer (not comparable)"
            )


def scores(
    protocol: Protocol,
    metrics: Mapping[str, Metric],
    fake: Mapping[str, Tensor],
    reals: Sequence[Real],
    sources: Sequence[Hashable],
) -> dict[str, dict[str, Any]]:
    """Every metric's score as it stands in results.json: one a draw of real clips, averaged.

    `fake` holds the features of as many clips for each draw, one after the other; `sources` says for each what it
    shares with others (the real clip that its prompt was taken from).
    """
    groups = _numbered(sources)
    found = {}
    for name, metric in metrics.items():
        source, drawn = protocol.measures[name].source, []
        for draw, real in enumerate(reals):
            part = slice(draw * protocol.n_fake, (draw + 1) * protocol.n_fake)
            drawn.append(
                metric.score(
                    fake[source][part].numpy(),
                    real.clips[source].numpy(),
                    spare=real.spare[source].numpy() if real.spare else None,
                    groups=Groups(_numbered(groups[part].tolist()), real.groups),
                    seed=protocol.selection_seed + draw,
                )
            )
        found[name] = told(metric, averaged(drawn))
    return found


def made_of(fake: Mapping[str, Tensor], reals: Sequence[Real], sources: Sequence[Hashable]) -> dict[str, Tensor]:
    """All that scores are made of, as tensors with names, for whoever compares two runs or checks a number.

    `fake.SOURCE` and `fake.groups` for the generated clips, `real.DRAW.SOURCE` and `real.DRAW.groups` for the real
    ones; equal numbers in `groups` stand for one source.
    """
    found = {f"fake.{source}": values for source, values in fake.items()}
    found["fake.groups"] = torch.from_numpy(_numbered(sources))
    for draw, real in enumerate(reals):
        found |= {f"real.{draw}.{source}": values for source, values in real.clips.items()}
        found[f"real.{draw}.groups"] = torch.from_numpy(real.groups)
    return found


def averaged(drawn: Sequence[Score]) -> Score:
    """The mean of the scores of several draws of clips.

    The draws share real clips, so the error is that of one draw (the root of the mean square): too large where they
    share none, never too small.
    """
    if len(drawn) == 1:
        return drawn[0]
    values = np.array([score.value for score in drawn])
    error = math.sqrt(np.mean([score.error**2 for score in drawn]))
    notes = dict.fromkeys(score.note for score in drawn)
    limits = [score.limit for score in drawn if score.limit is not None]
    whole = len(limits) == len(drawn)
    said = f"mean of {len(drawn)} draws, standard deviation {values.std(ddof=1):.4g}"
    return replace(
        drawn[0],
        value=float(values.mean()),
        low=float(np.mean([score.low for score in drawn])),
        high=float(np.mean([score.high for score in drawn])),
        floor=float(np.mean([score.floor for score in drawn])),
        note="; ".join(filter(None, [said, *notes])),
        error=error,
        limit=float(np.mean(limits)) if whole else None,
        limit_error=math.sqrt(np.mean([(score.limit_error or 0.0) ** 2 for score in drawn])) if whole else None,
        slope=float(np.mean([score.slope or 0.0 for score in drawn])) if whole else None,
    )


def told(metric: Metric, score: Score) -> dict[str, Any]:
    """A score as it stands in results.json; raises `UserError` where the value is no number."""
    if not math.isfinite(score.value):
        raise UserError(f"{metric.title} is {score.value}: the features are too large to compute with, or broken")
    return {**plain(score), "title": metric.title, "better": metric.better}


def plain(score: Score) -> dict[str, Any]:
    """A score for JSON, which knows no NaN and no infinity: a number that is none is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(score).items()
    }
