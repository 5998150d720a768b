"""Tests of `vfbench.clips.manifest` and `vfbench.pipeline.real_clips`: seeded draws, manifest files, `--manifest`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import grey_clip, write_video
from conftest import Command, results

from vfbench import plugins
from vfbench.clips import manifest
from vfbench.clips.manifest import Manifest, ManifestRow
from vfbench.clips.starts import clip_starts, name_hash
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Dataset, Place
from vfbench.pipeline import real_clips
from vfbench.protocol.protocol import Protocol

pytest.importorskip("av")  # writes and reads the clips

NAMES = ("a b", "c#1", "d'\"$(x)", "-e", "f,g", "h\ni", "j", "k")
FRAMES = 30
PINNED = "5245c29534a7e098601ab69a95ab2d8fcbbc833fa247fa9155130103c2ebd66a"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight grey videos with unusual names."""
    folder = tmp_path_factory.mktemp("clips")
    for i, name in enumerate(NAMES):
        write_video(folder / f"{name}.avi", grey_clip(i, FRAMES - i, 8, 10) // 2)
    return folder


def build(root: Path, **options: Any) -> Any:
    return plugins.load(
        "dataset", plugins.Spec("folder", {"root": str(root), "frames": 4, "start": "hashed", **options})
    )


def protocol(data: Dataset, **fields: Any) -> Protocol:
    return Protocol(
        **{
            **{"name": "x", "dataset": data.name, "data_fingerprint": data.fingerprint, "split": "train"},
            **{"frames": 4, "height": 8, "width": 8, "start": "hashed", "geometry": "centre-crop"},
            **{"filter": "bilinear", "antialias": True, "n_real": 4, "n_fake": 2, "measures": {}, "extractors": {}},
            **fields,
        }
    )


def drawn_names(data: Dataset, **fields: Any) -> list[str]:
    return [place.video for place in real_clips.draw(data, protocol(data, **fields)).places(0, "real")]


# Draws.


def test_name_hash_and_hashed_start_have_golden_values() -> None:
    assert name_hash("a") == int.from_bytes(hashlib.sha256(b"a").digest()[:8], "little") == 0xCABD1BCA128197CA
    assert name_hash("a", 7) == int.from_bytes(hashlib.sha256(b"7/a").digest()[:8], "little")
    assert clip_starts("hashed", "a", 164, frames=16, seed=0) == range(
        0xCABD1BCA128197CA % 149, 0xCABD1BCA128197CA % 149 + 1
    )


def test_a_draw_has_a_golden_hash(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e", "f"):
        write_video(tmp_path / f"{name}.avi", grey_clip(frames=20))
    data = build(tmp_path)
    assert real_clips.draw(data, protocol(data)).sha256 == PINNED


@pytest.mark.pitfall("which real clips")
def test_a_draw_depends_on_names_and_seed_only(root: Path, tmp_path: Path) -> None:
    data = build(root)
    everything = drawn_names(data, n_real=8)
    assert sorted(everything) == sorted(f"{name}.avi" for name in NAMES)
    assert drawn_names(data) == everything[:4]
    assert drawn_names(data, selection_seed=1, n_real=8) != everything
    # Removing videos keeps the order of the others.
    for name in everything[1::2]:
        (tmp_path / name).symlink_to(root / name)
    assert drawn_names(build(tmp_path), n_real=4) == everything[1::2]


def test_each_draw_has_other_starts(root: Path) -> None:
    data = build(root)
    manifest_ = real_clips.draw(data, protocol(data, n_real=6, repeats=2))
    first, second = ({place.video: place.start for place in manifest_.places(draw, "real")} for draw in (0, 1))
    assert manifest_.draws == 2
    assert any(first[name] != second[name] for name in first.keys() & second.keys())


def test_a_manifest_gives_start_stride_and_crop(root: Path) -> None:
    data = build(root, stride=2, height=4, width=4)
    chosen = real_clips.draw(data, protocol(data, stride=2))
    real, holdout = chosen.places(0, "real"), chosen.places(0, "spare")
    assert len(real) == 4
    assert len(holdout) == 2
    assert not {place.video for place in real} & {place.video for place in holdout}
    clips, captions = real_clips.preview_clips(data, real)
    for clip, place in zip(clips, real, strict=True):
        first = NAMES.index(place.video.removesuffix(".avi"))
        greys = [(first + 10 * (place.start + 2 * k)) % 256 // 2 for k in range(4)]
        assert clip[:, 0, 0, 0].tolist() == greys
        assert (place.stride, place.crop) == (2, (1, 0, 8, 8))
    assert captions == ["clip"] * 4


def test_drawing_windows_may_repeat_videos(root: Path) -> None:
    data = build(root, start="every")
    places = real_clips.draw(data, protocol(data, start="every", selection="windows", n_real=40)).places(0, "real")
    assert len(set(places)) == 40 > len({place.video for place in places})


def test_a_dataset_without_videos_lists_clip_numbers() -> None:
    data = plugins.load("dataset", "shapes")
    fields = {"start": "zero", "geometry": "native", "filter": "none", "antialias": False, "frames": 16}
    real = real_clips.draw(data, protocol(data, height=32, width=32, **fields)).places(0, "real")
    assert real == [Place("train", str(i), 0, 1, (0, 0, 32, 32)) for i in real_clips.choose(1 << 20, 4, 0)]
    clips, captions = real_clips.preview_clips(data, real)
    assert torch.equal(clips, data.clips("train", [int(place.video) for place in real]))
    assert captions[0] == data.captions("train", [int(real[0].video)])[0]
    with pytest.raises(MissingData, match="train clip 1048576"):
        real_clips.located(data, "train", [Place("train", str(1 << 20), 0, 1, (0, 0, 32, 32))])


# Files.


def rows_of(*names: str, draw: int = 0) -> list[ManifestRow]:
    return [ManifestRow(draw, "real", Place("train", name, i, 1, (0, 0, 8, 8))) for i, name in enumerate(names)]


def test_a_manifest_file_round_trips(root: Path, tmp_path: Path) -> None:
    data = build(root)
    written = real_clips.draw(data, protocol(data, n_real=6))
    written.write(tmp_path / "m.csv")
    assert manifest.read_manifest(tmp_path / "m.csv") == written
    assert hashlib.sha256((tmp_path / "m.csv").read_bytes()).hexdigest() == written.sha256


@pytest.mark.parametrize("name", [*NAMES, "", " x ", "é", "日本", "\udcff", "a\r\nb", "a\rb", '"', ",,"])
def test_any_name_round_trips(name: str, tmp_path: Path) -> None:
    written = Manifest(tuple(rows_of(name, "z")))
    written.write(tmp_path / "m.csv")
    assert manifest.read_manifest(tmp_path / "m.csv") == written


def test_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    written = Manifest(tuple(rows_of("a", "b")))
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbf" + written.text.replace("\n", "\r\n").encode())
    assert manifest.read_manifest(tmp_path / "m.csv") == written


HEADER = ",".join(manifest.COLUMNS)
ROW = "0,real,train,a.avi,3,1,0,0,8,8"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "its first line is ''"),
        (["a,b"], "its first line is 'a,b'"),
        ([HEADER], "draws: none"),
        ([HEADER, ROW, "0,real,train,a.avi,3"], "clip 2: 5 columns"),
        ([HEADER, ROW.replace("real", "fake")], "clip 1: role is 'fake'"),
        ([HEADER, ROW.replace("train", "val")], "clip 1: split is 'val'"),
        ([HEADER, ROW.replace("3", "x")], "clip 1: 'x'"),
        ([HEADER, ROW.replace("3", "-3")], "too small"),
        ([HEADER, ROW.replace("8,8", "8,0")], "too small"),
        ([HEADER, ROW, ROW], "a.avi .*twice"),
        (["x" * 200_000], "not a manifest"),
        ([HEADER, f'"{"x" * 200_000}"'], "not a manifest"),
        ([HEADER, ROW.replace("0,real", "2000000000,real")], "draws: 1 in 2000000000"),
        ([HEADER, ROW, ROW.replace("real", "spare")], "a.avi: .*both real and spare"),
        ([HEADER, ROW, ROW.replace("0,real", "2,real")], "draws: 1 in 0, 1 in 2"),
    ],
)
def test_a_bad_manifest_is_refused(lines: Sequence[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("\n".join(lines))
    with pytest.raises(MissingData, match=message) as raised:
        manifest.read_manifest(tmp_path / "m.csv")
    assert f"--manifest {tmp_path / 'm.csv'}" in str(raised.value)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"none\.csv: No such file"):
        manifest.read_manifest(tmp_path / "none.csv")


# Runs with a manifest.


def test_places_that_the_dataset_lacks_are_refused(root: Path) -> None:
    data = build(root)
    place = real_clips.draw(data, protocol(data)).places(0, "real")[0]
    with pytest.raises(MissingData, match=r"1 of 1 videos .*gone\.avi of train"):
        data.at([place._replace(video="gone.avi")])
    with pytest.raises(UserError, match=r"folder\(stride=3\)"):
        data.at([place._replace(stride=3)])
    with pytest.raises(MissingData, match=r"24 frames of 10x8, .*30 to 33, .*\(1, 0\)"):
        data.at([place._replace(start=FRAMES)])
    with pytest.raises(MissingData, match=r"10x8, .*\(4, 0\)"):
        data.at([place._replace(crop=(4, 0, 8, 8))])


def test_the_crop_of_a_place_is_used(root: Path) -> None:
    data = build(root, geometry="squash", height=8, width=10)
    place = Place("train", "j.avi", 2, 1, (3, 1, 5, 4))
    clip = data.at([place]).clips("train", [0])
    assert clip.shape == (1, 4, 3, 8, 10)
    assert data.at([place]).places("train", [0]) == [place]


COMMAND = ("run", "--model", "noise", "--smoke", "--device", "cpu", "--num-real", 5)


@pytest.mark.slow
@pytest.mark.pitfall("which real clips")
def test_a_manifest_repeats_its_run(root: Path, tmp_path: Path, vfbench: Command) -> None:
    spec = "folder(frames=16,height=16,width=16,start='hashed')"
    command = (*COMMAND, "--dataset", spec, "--data-root", root)
    assert vfbench(*command, "--output", tmp_path / "a").code == 0  # flat folder: prompts come from train clips
    flat = results(tmp_path / "a")
    assert flat["protocol"]["prompts"] == "train"
    assert "train clips" in flat["note"]
    splits = tmp_path / "splits"
    splits.mkdir()
    for split in ("train", "test"):
        (splits / split).symlink_to(root)
    command = (*COMMAND, "--dataset", spec, "--data-root", splits)
    assert vfbench(*command, "--output", tmp_path / "b").code == 0
    first = results(tmp_path / "b")
    path = tmp_path / "b" / "manifest.csv"
    assert first["data"]["manifest"] == hashlib.sha256(path.read_bytes()).hexdigest()
    # A manifest of the protocol's own draw keeps the protocol id.
    assert vfbench(*command, "--manifest", path, "--output", tmp_path / "c").code == 0
    again = results(tmp_path / "c")
    assert (again["protocol"], again["scores"]) == (first["protocol"], first["scores"])
    # Another manifest changes the protocol.
    other = tmp_path / "other.csv"
    other.write_text("\n".join(path.read_text().split("\n")[:1] + path.read_text().split("\n")[2:]))
    assert vfbench(*command[:6], *command[8:], "--manifest", other, "--output", tmp_path / "d").code == 0
    chosen = results(tmp_path / "d")
    assert chosen["protocol"]["selection"] == "manifest"
    assert chosen["protocol"]["manifest"] == hashlib.sha256(other.read_bytes()).hexdigest()
    assert chosen["protocol"]["id"] != first["protocol"]["id"]
    assert chosen["protocol"]["n_real"] == 4
    assert (tmp_path / "d" / "manifest.csv").read_bytes() == other.read_bytes()
    refused = vfbench(*command, "--manifest", other, "--output", tmp_path / "e")
    assert refused.code == 2
    assert "--num-real 5" in refused.err


def test_holdout_clips_do_not_depend_on_file_order(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, other = build(root), build(root)
    backwards = {split: replace(clips, entries=clips.entries[::-1]) for split, clips in other._folders.items()}
    monkeypatch.setattr(other, "_folders", backwards)
    for fields in ({"n_real": 4, "n_fake": 4}, {"n_real": 4, "n_fake": 4, "selection": "sorted"}):
        rules = protocol(data, **fields)
        manifest_ = real_clips.draw(data, rules)
        assert len(manifest_.places(0, "spare")) == 4
        assert manifest_ == real_clips.draw(other, rules)
        assert manifest_.places(0, "spare") != sorted(manifest_.places(0, "spare"))


def test_skipped_short_videos_change_the_fingerprint(root: Path) -> None:
    assert build(root, short="skip").fingerprint == build(root).fingerprint
    long = {"frames": 25, "short": "skip"}
    skipped = build(root, **long)
    assert skipped.size("train") == 6
    assert "left out: 2 of 8 train videos" in skipped.note
    assert skipped.fingerprint != build(root, frames=25).fingerprint
    with pytest.raises(MissingData, match=r"2 of 8 train videos .*: j\.avi \(24\), k\.avi \(23\); .*folder"):
        build(root, frames=25, start="every")
    empty = build(root, frames=99, short="skip")
    assert empty.size("train") == 0
    assert "left out: 8 of 8" in empty.note


@pytest.mark.one_case
@pytest.mark.parametrize("command", [("run", "--model", "noise"), ("train", "--model", "vdm", "--steps", 1)])
def test_an_output_in_the_dataset_folder_is_refused(
    root: Path, tmp_path: Path, command: tuple[object, ...], vfbench: Command
) -> None:
    """Refuse output folders of runs, trainings and scores in a dataset's folder, where they could be read as clips."""
    before = sorted(root.iterdir())
    spec = ("--dataset", "folder(frames=16,height=16,width=16)", "--data-root", root, "--device", "cpu")
    smoke = ("--smoke",) if command[0] == "run" else ()
    outcome = vfbench(*command, *spec, *smoke, "--output", root / "runs" / "a")
    assert outcome.code == 2
    assert f"{root / 'runs' / 'a'} lies in the dataset's folder" in outcome.err
    np.save(tmp_path / "fake.npy", np.full((8, 16, 16, 16, 3), 9, np.uint8))
    real = f"folder(root={str(root)!r},frames=16,height=16,width=16)"
    score = ("--real", real, "--fake", tmp_path / "fake.npy", "--smoke", "--metrics", "kvd", "--device", "cpu")
    outcome = vfbench("score", *score, "--output", root / "runs")
    assert outcome.code == 2
    assert f"{root / 'runs'} lies in the dataset's folder" in outcome.err
    assert sorted(root.iterdir()) == before
