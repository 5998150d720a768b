"""Tests of other inputs of `vfbench score`: prompts, and features instead of clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipfiles import write_frames, write_list
from conftest import Command, results
from samples import FAKE, REAL
from scoring import plan_score, run_score, save_array, shapes_clips

from vfbench.errors import MissingData, UserError
from vfbench.metrics import fvd, kvd
from vfbench.scoring.job import score

pytest.importorskip("av")  # reads and writes videos
pytestmark = pytest.mark.usefixtures("empty_cwd")

# Class folders whose names are captions of Moving Shapes.
CAPTIONS = [f"a_small_{colour}_circle_moves_left_over_blue_stripes" for colour in ("red", "green", "pink")]


# Prompts.


@pytest.mark.slow
def test_the_class_folder_is_the_prompt(tmp_path: Path) -> None:
    names = [f"{CAPTIONS[i % 3]}/{i}" for i in range(12)]
    for name, clip in zip(names, shapes_clips(12), strict=True):
        write_frames(tmp_path / "fake" / name, clip)
    prompts = [f"{name}\t{name.partition('/')[0].replace('_', ' ')}" for name in names]

    def clipsim(folder: str, *lines: str) -> dict[str, Any]:
        options = {"prompts": write_list(tmp_path / folder, *lines)} if lines else {}
        result = run_score(tmp_path / "fake", metrics=["clipsim"], output=folder, **options)
        return {**result["scores"]["clipsim"], "result_note": result["note"]}

    from_folders, from_file = clipsim("classes"), clipsim("prompts", *prompts)
    assert from_folders["value"] == from_file["value"]
    assert from_folders["error"] != from_file["error"]  # clips of one class folder are one cluster
    single_prompt = clipsim("same", *(f"{name}\t{CAPTIONS[0].replace('_', ' ')}" for name in names))
    assert single_prompt["value"] != from_file["value"]
    assert "all clips share one prompt" in single_prompt["result_note"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.npy[0]\tone"], r"no prompt for 1 of 2 clips: a.npy\[1\]"),
        (["a.npy[0]\tone", "a.npy[1]\ttwo", "b.npy[0]\tthree"], r"1 prompts are of clips .* not hold: b.npy\[0\]"),
        (["a.npy[0]\tone", "a.npy[1] two"], r"line 2: needed: path below the folder, a tab"),
        (["a.npy[0]\tone", "", "a.npy[0]\ttwo"], r"line 3: a.npy\[0\] has two prompts"),
    ],
)
@pytest.mark.usefixtures("no_extraction")
def test_incomplete_and_foreign_prompts_are_refused(lines: list[str], message: str, tmp_path: Path) -> None:
    fake = save_array(tmp_path / "fake" / "a.npy", shapes_clips(2)).parent
    with pytest.raises(MissingData, match=message):
        plan_score(fake, prompts=write_list(tmp_path / "prompts.tsv", *lines))


def test_prompts_of_unlisted_clips_are_ignored(tmp_path: Path) -> None:
    for i, clip in enumerate(shapes_clips(3)):
        write_frames(tmp_path / "fake" / str(i), clip)
    prompts = write_list(tmp_path / "p", *(f"{i}\tred circle" for i in range(3)))
    listing = write_list(tmp_path / "l", "0", "1")
    assert "frame folders: 2" in plan_score(tmp_path / "fake", prompts=prompts, listing=listing).describe()


# Features.


def test_features_are_scored_by_metrics_of_features(tmp_path: Path, vfbench: Command) -> None:
    fake, real = save_array(tmp_path / "fake.npy", FAKE), save_array(tmp_path / "real.npy", REAL)
    outcome = vfbench("score", "--real", real, "--fake", fake, "--output", "mine", "--json")
    assert outcome.code == 0, outcome.err
    assert "feature network and frames of the clips are not known" in outcome.err
    result = results(Path("mine"))
    assert json.loads(outcome.out) == result
    assert list(result["scores"]) == ["fvd", "kvd"]
    for metric in (fvd.build(), kvd.build()):
        actual = result["scores"][metric.name]
        assert actual["value"] == pytest.approx(metric.score(FAKE, REAL).value, rel=1e-12)
        assert (actual["n_real"], actual["n_fake"]) == (len(REAL), len(FAKE))
    assert result["protocol"]["comparable"] is False
    assert "not comparable" in Path("mine/tables/table.md").read_text()
    assert result["fake"]["layout"] == "features"


@pytest.mark.parametrize("change", [lambda x: x + 1e20, lambda x: x * 1e-150, lambda x: x * 1e150, lambda x: x * 1e300])
def test_features_that_give_no_numbers_are_refused(
    change: Callable[[np.ndarray], np.ndarray], tmp_path: Path, vfbench: Command
) -> None:
    fake, real = (save_array(tmp_path / f"{i}.npy", change(values)) for i, values in enumerate((FAKE, REAL)))
    outcome = vfbench("score", "--real", real, "--fake", fake, "--output", "mine")
    assert outcome.code == 2
    assert "extract them again" in outcome.err


def test_features_are_scored_with_the_metrics_of_the_protocol(tmp_path: Path) -> None:
    options = {"real": str(save_array(tmp_path / "real.npy", REAL)), "metrics": ["fvd"], "smoke": False}
    fake = save_array(tmp_path / "fake.npy", FAKE)
    default, preset = (score(plan_score(fake, protocol=name, **options)).to_json() for name in (None, "stylegan-v"))
    assert default["scores"]["fvd"]["value"] == pytest.approx(fvd.build(ddof=1).score(FAKE, REAL).value)
    assert preset["scores"]["fvd"]["value"] == pytest.approx(fvd.build(ddof=0).score(FAKE, REAL).value)
    assert default["protocol"]["id"] != preset["protocol"]["id"]


def with_nan_row(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(values))[:, None] == 5, np.nan, values)


@pytest.mark.parametrize(
    ("fake", "real", "options", "message"),
    [
        (FAKE, shapes_clips(2), {}, "real.npy clips: give features on both sides"),
        (FAKE[:, :20], REAL, {}, "different width, 20 in .*fake.npy and 24 in .*real.npy"),
        (with_nan_row(FAKE), REAL, {}, "fake.npy: row 5 holds NaN"),
        (FAKE[:32], REAL, {}, "32 .*too few: fvd needs 64"),
        (FAKE, REAL, {"num_real": 9}, "--num-real: .* all of which are scored"),
        (FAKE, REAL, {"metrics": ["clipsim"]}, "clipsim is made of similarity"),
        (shapes_clips(2), REAL, {}, "real.npy holds features and .*fake.npy clips"),
    ],
)
@pytest.mark.usefixtures("no_extraction")
def test_invalid_features_are_refused(
    fake: np.ndarray, real: np.ndarray, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = str(save_array(tmp_path / "real.npy", real))
    with pytest.raises(UserError, match=message):
        plan_score(save_array(tmp_path / "fake.npy", fake), real=path, smoke=False, **options)
