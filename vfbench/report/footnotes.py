"""Caption and footnotes of a table: data, protocol, and differences between its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vfbench.report.format import rounded
from vfbench.report.result_parts import ProtocolRecord
from vfbench.report.results import Result, describe_differences

EDITED_MARK, UNVERIFIED_MARK = "‡", "§"
NETWORK_NOTES = {
    "shapes_judge": "features by the judge, a small network trained on Moving Shapes in place of I3D, C3D and CLIP: "
    "these numbers compare with no published ones",
}
METRIC_NOTES = {
    "attributes": "attributes: share of clips whose caption fits better than the same caption with any other word, "
    "mean of six attributes; chance: clips made at random",
    "kvd": "KVD: squared maximum mean discrepancy; its scale is that of the feature network and of the kernel",
}


def caption(records: Sequence[Result], main: ProtocolRecord) -> str:
    """Dataset, `main` protocol, sample sizes of its rows, and how to read a cell."""
    main_records = [record for record in records if record.protocol.id == main.id]
    return (
        f"Dataset {main_records[0].dataset}{_split_text(main)}, protocol {main.id} ({main.name}), "
        f"{_sample_sizes(main_records)}. "
        "Value ± half the width of its 95 % interval, or [low, high] where lopsided. Bold: better than every other "
        "model beyond chance. Floor: real clips scored in place of generated ones, at the same N: no model can be "
        "expected to do better. In italics: no model, for reference."
    )


def notes(records: Sequence[Result], labels: Sequence[str], main: ProtocolRecord) -> tuple[str, ...]:
    """Footnotes, one sentence each; `labels` are the names of the rows."""
    return (
        *_protocol_notes(records, labels, main),
        *_integrity_notes(records, labels),
        *_import_notes(records, labels),
        *_network_notes(main),
        *_limit_notes(records, labels),
        *(text for name, text in METRIC_NOTES.items() if any(name in record.scores for record in records)),
        *_metric_notes(records),
        *_part_notes(records),
        *_run_notes(records, labels),
        *_cost_notes(records, labels),
    )


def _sample_sizes(records: Sequence[Result]) -> str:
    """Numbers of real and generated clips, metric by metric only where they differ."""
    counts: dict[str, dict[str, None]] = {}
    scores = (score for record in records for score in record.scores.values() if not score.part_of)
    for score in scores:
        size = f"{score.n_real} real against {score.n_fake} generated clips"
        counts.setdefault(score.title, {})[size] = None
    sizes = {title: " or ".join(texts) for title, texts in counts.items()}
    if len(set(sizes.values())) == 1:
        return next(iter(sizes.values()))
    return ", ".join(f"{title} {size}" for title, size in sizes.items())


def _split_text(protocol: ProtocolRecord) -> str:
    """Split of the real clips, in brackets."""
    split = "train and test" if protocol.split == "both" else protocol.split
    return f" ({split})" if split else ""


def _protocol_notes(records: Sequence[Result], labels: Sequence[str], main: ProtocolRecord) -> list[str]:
    """Differences of each row of another protocol from the main one."""
    return [
        f"† {label}: protocol {record.protocol.id} ({record.protocol.name}), {_sample_sizes([record])}; "
        f"differs from {main.id} in {describe_differences(record.protocol, main)}"
        for record, label in zip(records, labels, strict=True)
        if record.protocol.id != main.id and not record.imported
    ]


def _import_notes(records: Sequence[Result], labels: Sequence[str]) -> list[str]:
    """Rows with scores of other tools: the tool, the file, and numbers of clips where the file has them."""
    notes = []
    for record, label in zip(records, labels, strict=True):
        if record.imported:
            sizes = {name: score.n_fake for name, score in record.scores.items() if score.n_fake}
            clips = (
                ", ".join(f"{name} of {size:,} clips" for name, size in sizes.items()) or "number of clips not known"
            )
            origin = f"{record.imported.tool} in {record.imported.file}"
            notes.append(f"{UNVERIFIED_MARK} {label}: unverified, as computed by {origin}: {clips}")
    return notes


def _integrity_notes(records: Sequence[Result], labels: Sequence[str]) -> list[str]:
    """Rows whose file was edited, and rows whose file has no signature that would tell."""
    by_state = {
        state: [label for record, label in zip(records, labels, strict=True) if record.integrity == state]
        for state in ("edited", "unsigned")
    }
    texts = {
        "edited": f"{EDITED_MARK} edited after vfbench wrote the file, so its numbers are not those of a run",
        "unsigned": "unsigned, so an edit would not be noticed",
    }
    return [f"{texts[state]}: {', '.join(names)}" for state, names in by_state.items() if names]


def _network_notes(main: ProtocolRecord) -> list[str]:
    """Feature networks of a protocol, where it names more than a hash."""
    specs = [spec.partition(") ")[0].rstrip(")") + ")" for spec in main.extractors.values() if "(" in spec]
    lines = [f"features by {', '.join(specs)}"] if specs else []
    return [*lines, *(text for name, text in NETWORK_NOTES.items() if name in main.extractors)]


def _limit_notes(records: Sequence[Result], labels: Sequence[str]) -> list[str]:
    """Scores extrapolated to infinite N, that is without the bias of a finite N, with 95 % intervals."""
    limits: dict[str, list[str]] = {}
    for record, label in zip(records, labels, strict=True):
        for score in record.scores.values():
            limit, error = score.limit, score.limit_error
            if score.slope and limit is not None and error is not None and math.isfinite(limit + error):
                text = " ± ".join(rounded([limit, 1.96 * error], 1.96 * error))
                limits.setdefault(score.title, []).append(f"{label} {text}")
    return [
        f"{title} without the bias of few clips (at infinite N): {', '.join(texts)}" for title, texts in limits.items()
    ]


def _metric_notes(records: Sequence[Result]) -> list[str]:
    """Each distinct note on a score, after the titles of the metrics that have it."""
    titles_by_note: dict[str, dict[str, None]] = {}
    scores = (score for record in records for score in record.scores.values() if score.note and not score.part_of)
    for score in scores:
        titles_by_note.setdefault(score.note, {})[score.title] = None
    return [f"{', '.join(titles)}: {note}" for note, titles in titles_by_note.items()]


def _part_notes(records: Sequence[Result]) -> list[str]:
    """Largest half-width of the intervals of each metric's parts, which are shown without intervals."""
    widths: dict[str, float] = {}
    for score in (score for record in records for score in record.scores.values() if score.part_of):
        half = (score.high - score.low) / 2
        if math.isfinite(half):
            widths[score.part_of] = max(half, widths.get(score.part_of, 0.0))
    return [f"parts of {name}: 95 % intervals of ± {rounded([half], half)[0]} or less" for name, half in widths.items()]


def _run_notes(records: Sequence[Result], labels: Sequence[str]) -> list[str]:
    """Each distinct note on a run's clips and networks, after the labels of the runs that have it."""
    labels_by_note: dict[str, list[str]] = {}
    for record, label in zip(records, labels, strict=True):
        if record.note:
            labels_by_note.setdefault(record.note, []).append(label)
    return [f"{', '.join(names)}: {note}" for note, names in labels_by_note.items()]


def _cost_notes(records: Sequence[Result], labels: Sequence[str]) -> list[str]:
    """Compute per clip of each model: a comparison is fair only at equal compute."""
    labels_by_cost: dict[str, list[str]] = {}
    for record, label in zip(records, labels, strict=True):
        if record.cost is None:  # clips made elsewhere
            labels_by_cost.setdefault("unknown", []).append(label)
        elif not record.reference and 0 < record.cost.flops_per_clip < math.inf:
            calls = "?" if record.cost.evaluations is None else record.cost.evaluations
            text = f"{rounded([record.cost.flops_per_clip / 1e9])[0]} GFLOP in {calls} network calls"
            labels_by_cost.setdefault(text, []).append(label)
    texts = [f"{text} ({', '.join(names)})" for text, names in labels_by_cost.items()]
    return [f"compute per clip: {'; '.join(texts)}"] if texts else []
