"""Tests of `vfbench.report.table`: comparable rows, marks, order, labels."""

from __future__ import annotations

import re

import pytest
from resultfiles import OTHER, SMOKE_RUN, best, build, labels, record

from vfbench.errors import UserError
from vfbench.report.latex import to_latex
from vfbench.report.render import to_markdown
from vfbench.report.results import NOT_COMPARABLE


@pytest.mark.pitfall("a table of unlike protocols")
def test_different_protocols_are_refused_listing_runs_and_fields() -> None:
    with pytest.raises(UserError) as caught:
        build([record("vdm"), record("pyoco", protocol=OTHER), record("latte")])
    message = str(caught.value)
    assert re.search(r"3f2a9c01be77 \(shapes\): runs/vdm-shapes-1a2b, runs/latte-shapes-1a2b", message)
    assert re.search(r"9a8b7c6d5e4f \(tats\): runs/pyoco-shapes-1a2b", message)
    assert "resolution 64 vs 32" in message
    assert "frames" not in message
    assert "--allow-mixed" in message
    assert caught.value.exit_code == 2


def test_a_single_smoke_run_is_refused() -> None:
    with pytest.raises(UserError, match=rf"{NOT_COMPARABLE}\): runs/vdm.*(?s:.*)--allow-mixed"):
        build([record("vdm", protocol=SMOKE_RUN)])


def test_rows_of_other_protocols_are_marked_and_never_best() -> None:
    runs = [record("vdm", 50), record("pyoco", 45), record("latte", 1, protocol=OTHER)]
    table = build([*runs, record("dit", 2, protocol=SMOKE_RUN)], allow_mixed=True)
    assert [row.mark for row in table.rows[:4]] == ["", "", "† 9a8b7c6d5e4f", f"† {NOT_COMPARABLE}"]
    assert best(table) == ["pyoco"]
    assert "3f2a9c01be77" in table.caption
    assert any(
        note.startswith("† latte: protocol 9a8b7c6d5e4f") and "resolution 64 vs 32" in note for note in table.notes
    )
    assert f"dit † **{NOT_COMPARABLE}**" in to_markdown(table)
    assert rf"dit \dag{{}} \textbf{{{NOT_COMPARABLE}}}" in to_latex(table)


def test_the_main_protocol_is_the_most_common_comparable_one() -> None:
    smoke = [record(name, protocol=SMOKE_RUN) for name in ("a", "b", "c")]
    table = build([*smoke, record("d", protocol=OTHER), record("e"), record("f")], allow_mixed=True)
    assert [row.label for row in table.rows if not row.mark] == ["e", "f", "floor"]


def test_models_keep_their_order_before_reference_rows() -> None:
    table = build([record(m) for m in ("real", "vdm", "noise", "dit", "frozen", "ani")])
    assert labels(table) == ["vdm", "dit", "ani", "real", "noise", "frozen", "floor"]
    assert [row.kind for row in table.rows] == ["model"] * 3 + ["reference"] * 3 + ["floor"]


def test_equal_models_are_labelled_by_spec_then_by_run() -> None:
    few_steps = record("vdm", run="cccc") | {"model_spec": "vdm(steps=5)"}
    table = build([record("vdm", run="aaaa"), record("vdm", run="bbbb"), few_steps, record("dit")])
    assert labels(table)[:4] == ["vdm(steps=25), run aaaa", "vdm(steps=25), run bbbb", "vdm(steps=5)", "dit"]


def test_runs_of_one_model_are_labelled_by_preset() -> None:
    runs = [
        record("pyoco", 40, run="aaaa") | {"preset": "tiny"},
        record("pyoco", 41, run="bbbb") | {"preset": "tiny-progressive"},
        record("pyoco", 42, run="cccc") | {"preset": "tiny"},
        record("vdm", 43) | {"preset": "tiny"},
    ]
    assert labels(build(runs[:2] + runs[3:]))[:3] == ["pyoco(steps=25) tiny", "pyoco(steps=25) tiny-progressive", "vdm"]
    assert "pyoco(steps=25) tiny, run cccc" in labels(build(runs))


def test_empty_results_are_refused() -> None:
    for results in ([], [record("vdm") | {"scores": {}}]):
        with pytest.raises(UserError, match="no results to show"):
            build(results)
