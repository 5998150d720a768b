"""Tests of `vfbench import`: the files of four tools, their mark in tables, and files that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Command

import vfbench
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.report.results import Result

RECORD = ROOT / "results" / "records" / "vdm.json"


def snapshot(number: int, **results: float) -> str:
    """A line of StyleGAN-V's `metric-*.jsonl`."""
    line = {"results": results, "metric": next(iter(results)).removesuffix("_mean"), "total_time": 9.0, "num_gpus": 8}
    return json.dumps({**line, "snapshot_pkl": f"network-snapshot-{number:06}.pkl", "timestamp": 1.6e9}) + "\n"


VIDEOS = [{"video_path": f"{i}.mp4", "video_results": 0.5} for i in range(3)]
FILES: dict[str, tuple[str, str, dict[str, tuple[float, str, int, int]]]] = {
    "cd-fvd": (
        "cd-fvd",
        json.dumps({"fvd": 123.5, "model": "videomae", "n_real": "full", "n_fake": 2048}),
        {"fvd_videomae": (123.5, "lower", 0, 2048)},
    ),
    "cd-fvd alone": ("cd-fvd", '{"fvd": 9}', {"fvd": (9.0, "lower", 0, 0)}),
    "stylegan-v": (
        "stylegan-v",
        snapshot(100, fvd2048_16f=300.0) + "\n" + snapshot(200, fvd2048_16f=123.5),
        {"fvd": (123.5, "lower", 2048, 2048)},
    ),
    "stylegan-v long": (
        "stylegan-v",
        snapshot(1, fvd2048_128f=7.0),
        {"fvd2048_128f": (7.0, "lower", 2048, 2048)},
    ),
    "stylegan-v fid": ("stylegan-v", snapshot(1, fid50k_full=7.0), {"fid50k_full": (7.0, "lower", 0, 50_000)}),
    "stylegan-v is": (
        "stylegan-v",
        snapshot(1, isv2048_ucf_mean=20.0, isv2048_ucf_std=0.5),
        {"is": (20.0, "higher", 2048, 2048)},
    ),
    "vbench": (
        "vbench",
        json.dumps({"subject_consistency": [0.95, VIDEOS], "dynamic_degree": [0.5, []]}),
        {"subject_consistency": (0.95, "higher", 0, 3), "dynamic_degree": (0.5, "higher", 0, 0)},
    ),
    "torch-fidelity": (
        "torch-fidelity",
        json.dumps(
            {
                **{"frechet_inception_distance": 12.5, "inception_score_mean": 6.0, "inception_score_std": 0.6},
                **{"kernel_inception_distance_mean": 0.04, "precision": 0.7},
            }
        ),
        {
            "fid": (12.5, "lower", 0, 0),
            "inception_score_mean": (6.0, "higher", 0, 0),
            "kernel_inception_distance_mean": (0.04, "lower", 0, 0),
            "precision": (0.7, "higher", 0, 0),
        },
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_values_and_numbers_of_clips_are_those_of_the_file(case: str, tmp_path: Path) -> None:
    tool, text, expected = FILES[case]
    (tmp_path / "scores.x").write_text(text)
    result = vfbench.import_results(tmp_path / "scores.x", tool, output=tmp_path / "out")
    read = {name: (score.value, score.better, score.n_real, score.n_fake) for name, score in result.scores.items()}
    assert read == expected
    (stored,) = vfbench.load_results(tmp_path / "out")
    assert (stored.integrity, stored.imported, stored.model) == ("intact", result.imported, "scores")
    assert ("last of 2 snapshots, network-snapshot-000200.pkl" in result.note) is (case == "stylegan-v")


@pytest.mark.parametrize(
    ("tool", "text", "message"),
    [
        ("cd-fvd", "", "JSON"),
        ("cd-fvd", "{}", "fvd is None"),
        ("cd-fvd", '{"fvd": NaN}', "NaN"),
        ("cd-fvd", '{"fvd": true}', "True"),
        ("cd-fvd", '{"fvd": "1"}', "'1'"),
        ("cd-fvd", "[1]", "JSON object"),
        ("stylegan-v", "", "no score"),
        ("stylegan-v", "\n\n", "no score"),
        ("stylegan-v", '{"results": 1}', "no score"),
        ("stylegan-v", snapshot(1, fvd2048_16f=1.0) + "{", "JSON"),
        ("stylegan-v", '{"results": {"fvd2048_16f": null}}', "None"),
        ("stylegan-v", '{"results": {"fvd2048_16f": Infinity}}', "Infinity"),
        ("vbench", '{"fvd": 123.4}', "no list of videos"),
        ("vbench", '{"a": []}', "no list of videos"),
        ("vbench", '{"a": ["x", []]}', "'x'"),
        ("vbench", "{}", "no score"),
        ("torch-fidelity", '{"a": {"b": 1}}', "not a finite number"),
        ("torch-fidelity", '{"a\\u001b[31m": null}', r"a\x1b"),
    ],
)
def test_what_is_no_score_is_refused(tool: str, text: str, message: str, tmp_path: Path, vfbench: Command) -> None:
    (tmp_path / "file").write_text(text)
    outcome = vfbench("import", tmp_path / "file", "--format", tool, "--output", tmp_path / "out")
    assert (outcome.code, message in outcome.err, "\x1b" in outcome.err) == (4, True, False), outcome.err
    assert not (tmp_path / "out").exists()


def take(folder: Path, value: float = 1.0, **options: Any) -> Result:
    (folder / "file.json").write_text(json.dumps({"fvd": value, "n_fake": 64}))
    return vfbench.import_results(folder / "file.json", "cd-fvd", output=folder / "out", **options)


def test_tables_mark_the_row_and_never_make_it_the_best(tmp_path: Path, vfbench: Command) -> None:
    take(tmp_path, name="x|<b>$&_\x1b[31m\\")
    assert vfbench("table", tmp_path / "out", RECORD).code == 2
    for form, mark in (("markdown", "§ unverified"), ("latex", r"\S{} unverified"), ("csv", "unverified")):
        outcome = vfbench("table", tmp_path / "out", RECORD, "--allow-mixed", "--format", form)
        assert (outcome.code, mark in outcome.out, "\x1b" in outcome.out) == (0, True, False)
    table = vfbench("table", tmp_path / "out", RECORD, "--allow-mixed").out
    assert "cd-fvd in file.json: fvd of 64 clips" in table.replace("\n  ", " ")
    row = next(line for line in table.splitlines() if "§" in line)
    assert "**" not in row  # the lowest FVD of the table


@pytest.mark.parametrize("sides", [("out", RECORD), (RECORD, "out")])
def test_the_gate_refuses_it_on_either_side(sides: tuple[Any, Any], tmp_path: Path, vfbench: Command) -> None:
    take(tmp_path)
    result, baseline = (tmp_path / side for side in sides)
    outcome = vfbench("gate", result, "--baseline", baseline, "--rule", "fvd:+5%")
    assert (outcome.code, "cd-fvd" in outcome.err) == (2, True)
    update = vfbench("gate", tmp_path / "out", "--baseline", tmp_path / "b.json", "--update", "--reason", "x")
    assert (update.code, "cd-fvd" in update.err) == (2, True)


def test_another_result_is_not_overwritten(tmp_path: Path) -> None:
    first = take(tmp_path)
    assert take(tmp_path).run_id == first.run_id
    with pytest.raises(UserError, match="another result"):
        take(tmp_path, 2.0)


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'cd-fvd'"):
        vfbench.import_results(tmp_path, "cd-fvdd")
    with pytest.raises(MissingData, match="absent"):
        vfbench.import_results(tmp_path / "absent", "vbench")
    (tmp_path / "file").write_text('{"fvd": 1}')
    with pytest.raises(BadEnvironment, match="file/out"):
        vfbench.import_results(tmp_path / "file", "cd-fvd", output=tmp_path / "file" / "out")
