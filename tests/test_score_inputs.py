"""What else may be given to `vfbench score`: prompts that clips were asked to show, and features instead of clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipfiles import write_frames, write_list
from conftest import Command, results
from samples import FAKE, REAL
from scoring import drawn, looked, saved, scored

from vfbench.errors import MissingData, UserError
from vfbench.metrics import fvd, kvd
from vfbench.scoring.job import score

pytest.importorskip("av")  # without it no clip can be made, nor read
pytestmark = pytest.mark.usefixtures("elsewhere")

# Names of class folders that the judge can read.
CAPTIONS = [f"a_small_{colour}_circle_moves_left_over_blue_stripes" for colour in ("red", "green", "pink")]


# Prompts.


def test_a_class_folder_is_a_caption(tmp_path: Path) -> None:
    names = [f"{CAPTIONS[i % 3]}/{i}" for i in range(12)]
    for name, clip in zip(names, drawn(12), strict=True):
        write_frames(tmp_path / "fake" / name, clip)
    prompts = [f"{name}\t{name.partition('/')[0].replace('_', ' ')}" for name in names]

    def clipsim(folder: str, *lines: str) -> dict[str, Any]:
        given = {"prompts": write_list(tmp_path / folder, *lines)} if lines else {}
        result = scored(tmp_path / "fake", metrics=["clipsim"], output=folder, **given)
        return {**result["scores"]["clipsim"], "told": result["note"]}

    found, told = clipsim("classes"), clipsim("prompts", *prompts)
    assert found["value"] == told["value"]
    assert found["error"] != told["error"]  # clips of one prompt are one sample of prompts
    same = clipsim("same", *(f"{name}\t{CAPTIONS[0].replace('_', ' ')}" for name in names))
    assert same["value"] != told["value"]
    assert "all clips are of one prompt" in same["told"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a.npy[0]\tone"], r"no prompt for 1 of 2 clips: a.npy\[1\]"),
        (["a.npy[0]\tone", "a.npy[1]\ttwo", "b.npy[0]\tthree"], r"1 prompts are of clips .* not hold: b.npy\[0\]"),
        (["a.npy[0]\tone", "a.npy[1] two"], r"line 2: needed: path below the folder, a tab"),
        (["a.npy[0]\tone", "", "a.npy[0]\ttwo"], r"line 3: a.npy\[0\] has two prompts"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_prompts_that_do_not_fit_are_refused(lines: list[str], said: str, tmp_path: Path) -> None:
    fake = saved(tmp_path / "fake" / "a.npy", drawn(2)).parent
    with pytest.raises(MissingData, match=said):
        looked(fake, prompts=write_list(tmp_path / "prompts.tsv", *lines))


def test_a_list_lets_prompts_of_others_be(tmp_path: Path) -> None:
    for i, clip in enumerate(drawn(3)):
        write_frames(tmp_path / "fake" / str(i), clip)
    prompts = write_list(tmp_path / "p", *(f"{i}\tred circle" for i in range(3)))
    listing = write_list(tmp_path / "l", "0", "1")
    assert "frame folders: 2" in looked(tmp_path / "fake", prompts=prompts, listing=listing).describe()


# Features.


def test_features_are_scored_by_the_metrics_that_read_them(tmp_path: Path, vfbench: Command) -> None:
    fake, real = saved(tmp_path / "fake.npy", FAKE), saved(tmp_path / "real.npy", REAL)
    done = vfbench("score", "--real", real, "--fake", fake, "--output", "mine", "--json")
    assert done.code == 0, done.err
    assert "the network that made these features is not known" in done.err
    result = results(Path("mine"))
    assert json.loads(done.out) == result
    assert list(result["scores"]) == ["fvd", "kvd"]
    for metric in (fvd.build(), kvd.build()):
        found = result["scores"][metric.name]
        assert found["value"] == pytest.approx(metric.score(FAKE, REAL).value, rel=1e-12)
        assert (found["n_real"], found["n_fake"]) == (len(REAL), len(FAKE))
    assert result["protocol"]["comparable"] is False
    assert "not comparable" in Path("mine/tables/table.md").read_text()
    assert result["fake"]["layout"] == "features"


def test_features_are_scored_as_a_protocol_has_it(tmp_path: Path) -> None:
    given = {"real": str(saved(tmp_path / "real.npy", REAL)), "metrics": ["fvd"], "smoke": False}
    fake = saved(tmp_path / "fake.npy", FAKE)
    one, other = (score(looked(fake, protocol=name, **given)).to_json() for name in (None, "stylegan-v"))
    assert one["scores"]["fvd"]["value"] == pytest.approx(fvd.build(ddof=1).score(FAKE, REAL).value)
    assert other["scores"]["fvd"]["value"] == pytest.approx(fvd.build(ddof=0).score(FAKE, REAL).value)
    assert one["protocol"]["id"] != other["protocol"]["id"]


def spoilt(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(values))[:, None] == 5, np.nan, values)


@pytest.mark.parametrize(
    ("fake", "real", "options", "said"),
    [
        (FAKE, drawn(2), {}, "real.npy clips: give features on both sides"),
        (FAKE[:, :20], REAL, {}, "different width, 20 in .*fake.npy and 24 in .*real.npy"),
        (spoilt(FAKE), REAL, {}, "fake.npy: row 5 holds NaN"),
        (FAKE[:32], REAL, {}, "32 .*too few: fvd needs 64"),
        (FAKE, REAL, {"num_real": 9}, "--num-real: .* all of which are scored"),
        (FAKE, REAL, {"metrics": ["clipsim"]}, "clipsim is made of similarity"),
        (drawn(2), REAL, {}, "real.npy holds features and .*fake.npy clips"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_features_that_do_not_fit_are_refused(
    fake: np.ndarray, real: np.ndarray, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = str(saved(tmp_path / "real.npy", real))
    with pytest.raises(UserError, match=said):
        looked(saved(tmp_path / "fake.npy", fake), real=path, smoke=False, **options)
