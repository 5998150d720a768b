"""Published scores beside measured ones: rows, footnotes, and the difference where both exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vfbench.errors import UserError
from vfbench.report.format import DASH, Cell, rounded
from vfbench.report.published import Confidence, Published, PublishedScore, key, select
from vfbench.report.render import Grid, Row
from vfbench.report.result_parts import ProtocolRecord, ScoreRecord
from vfbench.report.results import Result


class PublishedRows(NamedTuple):
    """Rows below the measured ones, their footnotes, and a grid of the models that have been measured too."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    reproduced: tuple[Grid, ...]
    scores: tuple[PublishedScore, ...]


def published_rows(
    records: Sequence[Result], metrics: Mapping[str, ScoreRecord], main: ProtocolRecord, level: Published
) -> PublishedRows:
    """Published scores on the dataset of `main`, in the columns `metrics`, of at least the confidence `level`.

    Every row has a dagger and a number, under which a footnote says how its protocol differs, as far as it is known.
    Raises `UserError` where nothing is published on the dataset.
    """
    if level == "none":
        return PublishedRows((), (), (), ())
    dataset = next(record.dataset for record in records if record.protocol.id == main.id).partition("(")[0]
    confidence: Confidence = "low" if level == "all" else level
    titles = [score.title for score in metrics.values()]
    try:
        scores = select(dataset=dataset, confidence=confidence)
    except UserError as error:
        raise UserError(f"--published {level}: nothing is published on {dataset}; leave the flag out") from error
    scores = [score for score in scores if score.metric in titles]
    numbers: dict[str, int] = {}
    rows = []
    for group in _by_source(scores):
        number = numbers.setdefault(_note(group, main), len(numbers) + 1)
        printed = {score.metric: Cell(score.text, value=score.value) for score in group}
        cells = tuple(printed.get(title, Cell(DASH)) for title in titles)
        rows.append(Row(f"{group[0].model} ({group[0].task})", "published", cells, f"†{number}", group[0].reported_in))
    notes = tuple(f"†{number} published: {note}" for note, number in numbers.items())
    return PublishedRows(tuple(rows), notes, _reproduced(records, scores), tuple(scores))


def _by_source(scores: Sequence[PublishedScore]) -> list[list[PublishedScore]]:
    """Scores of one row each: of one model, task, source and size, at most one of each metric."""
    groups: dict[tuple[object, ...], list[PublishedScore]] = {}
    repeats: Counter[tuple[object, ...]] = Counter()
    for score in scores:
        row = (key(score.model), score.task, score.reported_in, score.resolution, score.frames, score.clips, score.kind)
        repeats[*row, score.metric] += 1
        groups.setdefault((*row, repeats[*row, score.metric]), []).append(score)
    return list(groups.values())


def _note(group: Sequence[PublishedScore], main: ProtocolRecord) -> str:
    """Source of a row, how its protocol differs from `main`, and what is not known of it."""
    score, ours = group[0], main.to_json()
    conditions: dict[str, tuple[object, object]] = {
        "pixels": (score.resolution, f"{ours.get('width')}x{ours.get('height')}"),
        "frames": (score.frames, ours.get("frames")),
        "generated clips": (score.clips, main.n_fake),
    }
    differ = [f"{theirs} {name}, here {own}" for name, (theirs, own) in conditions.items() if theirs and theirs != own]
    missing = [name for name, (theirs, _) in conditions.items() if not theirs]
    remarks = dict.fromkeys(each.protocol_note for each in group if each.protocol_note)
    parts = [f"{score.reported_in} ({score.kind})", score.source_url, *differ, *remarks]
    return "; ".join([*filter(None, parts), f"not stated: {', '.join([*missing, 'real clips', 'sampler'])}"])


def _reproduced(records: Sequence[Result], scores: Sequence[PublishedScore]) -> tuple[Grid, ...]:
    """Grid of published and measured scores of the models that have both; empty where none has."""
    rows = []
    for record in records:
        for measured in record.scores.values():
            for score in scores:
                if key(score.model) == key(record.model) and score.metric == measured.title:
                    half = (measured.high - measured.low) / 2
                    numbers = rounded([measured.value, measured.value - score.value], half)
                    source = f"{score.task}, {score.reported_in}"
                    cells = (score.metric, score.text, *numbers, source)
                    rows.append(Row(record.model, "model", tuple(map(Cell, cells))))
    header = ("published and measured", "metric", "published", "measured", "difference", "published in")
    return (Grid(header, tuple(rows)),) if rows else ()
