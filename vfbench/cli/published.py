"""`published` and `explain`: scores that papers print, and why those of one model differ."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from vfbench.cli import _options as flags
from vfbench.cli._options import option
from vfbench.utils import console

Dataset = Annotated[str, option("--dataset", help="Of this dataset alone.")]
Metric = Annotated[str, option("--metric", help="Of this metric alone, such as FVD.")]


def published(
    dataset: Dataset = "",
    model: Annotated[str, option("--model", help="Of models with this text in their name.")] = "",
    metric: Metric = "",
    task: Annotated[str, option("--task", help="Of this task alone, such as uncond, class or zeroshot-text.")] = "",
    confidence: Annotated[
        Literal["high", "medium", "low"], option("--confidence", help="Least confidence of the transcription.")
    ] = "low",
    as_json: flags.AsJson = False,
) -> None:
    """List scores that papers and repositories have published."""
    from vfbench.protocol.presets import align_columns
    from vfbench.report.published import select
    from vfbench.utils import files

    scores = select(dataset=dataset, model=model, metric=metric, task=task, confidence=confidence)
    if as_json:
        print(files.as_json([asdict(score) for score in scores]), end="")
        return
    header = ("model", "dataset", "task", "metric", "value", "pixels", "frames", "clips", "confidence", "published in")
    rows = [
        (
            *(score.model, score.dataset, score.task, score.metric, score.text, score.resolution or "?"),
            *(str(score.frames or "?"), str(score.clips or "?"), score.confidence, score.reported_in),
        )
        for score in scores
    ]
    console.result("\n".join(align_columns([header, *rows])))


def explain(
    model: Annotated[str, typer.Argument(help="Model, or a part of its name.")],
    dataset: Dataset = "",
    metric: Metric = "FVD",
    as_json: flags.AsJson = False,
) -> None:
    """Explain why the published scores of a model differ: task, clips, pixels, frames, source."""
    from vfbench.protocol import presets
    from vfbench.report import published as scores_of
    from vfbench.utils import files

    scores = scores_of.select(dataset=dataset, model=model, metric=metric)
    groups: dict[tuple[str, str], list[scores_of.PublishedScore]] = {}
    for score in scores:
        groups.setdefault((score.model, score.dataset), []).append(score)
    if as_json:
        print(files.as_json([asdict(score) for score in scores]), end="")
        return
    for group in groups.values():
        console.result("\n".join([*scores_of.explain(group), ""]))
    for name in presets.available():
        if scores_of.key(name) == scores_of.key(model):
            console.result(f"how its program measures: python -m vfbench diff-protocols {name} strict")
