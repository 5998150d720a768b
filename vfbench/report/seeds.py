"""Means over runs that differ only in their seed or training: one row for each model, with Student's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from vfbench.report.result_parts import ScoreRecord
from vfbench.report.results import Result


def averaged(results: Sequence[Result]) -> list[Result]:
    """Results with those of one model, specification, preset and protocol replaced by their mean.

    A mean has Student's 95 % interval over the runs; it holds what varies between them, such as the training. A metric
    that one of the runs lacks has no mean. A single run, and one that was edited or imported, stays as it is. Of runs
    of one id, such as a run and its replay, the first counts alone: they are no independent repeats.
    """
    groups: dict[object, list[Result]] = {}
    distinct = {result.run_id or id(result): result for result in reversed(results)}
    for result in [result for result in results if distinct[result.run_id or id(result)] is result]:
        key = (result.model, result.model_spec, result.preset, result.protocol.id)
        groups.setdefault(id(result) if result.integrity == "edited" or result.imported else key, []).append(result)
    return [_mean(group) if len(group) > 1 else group[0] for group in groups.values()]


def _mean(group: Sequence[Result]) -> Result:
    first = group[0]
    names = [name for name in first.scores if all(name in each.scores for each in group)]
    scores = {name: _mean_score([each.scores[name] for each in group]) for name in names}
    seeds = ", ".join(str(seed) for seed in sorted({each.seed for each in group if each.seed is not None}))
    note = f"mean of {len(group)} runs (seeds {seeds or 'unknown'}), with Student's 95 % interval over them"
    fields = {"scores": scores, "run_id": "", "run_dir": "", "weights": "", "seed": None, "signature": ""}
    mean = first.model_copy(update={**fields, "note": "; ".join(filter(None, [first.note, note]))})
    mean._file = None
    return mean.signed() if all(each.integrity == "intact" for each in group) else mean


def _mean_score(scores: Sequence[ScoreRecord]) -> ScoreRecord:
    from scipy import stats

    values, n = [score.value for score in scores], len(scores)
    error = stdev(values) / math.sqrt(n)
    half, mean = float(stats.t.ppf(0.975, n - 1)) * error, fmean(values)
    update = {"value": mean, "low": mean - half, "high": mean + half, "error": error}
    floor = fmean(score.floor for score in scores)
    return scores[0].model_copy(update={**update, "floor": floor, "limit": None, "limit_error": None, "slope": None})
