"""Tests between two runs on the same real clips, from the features that each run keeps.

On the same requests the test is paired: the variation that both runs share cancels in the difference, so it finds
smaller differences than a comparison of intervals. On other requests only the variation due to the real clips cancels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from vfbench import plugins
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Comparison, Groups, Metric, PairedMetric, SharedRealClips
from vfbench.report import comparison_cache
from vfbench.report.result_parts import ProtocolRecord
from vfbench.report.results import SCORED_FILE, Result
from vfbench.utils import files
from vfbench.utils.environment import code_version
from vfbench.utils.tensor_files import read_metadata, read_tensors


def paired_tests(
    a: Result, folder_a: Path, b: Result, folder_b: Path, names: Sequence[str], typed: Collection[str]
) -> dict[str, Comparison]:
    """Test A against B by each of the metrics `names` that has a paired test; kept beside both runs.

    Modules of third parties are imported only where the user gave their names, `typed`, else `UserError` is raised.
    Raises `MissingData` where a folder has no usable features, or the real clips differ.
    """
    own, other = (read_metadata(folder / SCORED_FILE).get("sha256", "") for folder in (folder_a, folder_b))
    keys = [files.json_digest([*pair, code_version()])[:16] for pair in ((own, other), (other, own))]
    kept = comparison_cache.read(folder_a, b.run_id, keys[0]) if own and other else {}
    metrics = _metrics(a, [name for name in names if name not in kept], typed)
    missing = {name: metric for name, metric in metrics.items() if isinstance(metric, PairedMetric)}
    if missing:
        features = read_features(folder_a, a), read_features(folder_b, b)
        require_same_real_clips(*features, (folder_a, folder_b))
        tests = {name: _test(a.protocol, name, metric, *features) for name, metric in missing.items()}
        comparison_cache.write(folder_a, b.run_id, tests, keys[0])
        mirrored = {name: comparison_cache.negated(test) for name, test in tests.items()}
        comparison_cache.write(folder_b, a.run_id, mirrored, keys[1])
        kept |= tests
    return {name: kept[name] for name in names if name in kept}


def shared_variances(
    a: Result, folder_a: Path, b: Result, folder_b: Path, names: Sequence[str], typed: Collection[str]
) -> dict[str, float]:
    """Covariance of the scores of A and B that is due to their common real clips, by metric; 0 where not known.

    Raises `MissingData` where a folder has no usable features, or the real clips differ.
    """
    features = read_features(folder_a, a), read_features(folder_b, b)
    require_same_real_clips(*features, (folder_a, folder_b))
    return {
        name: _shared_variance(a.protocol, name, metric, *features)
        for name, metric in _metrics(a, names, typed).items()
        if isinstance(metric, SharedRealClips)
    }


def _metrics(run: Result, names: Sequence[str], typed: Collection[str]) -> dict[str, Metric]:
    """Metrics of a run's protocol; raises `UserError` for a module that only the file of the run names."""
    metrics = {}
    for name in names:
        if name in run.protocol.measures:
            try:
                metrics[name] = plugins.load_known("metric", run.protocol.measures[name].metric, typed=typed)
            except UserError as error:
                advice = "compare by other metrics, or name your own with its module, as package.module, in the command"
                message = f"{run.source}: protocol.measures.{name}.metric: {error}; {advice}"
                raise type(error)(message) from error
    return metrics


def _shared_variance(
    protocol: ProtocolRecord, name: str, metric: SharedRealClips, a: Mapping[str, Tensor], b: Mapping[str, Tensor]
) -> float:
    """Mean over the protocol's draws, as for the variance of a score."""
    source, covariances = protocol.measures[name].source, list[float]()
    if any(f"fake.{source}" not in features for features in (a, b)):
        return 0.0
    for draw in range(protocol.repeats):
        influences = []
        for features in (a, b):
            fake, real, groups = _draw(protocol, draw, source, features)
            seed = protocol.selection_seed + draw
            influences.append(metric.real_influence(fake, real, groups=groups, seed=seed))
        covariances.append(len(influences[0]) * float(np.cov(np.stack(influences))[0, 1]))
    return float(np.mean(covariances))


def read_features(folder: Path, record: Result) -> dict[str, Tensor]:
    """Features, (N, D), and groups, (N,), that a run's scores were computed from."""
    path = folder / SCORED_FILE
    try:
        return read_tensors(path, run=record.run_id)[0]
    except ValueError as error:
        raise MissingData(f"{path} cannot be used: {error}; repeat the run's command to write it") from error


def require_same_real_clips(a: Mapping[str, Tensor], b: Mapping[str, Tensor], folders: tuple[Path, Path]) -> None:
    """Raise `MissingData` where features of real clips that both runs keep differ."""
    shared_real = [key for key in a if key.startswith("real.") and key in b]
    if differing := [key for key in shared_real if not torch.equal(a[key], b[key])]:
        raise MissingData(
            f"{folders[0]} and {folders[1]} were scored against different real clips ({differing[0]}): repeat both runs"
        )


def _test(
    protocol: ProtocolRecord, name: str, metric: PairedMetric, a: Mapping[str, Tensor], b: Mapping[str, Tensor]
) -> Comparison:
    """Mean over the protocol's draws, each compared row by row against its own real clips."""
    source, seed = protocol.measures[name].source, protocol.selection_seed
    if any(f"fake.{source}" not in features for features in (a, b)):
        raise MissingData(f"the features of {name} were not kept: repeat both runs with --metrics {name}")
    comparisons = []
    for draw in range(protocol.repeats):
        (fake_a, real, groups), (fake_b, _, _) = (_draw(protocol, draw, source, features) for features in (a, b))
        comparisons.append(metric.compare(fake_a, fake_b, real, groups=groups, seed=seed + draw))
    return mean_comparison(comparisons)


def _draw(
    protocol: ProtocolRecord, draw: int, source: str, features: Mapping[str, Tensor]
) -> tuple[np.ndarray, np.ndarray, Groups]:
    """Generated features, real features, and the groups of both, of one draw."""
    rows = slice(draw * protocol.n_fake, (draw + 1) * protocol.n_fake)
    groups = Groups(features["fake.groups"][rows].numpy(), features[f"real.{draw}.groups"].numpy())
    return features[f"fake.{source}"][rows].numpy(), features[f"real.{draw}.{source}"].numpy(), groups


def mean_comparison(draws: Sequence[Comparison]) -> Comparison:
    """Mean of the comparisons of several draws of clips.

    The draws share real clips, so the error is that of one draw: too large where they share none, never too small.
    """
    if len(draws) == 1:
        return draws[0]
    mean = sum(draw.difference for draw in draws) / len(draws)
    half = math.sqrt(sum(((draw.high - draw.low) / 2) ** 2 for draw in draws) / len(draws))
    p_value = math.erfc(NormalDist().inv_cdf(0.975) * abs(mean) / half / math.sqrt(2)) if half else float(mean == 0)
    notes = dict.fromkeys(draw.note for draw in draws)
    note = "; ".join(filter(None, [f"mean of {len(draws)} draws", *notes]))
    return Comparison(mean, mean - half, mean + half, p_value, note)
