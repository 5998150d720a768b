"""Tests of dataset layouts: a video has one name, label and split in every layout, case and file order."""

from __future__ import annotations

import io
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from clipfiles import touch
from datatrees import FRAMES, avi, write
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from vfbench import clips
from vfbench.clips.inventory import Inventory
from vfbench.clips.manifest import Manifest
from vfbench.datasets import folder, sky_timelapse, taichi_hd, ucf101
from vfbench.datasets._ucf101_lists import CLASSES, FILE_SPELLING
from vfbench.errors import MissingData
from vfbench.interfaces import Dataset, Split
from vfbench.pipeline import real_clips
from vfbench.protocol.protocol import Protocol

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)
SPLITS: tuple[Split, ...] = ("train", "test")
Labels = Mapping[str, Mapping[str, str]]

actions = st.sampled_from([*CLASSES[:3], "HandstandPushups", "HandstandWalking", "YoYo"])
numbers = st.integers(1, 99)
ids = st.text("abcXYZ019-_", min_size=11, max_size=11)


@contextmanager
def temporary_root(*names: str) -> Iterator[Path]:
    """Context manager: temporary folder of these empty files, created in this order."""
    with tempfile.TemporaryDirectory() as folder:
        yield touch(Path(folder) / "root", *names)


def labels(inventory: Inventory) -> Labels:
    """Label of every video by split and name, in the order of clips."""
    return {
        split: {entry.name: entry.class_name for entry in clips.entries} for split, clips in inventory.splits.items()
    }


# UCF101


@st.composite
def ucf101_videos(draw: st.DrawFn, min_size: int = 1) -> dict[str, str]:
    """Official names and the split of each."""
    keys = draw(st.lists(st.tuples(actions, numbers, numbers), min_size=min_size, max_size=8, unique=True))
    names = [
        f"{action}/v_{FILE_SPELLING.get(action, action)}_g{group:02}_c{clip:02}.avi" for action, group, clip in keys
    ]
    return {name: draw(st.sampled_from(SPLITS)) for name in names}


UCF101_LAYOUTS: Mapping[str, Callable[[str, str, str, str], str]] = {
    "official": lambda split, action, stem, end: f"UCF-101/{action}/{stem}.avi",
    "the folder itself": lambda split, action, stem, end: f"{action}/{stem}.avi",
    "twice nested": lambda split, action, stem, end: f"ucf101/UCF-101/{action}/{stem}.avi",
    "train and test": lambda split, action, stem, end: f"{split}/{action}/{stem}.avi",
    "flat": lambda split, action, stem, end: f"{stem}.{end}",
    "frames": lambda split, action, stem, end: f"UCF101/{stem}/000000.jpg",
    "frames by class": lambda split, action, stem, end: f"{action}/{stem}/000000.jpg",
}
LISTS = ("inside", "beside", "among the videos", "none")


def write_lists(folder: Path, videos: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{number} {name}" for number, name in enumerate(CLASSES, 1)]
    (folder / "classInd.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    for split in SPLITS:
        lines = [name for name, side in videos.items() if side == split]
        if split == "train":
            lines = [f"{name} {CLASSES.index(name.split('/')[0]) + 1}" for name in lines]
        (folder / f"{split}list01.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def ucf101_paths(videos: Mapping[str, str], layout: str, change: Callable[[str], str] = str) -> list[str]:
    paths = []
    for name, split in videos.items():
        action, _, file = name.partition("/")
        stem = change(file.removesuffix(".avi"))
        paths.append(UCF101_LAYOUTS[layout](split, action, stem, "mp4"))
    return paths


@quick
@given(
    ucf101_videos(), st.sampled_from(list(UCF101_LAYOUTS)), st.sampled_from(LISTS), st.randoms(use_true_random=False)
)
def test_ucf101_has_equal_names_and_labels_in_every_layout(
    videos: dict[str, str], layout: str, lists: str, shuffle: random.Random
) -> None:
    paths = ucf101_paths(videos, layout)
    shuffle.shuffle(paths)
    with temporary_root(*paths) as root:
        inner = root / paths[0].split("/")[0] if paths[0].lower().startswith("ucf") else root
        list_folders = {
            "inside": inner / "ucfTrainTestlist",
            "beside": inner.parent / "ucfTrainTestlist",
            "among the videos": inner,
        }
        if lists != "none":
            write_lists(list_folders[lists], videos)
        inventory = ucf101.find(str(root))
    listed = lists != "none" or layout == "train and test"
    for split in SPLITS:
        expected = [name for name, side in videos.items() if (side if listed else "train") == split]
        split_labels = labels(inventory)[split]
        assert sorted(split_labels) == sorted(expected)
        assert all(split_labels[name] == name.split("/")[0] for name in expected)
        assert list(split_labels) == sorted(expected, key=clips.natural_key)  # independent of list and file order
    assert inventory.classes == CLASSES
    assert inventory.extra == ()
    assert not any(inventory.missing(split) for split in inventory.listed)
    assert ("no ucfTrainTestlist" in inventory.note) == (lists == "none")


@quick
@given(
    ucf101_videos(), st.sampled_from(["official", "flat", "frames"]), st.sampled_from([str.lower, str.upper, str.title])
)
def test_the_case_of_file_names_is_ignored(videos: dict[str, str], layout: str, change: Callable[[str], str]) -> None:
    with temporary_root(*ucf101_paths(videos, layout, change)) as root:
        without_lists = labels(ucf101.find(str(root)))
        write_lists(root / "ucfTrainTestlist", videos)
        with_lists = labels(ucf101.find(str(root)))
        assert {**with_lists["train"], **with_lists["test"]} == without_lists["train"]


def test_unofficial_classes_are_in_natural_order(tmp_path: Path) -> None:
    inventory = ucf101.find(str(touch(tmp_path, "v_Zebra_g01_c01.avi", "v_Ape_g01_c01.avi")))
    assert inventory.classes == ("Ape", "Zebra")
    assert labels(inventory)["train"] == {"Ape/v_Ape_g01_c01.avi": "Ape", "Zebra/v_Zebra_g01_c01.avi": "Zebra"}


@pytest.mark.parametrize(
    ("layout", "description"),
    [
        ("official", "official avi tree, no lists"),
        ("train and test", "train/test class tree of videos, no lists"),
        ("flat", "flat folder of videos, no lists"),
        ("frames", "frame folders, one level, no lists"),
        ("frames by class", "frame folders, two levels, no lists"),
    ],
)
def test_layouts_are_described(layout: str, description: str) -> None:
    videos = {"YoYo/v_YoYo_g01_c01.avi": "train", "Archery/v_Archery_g01_c02.avi": "test"}
    with temporary_root(*ucf101_paths(videos, layout)) as root:
        assert ucf101.find(str(root)).layout == description


# Scored clips


PICTURE = io.BytesIO()
Image.new("RGB", (32, 16)).save(PICTURE, "png")


def write_videos(root: Path, paths: Mapping[str, str], shuffle: random.Random) -> None:
    """Write a video, or frames for image paths, with content that depends on the name only."""
    seeds = {name: seed for seed, name in enumerate(sorted(paths))}
    for name in shuffle.sample(sorted(paths), len(paths)):
        if paths[name].endswith(".png"):
            for k in range(FRAMES):
                write(root / paths[name].format(k), PICTURE.getvalue() + bytes([seeds[name]]))
        else:
            write(root / paths[name], avi(seed=seeds[name]))


def scored_clips(dataset: Dataset, videos: int) -> tuple[Manifest, object]:
    """Manifest with half of the videos as real and half as holdout clips, and labels and captions of every clip."""
    halves = {"n_real": videos // 2, "n_fake": videos - videos // 2}
    shape = {"frames": 4, "height": 8, "width": 8, "start": "hashed"}
    resize = {"geometry": "centre-crop", "filter": "bilinear", "antialias": True}
    names = {"name": "x", "dataset": dataset.name, "data_fingerprint": "", "split": "both"}
    protocol = Protocol(**{**names, **shape, **resize, **halves, "measures": {}, "extractors": {}})  # type: ignore[arg-type]
    annotations = [
        (split, method(split, range(dataset.size(split))))
        for split in SPLITS
        for method in (dataset.labels, dataset.captions)
    ]
    return real_clips.draw(dataset, protocol), annotations


def assert_equal_layouts(layouts: Mapping[str, tuple[Dataset, bool]], videos: int) -> None:
    """Assert equal scored clips in every layout, and one fingerprint for videos and one for frames."""
    clips_by_layout = {name: scored_clips(dataset, videos) for name, (dataset, _) in layouts.items()}
    first, *others = clips_by_layout.values()
    manifest = first[0]
    assert (len(manifest.places(0, "real")), len(manifest.places(0, "spare"))) == (videos // 2, videos - videos // 2)
    assert all(other == first for other in others)
    of_videos, of_frames = (
        {data.fingerprint for data, has_frames in layouts.values() if has_frames == kind} for kind in (False, True)
    )
    assert (len(of_videos), len(of_frames)) == (1, 1)
    assert of_videos != of_frames


SCORED: Mapping[str, tuple[str, str]] = {  # path of a video, and folder of the lists
    "official, lists beside": ("ucf101/UCF-101/{action}/{stem}.avi", "ucf101/ucfTrainTestlist"),
    "official, lists inside": ("UCF-101/{action}/{stem}.avi", "UCF-101/ucfTrainTestlist"),
    "official, lists among the videos": ("UCF-101/{action}/{stem}.avi", "UCF-101"),
    "flat": ("{stem}.avi", "ucfTrainTestlist"),
    "train and test": ("ucf101/{split}/{action}/{stem}.avi", ""),
    "train and test, with lists": ("{split}/{action}/{stem}.avi", "ucfTrainTestlist"),
    "frames": ("{stem}/{{:04}}.png", "ucfTrainTestlist"),
    "frames by split and class": ("{split}/{action}/{stem}/{{:04}}.png", ""),
}
fewer = settings(quick, max_examples=5, phases=[Phase.generate])  # shrinking takes minutes


@fewer
@given(ucf101_videos(min_size=4), st.randoms(use_true_random=False))
def test_ucf101_has_equal_scored_clips_in_every_layout(videos: dict[str, str], shuffle: random.Random) -> None:
    pytest.importorskip("av")
    with temporary_root() as root:
        layouts = {}
        for layout, (pattern, lists) in SCORED.items():
            parts = {name: name.removesuffix(".avi").split("/") for name in videos}
            paths = {
                name: pattern.format(split=videos[name], action=action, stem=stem)
                for name, (action, stem) in parts.items()
            }
            write_videos(root / layout, paths, shuffle)
            if lists:
                write_lists(root / layout / lists, dict(shuffle.sample(sorted(videos.items()), len(videos))))
            dataset = ucf101.build(root=str(root / layout), frames=4, height=8, width=8)
            layouts[layout] = dataset, "png" in pattern
        assert_equal_layouts(layouts, len(videos))


@fewer
@given(
    st.dictionaries(st.tuples(ids, numbers), st.sampled_from(SPLITS), min_size=4, max_size=6),
    st.randoms(use_true_random=False),
)
def test_sky_timelapse_has_equal_scored_clips_in_every_layout(
    videos: dict[tuple[str, int], str], shuffle: random.Random
) -> None:
    pytest.importorskip("av")
    patterns = (
        "{2}/{0}/{0}_{1}/{{:04}}.png",
        "sky_{2}/{0}_{1}/{{:04}}.png",
        "sky_{2}/{0}/{0}_{1}.mp4",
        "{2}/{0}_{1}.mp4",
    )
    with temporary_root() as root:
        layouts = {}
        for number, pattern in enumerate(patterns):
            paths = {f"{key}": pattern.format(*key, split) for key, split in videos.items()}
            write_videos(root / str(number), paths, shuffle)
            dataset = sky_timelapse.build(root=str(root / str(number)), frames=4, height=8, width=8)
            layouts[pattern] = dataset, "png" in pattern
        assert_equal_layouts(layouts, len(videos))


@fewer
@given(
    st.dictionaries(
        st.tuples(ids, st.integers(0, 999), st.integers(0, 999)), st.sampled_from(SPLITS), min_size=4, max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_taichi_hd_has_equal_scored_clips_in_every_layout(
    videos: dict[tuple[str, int, int], str], shuffle: random.Random
) -> None:
    pytest.importorskip("av")
    names = {f"{video}#{first:06}#{last:06}.mp4": split for (video, first, last), split in videos.items()}
    with temporary_root() as root:
        layouts = {}
        for number, pattern in enumerate(("{1}/{0}", "{0}", "{1}/{0}/{{:04}}.png", "{0}/{{:04}}.png")):
            paths = {name: pattern.format(name, split) for name, split in names.items()}
            write_videos(root / str(number), paths, shuffle)
            if "{1}" not in pattern:
                rows = [f"{video},{first},{last},25,{split}" for (video, first, last), split in videos.items()]
                shuffle.shuffle(rows)
                text = "\n".join(["video_id,start,end,fps,partition", *rows])
                (root / str(number) / "taichi-metadata.csv").write_text(text)
            dataset = taichi_hd.build(root=str(root / str(number)), frames=4, height=8, width=8)
            layouts[pattern] = dataset, "png" in pattern
        assert_equal_layouts(layouts, len(videos))


# Partial copies and wrong folders


def test_an_archive_beside_a_partial_copy_gets_an_unpack_command(tmp_path: Path) -> None:
    touch(tmp_path / "it's here", "UCF101.rar", "UCF-101/YoYo/v_YoYo_g01_c01.avi", "holiday.zip")
    note = ucf101.find(str(tmp_path / "it's here")).note
    quoted = f"'{tmp_path}/it'\"'\"'s here"
    assert f"unrar x {quoted}/UCF101.rar' {quoted}'/" in note
    assert "100 of 101 classes: ApplyEyeMakeup" in note
    assert "holiday" not in note


def test_lists_without_videos_are_refused(tmp_path: Path) -> None:
    write_lists(tmp_path / "ucfTrainTestlist", {"YoYo/v_YoYo_g01_c01.avi": "train"})
    with pytest.raises(MissingData, match=r"holds no clips \(ucfTrainTestlist\)(?s:.*)UCF101\.rar"):
        ucf101.find(str(tmp_path))
    touch(tmp_path, "UCF101.rar")
    with pytest.raises(MissingData, match=r"UCF101\.rar .*unrar x"):
        ucf101.find(str(tmp_path))


def test_unlisted_videos_are_extra(tmp_path: Path) -> None:
    listed = {"YoYo/v_YoYo_g01_c01.avi": "train"}
    write_lists(tmp_path / "ucfTrainTestlist", listed)
    touch(tmp_path, "UCF-101/YoYo/v_YoYo_g01_c01.avi", "UCF-101/YoYo/v_YoYo_g02_c01.avi", "UCF-101/YoYo/-copy (1).avi")
    inventory = ucf101.find(str(tmp_path))
    assert labels(inventory) == {"train": {"YoYo/v_YoYo_g01_c01.avi": "YoYo"}, "test": {}}
    assert inventory.extra == ("YoYo/v_YoYo_g02_c01.avi", "YoYo/-copy (1).avi")
    assert "1 (YoYo/-copy (1).avi)" in inventory.note


def test_a_dataset_without_listed_videos_is_refused(tmp_path: Path) -> None:
    write_lists(tmp_path, {"YoYo/v_YoYo_g01_c01.avi": "train"})
    touch(tmp_path, "UCF-101/YoYo/v_YoYo_g02_c01.avi")
    with pytest.raises(MissingData, match=r"UCF-101 holds YoYo/v_YoYo_g02_c01\.avi"):
        ucf101.find(str(tmp_path))


@pytest.mark.parametrize("split", SPLITS)
def test_lists_decide_between_the_folders_of_two_splits(tmp_path: Path, split: str) -> None:
    touch(tmp_path, "train/YoYo/v_YoYo_g01_c01.avi", "test/YoYo/v_YoYo_g01_c01.avi")
    write_lists(tmp_path / "ucfTrainTestlist", {"YoYo/v_YoYo_g01_c01.avi": split})
    inventory = ucf101.find(str(tmp_path))
    assert inventory.leaked == ("YoYo/v_YoYo_g01_c01.avi",)
    paths = [entry.path for folder in inventory.splits.values() for entry in folder.entries]
    assert paths == [tmp_path / split / "YoYo/v_YoYo_g01_c01.avi"]


def test_a_duplicate_video_or_a_mix_with_frames_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a", "train/YoYo/v_YoYo_g01_c01.avi", "YoYo/v_YoYo_g01_c01.avi")
    for listed in (False, True):
        if listed:
            write_lists(tmp_path / "a/ucfTrainTestlist", {"YoYo/v_YoYo_g01_c01.avi": "train"})
        with pytest.raises(MissingData, match=r"01\.avi twice, (train/)?YoYo/v_YoYo_g01_c01\.avi and (train/)?YoYo/v"):
            ucf101.find(str(tmp_path / "a"))
    touch(tmp_path / "b", "YoYo/v_YoYo_g01_c01.avi", "jpegs/v_YoYo_g01_c01/1.jpg")
    with pytest.raises(MissingData, match=r"videos \(YoYo/.*\) and frames \(jpegs/.*\)"):
        ucf101.find(str(tmp_path / "b"))


# Sky Time-lapse and TaiChi-HD


@quick
@given(
    st.dictionaries(st.tuples(ids, numbers), st.sampled_from(SPLITS), min_size=1, max_size=8),
    st.sampled_from(
        ["{2}/{0}/{0}_{1}/x_0007.jpg", "{2}/{0}_{1}/7.png", "sky_{2}/{0}/{0}_{1}.mp4", "sky_{2}/{0}_{1}.mp4"]
    ),
    st.sampled_from(["", "sky_timelapse/", "data/deep/"]),
    st.randoms(use_true_random=False),
)
def test_sky_timelapse_has_equal_names_in_every_layout(
    videos: dict[tuple[str, int], str], layout: str, above: str, shuffle: random.Random
) -> None:
    paths = [above + layout.format(video, part, split) for (video, part), split in videos.items()]
    shuffle.shuffle(paths)
    with temporary_root(*paths) as root:
        inventory = sky_timelapse.find(str(root))
    for split in SPLITS:
        expected = {f"{video}/{video}_{part}" for (video, part), side in videos.items() if side == split}
        assert set(labels(inventory)[split]) == expected
    assert {inventory.origin(name) for name in {**labels(inventory)["train"], **labels(inventory)["test"]}} == {
        video for video, _ in videos
    }


@quick
@given(
    st.dictionaries(
        st.tuples(ids, st.integers(0, 2_000_000), st.integers(0, 2_000_000)),
        st.sampled_from(SPLITS),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["{1}/{0}", "{1}/{0}/0000000.png", "{0}", "{0}/0000000.png"]),
    st.randoms(use_true_random=False),
)
def test_taichi_hd_has_equal_names_in_every_layout(
    videos: dict[tuple[str, int, int], str], layout: str, shuffle: random.Random
) -> None:
    names = {f"{video}#{first:06}#{last:06}.mp4": split for (video, first, last), split in videos.items()}
    paths = [layout.format(name, split) for name, split in names.items()]
    shuffle.shuffle(paths)
    with temporary_root(*paths) as root:
        lines = [f"{video},{first},{last},25,{split}" for (video, first, last), split in videos.items()]
        metadata = "\r\n".join(["video_id,start,end,fps,partition", *lines])
        (root.parent / "taichi-metadata.csv").write_text(metadata)
        inventory = taichi_hd.find(str(root))
    for split in SPLITS:
        assert set(labels(inventory)[split]) == {name for name, side in names.items() if side == split}
    assert inventory.extra == ()


# Any folder


unusual_names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@quick
@given(
    st.lists(unusual_names, min_size=1, max_size=6, unique_by=lambda name: name.lower()),
    st.randoms(use_true_random=False),
)
def test_unusual_names_are_kept(stems: list[str], shuffle: random.Random) -> None:
    names = [f"x{stem}.mp4" for stem in stems]  # not hidden files
    shuffle.shuffle(names)
    with temporary_root(*names) as root:
        names_read = labels(folder.find(str(root)))["train"]
        assert sorted(names_read) == sorted(names)
        again = shutil.copytree(root, root.parent / "again")
        assert list(labels(folder.find(str(again)))["train"]) == list(names_read)


@pytest.mark.parametrize(
    "name", ["-rf.avi", "a b.avi", "'\".avi", "$(touch x).avi", "a#b.avi", "%s{0}.avi", "a\nb.avi"]
)
def test_names_with_shell_characters_are_kept(tmp_path: Path, name: str) -> None:
    assert list(labels(folder.find(str(touch(tmp_path, name))))["train"]) == [name]
    with pytest.raises(MissingData, match="no clip with the dataset's names"):
        ucf101.find(str(tmp_path))


def test_undecodable_names_are_kept(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.avi")).touch()
    except OSError:
        pytest.skip("the file system refuses undecodable names")
    touch(tmp_path, "UCF-101/YoYo/v_YoYo_g01_c01.avi")
    assert "\udcff\udcfe.avi" in labels(folder.find(str(tmp_path)))["train"]
    shutil.move(tmp_path / "\udcff\udcfe.avi", tmp_path / "UCF-101")
    inventory = ucf101.find(str(tmp_path))
    assert inventory.extra == ("\udcff\udcfe.avi",)
    assert r"1 (\udcff\udcfe.avi)" in inventory.note
    assert len(inventory.splits["train"]) == 1
