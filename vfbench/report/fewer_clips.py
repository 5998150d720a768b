"""Scores of the first clips of a run alone, from the features that it keeps: how a metric depends on their number."""

from __future__ import annotations

from collections.abc import Sequence

from vfbench import plugins
from vfbench.errors import UserError
from vfbench.interfaces import Groups, Metric
from vfbench.report.kept_clips import read_features
from vfbench.report.results import Result

SHARES = (8, 4, 2)  # divisors of the number of clips


def values_at(record: Result, names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Number of clips and value of each of the metrics `names` for an eighth, a quarter and a half of the clips.

    Numbers below the metric's smallest are left out; so are metrics that are not known here, or without features.
    """
    features, protocol = read_features(record), record.protocol
    values: dict[str, list[tuple[int, float]]] = {}
    for name in names:
        measure = protocol.measures.get(name)
        if measure is None or not {f"fake.{measure.source}", f"real.0.{measure.source}"} <= features.keys():
            continue
        try:
            metric: Metric = plugins.load_known("metric", measure.metric)
        except UserError:
            continue
        fake, real = features[f"fake.{measure.source}"].numpy(), features[f"real.0.{measure.source}"].numpy()
        total = protocol.n_fake or len(fake)
        for count in [total // share for share in SHARES if total // share >= metric.minimum]:
            groups = Groups(features["fake.groups"][:count].numpy(), features["real.0.groups"].numpy())
            score = metric.score(fake[:count], real, groups=groups, seed=protocol.selection_seed)
            values.setdefault(name, []).append((count, score.value))
    return values
