"""What stands below a table: the caption says of what it is, and each note says its thing once."""

from __future__ import annotations

from typing import Any

import pytest
from resultfiles import PROTOCOL, build, inception, record, score


def test_caption_and_notes_say_what_a_reader_must_know() -> None:
    table = build([record("vdm", extra={"kvd": score(1, title="KVD", note="jackknife")}), record("dit")])
    assert "protocol 3f2a9c01be77 (shapes), 2048 real against 256 generated clips." in table.caption
    assert "KVD: jackknife" in table.notes
    assert "compute per clip: 51.0 GFLOP in 25 network calls (vdm, dit)" in table.notes
    uneven = build([record("vdm", extra={"kvd": score(1, title="KVD", n_fake=64)})])
    assert "FVD 2048 real against 256 generated clips, KVD 2048 real against 64" in uneven.caption


@pytest.mark.parametrize(("split", "said"), [("train", " (train)"), ("both", " (train and test)"), (None, "")])
def test_the_caption_says_which_clips_are_the_real_ones(split: str | None, said: str) -> None:
    table = build([record("vdm", protocol=PROTOCOL | {"split": split})])
    assert table.caption.startswith(f"Dataset shapes{said}, protocol 3f2a9c01be77 (shapes)")


def test_networks_are_named_where_the_protocol_names_more_than_a_hash() -> None:
    extractors = {"i3d": f"i3d(size=224) {'ab' * 32}", "shapes_judge": "cd" * 32}
    assert "features by i3d(size=224)" in build([record("vdm", protocol=PROTOCOL | {"extractors": extractors})]).notes
    hashed = build([record("vdm", protocol=PROTOCOL | {"extractors": {"shapes_judge": "cd" * 32}})])
    assert not any("features by" in note for note in hashed.notes)


def test_what_a_score_comes_to_at_infinite_n_stands_apart_from_its_value() -> None:
    bound: dict[str, Any] = {"limit": 38.76, "limit_error": 0.5, "slope": 12.0}
    runs = [record(name) | {"scores": {"fvd": score(41.3, **bound), "is": inception(7)}} for name in ("vdm", "dit")]
    steady = record("ani") | {"scores": {"fvd": score(41.3, **bound | {"slope": 0.0})}}
    assert "FVD at infinite N: vdm 38.76 ± 0.98, dit 38.76 ± 0.98" in build([*runs, steady]).notes


def test_a_note_that_several_share_is_said_once_of_all() -> None:
    few = "few clips"
    scores = {"fvd": score(41, note=few), "kvd": score(1, title="KVD", note=few)}
    runs = [record(name) | {"scores": scores, "note": "cut to 16 frames"} for name in ("vdm", "dit")]
    assert build(runs).notes[:2] == ("FVD, KVD: few clips", "vdm, dit: cut to 16 frames")


def test_compute_is_told_of_models_alone_and_unknown_for_clips_of_others() -> None:
    theirs, uncounted = record("theirs") | {"cost": None}, record("dit") | {"cost": {}}
    told = build([record("vdm"), theirs, uncounted, record("real")]).notes
    assert told == ("compute per clip: 51.0 GFLOP in 25 network calls (vdm); unknown (theirs)",)
