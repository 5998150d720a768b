"""What others made is scored as a run would score it, or refused with a reason before any network runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import pictures, write_frames, write_list, write_video
from conftest import Command, flip, results
from samples import FAKE, REAL
from torch import Tensor

from vfbench import folders, table
from vfbench.datasets import shapes
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips, Request
from vfbench.metrics import fvd, kvd
from vfbench.metrics._shapes_judge import Extractor
from vfbench.plan import RunOptions, plan
from vfbench.run import run
from vfbench.score import ScoreOptions, Scoring, clips, look, score
from vfbench.store import SCORED, read_tensors

pytest.importorskip("av")  # without it no clip can be made, nor read

COUNT = 64
# Names of class folders that the judge can read.
CAPTIONS = [f"a_small_{colour}_circle_moves_left_over_blue_stripes" for colour in ("red", "green", "pink")]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own to work in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*_: Any) -> dict[str, Tensor]:
        raise AssertionError("a network runs")

    monkeypatch.setattr(Extractor, "__call__", called)


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips the judge has seen, call by call, with a cache that knows nothing yet."""
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "cache"))
    counts: list[int] = []
    call = Extractor.__call__

    def counted(self: Extractor, batch: Clips, asked: Sequence[Request], outputs: Sequence[str]) -> dict[str, Tensor]:
        counts.append(len(batch))
        return call(self, batch, asked, outputs)

    monkeypatch.setattr(Extractor, "__call__", counted)
    return counts


def drawn(count: int, first: int = 0, frames: int = 16, side: int = 32) -> np.ndarray:
    """Moving Shapes as others would save them: (B, T, H, W, 3)."""
    dataset = shapes.build(frames=frames, height=side, width=side)
    return dataset.clips("test", range(first, first + count)).permute(0, 1, 3, 4, 2).numpy()


def saved(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def looked(fake: Path, **options: Any) -> Scoring:
    given = {"real": "shapes", "smoke": True, "device": "cpu", **options}
    return look(ScoreOptions(fake=fake, **given))


def scored(fake: Path, **options: Any) -> dict[str, Any]:
    return score(looked(fake, **options))


# The same number as a run.


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of noise, its clips as an array file, and what they were asked to show."""
    root = tmp_path_factory.mktemp("exported")
    planned = plan(
        RunOptions(model="noise", num_samples=COUNT, num_real=64, device="cpu", keep_clips=True, output=root / "run")
    )
    run(planned)
    chunks = [read_tensors(path)[0]["clips"] for path in sorted((root / "run" / "chunks").iterdir())]
    saved(root / "noise" / "all.npy", torch.cat(chunks).permute(0, 1, 3, 4, 2).numpy())
    write_list(root / "prompts.tsv", *(f"all.npy[{r.index}]\t{r.prompt}" for r in planned.requests))
    return root


def test_clips_of_a_run_get_the_scores_and_the_protocol_of_the_run(exported: Path, vfbench: Command) -> None:
    given = ["--fake", exported / "noise", "--prompts", exported / "prompts.tsv", "--num-real", 64, "--device", "cpu"]
    done = vfbench("score", "--real", "shapes", *given, "--output", "mine", "--name", "ours")
    assert done.code == 0, done.err
    mine, theirs = results(Path("mine")), results(exported / "run")
    assert mine["protocol"] == theirs["protocol"]
    assert mine["protocol"]["comparable"]
    assert list(mine["scores"]) == list(theirs["scores"])
    for name, found in mine["scores"].items():
        expected = theirs["scores"][name]
        for key in ("value", "low", "high", "floor", "error"):
            assert found[key] == pytest.approx(expected[key], rel=1e-6, abs=1e-9), (name, key)
        assert (found["n_real"], found["n_fake"]) == (64, COUNT)
    both = vfbench("table", exported / "run", "mine")
    assert both.code == 0
    assert "| ours " in both.out
    assert "compute per clip: unknown (ours)" in both.out
    assert Path("mine/tables/table.tex").is_file()


@pytest.mark.parametrize("layout", ["npz", "frames", "two levels", "videos"])
def test_every_layout_gives_the_same_scores(layout: str, tmp_path: Path) -> None:
    values = drawn(8)
    expected = scored(saved(tmp_path / "array" / "a.npy", values), output="array")
    fake = tmp_path / "fake"
    fake.mkdir()
    if layout == "npz":
        np.savez_compressed(fake / "a.npz", values)
    for i, clip in enumerate(values):
        if layout == "videos":
            write_video(fake / f"{i}.avi", clip)
        elif layout != "npz":
            write_frames(fake / ("class" if layout == "two levels" else "") / str(i), clip)
    found = scored(fake, output="mine", metrics=["fvd", "kvd", "is"])
    assert list(expected["scores"]) == list(found["scores"]) == ["fvd", "kvd", "is"]
    for name in found["scores"]:
        assert found["scores"][name]["value"] == pytest.approx(expected["scores"][name]["value"], rel=1e-6)
    assert found["protocol"]["id"] == expected["protocol"]["id"]
    assert found["fake"]["count"] == 8


def test_the_frames_that_enter_are_those_of_the_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {**shapes.PROTOCOLS["shapes"], "fake_stride": 2, "drop_first": 1}
    monkeypatch.setattr(shapes, "PROTOCOLS", {**shapes.PROTOCOLS, "thin": rules})
    long = drawn(8, frames=32)
    thin = looked(saved(tmp_path / "long" / "a.npy", long), protocol="thin", output="thin")
    assert "16 of each fake clip, from frame 1 on, 2 apart" in thin.describe()
    found = score(thin)["scores"]
    expected = scored(saved(tmp_path / "cut" / "a.npy", long[:, 1::2]), output="cut")["scores"]
    assert found["fvd"]["value"] == expected["fvd"]["value"]


# What was found is said, and recorded.


def test_the_result_says_what_was_scored(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for i, clip in enumerate(drawn(9)):
        write_frames(tmp_path / "theirs" / f"{i}", clip)
    (tmp_path / "theirs" / "grid.txt").touch()
    listing = write_list(tmp_path / "list.txt", *map(str, range(8)))
    os.utime(tmp_path / "theirs" / "3", (86_400, 86_400))
    os.utime(tmp_path / "theirs" / "8", (0, 0))
    scoring = looked(tmp_path / "theirs", listing=listing)
    text = scoring.describe()
    assert "written 1970-01-02 00:00 to 2" in text  # the ninth is not listed
    assert "frame folders: 8" in text
    assert "not listed, not scored: 1 (8)" in text
    assert "not scored, no layout reads them: grid.txt" in text
    assert "shapes, train, at 16x32x32" in text
    assert "8 fake against 64 real ones" in text
    assert scoring.folder == Path(f"runs/score-theirs-{scoring.specification['id'][:8]}")
    result = score(scoring)
    assert result == results(scoring.folder)
    assert (result["model"], result["model_spec"]) == ("theirs", str(tmp_path / "theirs"))
    assert (result["cost"], result["seed"], result["weights"]) == (None, None, "unknown")
    fake = result["fake"]
    assert (fake["layout"], fake["count"], fake["list"]) == ("frames", 8, str(listing))
    assert fake["manifest"] == folders.manifest(folders.detect(tmp_path / "theirs", listing=listing))
    assert any("not listed" in note for note in fake["notes"])
    assert (scoring.folder / "samples" / "sheet.png").is_file()
    assert (scoring.folder / "samples" / "clips.webp").is_file()
    assert "without clipsim" in result["note"]


def test_what_was_stored_otherwise_is_warned_of(tmp_path: Path) -> None:
    for i, clip in enumerate(drawn(8)):
        write_frames(tmp_path / "real" / str(i), clip)
        write_frames(tmp_path / "fake" / str(i), clip, "{:04}.jpg", quality=75)
    text = looked(tmp_path / "fake", real=str(tmp_path / "real")).describe()
    assert "compression: real lossless, fake jpeg" in text
    same = looked(tmp_path / "real", real=str(tmp_path / "real")).describe()
    assert "the same folder" in same
    assert "compression" not in same


def test_another_number_of_clips_than_the_protocol_has_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = {**shapes.PROTOCOLS["shapes"], "n_fake": 9}
    monkeypatch.setattr(shapes, "PROTOCOLS", {"fixed": fixed})
    result = scored(saved(tmp_path / "a.npy", drawn(8)))
    assert result["protocol"]["name"] == "fixed(n_fake=8)"
    assert "all 8 clips found are scored, fixed has 9" in result["note"]


def test_draws_of_clips_are_made_where_there_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = {**shapes.PROTOCOLS["shapes"], "n_fake": 8, "repeats": 2}
    monkeypatch.setattr(shapes, "PROTOCOLS", {"twice": drawing})
    values = drawn(16)
    two = scored(saved(tmp_path / "two.npy", values), metrics=["fvd"], output="two")
    assert (two["protocol"]["name"], two["protocol"]["repeats"], two["protocol"]["n_fake"]) == ("twice", 2, 8)
    assert "mean of 2 draws" in two["scores"]["fvd"]["note"]
    one = scored(saved(tmp_path / "one.npy", values[:15]), metrics=["fvd"], output="one")
    assert (one["protocol"]["repeats"], one["protocol"]["n_fake"]) == (1, 15)
    assert one["protocol"]["name"] == "twice(n_fake=15, repeats=1)"
    assert "one draw of 15 clips: 2 draws of 8, as twice has it, need 16" in one["note"]
    assert one["protocol"]["id"] != two["protocol"]["id"]
    mixed, ordered = (
        read_tensors(Path(name) / SCORED)[0]["fake.shapes_judge.features"].tolist() for name in ("two", "one")
    )
    kept = [row for row in mixed if row in ordered]
    assert len(kept) == 15
    assert kept != ordered  # clips lie sorted by class: each draw must have of all


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


# Kept work.


def test_the_second_time_nothing_is_made_again(tmp_path: Path, seen: list[int]) -> None:
    fake = saved(tmp_path / "fake.npy", drawn(8))
    first = scored(fake)
    assert sum(seen) == 8 + 64 + 8  # generated, real, spare
    assert scored(fake) == first
    assert sum(seen) == 80
    scored(fake, num_real=32, output="fewer")
    assert sum(seen) == 80 + 32 + 8  # other real clips, the same generated ones
    scored(saved(fake, drawn(8, first=8)), output="changed")
    assert sum(seen) == 120 + 8


def test_a_clip_that_cannot_be_decoded_is_named_and_mending_it_loses_no_other(
    tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "PIECE", 4)
    for i, clip in enumerate(drawn(12)):
        write_frames(tmp_path / "fake" / str(i), clip)
    broken = tmp_path / "fake" / "9" / "0009.png"
    flip(broken, 60)
    with pytest.raises(MissingData, match=r"9.0009\.png"):
        scored(tmp_path / "fake", output="mine")
    assert not Path("mine/results.json").exists()  # no number of the other 11
    assert seen == [4, 4]
    flip(broken, 60)
    scored(tmp_path / "fake", output="mended")
    assert seen[:3] == [4, 4, 4]
    assert sum(seen) == 12 + 64 + 12


def test_an_interrupted_score_loses_one_piece(tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "PIECE", 4)
    scoring = looked(saved(tmp_path / "fake.npy", drawn(12)), output="mine")
    read = folders.clips

    def stopped(found: folders.Found, indices: Sequence[int], **options: Any) -> Clips:
        if list(indices) == [8, 9, 10, 11]:
            raise KeyboardInterrupt
        return read(found, indices, **options)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "clips", stopped)
        with pytest.raises(KeyboardInterrupt):
            score(scoring)
    assert seen == [4, 4]
    score(scoring)
    assert seen[:3] == [4, 4, 4]
    assert sum(seen) == 12 + 64 + 12


# What cannot be scored.


def too_short(root: Path) -> None:
    for i, clip in enumerate(drawn(3)):
        write_frames(root / str(i), clip[: 16 if i == 1 else 12])


def of_another_size(root: Path) -> None:
    saved(root / "a.npy", drawn(3, side=48))


def of_no_square(root: Path) -> None:
    saved(root / "a.npy", drawn(3, side=48)[:, :, :32])


def alone(root: Path) -> None:
    saved(root / "a.npy", drawn(1))


def floats(root: Path) -> None:
    saved(root / "a.npy", drawn(3).astype(np.float32) / 255)


def cut_to_bits(root: Path) -> None:
    saved(root / "a.npy", (drawn(3) > 127).astype(np.uint8))


def rows(root: Path) -> None:
    saved(root / "a.npy", FAKE)


def two_layouts(root: Path) -> None:
    of_another_size(root)
    write_frames(root / "clip", drawn(1)[0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (too_short, r"2 of 3 clips have fewer than the 16 frames that protocol shapes.* needs: 0, 2; .*--list FILE"),
        (of_another_size, r'48x48 pixels .* scores 32x32.*--real "shapes\(height=48, width=48\)"'),
        (of_no_square, r"48x32 pixels .* scores 32x32"),
        (alone, "holds 1 clip: a score needs at least 2"),
        (floats, r"float32 .* in the first.*bring them to 0\.\.1"),
        (cut_to_bits, "all bytes of these clips are 0 or 1"),
        (rows, "holds features and --real shapes is a dataset"),
        (two_layouts, "which are the clips"),
        (Path.mkdir, "holds no clips"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_clips_that_do_not_fit_are_refused(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    make(tmp_path / "fake")
    with pytest.raises(UserError, match=said):
        looked(tmp_path / "fake", output="mine")
    assert not Path("mine").exists()


@pytest.mark.usefixtures("no_network")
def test_too_few_clips_for_a_metric_are_refused_unless_it_is_a_try(tmp_path: Path) -> None:
    fake = saved(tmp_path / "a.npy", drawn(8))
    with pytest.raises(UserError, match=r"8 .*too few: fvd needs 64.*--smoke"):
        looked(fake, smoke=False)
    assert "not comparable" in looked(fake).describe()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"real": "shpaes"}, "did you mean 'shapes'"),
        ({"real": "nowhere/at/all"}, "no such file or folder"),
        ({"real": "folder"}, "--data-root DIR"),
        ({"protocol": "stylgan-v"}, "did you mean 'stylegan-v'"),
        ({"metrics": ["fdv"]}, "did you mean 'fvd'"),
        ({"metrics": ["fvd", "clipsim"]}, "clipsim: what were the clips asked to show.*--prompts FILE"),
        ({"num_real": 2}, "--num-real 2: a score and its floor need at least 4"),
        ({"weights": "none"}, "--weights"),
        ({"output": "../theirs/runs/x"}, "lies in .*theirs.*choose another --output"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        looked(saved(tmp_path / "theirs" / "a.npy", drawn(2)).parent, **options)


@pytest.mark.parametrize("piece", [256, 2])
def test_a_clip_of_another_size_than_the_first_is_named(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "PIECE", piece)
    for i, side in enumerate((32, 32, 48)):
        write_frames(tmp_path / "fake" / str(i), drawn(1, i, side=side)[0])
    with pytest.raises(MissingData, match=r"2 has 48x48 pixels, the first clip (0 )?32x32"):
        scored(tmp_path / "fake", output="mine")


def test_a_dataset_goes_before_a_folder_of_its_name(tmp_path: Path) -> None:
    write_video(Path("shapes") / "a.avi", pictures())
    assert "shapes, train, at 16x32x32" in looked(saved(tmp_path / "a.npy", drawn(2))).describe()
    fake = saved(tmp_path / "b.npy", np.stack([pictures(i, height=8, width=8) for i in range(4)]))
    given = {"real": "folder(root='./shapes', frames=4, height=8, width=8)", "num_real": 4}
    with pytest.raises(MissingData, match="folder has 1 real clips here"):
        looked(fake, **given)


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
    assert table.load(["mine"])[0]["fake"]["layout"] == "features"


def test_features_are_scored_as_a_protocol_has_it(tmp_path: Path) -> None:
    given = {"real": str(saved(tmp_path / "real.npy", REAL)), "metrics": ["fvd"], "smoke": False}
    fake = saved(tmp_path / "fake.npy", FAKE)
    one, other = (score(looked(fake, protocol=name, **given)) for name in (None, "stylegan-v"))
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


# The command.


def test_dry_run_says_what_is_there_and_writes_nothing(tmp_path: Path, vfbench: Command) -> None:
    fake = saved(tmp_path / "a.npy", drawn(2))
    done = vfbench("score", "--real", "shapes", "--fake", fake, "--smoke", "--dry-run")
    assert done.code == 0
    assert "array clips: 2" in done.out
    assert list(Path().iterdir()) == []


def test_the_command_says_what_it_found_before_it_starts(tmp_path: Path, vfbench: Command) -> None:
    done = vfbench("score", "--real", "shapes", "--fake", saved(tmp_path / "a.npy", drawn(4)), "--smoke", "--json")
    assert done.code == 0
    assert done.err.index("array clips: 4") < done.err.index("clips 0 to 3: 4/4")
    assert "--allow-mixed" in done.err
    assert json.loads(done.out)["scores"].keys() == {"fvd", "kvd", "is"}
    record = json.loads(next(Path("runs").glob("score-a-*/run.json")).read_text())
    assert record["options"]["smoke"] == {"value": "True", "origin": "command line"}


def test_a_folder_that_is_not_there_is_missing_data(tmp_path: Path, vfbench: Command) -> None:
    done = vfbench("score", "--real", "shapes", "--fake", tmp_path / "none")
    assert (done.code, "none: No such file or directory" in done.err) == (4, True)


@pytest.mark.slow
def test_a_folder_of_real_video_scores_itself(real_data: Path, tmp_path: Path) -> None:
    place = tmp_path / "clips"
    place.mkdir()
    for path in sorted((real_data / "ucf101/UCF-101").rglob("*.avi"))[:8]:
        shutil.copy(path, place / path.name)
    spec = f"folder(root='{place}', geometry='squash', height=240, width=320)"
    result = scored(place, real=spec)
    assert result["scores"]["fvd"]["value"] == pytest.approx(0, abs=1e-6)
    assert "the same folder" in result["note"]
    with pytest.raises(UserError, match=r"320x240 pixels .* scores 240x240.*geometry='squash'"):
        looked(place, real=str(place))


# Copies.


def test_copies_count_together_whatever_is_measured(tmp_path: Path) -> None:
    once = drawn(64)
    options: dict[str, Any] = {"num_real": 64, "smoke": False}
    alone = scored(saved(tmp_path / "alone.npy", once), metrics=["fvd"], **options)["scores"]["fvd"]
    copied = saved(tmp_path / "copied.npy", np.concatenate([once[:16]] * 4))
    for metrics in (["fvd"], ["fvd", "kvd", "is"]):
        found = scored(copied, metrics=metrics, output=tmp_path / f"out{len(metrics)}", **options)["scores"]["fvd"]
        assert "48 of the generated clips are copies of others" in found["note"]
        assert found["error"] > 1.3 * alone["error"]
    assert "copies" not in alone["note"]


def test_clips_that_are_all_copies_of_one_are_said_to_be(tmp_path: Path) -> None:
    found = scored(saved(tmp_path / "one.npy", np.concatenate([drawn(1)] * 8)))["scores"]["fvd"]
    assert "7 of the generated clips are copies of others" in found["note"]
