"""`vfbench data verify`: a whole dataset passes, and every planted fault is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipfiles import pictures, write_frames
from conftest import Command, contents, flip
from datatrees import CLASSES, FRAMES, TEST, TRAIN, avi, declaring, found, ucf101, write, write_lists

from vfbench.clips import ClipFile
from vfbench.data import duplicates, inspect_video, parallel, prepare
from vfbench.data.findings import KINDS
from vfbench.data.verify import require_no_errors, verify
from vfbench.errors import BadEnvironment, MissingData, UserError

pytest.importorskip("av")

Plant = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return ucf101(tmp_path / "data")


def clip(root: Path, name: str) -> Path:
    return root / "UCF-101" / name


# A whole dataset


@pytest.mark.parametrize("full", [False, True])
def test_a_whole_dataset_passes(root: Path, full: bool) -> None:
    report = verify("ucf101", root, full=full)
    assert report.findings == ()
    assert [one.decoded for one in report.infos] == [FRAMES * full] * 9
    require_no_errors(report)
    text = report.text()
    assert "6 of 6 listed videos, 3 classes of 2" in text
    assert "3 of 3 listed videos, 3 classes of 1" in text
    assert "32x16 at 25 frames/s: 9" in text
    assert "no errors, no warnings" in text


def official_names(real_data: Path) -> list[str]:
    lists = [real_data / f"ucf101/ucfTrainTestlist/{part}list01.txt" for part in ("train", "test")]
    return [line.split()[0] for file in lists for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_the_official_tree_passes(tmp_path: Path, real_data: Path) -> None:
    names, content = official_names(real_data), avi()
    (tmp_path / "ucfTrainTestlist").symlink_to(real_data / "ucf101/ucfTrainTestlist")
    for folder in {name.split("/")[0] for name in names}:
        (tmp_path / "UCF-101" / folder).mkdir(parents=True)
    for number, name in enumerate(names):  # of one size and different content, so that each is hashed
        clip(tmp_path, name).write_bytes(content + b"%06d" % number)
    report = verify("ucf101", tmp_path)
    assert report.findings == ()
    splits = report.record()["splits"]
    assert (splits["train"]["videos"], splits["test"]["videos"]) == (9537, 3783)
    assert splits["train"]["classes"] == splits["test"]["classes"] == 101


# One fault each, found quickly


PLANTED: dict[str, tuple[Plant, str, tuple[str, str]]] = {
    "a clip is gone": (lambda root: clip(root, TRAIN[0]).unlink(), "missing", (TRAIN[0], "in the train list")),
    "a cut-off clip": (
        lambda root: clip(root, TEST[0]).write_bytes(avi(seed=6)[:3000]),
        "cut off",
        (TEST[0], f"cut off, 3,000 of {len(avi(seed=6)):,} bytes"),
    ),
    "an empty file": (lambda root: clip(root, TEST[1]).write_bytes(b""), "empty", (TEST[1], "0 bytes")),
    "a folder in place of a file": (
        lambda root: clip(clip(root, TEST[1]).rename(root / "away").parent, TEST[1]).mkdir(),
        "missing",
        (TEST[1], "in the test list"),
    ),
    "a link to nothing": (
        lambda root: clip(clip(root, TEST[1]).rename(root / "away").parent, TEST[1]).symlink_to("gone.avi"),
        "unreadable",
        (TEST[1], "No such file or directory"),
    ),
    "one frame": (lambda root: clip(root, TEST[2]).write_bytes(avi(1)), "short", (TEST[2], "1")),
    "another size": (
        lambda root: clip(root, TRAIN[5]).write_bytes(avi(height=32, width=16)),
        "resolution",
        (TRAIN[5], "16x32"),
    ),
    "a copy": (
        lambda root: clip(root, TRAIN[1]).write_bytes(clip(root, TRAIN[0]).read_bytes()),
        "copies",
        (TRAIN[0], f"also {TRAIN[1]}"),
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named_and_nothing_else(root: Path, fault: str) -> None:
    plant, kind, case = PLANTED[fault]
    plant(root)
    report = verify("ucf101", root)
    assert found(report) == {kind: [case]}
    assert case[0] in report.text()
    if KINDS[kind].level == "error":
        with pytest.raises(MissingData, match=f"1 {KINDS[kind].title}"):
            require_no_errors(report)
    else:
        require_no_errors(report)


def test_text_called_avi_is_no_video(root: Path) -> None:
    clip(root, TRAIN[2]).write_text("404: not found")
    [(name, detail)] = found(verify("ucf101", root))["no video"]
    assert name == TRAIN[2]
    assert "Invalid data" in detail
    assert str(root) not in detail  # the name says it


def test_a_clip_in_no_list_is_named(root: Path) -> None:
    extra = f"{CLASSES[0]}/v_{CLASSES[0]}_g25_c01.avi"
    write(clip(root, extra), avi(seed=99))
    [(name, _)] = found(verify("ucf101", root))["extra"]
    assert name.lower() == extra.lower()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="a superuser may read everything")
def test_a_file_that_may_not_be_read_is_named(root: Path) -> None:
    clip(root, TRAIN[3]).chmod(0)
    assert found(verify("ucf101", root)) == {"unreadable": [(TRAIN[3], "Permission denied")]}


@pytest.mark.parametrize(("frames", "short"), [(16, 0), (20, 0), (21, 9)])
def test_short_is_what_a_clip_has_no_room_in(root: Path, frames: int, short: int) -> None:
    assert len(found(verify("ucf101", root, frames=frames)).get("short", [])) == short


def test_a_clip_of_no_frames_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="--frames 0"):
        verify("ucf101", root, frames=0)


# What is there twice


def test_content_in_two_splits_leaks(root: Path) -> None:
    clip(root, TEST[0]).write_bytes(clip(root, TRAIN[0]).read_bytes())
    told = found(verify("ucf101", root))
    assert told == {
        "copies": [(TRAIN[0], f"also {TEST[0]}")],
        "shared": [(TRAIN[0], f"in train; in test: {TEST[0]}")],
    }


def test_decoding_hides_no_copy_and_no_leak(root: Path) -> None:
    content = declaring(avi(seed=2), 25)
    for name in (TRAIN[2], TRAIN[3], TEST[0]):
        clip(root, name).write_bytes(content)
    quick, full = (found(verify("ucf101", root, full=full)) for full in (False, True))
    assert quick["copies"] == full["copies"] == [(TRAIN[2], f"also {TRAIN[3]}, {TEST[0]}")]
    assert quick["shared"] == full["shared"] == [(TRAIN[2], f"in train; in test: {TEST[0]}")]


def test_a_clip_in_the_folders_of_two_splits_leaks(tmp_path: Path) -> None:
    ucf101(tmp_path)
    for split, names in (("train", TRAIN), ("test", TEST)):
        for name in names:
            write(tmp_path / "ucf101" / split / name, clip(tmp_path, name).read_bytes())
    write(tmp_path / "ucf101/test" / TRAIN[0], avi(seed=77))  # its content does not tell
    shutil.rmtree(tmp_path / "UCF-101")
    report = verify("ucf101", tmp_path)
    assert found(report) == {"shared": [(TRAIN[0], "in the folders of train and test, used for train")]}
    assert f"in folders of both splits, used as listed: 1 ({TRAIN[0]})" in report.text()
    [used] = [item.entry.path for item in report.videos if item.entry.name == TRAIN[0]]
    assert used == tmp_path / "ucf101/train" / TRAIN[0]


def test_equal_sizes_alone_are_no_copies(root: Path) -> None:
    content = clip(root, TRAIN[0]).read_bytes()
    clip(root, TEST[0]).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert verify("ucf101", root).findings == ()


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_links_are_told_without_reading(
    root: Path, link: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (TRAIN[1], TEST[0]):
        clip(root, name).unlink()
        link(clip(root, name), clip(root, TRAIN[0]))
    hashed: list[ClipFile] = []

    def content_hashes(entries: Sequence[ClipFile]) -> Iterator[str]:
        hashed.extend(entries)
        return inspect_video.content_hashes(entries)

    monkeypatch.setattr(duplicates, "content_hashes", content_hashes)
    told = found(verify("ucf101", root))
    assert told == {
        "links": [(TRAIN[0], f"also {TRAIN[1]}, {TEST[0]}")],
        "shared": [(TRAIN[0], f"in train; in test: {TEST[0]}")],
    }
    assert {TRAIN[1], TEST[0]}.isdisjoint(entry.name for entry in hashed)


def test_a_copy_of_a_linked_file_leaks_by_each_name(root: Path) -> None:
    clip(root, TEST[1]).unlink()
    clip(root, TEST[1]).symlink_to(clip(root, TEST[0]))
    clip(root, TRAIN[0]).write_bytes(clip(root, TEST[0]).read_bytes())
    [(name, detail)] = found(verify("ucf101", root))["shared"]
    assert (name, detail) == (TRAIN[0], f"in train; in test: {TEST[0]}, {TEST[1]}")


def test_a_group_in_two_splits_leaks(root: Path) -> None:
    write_lists(root, TRAIN[1:], (*TEST, TRAIN[0].replace("g08", "g09").replace("c01", "c02")))
    write(clip(root, TRAIN[0].replace("g08", "g09").replace("c01", "c02")), avi(seed=50))
    clip(root, TRAIN[0]).unlink()
    told = found(verify("ucf101", root))
    assert list(told) == ["recordings"]
    [(name, detail)] = told["recordings"]
    assert name.endswith("v_ApplyEyeMakeup_g09")
    assert detail == "1 train, 1 test clips"


# Every frame


def test_more_frames_declared_than_there_are(root: Path) -> None:
    clip(root, TRAIN[4]).write_bytes(declaring(avi(seed=4), 25))
    assert found(verify("ucf101", root)) == {"count": [(TRAIN[4], "declared 25, indexed 20")]}
    assert found(verify("ucf101", root, full=True)) == {"count": [(TRAIN[4], "declared 25, indexed 20, decoded 20")]}


def test_fewer_frames_declared_than_there_are(root: Path) -> None:
    clip(root, TRAIN[4]).write_bytes(declaring(avi(seed=4), 18))
    report = verify("ucf101", root)
    assert found(report) == {"count": [(TRAIN[4], "declared 18, indexed 20")]}
    with pytest.raises(MissingData, match="1 with another number of frames than declared"):
        require_no_errors(report)


def test_a_genuine_clip_that_declares_fewer_frames(root: Path, real_data: Path) -> None:
    content = (real_data / "ucf101/UCF-101/Basketball/v_Basketball_g01_c01.avi").read_bytes()
    clip(root, TRAIN[4]).write_bytes(content)
    assert "count" not in found(verify("ucf101", root))
    clip(root, TRAIN[4]).write_bytes(declaring(content, 100))
    assert found(verify("ucf101", root))["count"] == [(TRAIN[4], "declared 100, indexed 141")]


def test_a_cut_off_clip_says_how_much_of_it_decodes(real_data: Path) -> None:
    told = found(verify("folder", real_data / "broken", full=True))
    assert told["cut off"] == [
        ("truncated_40pct.avi", "cut off, 127,239 of 318,098 bytes; declared 107, decoded 37"),
    ]
    assert [name for name, _ in told["empty"]] == ["zero_byte.avi"]
    assert [name for name, _ in told["no video"]] == ["mp4_truncated_before_moov.mp4", "text_renamed.avi"]


def test_damage_within_is_found_by_decoding(tmp_path: Path, real_data: Path) -> None:
    for name in ("corrupted.mp4", "video_0.mov"):
        (tmp_path / name).symlink_to(real_data / "decoder" / name)
    told = found(verify("folder", tmp_path, full=True, frames=1))
    [(name, detail)] = told["undecodable"]
    assert name == "corrupted.mp4"
    assert detail.startswith("declared 50, decoded 28")


def test_processes_decode_and_one_file_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "MIN_FOR_PROCESSES", 2)
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    for number in range(12):
        write(tmp_path / f"{number}.avi", avi(frames=16 + number))
    write(tmp_path / "7.avi", avi()[:3000])
    write(tmp_path / "9.avi", b"no video")
    report = verify("folder", tmp_path, full=True)
    told = found(report)
    assert [name for kind in ("cut off", "no video") for name, _ in told[kind]] == ["7.avi", "9.avi"]
    counts = {item.name: one.decoded for item, one in zip(report.videos, report.infos, strict=True)}
    whole = [number for number in range(12) if number not in (7, 9)]
    assert {name: counts[name] for name in counts.keys() - {"7.avi", "9.avi"}} == {f"{n}.avi": 16 + n for n in whole}


def die(entry: ClipFile) -> None:
    """As the system does to a process that takes too much memory."""
    if entry.name == "3":
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MIN_FOR_PROCESSES", 2)
    entries = [ClipFile(str(number), Path()) for number in range(8)]
    with pytest.raises(BadEnvironment, match="a process was killed after 0 of 8 videos"):
        list(parallel.map_ordered(die, entries, processes=True, workers=2))


def test_prepared_videos_are_held_against_the_lists_and_their_hashes(root: Path, tmp_path: Path) -> None:
    clip(root, TRAIN[0]).unlink()
    extra = write(clip(root, TRAIN[0].replace("g08", "g25")), avi(seed=99))
    made = prepare.prepare("ucf101", tmp_path / "made", data_root=root, height=16, width=16)
    report = verify("ucf101", made, full=True)
    assert found(report) == {
        "missing": [(TRAIN[0], "in the train list")],
        "extra": [(f"{CLASSES[0]}/{extra.name}", "")],
    }
    assert "at 25 frames/s: 8" in report.text()
    assert [one.decoded for one in report.infos] == [FRAMES] * 8
    shard = next(made.glob("shards/*.npy"))
    flip(shard, -1)
    [(fault, _)] = found(verify("ucf101", made, full=True))["damaged"]
    assert shard.name in fault


def test_all_faults_at_once_are_all_named(root: Path) -> None:
    clip(root, TRAIN[0]).unlink()
    clip(root, TRAIN[1]).write_bytes(avi(seed=1)[:2500])
    clip(root, TRAIN[2]).write_bytes(b"")
    clip(root, TRAIN[3]).write_text("nothing")
    clip(root, TRAIN[4]).write_bytes(declaring(avi(seed=4), 21))
    clip(root, TRAIN[5]).write_bytes(avi(3))
    report = verify("ucf101", root, full=True)
    told = {kind: [name for name, _ in cases] for kind, cases in found(report).items()}
    assert told == {
        "missing": [TRAIN[0]],
        "empty": [TRAIN[2]],
        "no video": [TRAIN[3]],
        "cut off": [TRAIN[1]],
        "count": [TRAIN[4]],
        "short": [TRAIN[5]],
    }
    assert list(told) == sorted(told, key=list(KINDS).index)  # errors first
    assert report.errors == 5
    with pytest.raises(MissingData, match=r"1 missing.*1 empty.*1 no video.*1 cut off.*1 with another number"):
        require_no_errors(report)


# Frame folders and arrays


def test_frame_folders(tmp_path: Path) -> None:
    for i in range(6):
        write_frames(tmp_path / f"v{i}", pictures(i, frames=16))
    assert verify("folder", tmp_path, full=True).findings == ()
    image = tmp_path / "v1/0004.png"
    image.write_bytes(image.read_bytes()[:50])
    (tmp_path / "v2/0005.png").write_bytes(b"")
    (tmp_path / "v3/0006.png").unlink()
    write_frames(tmp_path / "v4", pictures(4, frames=1, width=12), "0015.png")
    write_frames(tmp_path / "v5", pictures(0, frames=16))
    quick, full = (found(verify("folder", tmp_path, full=full, frames=15)) for full in (False, True))
    assert quick == {
        "empty": [("v2", "0005.png has 0 bytes")],
        "gaps": [("v3", "0005.png, then 0007.png")],
        "copies": [("v0", "also v5")],
    }
    assert [name for name, _ in full["undecodable"]] == ["v1"]
    assert "0004.png" in full["undecodable"][0][1]
    assert [name for name, _ in full["sizes"]] == ["v4"]


def test_a_size_that_changes_far_into_a_frame_folder(tmp_path: Path) -> None:
    write_frames(tmp_path / "a/v", pictures(0, frames=24))
    write_frames(tmp_path / "a/v", pictures(0, frames=inspect_video.FRAMES_AT_ONCE, width=12), "1{:03}.png")
    for image in sorted((tmp_path / "a/v").glob("00*"))[inspect_video.FRAMES_AT_ONCE :]:
        image.unlink()  # so that the change falls between two batches
    assert found(verify("folder", tmp_path / "a", full=True))["sizes"] == [("v", "another size from frame 16 on")]


def test_arrays(tmp_path: Path) -> None:
    rows = np.stack([pictures(i, frames=16) for i in (0, 1, 0)])
    np.save(tmp_path / "clips.npy", rows)
    assert found(verify("folder", tmp_path, full=True)) == {"copies": [("clips.npy[0]", "also clips.npy[2]")]}


def test_splits_that_are_folders_are_told_apart(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "a.avi", avi())
        write(tmp_path / split / "b.avi", avi(seed=len(split)))
    assert found(verify("folder", tmp_path)) == {
        "copies": [("train/a.avi", "also test/a.avi")],
        "shared": [("train/a.avi", "in train; in test: test/a.avi")],
    }


# Names, and the command


STRANGE = ('it\'s "it" $(touch x) #1.avi', "-rf.avi", "two\nlines.avi", "käse\u202e.avi", "back\\slash.avi")


def test_strange_names_stay_on_one_line_and_whole_in_the_record(tmp_path: Path, vfbench: Command) -> None:
    for seed, name in enumerate(STRANGE):
        write(tmp_path / name, avi(seed=seed)[:3000])
    done = vfbench("data", "verify", "folder", "--data-root", tmp_path)
    assert done.code == 4
    for shown in (STRANGE[0], STRANGE[1], "two\\nlines.avi", "käse\\u202e.avi", STRANGE[4]):
        assert f"  {shown} (cut off, " in done.out
    record = json.loads(vfbench("data", "verify", "folder", "--data-root", tmp_path, "--json").out)
    [cut] = [one for one in record["findings"] if one["kind"] == "cut off"]
    assert sorted(case["name"] for case in cut["cases"]) == sorted(STRANGE)


def test_the_command_says_all_and_then_fails(root: Path, tmp_path: Path, vfbench: Command) -> None:
    clip(root, TRAIN[0]).unlink()
    before = contents(root)
    file = tmp_path / "deep/record.json"
    done = vfbench("data", "verify", "ucf101", "--data-root", root, "--full", "--output", file)
    assert done.code == 4
    assert "NOT whole: 1 error, no warnings (decoded 160 frames)" in done.out
    assert "-> unpack the archive again, or: python -m vfbench data status ucf101" in done.out
    assert "error: ucf101 in" in done.err
    assert "1 missing" in done.err
    record: dict[str, Any] = json.loads(file.read_text())
    assert (record["errors"], record["decoded"], record["splits"]["train"]["listed"]) == (1, 160, 6)
    assert contents(root) == before


def test_a_whole_dataset_ends_with_0(root: Path, vfbench: Command) -> None:
    done = vfbench("data", "verify", "ucf101(split_list=1, height=64)", "--data-root", root)
    assert (done.code, "no errors" in done.out) == (0, True)


def test_nothing_is_written_into_the_dataset(root: Path, vfbench: Command) -> None:
    before = contents(root)
    done = vfbench("data", "verify", "ucf101", "--data-root", root, "--output", root / "UCF-101/found.json")
    assert (done.code, done.out) == (2, "")
    assert "choose another --output" in done.err
    assert contents(root) == before


@pytest.mark.parametrize("named", [("ucf101", "--data-root", "{}"), ("ucf101(root='{}')",)])
def test_nor_beside_it_in_the_folder_that_was_named(root: Path, vfbench: Command, named: tuple[str, ...]) -> None:
    before = contents(root)
    done = vfbench("data", "verify", *(word.format(root) for word in named), "--output", root / "found.json")
    assert (done.code, done.out) == (2, "")
    assert f"found.json lies in the dataset's folder {root}: choose another --output" in done.err
    assert contents(root) == before


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("ucf102", "did you mean 'ucf101'?"),
        ("shapes", "shapes is generated"),
        ("ucf101(split=2)", "did you mean 'split_list'?"),
        ("ucf101(split_list=4)", "split_list=4"),
    ],
)
def test_a_mistyped_dataset_gets_the_nearest(root: Path, vfbench: Command, dataset: str, said: str) -> None:
    done = vfbench("data", "verify", dataset, "--data-root", root)
    assert done.code == 2
    assert said in done.err


def test_a_dataset_that_is_not_there_gets_the_steps(tmp_path: Path, vfbench: Command) -> None:
    done = vfbench("data", "verify", "ucf101", "--data-root", tmp_path)
    assert done.code == 4
    assert "crcv.ucf.edu" in done.err
