"""The list of clips that a protocol scores: drawn by names and seed, written, read back, refused where it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import pictures, write_video
from conftest import Command, results

from vfbench import plugins
from vfbench.clips import manifest
from vfbench.clips.manifest import Manifest, ManifestRow
from vfbench.clips.transform import clip_starts, name_hash
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Dataset, Place
from vfbench.pipeline import real_clips
from vfbench.protocol.protocol import Protocol

pytest.importorskip("av")  # without it no clip can be made, nor read

NAMES = ("a b", "c#1", "d'\"$(x)", "-e", "f,g", "h\ni", "j", "k")
FRAMES = 30
PINNED = "5245c29534a7e098601ab69a95ab2d8fcbbc833fa247fa9155130103c2ebd66a"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of greys, with names that need care."""
    folder = tmp_path_factory.mktemp("clips")
    for i, name in enumerate(NAMES):
        write_video(folder / f"{name}.avi", pictures(i, FRAMES - i, 8, 10) // 2)
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


# Drawing.


def test_a_draw_is_pinned() -> None:
    """The same on every machine: by SHA-256 of seed and name, and of the start by the same number."""
    assert name_hash("a") == int.from_bytes(hashlib.sha256(b"a").digest()[:8], "little") == 0xCABD1BCA128197CA
    assert name_hash("a", 7) == int.from_bytes(hashlib.sha256(b"7/a").digest()[:8], "little")
    assert clip_starts("hashed", "a", 164, frames=16, seed=0) == range(
        0xCABD1BCA128197CA % 149, 0xCABD1BCA128197CA % 149 + 1
    )


def test_the_list_of_a_dataset_is_pinned(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e", "f"):
        write_video(tmp_path / f"{name}.avi", pictures(frames=20))
    data = build(tmp_path)
    assert real_clips.draw(data, protocol(data)).sha256 == PINNED


@pytest.mark.pitfall("which real clips")
def test_a_draw_follows_names_and_seed_alone(root: Path, tmp_path: Path) -> None:
    data = build(root)
    everything = drawn_names(data, n_real=8)
    assert sorted(everything) == sorted(f"{name}.avi" for name in NAMES)
    assert drawn_names(data) == everything[:4]
    assert drawn_names(data, selection_seed=1, n_real=8) != everything
    # With some videos away, the others are drawn in the same order.
    for name in everything[1::2]:
        (tmp_path / name).symlink_to(root / name)
    assert drawn_names(build(tmp_path), n_real=4) == everything[1::2]


def test_each_draw_has_other_starts(root: Path) -> None:
    data = build(root)
    found = real_clips.draw(data, protocol(data, n_real=6, repeats=2))
    begun = [{place.video: place.start for place in found.places(draw, "real")} for draw in (0, 1)]
    both = begun[0].keys() & begun[1].keys()
    assert found.draws == 2
    assert any(begun[0][name] != begun[1][name] for name in both)


def test_a_list_says_where_clips_come_from(root: Path) -> None:
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


def test_clips_drawn_from_all_windows_weigh_long_videos_more(root: Path) -> None:
    data = build(root, start="every")
    found = real_clips.draw(data, protocol(data, start="every", selection="windows", n_real=40)).places(0, "real")
    assert len(set(found)) == 40 > len({place.video for place in found})


def test_a_dataset_without_videos_has_a_list_of_numbers() -> None:
    data = plugins.load("dataset", "shapes")
    fields = {"start": "zero", "geometry": "native", "filter": "none", "antialias": False, "frames": 16}
    real = real_clips.draw(data, protocol(data, height=32, width=32, **fields)).places(0, "real")
    assert real == [Place("train", str(i), 0, 1, (0, 0, 32, 32)) for i in real_clips.choose(1 << 20, 4, 0)]
    clips, captions = real_clips.preview_clips(data, real)
    assert torch.equal(clips, data.clips("train", [int(place.video) for place in real]))
    assert captions[0] == data.captions("train", [int(real[0].video)])[0]
    with pytest.raises(MissingData, match="shapes has no train clip 1048576"):
        real_clips.located(data, "train", [Place("train", str(1 << 20), 0, 1, (0, 0, 32, 32))])


# Files.


def some(*names: str, draw: int = 0) -> list[ManifestRow]:
    return [ManifestRow(draw, "real", Place("train", name, i, 1, (0, 0, 8, 8))) for i, name in enumerate(names)]


def test_a_list_survives_its_file(root: Path, tmp_path: Path) -> None:
    data = build(root)
    written = real_clips.draw(data, protocol(data, n_real=6))
    written.write(tmp_path / "m.csv")
    assert manifest.read_manifest(tmp_path / "m.csv") == written
    assert hashlib.sha256((tmp_path / "m.csv").read_bytes()).hexdigest() == written.sha256


@pytest.mark.parametrize("name", [*NAMES, "", " x ", "é", "日本", "\udcff", "a\r\nb", "a\rb", '"', ",,"])
def test_any_name_survives_its_file(name: str, tmp_path: Path) -> None:
    written = Manifest(tuple(some(name, "z")))
    written.write(tmp_path / "m.csv")
    assert manifest.read_manifest(tmp_path / "m.csv") == written


def test_what_spreadsheets_add_does_no_harm(tmp_path: Path) -> None:
    written = Manifest(tuple(some("a", "b")))
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbf" + written.text.replace("\n", "\r\n").encode())
    assert manifest.read_manifest(tmp_path / "m.csv") == written


HEADER = ",".join(manifest.COLUMNS)
GOOD = "0,real,train,a.avi,3,1,0,0,8,8"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "its first line is ''"),
        (["a,b"], "its first line is 'a,b'"),
        ([HEADER], "real clips in its draws: none; needed: draws 0, 1"),
        ([HEADER, GOOD, "0,real,train,a.avi,3"], "clip 2: 5 columns, not 10"),
        ([HEADER, GOOD.replace("real", "fake")], "clip 1: role is 'fake', not one of real, spare"),
        ([HEADER, GOOD.replace("train", "val")], "clip 1: split is 'val'"),
        ([HEADER, GOOD.replace("3", "x")], "clip 1: 'x' is not a whole number"),
        ([HEADER, GOOD.replace("3", "-3")], "a number is too small"),
        ([HEADER, GOOD.replace("8,8", "8,0")], "a number is too small"),
        ([HEADER, GOOD, GOOD], "a.avi from frame 3 is listed twice"),
        (["x" * 200_000], "not a manifest"),
        ([HEADER, f'"{"x" * 200_000}"'], "not a manifest .field larger than field limit"),
        ([HEADER, GOOD.replace("0,real", "2000000000,real")], "real clips in its draws: 1 in 2000000000; needed"),
        ([HEADER, GOOD, GOOD.replace("real", "spare")], "a.avi: a video is both real and spare"),
        ([HEADER, GOOD, GOOD.replace("0,real", "2,real")], "real clips in its draws: 1 in 0, 1 in 2; needed"),
    ],
)
def test_what_is_no_list_is_refused(lines: Sequence[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("\n".join(lines))
    with pytest.raises(MissingData, match=message) as raised:
        manifest.read_manifest(tmp_path / "m.csv")
    assert f"--manifest {tmp_path / 'm.csv'}" in str(raised.value)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"none\.csv: No such file"):
        manifest.read_manifest(tmp_path / "none.csv")


# Repeating a choice.


def test_clips_that_are_not_here_are_named(root: Path) -> None:
    data = build(root)
    place = real_clips.draw(data, protocol(data)).places(0, "real")[0]
    with pytest.raises(MissingData, match=r"1 of 1 videos are not in .*: gone\.avi of train"):
        data.at([place._replace(video="gone.avi")])
    with pytest.raises(UserError, match=r"are 3 apart in the list of clips, 1 here: say folder\(stride=3\)"):
        data.at([place._replace(stride=3)])
    with pytest.raises(MissingData, match=r"24 frames of 10x8, needs frames 30 to 33, cropped to 8x8 at \(1, 0\)"):
        data.at([place._replace(start=FRAMES)])
    with pytest.raises(MissingData, match=r"frames of 10x8, needs .*, cropped to 8x8 at \(4, 0\): take"):
        data.at([place._replace(crop=(4, 0, 8, 8))])


def test_another_crop_is_followed(root: Path) -> None:
    data = build(root, geometry="squash", height=8, width=10)
    place = Place("train", "j.avi", 2, 1, (3, 1, 5, 4))
    clip = data.at([place]).clips("train", [0])
    assert clip.shape == (1, 4, 3, 8, 10)
    assert data.at([place]).places("train", [0]) == [place]


COMMAND = ("run", "--model", "noise", "--smoke", "--device", "cpu", "--num-real", 5)


@pytest.mark.pitfall("which real clips")
def test_a_list_repeats_its_run(root: Path, tmp_path: Path, vfbench: Command) -> None:
    spec = "folder(frames=16,height=16,width=16,start='hashed')"
    command = (*COMMAND, "--dataset", spec, "--data-root", root)
    assert vfbench(*command, "--output", tmp_path / "a").code == 0  # a flat folder: labels are those of train clips
    alone = results(tmp_path / "a")
    assert alone["protocol"]["prompts"] == "train"
    assert "labels and captions are those of train clips" in alone["note"]
    both = tmp_path / "both"
    both.mkdir()
    for split in ("train", "test"):
        (both / split).symlink_to(root)
    command = (*COMMAND, "--dataset", spec, "--data-root", both)
    assert vfbench(*command, "--output", tmp_path / "b").code == 0
    first = results(tmp_path / "b")
    path = tmp_path / "b" / "manifest.csv"
    assert first["data"]["manifest"] == hashlib.sha256(path.read_bytes()).hexdigest()
    # The choice that the protocol makes anyway leaves it as it is.
    assert vfbench(*command, "--manifest", path, "--output", tmp_path / "c").code == 0
    again = results(tmp_path / "c")
    assert (again["protocol"], again["scores"]) == (first["protocol"], first["scores"])
    # Another one makes it another protocol, which says so.
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
    assert "--num-real 5: --manifest" in refused.err


def test_spare_clips_follow_names_whatever_the_order_of_the_videos(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all clips are needed, to tell which of them are spare."""
    data, other = build(root), build(root)
    backwards = {split: replace(found, entries=found.entries[::-1]) for split, found in other._folders.items()}
    monkeypatch.setattr(other, "_folders", backwards)
    for fields in ({"n_real": 4, "n_fake": 4}, {"n_real": 4, "n_fake": 4, "selection": "sorted"}):
        rules = protocol(data, **fields)
        name_hash = real_clips.draw(data, rules)
        assert len(name_hash.places(0, "spare")) == 4
        assert name_hash == real_clips.draw(other, rules)
        assert name_hash.places(0, "spare") != sorted(name_hash.places(0, "spare"))


def test_leaving_out_short_videos_counts_only_where_there_are_any(root: Path) -> None:
    assert build(root, short="skip").fingerprint == build(root).fingerprint
    long = {"frames": 25, "short": "skip"}
    left = build(root, **long)
    assert left.size("train") == 6
    assert "left out: 2 of 8 train videos have fewer frames than the 25" in left.note
    assert left.fingerprint != build(root, frames=25).fingerprint
    with pytest.raises(
        MissingData, match=r"2 of 8 train videos have fewer .*: j\.avi \(24\), k\.avi \(23\); say folder"
    ):
        build(root, frames=25, start="every")
    empty = build(root, frames=99, short="skip")
    assert empty.size("train") == 0
    assert "left out: 8 of 8" in empty.note


@pytest.mark.parametrize("command", [("run", "--model", "noise"), ("train", "--model", "vdm", "--steps", 1)])
def test_nothing_is_written_among_the_videos(
    root: Path, tmp_path: Path, command: tuple[object, ...], vfbench: Command
) -> None:
    """Nor are the folders of a score, which would be taken for clips the next time."""
    before = sorted(root.iterdir())
    spec = ("--dataset", "folder(frames=16,height=16,width=16)", "--data-root", root, "--device", "cpu")
    smoke = ("--smoke",) if command[0] == "run" else ()
    done = vfbench(*command, *spec, *smoke, "--output", root / "runs" / "a")
    assert done.code == 2
    assert f"{root / 'runs' / 'a'} lies in the dataset's folder" in done.err
    np.save(tmp_path / "fake.npy", np.full((8, 16, 16, 16, 3), 9, np.uint8))
    real = f"folder(root={str(root)!r},frames=16,height=16,width=16)"
    scored = ("--real", real, "--fake", tmp_path / "fake.npy", "--smoke", "--metrics", "kvd", "--device", "cpu")
    done = vfbench("score", *scored, "--output", root / "runs")
    assert done.code == 2
    assert f"{root / 'runs'} lies in the dataset's folder" in done.err
    assert sorted(root.iterdir()) == before
