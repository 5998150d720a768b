"""Tests of `vfbench.report.render`: tables as Markdown, CSV, LaTeX and data frames."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from resultfiles import OTHER, SMOKE_RUN, build, inception, record, score

from vfbench.report import table as tables
from vfbench.report.latex import to_latex
from vfbench.report.render import Table, to_csv, to_frame, to_markdown
from vfbench.report.results import Result
from vfbench.report.seeds import averaged


def table_with_special_cases() -> Table:
    names = ("a_b", r"50%&co#1$~^\{x}|<y>", "[bracket]")
    runs = [record(name, 40 + i, extra={"is": inception(7 - i / 10)}) for i, name in enumerate(names)]
    note = "±, ≥ and → in 100% of_cases"
    small = record("small", 35, extra={"kvd": score(-1.2e-8, 1e-9, title="K_D", note=note)})
    asymmetric = record("noise") | {"scores": {"fvd": score(900, low=890, high=950)}}
    return build([*runs, small, asymmetric, record("latte", protocol=OTHER)], allow_mixed=True)


def table_with_published_scores() -> Table:
    runs = [record(name, 40) | {"dataset": "ucf101"} for name in ("latte", "vdm")]
    return tables.build([Result.model_validate(run) for run in runs], published="all")


def test_markdown_is_an_aligned_table() -> None:
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


def test_markdown_stays_aligned_with_special_names() -> None:
    rows = [line for line in to_markdown(table_with_special_cases()).splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def test_csv_has_one_score_per_row_at_full_precision() -> None:
    exact = 0.1 + 0.2
    other = record("b,c", protocol=OTHER) | {"scores": {"fvd": score(exact, math.nan)}}
    text = to_csv(build([record("real"), record("a", extra={"is": inception(6.9)}), other], allow_mixed=True))
    header = "model,dataset,protocol,metric,value,low,high,floor,n_real,n_fake,better,comparable,integrity,run_dir"
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


def test_frame_marks_comparable_rows() -> None:
    frame = to_frame(build([record("a"), record("b", protocol=SMOKE_RUN)], allow_mixed=True))
    assert frame.comparable.tolist() == [True, False]


def test_latex_typesets_best_arrows_and_minus() -> None:
    text = to_latex(table_with_special_cases())
    assert r"FVD $\downarrow$ & IS $\uparrow$ & K\_D $\downarrow$ \\" in text
    assert r"\textbf{\num{35.0}}{\scriptsize $\pm$ \num{2.0}}" in text
    assert r"\num{-1.20e-8}{\scriptsize $\pm$ \num{0.10e-8}}" in text
    assert r"50\%\&co\#1\$\textasciitilde{}\textasciicircum{}\textbackslash{}\{x\}\textbar{}" in text
    assert text.index(r"\midrule" + "\n" + r"\textit{noise}") < text.index(r"\textit{floor}")


def test_latex_has_equal_rows_and_nothing_unescaped() -> None:
    comment, text = to_latex(table_with_special_cases()).split("\n", maxsplit=1)
    assert comment.startswith("% needs")
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line and line != r"\midrule"]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {3}
    assert all(row.endswith(r" \\") for row in rows)
    assert text.isascii()
    assert re.findall(r"(?<!\\)[%#~]|(?<!\\)_", text) == []
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))


def test_latex_underlines_the_second_best() -> None:
    names = ("third", "best", "second")
    text = to_latex(build([record(name, value) for name, value in zip(names, (50, 30, 40), strict=True)]))
    assert r"second & \underline{\num{40.0}}" in text
    unclear = to_latex(build([record(name, value) for name, value in zip(names, (41, 30, 40), strict=True)]))
    assert r"\textbf{\num{30.0}}" in unclear
    assert r"\underline" not in unclear


@pytest.mark.slow
@pytest.mark.parametrize("shown", [table_with_special_cases, table_with_published_scores])
def test_latex_compiles(shown: Callable[[], Table], tmp_path: Path) -> None:
    if not (shutil.which("pdflatex") and shutil.which("bibtex")):
        pytest.skip("pdflatex or bibtex is not installed")
    begin, end = r"\documentclass{article}\usepackage{booktabs,siunitx,url}\begin{document}", r"\end{document}"
    cited = r"\bibliographystyle{plain}\bibliography{t}" if shown().published else ""
    (tmp_path / "t.tex").write_text("\n".join([begin, shown().to_latex(), cited, end]), encoding="utf-8")
    (tmp_path / "t.bib").write_text(shown().to_bibtex(), encoding="utf-8")
    latex = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "t.tex"]
    for command in (latex, *((["bibtex", "t"], latex, latex) if cited else ())):
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert process.returncode == 0, process.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 0
    assert "undefined" not in (tmp_path / "t.log").read_text(encoding="latin-1")


def test_wide_csv_has_one_row_per_model() -> None:
    shown = table_with_special_cases()
    rows = list(csv.DictReader(io.StringIO(shown.to_csv(wide=True))))
    assert [row["model"] for row in rows] == [row.label for row in shown.rows if row.kind in ("model", "reference")]
    assert (rows[0]["fvd"], rows[0]["fvd_low"], rows[0]["is"], rows[0]["kvd"]) == ("40.0", "38.0", "7.0", "nan")
    published = list(csv.DictReader(io.StringIO(table_with_published_scores().to_csv(wide=True))))
    assert len(published) == len(table_with_published_scores().rows) - 1  # the floor


def test_bibtex_has_each_source_once() -> None:
    shown = table_with_published_scores()
    entries = re.findall(r"^@misc\{(.+),$", shown.to_bibtex(), re.MULTILINE)
    assert len(entries) == len(set(entries)) == len({score.reported_in for score in shown.published})
    assert set(re.findall(r"\\cite\{(.+?)\}", shown.to_latex())) == set(entries)
    assert table_with_special_cases().to_bibtex() == ""


def test_means_over_seeds_have_students_interval() -> None:
    runs = [record("vdm", value, run=str(value)) | {"seed": value} for value in (50, 52, 54)]
    replay = runs[0] | {"run_dir": "replay"}  # no independent repeat
    (mean, other) = averaged([Result.model_validate(run) for run in (*runs, replay, record("dit", 40))])
    fvd = mean.scores["fvd"]
    assert (fvd.value, fvd.low, fvd.high) == pytest.approx((52, 52 - 4.9683, 52 + 4.9683), abs=1e-3)
    assert "3 runs (seeds 50, 52, 54)" in mean.note
    assert (other.model, other.scores["fvd"].value) == ("dit", 40)
