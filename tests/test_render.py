"""Tests of `vfbench.report.render`: tables as Markdown, CSV, LaTeX and data frames."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from resultfiles import OTHER, SMOKE_RUN, build, inception, record, score

from vfbench.report.render import Table, to_csv, to_frame, to_latex, to_markdown


def table_with_special_cases() -> Table:
    names = ("a_b", r"50%&co#1$~^\{x}|<y>", "[bracket]")
    runs = [record(name, 40 + i, extra={"is": inception(7 - i / 10)}) for i, name in enumerate(names)]
    note = "±, ≥ and → in 100% of_cases"
    small = record("small", 35, extra={"kvd": score(-1.2e-8, 1e-9, title="K_D", note=note)})
    asymmetric = record("noise") | {"scores": {"fvd": score(900, low=890, high=950)}}
    return build([*runs, small, asymmetric, record("latte", protocol=OTHER)], allow_mixed=True)


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
    assert r"\textbf{35.0 $\pm$ 2.0}" in text
    assert r"$-$1.20$\times 10^{-8}$ $\pm$ 0.10$\times 10^{-8}$" in text
    assert r"50\%\&co\#1\$\textasciitilde{}\textasciicircum{}\textbackslash{}\{x\}\textbar{}" in text
    assert text.index(r"\midrule" + "\n" + r"\textit{noise}") < text.index(r"\textit{floor}")


def test_latex_has_equal_rows_and_nothing_unescaped() -> None:
    text = to_latex(table_with_special_cases())
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
        pytest.skip("pdflatex is not installed")
    begin, end = r"\documentclass{article}\usepackage{booktabs}\begin{document}", r"\end{document}"
    (tmp_path / "t.tex").write_text("\n".join([begin, to_latex(table_with_special_cases()), end]), encoding="utf-8")
    command = [pdflatex, "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "t.tex"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 0, process.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 0
