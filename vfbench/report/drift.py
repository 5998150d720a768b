"""Drift: what an acceleration costs. Clips of two recipes that answer the same requests are compared one by one.

    PSNR, SSIM, LPIPS     of each clip of B against that of A, mean and 95 % interval over clips
    feature distance      between the features that both runs were scored by
    FVD                   score of B minus score of A, by the paired test of `vfbench compare`
    speed-up              seconds of a clip of A over those of B, as each run recorded them

A recipe is a choice of steps, precision, compilation or cache. A small drift says that B makes the clips of A, not that
they are good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor

from vfbench.errors import MissingData, UserError
from vfbench.report import feature_tests
from vfbench.report.compare import ComparisonResult, compare_results
from vfbench.report.drift_table import Drift, DriftRow
from vfbench.report.results import RESULT_FILE, SCORED_FILE, Result, load
from vfbench.report.similarity import PairScores, Similarity
from vfbench.utils import console
from vfbench.utils.device import choose_device
from vfbench.utils.progress import Progress

METRIC = "fvd"  # of the paired test
FEATURES = "feature_distance"


@runtime_checkable
class KeptClips(Protocol):
    """Clips of one recipe, as `vfbench.clips.kept` reads them from a folder."""

    @property
    def folder(self) -> Path:
        """Folder of a run, of `vfbench generate`, or of clips."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """Key of each clip: the seed of its request, or its name."""
        ...

    def read(self, index: int) -> UInt8[Tensor, "frames 3 height width"]:
        """Clip at an index, uint8 (T, 3, H, W)."""
        ...


@dataclass(frozen=True)
class Recipe:
    """Clips of one recipe, and its result where they are those of a run."""

    clips: KeptClips
    result: Result | None

    @classmethod
    def of(cls, clips: KeptClips) -> Recipe:
        """Recipe of a folder; warns of a result that was edited."""
        if (clips.folder / RESULT_FILE).is_file() or (clips.folder / "run.json").is_file():
            (result,) = load([clips.folder])
            if result.integrity == "edited":
                console.warn(result.edited_message)
            return cls(clips, result)
        return cls(clips, None)


Pairs = Sequence[tuple[int, int]]  # indices of clips that answer one request


def drift(reference: KeptClips, others: Sequence[tuple[KeptClips, Pairs]], device: str = "auto") -> Drift:
    """Compare the clips of other recipes with those of the reference, each with the pairs that it makes with it.

    Raises `UserError` where clips of a pair differ in shape, and `MissingData` where clips or features are missing or
    damaged.
    """
    names = _names([reference.folder, *(clips.folder for clips, _ in others)])
    first, rest = Recipe.of(reference), [Recipe.of(clips) for clips, _ in others]
    rows = [
        _row(name, first, recipe, pairs, choose_device(device))
        for name, recipe, (_, pairs) in zip(names[1:], rest, others, strict=True)
    ]
    return Drift(names[0], tuple(rows))


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of folders, or their paths where names are equal."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _row(name: str, a: Recipe, b: Recipe, pairs: Pairs, device: torch.device) -> DriftRow:
    similarity, notes = _similarity(name, a.clips, b.clips, pairs, device), list[str]()
    distances = _feature_distances(a, b, pairs)
    if (left_out := len(a.clips.keys) + len(b.clips.keys) - 2 * len(pairs)) > 0:
        notes.append(f"{left_out:,} clips without a partner left out")
    fvd, why_no_fvd = _fvd(a, b)
    speed_up, about_speed = _speed_up(a, b)
    return DriftRow(
        name=name,
        folder=b.clips.folder,
        requests=tuple(a.clips.keys[first] for first, _ in pairs),
        equal=similarity.equal,
        measures={**similarity.scores, FEATURES: distances},
        fvd=fvd,
        speed_up=speed_up,
        notes=tuple(filter(None, [*notes, why_no_fvd, about_speed])),
    )


def _similarity(name: str, a: KeptClips, b: KeptClips, pairs: Pairs, device: torch.device) -> Similarity:
    """PSNR, SSIM and LPIPS of all pairs; raises `UserError` naming a pair of different shape."""
    similarity = Similarity(device)
    with Progress(f"compare {name}", len(pairs), "clips") as progress:
        for first, second in pairs:
            clips = a.read(first), b.read(second)
            if clips[0].shape != clips[1].shape:
                shapes = " and ".join("x".join(map(str, clip.shape)) for clip in clips)
                raise UserError(
                    f"{a.folder} and {b.folder} have clips of different shape at request {a.keys[first]}, {shapes}: "
                    "make both with one size and number of frames"
                )
            similarity.add(*clips)
            progress.advance(1)
    return similarity


def _feature_distances(a: Recipe, b: Recipe, pairs: Pairs) -> PairScores:
    """Euclidean distance between the features of both clips of each pair."""
    title = "feature distance"
    if a.result is None or b.result is None:
        return PairScores(title, "lower", missing=f"{SCORED_FILE} is kept by runs alone")
    sources = [_source(result) for result in (a.result, b.result)]
    if sources[0] != sources[1]:
        return PairScores(title, "lower", missing="the runs were scored by different networks")
    source = sources[0][0]
    sides = [_features(recipe.clips.folder, result, source) for recipe, result in ((a, a.result), (b, b.result))]
    if any(max(pair[side] for pair in pairs) >= len(features) for side, features in enumerate(sides)):
        raise MissingData(f"{a.clips.folder} or {b.clips.folder}: {SCORED_FILE} lacks clips; repeat the run's command")
    rows = [torch.tensor(indices) for indices in zip(*pairs, strict=True)]
    first, second = (features[indices].double() for features, indices in zip(sides, rows, strict=True))
    return PairScores(f"{title} ({source})", "lower", tuple((first - second).norm(dim=1).tolist()))


def _source(result: Result) -> tuple[str, str | None]:
    """Network and output that FVD reads, else the first metric, with the hash of the network."""
    measures = result.protocol.measures
    source = measures[METRIC].source if METRIC in measures else next((each.source for each in measures.values()), "")
    return source, result.protocol.extractors.get(source.partition(".")[0])


def _features(folder: Path, result: Result, source: str) -> Tensor:
    tensors = feature_tests.read_features(folder, result)
    if f"fake.{source}" not in tensors:
        raise MissingData(f"{folder / SCORED_FILE} has no features of '{source}': repeat the command of the run")
    return tensors[f"fake.{source}"]


def _fvd(a: Recipe, b: Recipe) -> tuple[ComparisonResult | None, str]:
    """Test of FVD, B minus A, paired where both keep their features; None with the reason."""
    if a.result is None or b.result is None:
        return None, "no FVD: clips alone have no scores; make both by `run --keep-clips`"
    if a.result.protocol.id != b.result.protocol.id:
        return None, "no FVD: the runs were scored under different protocols or numbers of clips"
    if not all(METRIC in each.scores for each in (a.result, b.result)):
        return None, "no FVD: a run has no such score; repeat both with --metrics fvd"
    test = compare_results(b.result, a.result, [METRIC]).get(METRIC)
    if test is None:
        return None, "no FVD: a score has no interval"
    return test, f"FVD unpaired: {test.unpaired_because}" if test.unpaired_because else ""


def _speed_up(a: Recipe, b: Recipe) -> tuple[float | None, str]:
    """Seconds of a clip of A over those of B, and a remark where the machines differ; None where one is not known."""
    if a.result is None or b.result is None:
        return None, "no speed-up: only the record of a run has the seconds of a clip"
    costs = [result.cost for result in (a.result, b.result)]
    seconds = [cost.seconds_per_clip if cost else math.nan for cost in costs]
    if not all(0 < each < math.inf for each in seconds):
        return None, "no speed-up: a record has no seconds of a clip"
    places = [result.environment for result in (a.result, b.result)]
    machines = [f"{place.device}, {place.threads} threads" if place else "not known" for place in places]
    remark = "" if machines[0] == machines[1] else f"speed-up between two machines: {' and '.join(machines)}"
    return seconds[0] / seconds[1], remark
