"""Tables say which numbers compare, which is best and how sure it is, and lose no digit on the way to CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vfbench.errors import MissingData, UserError
from vfbench.render import to_csv, to_frame, to_latex, to_markdown
from vfbench.table import STRANGER, Record, Table, build, differences, load, rounded

PROTOCOL = {"id": "3f2a9c01be77", "name": "shapes", "comparable": True, "resolution": 32, "frames": 16, "n_fake": 256}
OTHER = PROTOCOL | {"id": "9a8b7c6d5e4f", "name": "tats", "resolution": 64}
SMOKE_RUN = PROTOCOL | {"id": "0000aaaa1111", "name": "smoke", "comparable": False, "n_fake": 8}


def score(value: float, half: float = 2.0, *, title: str = "FVD", better: str = "lower", **more: Any) -> Record:
    interval = {"value": value, "low": value - half, "high": value + half, "floor": 2.1}
    return {**interval, "n_real": 2048, "n_fake": 256, "title": title, "better": better, "note": "", **more}


def record(
    model: str, fvd: float = 41.3, *, protocol: Record = PROTOCOL, run: str = "1a2b", extra: Record | None = None
) -> Record:
    return {
        "schema": 1,
        "model": model,
        "dataset": "shapes",
        "protocol": protocol,
        "scores": {"fvd": score(fvd), **(extra or {})},
        "cost": {"flops_per_clip": 5.1e10, "evaluations": 25},
        "run_dir": f"runs/{model}-shapes-{run}",
        "run_id": run,
        "model_spec": f"{model}(steps=25)",
        "reference": model in ("real", "noise", "frozen"),
    }


def inception(value: float) -> Record:
    return score(value, 0.12, title="IS", better="higher", floor=7.9)


def labels(table: Table) -> list[str]:
    return [row.label for row in table.rows]


def best(table: Table, column: int = 0) -> list[str]:
    return [row.label for row in table.rows if row.cells[column].best]


def write(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "results.json").write_text(content)
    return folder


# --- load


def test_load_reads_a_folder_and_a_file_and_each_only_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", json.dumps(record("vdm")))
    other = write(tmp_path / "b", json.dumps(record("pyoco"))) / "results.json"
    assert [r["model"] for r in load([folder, str(other), folder / "results.json"])] == ["vdm", "pyoco"]


def test_load_fills_in_where_the_record_was_found(tmp_path: Path) -> None:
    bare = record("vdm")
    del bare["run_dir"]
    folder = write(tmp_path / "a", json.dumps(bare))
    assert load([folder])[0]["run_dir"] == str(folder)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        (json.dumps(record("vdm") | {"schema": 2}), "schema 2, expected 1"),
        (json.dumps(record("vdm") | {"model": None}), "'model' is missing"),
        (json.dumps(record("vdm") | {"protocol": {}}), "no 'id'"),
        (json.dumps(record("vdm", fvd=1, extra={"kvd": {"better": "lower"}})), "score 'kvd' has no 'floor'"),
        (json.dumps(record("vdm", extra={"kvd": score(1, better="up")})), "score 'kvd' does not say"),
    ],
)
def test_load_names_a_damaged_file_and_the_command_that_makes_one(tmp_path: Path, content: str, problem: str) -> None:
    folder = write(tmp_path / "run", content)
    with pytest.raises(MissingData) as caught:
        load([folder])
    for part in (str(folder / "results.json"), problem, "python -m vfbench run"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 4


def test_load_names_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent.json"):
        with pytest.raises(MissingData, match=rf"{path}.*python -m vfbench run"):
            load([path])


# --- what stands beside what


def test_protocols_are_not_mixed_and_the_refusal_explains_itself() -> None:
    with pytest.raises(UserError) as caught:
        build([record("vdm"), record("pyoco", protocol=OTHER), record("latte")])
    message = str(caught.value)
    assert re.search(r"3f2a9c01be77 \(shapes\): runs/vdm-shapes-1a2b, runs/latte-shapes-1a2b", message)
    assert re.search(r"9a8b7c6d5e4f \(tats\): runs/pyoco-shapes-1a2b", message)
    assert "resolution 64 vs 32" in message
    assert "frames" not in message
    assert "--allow-mixed" in message
    assert caught.value.exit_code == 2


def test_a_smoke_run_is_refused_even_alone() -> None:
    with pytest.raises(UserError, match=rf"{STRANGER}\): runs/vdm.*(?s:.*)--allow-mixed"):
        build([record("vdm", protocol=SMOKE_RUN)])


def test_mixed_rows_are_marked_explained_and_never_best() -> None:
    runs = [record("vdm", 50), record("pyoco", 45), record("latte", 1, protocol=OTHER)]
    table = build([*runs, record("dit", 2, protocol=SMOKE_RUN)], allow_mixed=True)
    assert [row.mark for row in table.rows[:4]] == ["", "", "† 9a8b7c6d5e4f", f"† {STRANGER}"]
    assert best(table) == ["pyoco"]
    assert "3f2a9c01be77" in table.caption
    assert any(
        note.startswith("† latte: protocol 9a8b7c6d5e4f") and "resolution 64 vs 32" in note for note in table.notes
    )
    assert f"dit † **{STRANGER}**" in to_markdown(table)
    assert rf"dit \dag{{}} \textbf{{{STRANGER}}}" in to_latex(table)


def test_the_main_protocol_is_the_commonest_one_that_compares() -> None:
    smoke = [record(name, protocol=SMOKE_RUN) for name in ("a", "b", "c")]
    table = build([*smoke, record("d", protocol=OTHER), record("e"), record("f")], allow_mixed=True)
    assert [row.label for row in table.rows if not row.mark] == ["e", "f", "floor"]


def test_models_keep_their_order_and_reference_rows_come_last() -> None:
    table = build([record(m) for m in ("real", "vdm", "noise", "dit", "frozen", "ani")])
    assert labels(table) == ["vdm", "dit", "ani", "real", "noise", "frozen", "floor"]
    assert [row.kind for row in table.rows] == ["model"] * 3 + ["reference"] * 3 + ["floor"]


def test_same_models_are_told_apart_by_specification_then_by_run() -> None:
    fast = record("vdm", run="cccc") | {"model_spec": "vdm(steps=5)"}
    table = build([record("vdm", run="aaaa"), record("vdm", run="bbbb"), fast, record("dit")])
    assert labels(table)[:4] == ["vdm(steps=25), run aaaa", "vdm(steps=25), run bbbb", "vdm(steps=5)", "dit"]


def test_runs_of_one_model_are_told_apart_by_their_presets_where_these_differ() -> None:
    runs = [
        record("pyoco", 40, run="aaaa") | {"preset": "tiny"},
        record("pyoco", 41, run="bbbb") | {"preset": "tiny-progressive"},
        record("pyoco", 42, run="cccc") | {"preset": "tiny"},
        record("vdm", 43) | {"preset": "tiny"},
    ]
    assert labels(build(runs[:2] + runs[3:]))[:3] == ["pyoco(steps=25) tiny", "pyoco(steps=25) tiny-progressive", "vdm"]
    assert "pyoco(steps=25) tiny, run cccc" in labels(build(runs))


def test_nothing_to_show_is_an_error() -> None:
    for results in ([], [record("vdm") | {"scores": {}}]):
        with pytest.raises(UserError, match="no results to show"):
            build(results)


def test_differences_stop_after_a_few_fields() -> None:
    many = {f"f{i}": i for i in range(6)}
    assert differences(many, {"f0": 0}) == (
        "f1 1 vs absent, f2 2 vs absent, f3 3 vs absent, f4 4 vs absent, and 1 more"
    )
    assert differences(PROTOCOL, PROTOCOL | {"name": "x", "id": "y"}) == "no recorded field"


# --- cells


def test_best_follows_the_direction_and_leaves_out_reference_rows() -> None:
    runs = [record("real", 0.1, extra={"is": inception(7.9)}), record("vdm", 52, extra={"is": inception(6.9)})]
    table = build([*runs, record("dit", 41, extra={"is": inception(6.8)})])
    assert table.header == ("model", "FVD ↓", "IS ↑")
    assert (best(table, 0), best(table, 1)) == (["dit"], ["vdm"])


def test_equal_values_are_both_best_and_equal_looking_ones_are_not() -> None:
    assert best(build([record("a", 41.3), record("b", 41.3), record("c", 50)])) == ["a", "b"]
    assert best(build([record("a", 41.3), record("b", 41.30001)])) == ["a"]


def test_a_model_alone_is_not_best_and_nan_never_is() -> None:
    assert best(build([record("a"), record("real", 0.1)])) == []
    assert best(build([record("a", math.nan), record("b", 60), record("c", 50)])) == ["c"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (score(41.32, 2.13), "41.3 ± 2.1"),
        (score(1234.5, 88.0), "1234 ± 88"),
        (score(0.01234, 0.00112), "0.0123 ± 0.0011"),
        (score(-0.0004, 0.0011), "-0.0004 ± 0.0011"),
        (score(1.234e-7, 1.1e-8), "1.23e-7 ± 0.11e-7"),
        (score(41.32, low=39.0, high=49.0), "41.3 [39.0, 49.0]"),
        (score(41.32, 1e-9), "41.3200 ± 0.0000"),
        (score(41.32, 0.0), "41.3"),
        (score(41.32, low=None, high=None), "41.3"),
        (score(41.32, math.inf), "41.3"),
        (score(0.0, 0.0), "0"),
        (score(math.nan), "nan"),
        (score(0.0) | {"value": None}, "nan"),
    ],
)
def test_digits_follow_the_interval(given: Record, text: str) -> None:
    table = build([record("vdm") | {"scores": {"fvd": given}}])
    assert table.rows[0].cells[0].text == text


def test_reference_rows_and_floor_have_no_more_digits_than_the_models() -> None:
    real = record("real") | {"scores": {"fvd": score(0.123456, 0.000789)}}
    table = build([record("vdm"), real])
    assert [row.cells[0].text for row in table.rows] == ["41.3 ± 2.0", "0.1 ± 0.0", "2.1"]


def test_rounded_has_no_negative_zero() -> None:
    assert rounded([-0.001, 4.0], 2.0) == ["0.0", "4.0"]


def test_a_metric_missing_in_a_row_is_a_dash() -> None:
    table = build([record("a"), record("b", extra={"is": inception(6.9)})])
    assert [row.cells[1].text for row in table.rows] == ["—", "6.90 ± 0.12", "7.90"]


def test_one_floor_row_where_rows_share_n_else_a_floor_in_each_cell() -> None:
    shared = build([record("a"), record("b")])
    assert shared.rows[-1].cells[0].text == "2.1"
    apart = build([record("a"), record("b") | {"scores": {"fvd": score(52, n_fake=64, floor=5.0)}}])
    assert [row.cells[0].text for row in apart.rows] == ["41.3 ± 2.0 (floor 2.1)", "52.0 ± 2.0 (floor 5.0)"]
    fewer = build([record("a"), record("b") | {"scores": {"fvd": score(52, n_fake=64)}}])
    assert [row.kind for row in fewer.rows] == ["model", "model"]


def test_each_protocol_has_its_own_floor_row() -> None:
    other = record("b", protocol=OTHER) | {"scores": {"fvd": score(52, n_fake=64, floor=5.0)}}
    table = build([record("a"), other], allow_mixed=True)
    assert [(row.mark, row.cells[0].text) for row in table.rows[2:]] == [("", "2.1"), ("† 9a8b7c6d5e4f", "5.0")]


def test_caption_and_notes_say_what_a_reader_must_know() -> None:
    table = build([record("vdm", extra={"kvd": score(1, title="KVD", note="jackknife")}), record("dit")])
    assert "protocol 3f2a9c01be77 (shapes), 2048 real against 256 generated clips." in table.caption
    assert "KVD: jackknife" in table.notes
    assert "compute per clip: 51.0 GFLOP in 25 network calls (vdm, dit)" in table.notes
    uneven = build([record("vdm", extra={"kvd": score(1, title="KVD", n_fake=64)})])
    assert "FVD 2048 real against 256 generated clips, KVD 2048 real against 64" in uneven.caption


# --- renderers


def table_of_everything() -> Table:
    names = ("a_b", r"50%&co#1$~^\{x}|<y>", "[bracket]")
    runs = [record(name, 40 + i, extra={"is": inception(7 - i / 10)}) for i, name in enumerate(names)]
    note = "±, ≥ and → in 100% of_cases"
    small = record("small", 39, extra={"kvd": score(-1.2e-8, 1e-9, title="K_D", note=note)})
    lopsided = record("noise") | {"scores": {"fvd": score(900, low=890, high=950)}}
    return build([*runs, small, lopsided, record("latte", protocol=OTHER)], allow_mixed=True)


def test_markdown_is_a_table_of_equal_lines() -> None:
    text = to_markdown(build([record("vdm", 52), record("videofusion", 41.3), record("real", 0.2)]))
    assert text.splitlines()[:6] == [
        "| model       |          FVD ↓ |",
        "|:------------|---------------:|",
        "| vdm         |   52.0 ± 2.0   |",
        "| videofusion | **41.3 ± 2.0** |",
        "| *real*      |    0.2 ± 2.0   |",
        "| *floor*     |          2.1   |",
    ]
    assert text.endswith("(vdm, videofusion)\n")


def test_markdown_keeps_its_shape_whatever_the_names() -> None:
    rows = [line for line in to_markdown(table_of_everything()).splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def test_csv_is_long_and_exact() -> None:
    exact = 0.1 + 0.2
    other = record("b,c", protocol=OTHER) | {"scores": {"fvd": score(exact, math.nan)}}
    text = to_csv(build([record("real"), record("a", extra={"is": inception(6.9)}), other], allow_mixed=True))
    header = "model,dataset,protocol,metric,value,low,high,floor,n_real,n_fake,better,comparable,run_dir"
    assert text.splitlines()[0] == header
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["model"], row["metric"]) for row in rows] == [
        ("a", "fvd"),
        ("a", "is"),
        ("b,c", "fvd"),
        ("real", "fvd"),
    ]
    assert float(rows[2]["value"]) == exact
    assert (rows[2]["low"], rows[2]["high"]) == ("nan", "nan")
    assert [rows[1][key] for key in ("n_real", "n_fake", "better", "comparable")] == ["2048", "256", "higher", "True"]
    assert [row["protocol"] for row in rows] == ["3f2a9c01be77"] * 2 + ["9a8b7c6d5e4f", "3f2a9c01be77"]
    assert rows[0]["run_dir"] == "runs/a-shapes-1a2b"


def test_frame_says_which_rows_compare() -> None:
    frame = to_frame(build([record("a"), record("b", protocol=SMOKE_RUN)], allow_mixed=True))
    assert frame.comparable.tolist() == [True, False]


def test_latex_typesets_best_arrows_and_minus() -> None:
    text = to_latex(table_of_everything())
    assert r"FVD $\downarrow$ & IS $\uparrow$ & K\_D $\downarrow$ \\" in text
    assert r"\textbf{39.0 $\pm$ 2.0}" in text
    assert r"$-$1.20$\times 10^{-8}$ $\pm$ 0.10$\times 10^{-8}$" in text
    assert r"50\%\&co\#1\$\textasciitilde{}\textasciicircum{}\textbackslash{}\{x\}\textbar{}" in text
    assert text.index(r"\midrule" + "\n" + r"\textit{noise}") < text.index(r"\textit{floor}")


def test_latex_has_equal_rows_and_nothing_unescaped() -> None:
    text = to_latex(table_of_everything())
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line and line != r"\midrule"]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {3}
    assert all(row.endswith(r" \\") for row in rows)
    assert text.isascii()
    assert re.findall(r"(?<!\\)[%#~]|(?<!\\)_", text) == []
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))


def test_latex_compiles(tmp_path: Path) -> None:
    pdflatex = shutil.which("pdflatex")
    if not pdflatex:
        pytest.skip("pdflatex is not installed; the test before this one parsed the same text")
    begin, end = r"\documentclass{article}\usepackage{booktabs}\begin{document}", r"\end{document}"
    (tmp_path / "t.tex").write_text("\n".join([begin, to_latex(table_of_everything()), end]), encoding="utf-8")
    command = [pdflatex, "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 0
