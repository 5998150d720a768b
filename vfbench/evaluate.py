"""Features -> scores. Real features go the same way as generated ones and are cached by what determines them."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vfbench.errors import BadEnvironment, UserError
from vfbench.files import cache
from vfbench.generate import Wanted
from vfbench.interfaces import Dataset, Groups, Metric, Place, Request, Score, Split
from vfbench.manifest import Manifest
from vfbench.progress import Progress
from vfbench.protocol import Protocol, RealSplit
from vfbench.selection import by_split, located, videos
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


def real_features(
    dataset: Dataset, protocol: Protocol, wanted: Wanted, device: torch.device, manifest: Manifest
) -> list[Real]:
    """Features of the listed real clips, and of `n_fake` spare ones where there are as many, for each draw."""
    return [_drawn(dataset, protocol, wanted, device, manifest, number) for number in range(protocol.repeats)]


def _drawn(
    dataset: Dataset, protocol: Protocol, wanted: Wanted, device: torch.device, manifest: Manifest, number: int
) -> Real:
    def get(places: Sequence[Place], what: str) -> tuple[dict[str, Tensor], Int[np.ndarray, " clips"]]:
        there, chosen = located(dataset, protocol.split, places)
        found = features(there, protocol.split, wanted, device, chosen, what=what, keys=places)
        return found, _numbered(videos(there, protocol.split, chosen))

    clips, groups = get(manifest.places(number, "real"), "real clips")
    spare = manifest.places(number, "spare")[: protocol.n_fake]
    return Real(clips, get(spare, "spare real clips")[0] if len(spare) == protocol.n_fake else None, groups)


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
    keys: Sequence[object] | None = None,
) -> dict[str, Tensor]:
    """Features of the chosen clips of a dataset, from the cache where they are there and their hash is right.

    `chosen` are indices into the splits laid end to end; `what` the clips are is told by the progress. They are kept
    piece by piece, so that an interruption loses little; `keys` tell a clip from all others of the dataset, by default
    its index.
    """
    networks = {name: extractor.fingerprint for name, extractor in wanted.extractors.items()}
    made_by = [dataset.fingerprint, networks, device.type, code_version(), split, sorted(wanted.names)]
    pieces = [chosen[start : start + PIECE] for start in range(0, len(chosen), PIECE)]
    known = chosen if keys is None else keys
    ids = [digest([*made_by, list(known[start : start + PIECE])]) for start in range(0, len(chosen), PIECE)]
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
    wanted: Wanted,
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
    dataset: Dataset, split: Split, indices: Sequence[int], wanted: Wanted, device: torch.device
) -> dict[str, Tensor]:
    rows = zip(indices, dataset.labels(split, indices), dataset.captions(split, indices), strict=True)
    described = [Request(index, 0, label, caption) for index, label, caption in rows]
    return wanted.features(dataset.clips(split, indices, device).cpu(), described)


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
