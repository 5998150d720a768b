"""Tests of published scores: the list, why those of one model differ, and their rows beside measured ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd
import pytest
from conftest import Command
from resultfiles import PROTOCOL, inception, record

from vfbench.report import published, table
from vfbench.report.render import Table
from vfbench.report.results import Result

UCF101 = {**PROTOCOL, "width": 128, "height": 128, "n_fake": 2048}


def build(level: published.Published, *models: str) -> Table:
    records = [record(model, 200.0, protocol=UCF101, extra={"is": inception(70.0)}) for model in models]
    results = [Result.model_validate({**each, "dataset": "ucf101(frames=16)"}).signed() for each in records]
    return table.build(results, published=level)


def test_every_published_score_is_well_formed() -> None:
    scores = published.load()
    assert len(scores) == 710
    for score in scores:
        assert all((score.dataset, score.task, score.model, score.metric, score.reported_in)), score
        assert score.confidence in ("high", "medium", "low"), score
        assert score.kind in ("paper", "reproduction", "third-party", "claimed"), score
        assert not score.resolution or re.fullmatch(r"\d+x\d+|custom", score.resolution), score
        assert not score.source_url or urlparse(score.source_url).scheme == "https", score
        assert "paperswithcode.com" not in score.source_url, score  # a dead site


@pytest.mark.parametrize("name", ["taichi_hd", "TaiChi-HD", "taichihd"])
def test_names_are_compared_without_case_and_punctuation(name: str) -> None:
    assert {score.dataset for score in published.select(dataset=name)} == {"TaiChi-HD"}


def test_the_command_lists_what_was_asked_for(vfbench: Command) -> None:
    flags = ["--dataset", "ucf101", "--model", "videofusion", "--task", "class", "--confidence", "high"]
    outcome = vfbench("published", *flags)
    header, *lines = outcome.out.splitlines()
    assert header.split()[:5] == ["model", "dataset", "task", "metric", "value"]
    scores = json.loads(vfbench("published", *flags, "--json").out)
    assert len(scores) == len(lines) == 3
    assert {score["metric"] for score in scores} == {"FVD", "IS"}
    assert {score["confidence"] for score in scores} == {"high"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["published", "--dataset", "ucf10"], "UCF101"),
        (["published", "--metric", "FVDD"], "FVD"),
        (["published", "--dataset", "taichi_hd", "--metric", "KVD"], "known: FVD"),  # KVD is known elsewhere
        (["published", "--model", "lattte"], "Latte"),
        (["published", "--model", "--"], "--model"),
        (["explain", "vidofusion"], "VideoFusion"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(vfbench: Command, arguments: list[str], named: str) -> None:
    outcome = vfbench(*arguments)
    assert outcome.code == 2
    assert named in outcome.err


def test_explain_gives_the_range_for_each_condition_that_differs(vfbench: Command) -> None:
    out = vfbench("explain", "FAR-L", "--dataset", "ucf101").out
    assert "FAR-L on UCF101: 9 published FVDs, 57 to 303" in out
    assert re.search(r"by clips +10,000: 57; 2,048: 99 to 303", out)
    assert "by kind" not in out  # all are from papers
    assert "diff-protocols latte strict" in vfbench("explain", "latte").out


def test_published_rows_stand_below_with_a_footnote_on_the_protocol() -> None:
    shown = build("high", "videofusion")
    assert [row.kind for row in shown.rows[:2]] == ["model", "floor"]
    others = [row for row in shown.rows if row.kind == "published"]
    assert others == list(shown.rows[2:])
    row = next(row for row in others if row.label == "VideoFusion (class)")
    assert [cell.text for cell in row.cells] == ["173", "80.03"]
    (note,) = (note for note in shown.notes if note.startswith(f"{row.mark} "))
    assert "VideoFusion 2303.08320" in note
    assert "not stated: generated clips" in note
    assert "128x128" not in note  # as here
    assert any("256x256 pixels, here 128x128" in note for note in shown.notes)
    assert not any(cell.best for row in others for cell in row.cells)
    numbered = {row.mark for row in others}
    assert numbered == {note.split()[0] for note in shown.notes if note.startswith("†")}


def test_a_model_with_both_scores_has_the_difference() -> None:
    (grid,) = build("high", "videofusion", "vdm").details
    rows = [[cell.text for cell in row.cells] for row in grid.rows if row.label == "videofusion"]
    assert ["FVD", "173", "200.0", "27.0"] in [row[:4] for row in rows]
    assert build("none", "videofusion").details == ()


def test_fewer_rows_are_shown_from_a_higher_confidence_on() -> None:
    counts = [len(build(level, "vdm").rows) for level in ("none", "high", "medium", "all")]
    assert counts == sorted(set(counts))


def test_every_format_has_the_published_rows(tmp_path: Path) -> None:
    shown = build("high", "videofusion")
    assert r"\dag{}" in shown.to_latex()
    assert "VideoFusion (class) †" in shown.to_markdown(1000)
    assert "VideoFusion (class) †" in shown._repr_html_()
    (tmp_path / "t.csv").write_text(shown.to_csv())
    frame = pd.read_csv(tmp_path / "t.csv")
    papers = frame[frame["protocol"] == "published"]
    assert set(papers["metric"]) == {"fvd", "is"}
    assert not papers["comparable"].any()


def test_a_dataset_without_published_scores_is_refused(vfbench: Command, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(record("vdm")))
    outcome = vfbench("table", tmp_path, "--published", "all")
    assert outcome.code == 2
    assert "shapes" in outcome.err
    assert "--published" in outcome.err
