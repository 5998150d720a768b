"""Tests of `vfbench report` without a browser: files, bad input, hostile names, numbers about clips."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import ROOT, Command
from matplotlib.figure import Figure
from PIL import Image
from reports import CLIPS, make_runs
from resultfiles import OTHER, Record, record, score

import vfbench
from vfbench.errors import Incomplete, MissingData
from vfbench.interfaces import Clips
from vfbench.pipeline.recall import Recalled
from vfbench.report import clip_numbers, examples, fewer_clips, html, plots
from vfbench.report.clip_numbers import ClipNumbers
from vfbench.report.figure import INK, legend, shown, write
from vfbench.report.gallery import Column, Gallery, Picture, Request
from vfbench.report.results import Result
from vfbench.report.sprites import write_sprite

pytestmark = pytest.mark.usefixtures("no_plots")

RECORDS = [ROOT / "results" / "records" / f"{model}.json" for model in ("vdm", "videofusion", "noise")]
HOSTILE = [
    "<script>alert(1)</script>",
    "$\\input{x}$ & 50%",
    "=1+1",
    "\x1b[31mred",
    "](javascript:1)",
    "_名前 {{ 7*7 }}",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        leave_out_plots(patch)
        return vfbench.write_report(runs, tmp_path_factory.mktemp("report") / "out", allow_mixed=True)


def leave_out_plots(patch: pytest.MonkeyPatch) -> None:
    """Draw plots without writing them, which takes most of the time of a report."""

    def save(figure: Figure, file: Any, format: str, **_: Any) -> None:
        file.write("<svg></svg>") if format == "svg" else file.touch()

    patch.setattr(Figure, "savefig", save)
    patch.setattr(Figure, "draw_without_rendering", lambda figure: None)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_plots(monkeypatch)


def written(folder: Path, *records: Record) -> list[Path]:
    """Signed results, each in a file."""
    paths = [folder / f"{number}.json" for number in range(len(records))]
    for path, each in zip(paths, records, strict=True):
        Result.model_validate(each).write(path)
    return paths


def data_of(page: Path) -> dict[str, Any]:
    """Data for the script of the page."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert match
    data: dict[str, Any] = json.loads(match[1])
    return data


def test_a_report_is_one_folder_that_refers_to_nothing_else(page: Path) -> None:
    text = page.read_text()
    local = re.findall(r'(?:src|href)="(?!#|data:)([^"]+)"', re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))
    assert {"report.css", "report.js", "table.csv", "plots/intervals.pdf"} <= set(local)
    assert [name for name in local if not (page.parent / name).is_file()] == []
    assert "default-src 'none'" in text
    anchors, ids = set(re.findall(r'href="#([^"]+)"', text)), re.findall(r'\bid="([^"]+)"', text)
    assert anchors <= set(ids)
    assert len(ids) == len(set(ids))


def test_clips_of_one_request_stand_side_by_side_after_the_real_one(page: Path, runs: list[Path]) -> None:
    data = data_of(page)
    assert [(column["label"], column["kind"]) for column in data["columns"]] == [
        ("real", "real"),
        ("noise", "reference"),
        ("frozen", "reference"),
    ]
    assert [row["index"] for row in data["requests"]] == list(range(CLIPS))
    assert all(re.search(r"\bover\b", row["caption"]) for row in data["requests"])
    for row in data["requests"]:  # the first frame of `frozen` is that of the real clip
        real, _, frozen = (Image.open(page.parent / clip["file"]).crop((0, 0, 32, 32)) for clip in row["clips"])
        assert np.array_equal(np.array(real), np.array(frozen))
    groups = {(group["column"], group["title"].split()[0]) for group in data["examples"]}
    assert groups == {(column, word) for column in (1, 2) for word in ("nearest", "farthest", "best", "worst")}


def test_a_plot_has_the_ink_of_the_page_and_names_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for name in HOSTILE:
            axis.plot([0, 1], [0, 1], label=shown(name))
        legend(figure, [axis])

    ids = list[str]()
    for name in ("one", "two"):
        plot = write(tmp_path, name, "text", (4.0, 2.0), draw)
        assert all((tmp_path / f"{name}.{suffix}").stat().st_size for suffix in ("svg", "pdf", "png"))
        root = ElementTree.fromstring(plot.svg)
        texts = {node.text for node in root.iter() if node.tag.endswith("text")}
        assert {shown(each) for each in HOSTILE} <= texts
        assert "currentColor" in plot.svg
        assert INK not in plot.svg
        ids += re.findall(r'\bid="([^"]+)"', plot.svg)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("side", "exact"), [(32, True), (80, False)])
def test_a_sheet_holds_every_frame(side: int, exact: bool, tmp_path: Path) -> None:
    ramp = torch.arange(5 * side, dtype=torch.uint8).reshape(5, 1, 1, side).expand(5, 3, side, side)
    sprite = write_sprite(tmp_path, "clip.webp", ramp)
    sheet = np.array(Image.open(tmp_path / sprite.file).convert("RGB")).astype(int)
    for number in range(5):
        top, left = number // sprite.columns * side, number % sprite.columns * side
        frame = sheet[top : top + side, left : left + side].transpose(2, 0, 1)
        difference = np.abs(frame - ramp[number].numpy()).max()
        assert difference == 0 if exact else difference < 20
    assert (sprite.frames, sprite.width, sprite.height) == (5, side, side)


@pytest.mark.slow
def test_a_run_without_clips_or_features_is_shown_with_the_flag_that_keeps_them(
    vfbench: Command, tmp_path: Path
) -> None:
    outcome = vfbench("report", *RECORDS, "-o", tmp_path / "out")
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 'out' / 'index.html'}\n")
    assert "--keep-clips" in outcome.err
    text = (tmp_path / "out" / "index.html").read_text()
    assert "--keep-clips" in text
    assert all(
        f'id="{anchor}"' in text for anchor in ("table", "intervals", "parts", "cost", "sizes", "protocol", "runs")
    )
    assert not any(f'id="{anchor}"' in text for anchor in ("examples", "vote", "gallery"))
    again = vfbench("report", RECORDS[0], RECORDS[0], "-o", tmp_path / "out")  # replaces the older one
    assert again.code == 0
    assert len(json.loads((tmp_path / "out" / html.MARKER).read_text())["results"]) == 1


def _other_schema(folder: Path) -> list[Path]:
    (path,) = written(folder, record("a"))
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 9'))
    return [path]


def _no_report(folder: Path) -> list[Path]:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("")
    return written(folder, record("a"))


@pytest.mark.parametrize(
    ("make", "flags", "code", "words"),
    [
        (lambda folder: written(folder, record("a"), record("b", protocol=OTHER)), [], 2, ["tats", "--allow-mixed"]),
        (_other_schema, [], 4, ["schema 9", "run --model"]),
        (lambda folder: written(folder, {**record("a"), "scores": {}}), [], 2, ["run --model"]),
        (lambda folder: [folder / "nowhere"], [], 4, ["nowhere", "run --model"]),
        (lambda folder: written(folder, record("a")), ["--num-clips", "0"], 2, ["--num-clips 0"]),
        (_no_report, [], 2, ["out", "--output"]),
    ],
    ids=["mixed", "schema", "empty", "missing", "clips", "folder"],
)
def test_bad_input_is_refused_in_one_line(
    make: Callable[[Path], list[Path]], flags: list[str], code: int, words: list[str], vfbench: Command, tmp_path: Path
) -> None:
    outcome = vfbench("report", *make(tmp_path), "-o", tmp_path / "out", *flags)
    assert outcome.code == code
    assert all(word in outcome.err for word in words)
    assert not (tmp_path / "out" / "index.html").exists()
    assert list(tmp_path.glob(".*")) == []


def test_doubtful_results_are_shown_with_warnings(vfbench: Command, tmp_path: Path) -> None:
    lost = {**score(math.nan), "value": None, "low": None, "high": None}
    paths = written(tmp_path, record("kept"), record("lost", extra={"fvd": lost}), record("other", protocol=OTHER))
    paths[0].write_text(paths[0].read_text().replace("41.3", "14.3"))
    assert vfbench("report", *paths, "-o", tmp_path / "out", "--allow-mixed").code == 0
    warnings = (tmp_path / "out" / "index.html").read_text().partition('id="warnings"')[2].partition("</ul>")[0]
    assert all(word in warnings for word in ("edited", "lost: FVD", "--allow-mixed"))


def test_hostile_names_are_shown_as_text(vfbench: Command, tmp_path: Path) -> None:
    paths = written(tmp_path, *(record(name, run=str(number)) for number, name in enumerate(HOSTILE)))
    assert vfbench("report", *paths, "-o", tmp_path / "out").code == 0
    text = (tmp_path / "out" / "index.html").read_text()
    assert text.count("<script") == 2  # the data and report.js
    assert "\x1b" not in text
    assert "{{ 7*7 }}" in text
    assert "'=1+1" in (tmp_path / "out" / "table.csv").read_text()
    assert "javascript:1" not in "".join(re.findall(r'href="([^"]*)"', text))


def test_a_missing_clip_is_named_and_the_report_still_written(runs: list[Path], tmp_path: Path) -> None:
    chunk = runs[0] / "chunks" / "000000.safetensors"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-9])
    try:
        with pytest.raises(Incomplete, match=r"noise/chunks/000000\.safetensors"):
            vfbench.write_report(runs, tmp_path / "out", allow_mixed=True)
    finally:
        chunk.write_bytes(content)
    rows = data_of(tmp_path / "out" / "index.html")["requests"]
    assert [row["clips"][1] for row in rows] == [{"missing": "noise/chunks/000000.safetensors"}] * CLIPS


def test_a_real_clip_that_cannot_be_read_has_a_placeholder(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Recalled.asked

    def damaged(recalled: Recalled, indices: Sequence[int]) -> Clips:
        if 1 in indices:
            raise MissingData("v_Archery_g01.avi is damaged")
        return asked(recalled, indices)

    monkeypatch.setattr(Recalled, "asked", damaged)
    with pytest.raises(Incomplete, match=r"v_Archery_g01\.avi"):
        vfbench.write_report(runs, tmp_path / "out", allow_mixed=True)
    rows = data_of(tmp_path / "out" / "index.html")["requests"]
    assert [row["index"] for row in rows if "missing" in row["clips"][0]] == [1]


def test_the_nearest_real_clips_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = {
        name: {"metric": name, "source": f"net.{end}"} for name, end in (("fvd", "features"), ("x", "similarity"))
    }
    run = Result.model_validate(record("a", protocol={**record("a")["protocol"], "n_fake": 2, "measures": measures}))
    features = {
        "fake.net.features": torch.tensor([[0.0, 3.0], [9.0, 0.0], [5.0, 5.0]]),  # the third is of a second draw
        "real.0.net.features": torch.tensor([[0.0, 0.0], [10.0, 0.0], [10.0, 1.0]]),
        "real.0.groups": torch.tensor([0, 1, 1]),
        "fake.net.similarity": torch.tensor([[0.5], [0.25], [0.0]]),
        "real.0.net.similarity": torch.zeros(3, 1),
    }
    monkeypatch.setattr(clip_numbers, "read_features", lambda record: features)
    numbers = clip_numbers.clip_numbers(run)
    assert numbers
    assert numbers.rows[:, 0].tolist() == [0, 1]
    assert numbers.of(0) == {"nearest real": 3.0, "fit": 0.5}
    assert numbers.of(1) == {"nearest real": 1.0, "fit": 0.25}
    assert numbers.of(2) == {}
    assert numbers.between_real.tolist() == [10.0, 10.0, math.sqrt(101)]  # never to a clip of the same video


def test_fewer_clips_have_the_score_of_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    fake, real = (torch.randn(count, 3, generator=generator) for count in (256, 400))
    groups = {"fake.groups": torch.arange(256), "real.0.groups": torch.arange(400)}
    features = {"fake.net.features": fake, "real.0.net.features": real, **groups}
    protocol = {**record("a")["protocol"], "measures": {"fvd": {"metric": "fvd", "source": "net.features"}}}
    monkeypatch.setattr(fewer_clips, "read_features", lambda record: features)
    values = fewer_clips.values_at(Result.model_validate(record("a", protocol=protocol)), ["fvd", "kvd"])
    (half,) = [value for count, value in values["fvd"] if count == 128]
    mean, cov = [], []
    for rows in (fake[:128].double(), real.double()):
        mean.append(rows.mean(0).numpy())
        cov.append(np.cov(rows.numpy().T))
    roots = np.sqrt(np.linalg.eigvals(cov[0] @ cov[1]).real).sum()
    assert half == pytest.approx(((mean[0] - mean[1]) ** 2).sum() + np.trace(cov[0] + cov[1]) - 2 * roots)
    assert values.keys() == {"fvd"}


def test_known_damage_has_a_plot_of_its_own(tmp_path: Path) -> None:
    damaged = [
        {
            **record("corrupted", 10.0 * strength, run=str(strength)),
            "model_spec": f"corrupted(kind='blur', strength={strength})",
        }
        for strength in (0.5, 1.0)
    ]
    paths = written(tmp_path, record("a"), *damaged)
    page = vfbench.write_report(paths, tmp_path / "out")
    assert 'id="plot-damage"' in page.read_text()
    assert len(json.loads((tmp_path / "out" / html.MARKER).read_text())["results"]) == 1
    assert plots.damage(Result.model_validate(damaged[1])) == ("blur", 1.0)
    assert plots.damage(Result.model_validate(record("a"))) is None


@pytest.mark.slow
def test_a_report_without_clips_does_not_import_torch(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "vfbench",
        "report",
        str(RECORDS[0]),
        "-o",
        str(tmp_path / "out"),
    ]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in outcome.stderr.splitlines()}
    assert "jinja2" in modules
    assert "torch" not in modules


def test_examples_are_of_the_clips_whose_numbers_are_known(tmp_path: Path) -> None:
    picture = Picture(write_sprite(tmp_path, "a.webp", torch.zeros(2, 3, 8, 8, dtype=torch.uint8)))
    rows = tuple(Request(index, "a circle", "", (picture,)) for index in (0, 1, 5))  # 5 is of a second draw
    gallery = Gallery((Column("vdm", "model", 0),), rows)
    numbers = ClipNumbers(
        "judge", torch.zeros(2, 1, dtype=torch.long), torch.tensor([[2.0], [1.0]]), torch.ones(2), torch.zeros(0)
    )
    found = examples.groups(gallery, {0: numbers}, tmp_path, None)
    assert [[example.row for example in group.examples] for group in found] == [[1, 0], [0, 1]]
