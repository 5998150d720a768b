"""Tests of `vfbench.report.footnotes`: caption and notes below a table, without repetitions."""

from __future__ import annotations

from typing import Any

import pytest
from resultfiles import PROTOCOL, build, inception, record, score


def test_caption_and_notes_give_protocol_counts_and_compute() -> None:
    table = build([record("vdm", extra={"kvd": score(1, title="KVD", note="jackknife")}), record("dit")])
    assert "protocol 3f2a9c01be77 (shapes), 2048 real against 256 generated clips." in table.caption
    assert "KVD: jackknife" in table.notes
    assert "compute per clip: 51.0 GFLOP in 25 network calls (vdm, dit)" in table.notes
    uneven = build([record("vdm", extra={"kvd": score(1, title="KVD", n_fake=64)})])
    assert "FVD 2048 real against 256 generated clips, KVD 2048 real against 64" in uneven.caption


@pytest.mark.parametrize(("split", "text"), [("train", " (train)"), ("both", " (train and test)"), (None, "")])
def test_the_caption_names_the_split_of_the_real_clips(split: str | None, text: str) -> None:
    table = build([record("vdm", protocol=PROTOCOL | {"split": split})])
    assert table.caption.startswith(f"Dataset shapes{text}, protocol 3f2a9c01be77 (shapes)")


def test_extractors_are_named_unless_recorded_by_hash_alone() -> None:
    extractors = {"i3d": f"i3d(size=224) {'ab' * 32}", "shapes_judge": "cd" * 32}
    assert "features by i3d(size=224)" in build([record("vdm", protocol=PROTOCOL | {"extractors": extractors})]).notes
    hashed = build([record("vdm", protocol=PROTOCOL | {"extractors": {"shapes_judge": "cd" * 32}})])
    assert not any("features by" in note and "judge" not in note for note in hashed.notes)
    assert any("judge" in note and "Moving Shapes" in note for note in hashed.notes)


def test_scores_at_infinite_n_are_a_note() -> None:
    limit: dict[str, Any] = {"limit": 38.76, "limit_error": 0.5, "slope": 12.0}
    runs = [record(name) | {"scores": {"fvd": score(41.3, **limit), "is": inception(7)}} for name in ("vdm", "dit")]
    flat = record("ani") | {"scores": {"fvd": score(41.3, **limit | {"slope": 0.0})}}
    assert any("infinite N): vdm 38.76 ± 0.98, dit 38.76 ± 0.98" in note for note in build([*runs, flat]).notes)


def test_shared_notes_are_merged() -> None:
    few = "few clips"
    scores = {"fvd": score(41, note=few), "kvd": score(1, title="KVD", note=few)}
    runs = [record(name) | {"scores": scores, "note": "cut to 16 frames"} for name in ("vdm", "dit")]
    assert build(runs).notes[1:3] == ("FVD, KVD: few clips", "vdm, dit: cut to 16 frames")


def test_compute_is_noted_for_models_and_unknown_for_scored_clips() -> None:
    scored, uncounted = record("theirs") | {"cost": None}, record("dit") | {"cost": {}}
    notes = build([record("vdm"), scored, uncounted, record("real")]).notes
    assert notes == ("compute per clip: 51.0 GFLOP in 25 network calls (vdm); unknown (theirs)",)
