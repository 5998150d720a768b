"""A prepared folder gives what the original files give, bit for bit, and is made again only where it must be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import all_kinds, pictures, write_video
from conftest import Command, contents, flip, resumes
from datatrees import avi, declaring

from vfbench import archives, files, folders, plugins, prepared
from vfbench import shards as writing
from vfbench.cut import Cut
from vfbench.datasets._videos import Videos
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import ClipShape
from vfbench.prepare import prepare
from vfbench.video import pyav

pytest.importorskip("av")  # without it no clip can be made, nor read

SPEC = "ucf101(frames=4, height=8, width=8)"
CLASSES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")
# Name, frames, height and width of every video: no two of a size.
VIDEOS = {
    "train": [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", 20, 16, 24),
        ("HandstandPushups/v_HandStandPushups_g08_c01.avi", 9, 24, 18),
        ("YoYo/v_YoYo_g08_c01.avi", 14, 16, 16),
    ],
    "test": [("YoYo/v_YoYo_g01_c01.avi", 11, 20, 30), ("YoYo/v_YoYo_g01_c02.avi", 17, 8, 12)],
}
NAMES = [name for side in VIDEOS.values() for name, *_ in side]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small UCF101 with its lists; tests that change it take a copy."""
    root = tmp_path_factory.mktemp("original")
    rng = np.random.default_rng(0)
    for name, *size in [video for side in VIDEOS.values() for video in side]:
        write_video(root / "UCF-101" / name, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    numbers = {name: i + 1 for i, name in enumerate(CLASSES)}
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\n" for name, i in numbers.items()))
    for number, (train, test) in {1: ("train", "test"), 2: ("test", "train")}.items():
        named = [f"{name} {numbers[name.split('/')[0]]}\n" for name, *_ in VIDEOS[train]]
        (lists / f"trainlist{number:02}.txt").write_text("".join(named))
        (lists / f"testlist{number:02}.txt").write_text("".join(f"{name}\n" for name, *_ in VIDEOS[test]))
    return root


@pytest.fixture
def copied(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copied"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of up to 24 frames: four of them, of which the second holds two videos."""
    monkeypatch.setattr(writing, "SHARD", 24 * 3 * 8 * 8)


@pytest.fixture(scope="module")
def made(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(SPEC, tmp_path_factory.mktemp("made") / "out", data_root=original)


def load(root: Path, spec: str = SPEC, **options: Any) -> Videos:
    dataset = plugins.load("dataset", plugins.parse(spec).merged({"root": str(root), **options}))
    assert isinstance(dataset, Videos)
    return dataset


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "shards").glob("*.npy"))


def assert_same(one: Videos, two: Videos) -> None:
    """Everything that a reader can be asked for."""
    assert one.fingerprint == two.fingerprint
    assert (one.classes, one.words, one.shape, one.note) == (two.classes, two.words, two.shape, two.note)
    assert one.inventory.splits.keys() == two.inventory.splits.keys()
    assert (one.inventory.extra, one.inventory.leaked) == (two.inventory.extra, two.inventory.leaked)
    for split in one.inventory.splits:
        assert one.size(split) == two.size(split)
        indices = range(one.size(split))
        assert torch.equal(one.clips(split, indices), two.clips(split, indices))
        for what in ("labels", "captions", "videos", "places"):
            assert getattr(one, what)(split, indices) == getattr(two, what)(split, indices), what
        assert one.places(split, indices, 5) == two.places(split, indices, 5)
        assert one.names(split) == two.names(split)
        assert one.inventory.missing(split) == two.inventory.missing(split)
        assert [one.inventory.origin(name) for name in NAMES] == [two.inventory.origin(name) for name in NAMES]


# The same as from the original files.


@pytest.mark.parametrize(
    "options",
    [{}, {"frames": 7, "stride": 1}, {"stride": 2}, {"start": "zero", "drop_first": 2}, {"start": "every"}],
    ids=str,
)
def test_every_cut_of_a_prepared_folder_is_that_of_the_files(original: Path, made: Path, options: Any) -> None:
    assert_same(load(original, **options), load(made, **options))


@pytest.mark.parametrize(
    "fit",
    [{"geometry": "squash"}, {"filter": "lanczos"}, {"antialias": False}, {"height": 6, "width": 20}],
    ids=str,
)
def test_every_fit_is_prepared(original: Path, tmp_path: Path, fit: Any) -> None:
    spec = str(plugins.parse(SPEC).merged(fit))
    assert_same(load(original, spec), load(prepare(spec, tmp_path / "out", data_root=original), spec))


def test_the_flags_of_size_are_those_of_the_dataset(original: Path, made: Path, tmp_path: Path) -> None:
    prepare("ucf101(frames=4)", tmp_path / "out", data_root=original, height=8, width=8)
    assert [path.read_bytes() for path in shards(tmp_path / "out")] == [path.read_bytes() for path in shards(made)]


def test_clips_at_given_places_are_the_same(original: Path, made: Path) -> None:
    places = load(original, start="every").places("train", [3, 17])
    one, two = (load(root, start="every").at(places) for root in (original, made))
    assert torch.equal(one.clips("train", [0, 1]), two.clips("train", [0, 1]))
    moved = [place._replace(crop=(0, 0, 5, 5)) for place in places]
    with pytest.raises(UserError, match="was prepared with another crop"):
        load(made).at(moved).clips("train", [0])


@pytest.mark.parametrize("kind", ["videos", "frames", "arrays"])
def test_any_folder_of_clips_is_prepared(tmp_path: Path, kind: str) -> None:
    all_kinds(tmp_path / "clips")
    root, spec = tmp_path / "clips" / kind, "folder(frames=4, height=5, width=5)"
    assert_same(load(root, spec), load(prepare(spec, tmp_path / "out", data_root=root), spec))


@pytest.mark.parametrize("name", ["-dash.avi", "a b'c\"$(touch x)#1.avi", "ü.avi"])
def test_odd_names_are_kept(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "clips" / name, pictures(3))
    spec = "folder(frames=4, height=5, width=5)"
    out = prepare(spec, tmp_path / "out", data_root=tmp_path / "clips")
    assert load(out, spec).names("train") == [name]
    assert_same(load(tmp_path / "clips", spec), load(out, spec))


@pytest.mark.parametrize("name", ["ucf101", "sky_timelapse", "taichi_hd"])
def test_real_videos_are_prepared(real_data: Path, tmp_path: Path, name: str) -> None:
    spec, root = f"{name}(height=16, width=16)", real_data / name
    one, two = load(root, spec), load(prepare(spec, tmp_path, data_root=root), spec)
    assert_same(one, two)
    assert sum(one.size(split) for split in one.inventory.splits) > 1


# What is on disk.


def test_a_shard_holds_all_frames_of_its_videos(original: Path, made: Path) -> None:
    cut, index = Cut("ucf101", ClipShape(1, 8, 8)), prepared.read_index(made)
    (path,) = shards(made)
    frames = torch.from_numpy(np.load(path))
    row = 0
    for split, videos in VIDEOS.items():
        for (name, count, height, width), entry in zip(videos, index["videos"][split], strict=True):
            assert entry == [name, name.split("/")[0], count, height, width, 0, row, 25.0]
            whole = folders.read(folders.Entry(name, original / "UCF-101" / name), range(count))
            assert torch.equal(frames[row : row + count], cut.fit(whole, name))
            row += count
    assert len(frames) == row


def test_the_index_says_what_it_was_made_of(original: Path, made: Path) -> None:
    index, found = prepared.read_index(made), load(original).inventory
    assert (index["dataset"], index["fitted"]) == ("ucf101", "8x8 centre-crop bilinear antialias=True")
    assert index["options"] == {"split_list": 1}
    assert index["made_of"] == {split: found.identity(split) for split in found.splits}
    assert load(made).inventory.layout == f"prepared from {found.layout}"


def test_what_is_in_no_list_and_the_rates_are_kept(copied: Path, tmp_path: Path) -> None:
    extra = "YoYo/v_YoYo_g25_c01.avi"
    write_video(copied / "UCF-101" / extra, pictures(3))
    out = prepare(SPEC, tmp_path / "out", data_root=copied)
    assert load(out).inventory.extra == (extra,)
    assert_same(load(copied), load(out))
    assert {entry.rate for found in load(out).inventory.splits.values() for entry in found.entries} == {25.0}


def test_a_video_is_decoded_once_from_one_opening(
    monkeypatch: pytest.MonkeyPatch, original: Path, tmp_path: Path
) -> None:
    opened, decoded = [], []
    real = pyav._frames

    def counted(path: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        for number, frame in real(path, *arguments, **options):
            decoded.append(number)
            yield number, frame

    monkeypatch.setattr(pyav, "_frames", counted)
    monkeypatch.setattr(writing, "PIECE", 1)
    monkeypatch.setattr(writing, "GROUP", 2)
    prepare(SPEC, tmp_path / "out", data_root=original, workers=3)
    assert len(opened) == len(NAMES)
    assert len(decoded) == 20 + 9 + 14 + 11 + 17


def test_nothing_is_written_to_the_dataset(original: Path, tmp_path: Path) -> None:
    def state() -> dict[str, tuple[bytes | None, int]]:
        paths = [original, *original.rglob("*")]
        return {str(path): (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns) for path in paths}

    before = state()
    prepare(SPEC, tmp_path / "out", data_root=original)
    load(tmp_path / "out").clips("train", [0])
    assert state() == before


def test_any_number_of_workers_makes_the_same_bytes(
    small: None, monkeypatch: pytest.MonkeyPatch, original: Path, tmp_path: Path
) -> None:
    for name, workers, piece in (("one", 1, 1 << 27), ("four", 4, 1 << 27), ("pieces", 3, 6 * 3 * 16 * 24)):
        monkeypatch.setattr(writing, "PIECE", piece)  # the third decodes few frames at a time
        monkeypatch.setattr(writing, "GROUP", 3)
        prepare(SPEC, tmp_path / name, data_root=original, workers=workers)
    one, four, pieces = (contents(tmp_path / name / "shards") for name in ("one", "four", "pieces"))
    assert len(one) == 2 * 4
    assert one == four == pieces
    assert_same(load(original), load(tmp_path / "pieces"))


# Going on.


@pytest.mark.parametrize("stopped", range(4))
def test_an_interruption_at_any_shard_costs_that_shard_alone(
    small: None, monkeypatch: pytest.MonkeyPatch, original: Path, tmp_path: Path, stopped: int
) -> None:
    whole, parts = prepare(SPEC, tmp_path / "whole", data_root=original), tmp_path / "parts"
    with monkeypatch.context() as patch:
        _press_in_shard(patch, stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(SPEC, parts, data_root=original)
    assert [path.name for path in shards(parts)] == [f"{i:06d}.npy" for i in range(stopped)]
    with pytest.raises(
        MissingData, match=r"not prepared to its end; go on with\n  python -m vfbench data prepare 'ucf101"
    ):
        load(parts)
    kept = {path.name: path.stat().st_mtime_ns for path in shards(parts)}
    prepare(SPEC, parts, data_root=original)
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in shards(parts)}.items()
    assert contents(parts / "shards") == contents(whole / "shards")
    assert_same(load(whole), load(parts))


def _press_in_shard(patch: pytest.MonkeyPatch, number: int) -> None:
    """Press Ctrl-C when half of a shard has been written, and leave what a killed process would."""
    write = writing._write

    def pressed(shard: Any, sides: Any, made: Any, progress: Any, faults: Any) -> str:
        if shard.path.name != f"{number:06d}.npy":
            return write(shard, sides, made, progress, faults)
        shard.path.with_name(f".{shard.path.name}.1.tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    patch.setattr(writing, "_write", pressed)


def test_the_same_command_again_does_nothing(monkeypatch: pytest.MonkeyPatch, made: Path, original: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in shards(made)}
    monkeypatch.setattr(writing, "make", None)
    prepare(SPEC, made, data_root=original)
    assert {path: path.stat().st_mtime_ns for path in shards(made)} == before


def test_a_shard_that_was_removed_is_made_again(small: None, original: Path, tmp_path: Path) -> None:
    prepare(SPEC, tmp_path / "out", data_root=original)
    before = contents(tmp_path / "out" / "shards")
    shards(tmp_path / "out")[1].unlink()
    with pytest.raises(MissingData, match=r"000001\.npy: No such file(?s:.*)\n  python -m vfbench data prepare"):
        load(tmp_path / "out")
    prepare(SPEC, tmp_path / "out", data_root=original)
    assert contents(tmp_path / "out" / "shards") == before


def test_a_changed_file_is_noticed_and_its_shard_alone_made_again(small: None, copied: Path, tmp_path: Path) -> None:
    out = prepare(SPEC, tmp_path / "out", data_root=copied)
    before = {path.name: path.stat().st_mtime_ns for path in shards(out)}
    write_video(copied / "UCF-101" / NAMES[3], pictures(7, 11, 20, 30))
    prepare(SPEC, out, data_root=copied)
    changed = [path.name for path in shards(out) if path.stat().st_mtime_ns != before[path.name]]
    assert len(changed) == 1
    assert_same(load(copied), load(out))


def test_files_that_change_meanwhile_are_noticed(monkeypatch: pytest.MonkeyPatch, copied: Path, tmp_path: Path) -> None:
    make = writing.make

    def meddled(*arguments: Any) -> None:
        make(*arguments)
        write_video(copied / "UCF-101" / NAMES[3], pictures(7, 11, 20, 30))

    monkeypatch.setattr(writing, "make", meddled)
    with pytest.raises(MissingData, match="files of split test changed while they were prepared"):
        prepare(SPEC, tmp_path / "out", data_root=copied)
    assert not (tmp_path / "out" / "prepared.json").exists()


# Damage.


@pytest.mark.parametrize("place", [-1, 1000, 129, 40])
def test_a_flipped_byte_is_found(small: None, original: Path, tmp_path: Path, place: int) -> None:
    out = prepare(SPEC, tmp_path / "out", data_root=original)
    assert prepared.damaged(out) == []
    flip(shards(out)[2], place)
    assert prepared.damaged(out) == [f"{shards(out)[2]}: its bytes have changed since it was prepared"]
    prepare(SPEC, out, data_root=original)
    assert prepared.damaged(out) == []


def test_no_clip_comes_from_a_shard_that_is_not_whole(
    small: None, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features would be kept as those of the files, whose fingerprint is the same."""
    out = prepare(SPEC, tmp_path / "out", data_root=original)
    load(out)
    with monkeypatch.context() as patch:  # the second time nothing is read
        patch.setattr(prepared, "sha256", lambda path: pytest.fail(f"{path} is read again"))
        load(out)
    flip(shards(out)[1], -1)
    with pytest.raises(MissingData, match=r"000001\.npy: its bytes have changed since .*\n  python -m vfbench data"):
        load(out)


def test_a_flipped_byte_of_the_index_is_found(made: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    text = (out / "prepared.json").read_text()
    (out / "prepared.json").write_text(text.replace('"ApplyEyeMakeup"', '"ApplyEyeMakeuq"', 1))
    for read in (load, prepared.damaged):
        with pytest.raises(MissingData, match=r"prepared\.json is damaged, it does not match its own hash"):
            read(out)
    (out / "prepared.json").write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(MissingData, match="has format 1, known: 2"):
        load(out)


def test_a_shard_that_is_cut_off_is_named(made: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    (path,) = shards(out)
    os.truncate(path, path.stat().st_size - 1)
    assert prepared.damaged(out) == [f"{path}: cut off, 13,759 of 13,760 bytes"]
    with pytest.raises(MissingData, match=r"000000\.npy: cut off"):
        load(out)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((71, 3, 8, 8), np.float32), r"float32 \(71, 3, 8, 8\)"),
        (np.zeros((71, 8, 8, 3), np.uint8), r"uint8 \(71, 8, 8, 3\)"),
        (np.zeros(71 * 192, np.uint8), r"uint8 \(13632,\)"),
    ],
    ids=["floats", "channels last", "flat"],
)
def test_a_shard_of_another_shape_is_named(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "000000.npy", array)
    with pytest.raises(MissingData, match=rf"000000\.npy: {said} in .* needed: uint8 \(N, 3, H, W\)"):
        folders.arrays.shard(tmp_path / "000000.npy")


def test_what_is_no_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"nothing")
    with pytest.raises(MissingData, match=r"a\.npy: no readable shard"):
        folders.arrays.shard(tmp_path / "a.npy")
    with pytest.raises(MissingData, match=r"b\.npy: No such file"):
        folders.arrays.shard(tmp_path / "b.npy")


def test_every_video_that_cannot_be_decoded_is_named_and_the_others_kept(
    small: None, monkeypatch: pytest.MonkeyPatch, original: Path, copied: Path, tmp_path: Path
) -> None:
    for name, frames in ((NAMES[1], 9), (NAMES[3], 11)):
        damage(copied / "UCF-101" / name, frames)
    with pytest.raises(MissingData) as caught:
        prepare(SPEC, tmp_path / "out", data_root=copied)
    message = str(caught.value)
    assert "2 videos cannot be prepared" in message
    assert [name in message for name in NAMES] == [False, True, False, True, False]
    assert not (tmp_path / "out" / "prepared.json").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}
    assert kept
    for name in NAMES[1::2]:
        shutil.copy(original / "UCF-101" / name, copied / "UCF-101" / name)
    out = prepare(SPEC, tmp_path / "out", data_root=copied)
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in shards(out)}.items()
    assert_same(load(original), load(out))


def damage(path: Path, frames: int) -> None:
    """Put an MPEG-4 in its place that declares so many frames and has fewer, but is as long as its header says."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, width=32, height=16)
        for image in np.random.default_rng(0).integers(0, 256, (frames, 16, 32, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()[: path.stat().st_size * 6 // 10]
    path.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])


@pytest.mark.parametrize("piece", [1, 1 << 27])
@pytest.mark.parametrize("declared", [10, 19, 21])
def test_no_frame_is_left_out_where_a_head_declares_another_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, declared: int, piece: int
) -> None:
    monkeypatch.setattr(writing, "PIECE", piece)
    monkeypatch.setattr(writing, "GROUP", 5)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.avi").write_bytes(avi())
    (tmp_path / "clips/b.avi").write_bytes(declaring(avi(seed=1), declared))
    spec = "folder(frames=4, height=5, width=5)"
    with pytest.raises(MissingData, match=rf"1 videos cannot .*\n.*b\.avi: .* declared {declared}, decoded 20"):
        prepare(spec, tmp_path / "out", data_root=tmp_path / "clips")
    assert not (tmp_path / "out/prepared.json").exists()
    (tmp_path / "clips/b.avi").write_bytes(avi(seed=1))
    assert_same(
        load(tmp_path / "clips", spec), load(prepare(spec, tmp_path / "out", data_root=tmp_path / "clips"), spec)
    )


def test_every_file_that_is_no_video_is_named_before_the_work(copied: Path, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        (copied / "UCF-101" / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(MissingData, match=rf"2 videos cannot be prepared:\n.*{NAMES[0]}.*\n.*{NAMES[1]}"):
        prepare(SPEC, tmp_path / "out", data_root=copied)
    assert not (tmp_path / "out" / "shards").exists()


# From archives, and from the command line.


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_archives_are_prepared_as_the_files_are(original: Path, made: Path, tmp_path: Path, kind: str) -> None:
    parts = [
        Path(shutil.make_archive(str(tmp_path / part), kind, original, part))
        for part in ("UCF-101", "ucfTrainTestlist")
    ]
    prepare(SPEC, tmp_path / "out", sources=parts)
    assert contents(tmp_path / "out" / "shards") == contents(made / "shards")
    assert_same(load(original), load(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"out", *(part.name for part in parts)}


@pytest.mark.parametrize("words", [".", "../here", "deep/er"])
def test_a_relative_output_stands_where_it_says(
    monkeypatch: pytest.MonkeyPatch, original: Path, tmp_path: Path, words: str
) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip", original))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = prepare(SPEC, Path(words), sources=[path])
    assert out.is_absolute()
    assert out.resolve() == (tmp_path / "here" / words).resolve()
    assert_same(load(original), load(out))


def test_an_output_at_home_stands_there(monkeypatch: pytest.MonkeyPatch, original: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    prepare(SPEC, Path("~/out"), data_root=original)
    assert_same(load(original), load(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_what_stands_in_the_way_is_said_before_the_unpacking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    monkeypatch.setattr(archives, "unpacked", None)
    with pytest.raises(UserError, match=r"holds other files \(thesis\.tex\): choose an empty --output"):
        prepare(SPEC, tmp_path, sources=[Path("a.zip")])


def test_a_folder_of_the_user_beside_the_output_is_left_alone(original: Path, tmp_path: Path) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip", original))
    (tmp_path / ".out.unpacked").mkdir()
    (tmp_path / ".out.unpacked/thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"\.out\.unpacked is in the way"):
        prepare(SPEC, tmp_path / "out", sources=[path])
    assert (tmp_path / ".out.unpacked/thesis.tex").read_text() == "mine"


def test_archives_without_the_dataset_leave_nothing(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "a.avi", pictures())
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "clips"))
    with pytest.raises(MissingData, match="UCF101"):
        prepare(SPEC, tmp_path / "out", sources=[path])
    assert {item.name for item in tmp_path.iterdir()} == {"clips", "a.zip"}


def test_a_folder_and_an_archive_are_one_too_many(original: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--archive a\.zip or --data-root .*: which holds the dataset\?"):
        prepare(SPEC, tmp_path / "out", data_root=original, sources=[Path("a.zip")])


def test_the_command(vfbench: Command, original: Path, tmp_path: Path) -> None:
    size = ["--height", 8, "--width", 8, "--workers", 1]
    done = vfbench("data", "prepare", "ucf101(frames=4)", "--data-root", original, "--output", tmp_path / "out", *size)
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'out'}: 5 videos in 1 shards, 8x8 centre-crop bilinear antialias=True\n"
    assert (
        f"next: python -m vfbench data verify 'ucf101(frames=4, height=8, width=8)' --data-root {tmp_path / 'out'}"
        in done.err
    )
    assert_same(load(original), load(tmp_path / "out"))


def test_ctrl_c_tells_the_command_that_goes_on(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch, original: Path, tmp_path: Path
) -> None:
    words = ["data", "prepare", SPEC, "--data-root", str(original), "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        _press_in_shard(patch, 0)
        done = vfbench(*words)
    assert (done.code, resumes(done.err)) == (130, words)
    assert vfbench(*resumes(done.err)).code == 0
    assert_same(load(original), load(tmp_path / "out"))


# Mistakes.


def test_another_size_is_refused_saying_which_there_is(made: Path) -> None:
    fitted = r"prepared as 8x8 centre-crop bilinear antialias=True, decoder auto; asked for: 16x8 centre-crop lanczos"
    with pytest.raises(UserError, match=fitted):
        load(made, height=16, filter="lanczos")


def test_other_videos_are_refused(made: Path) -> None:
    with pytest.raises(UserError, match=r"ucf101\(split_list=2\): .* was prepared with split_list=1"):
        load(made, split_list=2)


def test_another_dataset_is_refused(made: Path) -> None:
    with pytest.raises(MissingData, match="was prepared of ucf101, not of sky_timelapse"):
        load(made, "sky_timelapse")


@pytest.mark.parametrize("inside", [".", "out", "UCF-101/out"])
def test_the_dataset_is_not_written_to(copied: Path, inside: str) -> None:
    before = contents(copied)
    with pytest.raises(UserError, match="is within the dataset's own folder"):
        prepare(SPEC, copied / inside, data_root=copied)
    assert contents(copied) == before


def test_nor_through_a_link(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copied)
    with pytest.raises(UserError, match="is within the dataset's own folder"):
        prepare(SPEC, tmp_path / "link" / "out", data_root=copied)


def test_a_folder_of_other_files_is_left_alone(original: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(thesis\.tex\): choose an empty --output"):
        prepare(SPEC, tmp_path, data_root=original)
    assert {name for name in contents(tmp_path) if name != ".lock"} == {"thesis.tex"}


def test_what_was_prepared_otherwise_is_left_alone(made: Path, original: Path) -> None:
    before = contents(made)
    with pytest.raises(UserError, match=r"was prepared otherwise .*fitted 8x8 .* there, 16x16 .* asked for"):
        prepare("ucf101(height=16, width=16)", made, data_root=original)
    assert contents(made) == before


def test_what_is_prepared_is_not_prepared_again(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is prepared already, as 8x8"):
        prepare(SPEC, tmp_path / "out", data_root=made)


def test_a_dataset_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shapes has no video files to prepare"):
        prepare("shapes", tmp_path / "out")


def test_a_full_disk_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch, original: Path, tmp_path: Path) -> None:
    usage = type("usage", (), {"free": 10**3})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BadEnvironment, match="needs 0 MB more and its disk has 0 MB free"):
        prepare(SPEC, tmp_path / "out", data_root=original)
    assert shards(tmp_path / "out") == []


def test_a_folder_in_use_is_refused(original: Path, tmp_path: Path) -> None:
    with files.held(tmp_path / "out"), pytest.raises(BadEnvironment, match="is in use by another run"):
        prepare(SPEC, tmp_path / "out", data_root=original)
