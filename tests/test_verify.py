"""Tests of `vfbench data verify`: an intact dataset passes, every planted fault is listed."""

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
from clipfiles import grey_clip, write_frames
from conftest import Command, file_contents, flip_byte
from datatrees import CLASSES, FRAMES, TEST, TRAIN, avi, findings, ucf101, with_declared_frames, write, write_lists

from vfbench.clips import ClipFile
from vfbench.data import duplicates, inspect_video, parallel, prepare
from vfbench.data.findings import KINDS
from vfbench.data.verify import require_no_errors, verify
from vfbench.errors import BadEnvironment, MissingData, UserError

pytest.importorskip("av")

Damage = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return ucf101(tmp_path / "data")


def clip(root: Path, name: str) -> Path:
    return root / "UCF-101" / name


# Intact datasets.


@pytest.mark.parametrize("full", [False, True])
def test_an_intact_dataset_passes(root: Path, full: bool) -> None:
    report = verify("ucf101", root, full=full)
    assert report.findings == ()
    assert [info.decoded for info in report.infos] == [FRAMES * full] * 9
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
def test_the_official_folder_tree_passes(tmp_path: Path, real_data: Path) -> None:
    names, content = official_names(real_data), avi()
    (tmp_path / "ucfTrainTestlist").symlink_to(real_data / "ucf101/ucfTrainTestlist")
    for folder in {name.split("/")[0] for name in names}:
        (tmp_path / "UCF-101" / folder).mkdir(parents=True)
    for number, name in enumerate(names):  # equal size, different content: each is hashed
        clip(tmp_path, name).write_bytes(content + b"%06d" % number)
    report = verify("ucf101", tmp_path)
    assert report.findings == ()
    splits = report.record()["splits"]
    assert (splits["train"]["videos"], splits["test"]["videos"]) == (9537, 3783)
    assert splits["train"]["classes"] == splits["test"]["classes"] == 101


# Single faults, without decoding.


FAULTS: dict[str, tuple[Damage, str, tuple[str, str]]] = {
    "a missing clip": (lambda root: clip(root, TRAIN[0]).unlink(), "missing", (TRAIN[0], "in the train list")),
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


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_the_only_finding(root: Path, fault: str) -> None:
    damage, kind, case = FAULTS[fault]
    damage(root)
    report = verify("ucf101", root)
    assert findings(report) == {kind: [case]}
    assert case[0] in report.text()
    if KINDS[kind].level == "error":
        with pytest.raises(MissingData, match=f"1 {KINDS[kind].title}"):
            require_no_errors(report)
    else:
        require_no_errors(report)


def test_a_text_file_is_no_video(root: Path) -> None:
    clip(root, TRAIN[2]).write_text("404: not found")
    [(name, detail)] = findings(verify("ucf101", root))["no video"]
    assert name == TRAIN[2]
    assert "Invalid data" in detail
    assert str(root) not in detail  # the name identifies it


def test_an_unlisted_clip_is_found(root: Path) -> None:
    extra = f"{CLASSES[0]}/v_{CLASSES[0]}_g25_c01.avi"
    write(clip(root, extra), avi(seed=99))
    [(name, _)] = findings(verify("ucf101", root))["extra"]
    assert name.lower() == extra.lower()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read all files")
def test_an_unreadable_file_is_found(root: Path) -> None:
    clip(root, TRAIN[3]).chmod(0)
    assert findings(verify("ucf101", root)) == {"unreadable": [(TRAIN[3], "Permission denied")]}


@pytest.mark.parametrize(("frames", "short"), [(16, 0), (20, 0), (21, 9)])
def test_videos_shorter_than_a_clip_are_found(root: Path, frames: int, short: int) -> None:
    assert len(findings(verify("ucf101", root, frames=frames)).get("short", [])) == short


def test_zero_frames_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="--frames 0"):
        verify("ucf101", root, frames=0)


# Duplicates and leaks.


def test_equal_content_in_two_splits_is_a_leak(root: Path) -> None:
    clip(root, TEST[0]).write_bytes(clip(root, TRAIN[0]).read_bytes())
    findings_by_kind = findings(verify("ucf101", root))
    assert findings_by_kind == {
        "copies": [(TRAIN[0], f"also {TEST[0]}")],
        "shared": [(TRAIN[0], f"in train; in test: {TEST[0]}")],
    }


def test_decoding_keeps_copies_and_leaks(root: Path) -> None:
    content = with_declared_frames(avi(seed=2), 25)
    for name in (TRAIN[2], TRAIN[3], TEST[0]):
        clip(root, name).write_bytes(content)
    quick, full = (findings(verify("ucf101", root, full=full)) for full in (False, True))
    assert quick["copies"] == full["copies"] == [(TRAIN[2], f"also {TRAIN[3]}, {TEST[0]}")]
    assert quick["shared"] == full["shared"] == [(TRAIN[2], f"in train; in test: {TEST[0]}")]


def test_a_clip_in_the_folders_of_two_splits_is_a_leak(tmp_path: Path) -> None:
    ucf101(tmp_path)
    for split, names in (("train", TRAIN), ("test", TEST)):
        for name in names:
            write(tmp_path / "ucf101" / split / name, clip(tmp_path, name).read_bytes())
    write(tmp_path / "ucf101/test" / TRAIN[0], avi(seed=77))  # with other content
    shutil.rmtree(tmp_path / "UCF-101")
    report = verify("ucf101", tmp_path)
    assert findings(report) == {"shared": [(TRAIN[0], "in the folders of train and test, used for train")]}
    assert f"in folders of both splits, used as listed: 1 ({TRAIN[0]})" in report.text()
    [used] = [item.entry.path for item in report.videos if item.entry.name == TRAIN[0]]
    assert used == tmp_path / "ucf101/train" / TRAIN[0]


def test_files_of_equal_size_are_no_copies(root: Path) -> None:
    content = clip(root, TRAIN[0]).read_bytes()
    clip(root, TEST[0]).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert verify("ucf101", root).findings == ()


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_links_are_found_without_hashing(
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
    findings_by_kind = findings(verify("ucf101", root))
    assert findings_by_kind == {
        "links": [(TRAIN[0], f"also {TRAIN[1]}, {TEST[0]}")],
        "shared": [(TRAIN[0], f"in train; in test: {TEST[0]}")],
    }
    assert {TRAIN[1], TEST[0]}.isdisjoint(entry.name for entry in hashed)


def test_a_copy_of_a_linked_file_is_a_leak_under_each_name(root: Path) -> None:
    clip(root, TEST[1]).unlink()
    clip(root, TEST[1]).symlink_to(clip(root, TEST[0]))
    clip(root, TRAIN[0]).write_bytes(clip(root, TEST[0]).read_bytes())
    [(name, detail)] = findings(verify("ucf101", root))["shared"]
    assert (name, detail) == (TRAIN[0], f"in train; in test: {TEST[0]}, {TEST[1]}")


def test_a_recording_in_two_splits_is_a_leak(root: Path) -> None:
    write_lists(root, TRAIN[1:], (*TEST, TRAIN[0].replace("g08", "g09").replace("c01", "c02")))
    write(clip(root, TRAIN[0].replace("g08", "g09").replace("c01", "c02")), avi(seed=50))
    clip(root, TRAIN[0]).unlink()
    findings_by_kind = findings(verify("ucf101", root))
    assert list(findings_by_kind) == ["recordings"]
    [(name, detail)] = findings_by_kind["recordings"]
    assert name.endswith("v_ApplyEyeMakeup_g09")
    assert detail == "1 train, 1 test clips"


# Decoded frames.


def test_too_many_declared_frames_are_found(root: Path) -> None:
    clip(root, TRAIN[4]).write_bytes(with_declared_frames(avi(seed=4), 25))
    assert findings(verify("ucf101", root)) == {"count": [(TRAIN[4], "declared 25, indexed 20")]}
    assert findings(verify("ucf101", root, full=True)) == {"count": [(TRAIN[4], "declared 25, indexed 20, decoded 20")]}


def test_too_few_declared_frames_are_found(root: Path) -> None:
    clip(root, TRAIN[4]).write_bytes(with_declared_frames(avi(seed=4), 18))
    report = verify("ucf101", root)
    assert findings(report) == {"count": [(TRAIN[4], "declared 18, indexed 20")]}
    with pytest.raises(MissingData, match="1 with another number of frames than declared"):
        require_no_errors(report)


def test_too_few_declared_frames_of_a_real_clip_are_found(root: Path, real_data: Path) -> None:
    content = (real_data / "ucf101/UCF-101/Basketball/v_Basketball_g01_c01.avi").read_bytes()
    clip(root, TRAIN[4]).write_bytes(content)
    assert "count" not in findings(verify("ucf101", root))
    clip(root, TRAIN[4]).write_bytes(with_declared_frames(content, 100))
    assert findings(verify("ucf101", root))["count"] == [(TRAIN[4], "declared 100, indexed 141")]


def test_truncated_clips_report_their_decodable_frames(real_data: Path) -> None:
    findings_by_kind = findings(verify("folder", real_data / "broken", full=True))
    assert findings_by_kind["cut off"] == [
        ("truncated_40pct.avi", "cut off, 127,239 of 318,098 bytes; declared 107, decoded 37"),
    ]
    assert [name for name, _ in findings_by_kind["empty"]] == ["zero_byte.avi"]
    assert [name for name, _ in findings_by_kind["no video"]] == ["mp4_truncated_before_moov.mp4", "text_renamed.avi"]


def test_damaged_frames_are_found_by_decoding(tmp_path: Path, real_data: Path) -> None:
    for name in ("corrupted.mp4", "video_0.mov"):
        (tmp_path / name).symlink_to(real_data / "decoder" / name)
    findings_by_kind = findings(verify("folder", tmp_path, full=True, frames=1))
    [(name, detail)] = findings_by_kind["undecodable"]
    assert name == "corrupted.mp4"
    assert detail.startswith("declared 50, decoded 28")


def test_worker_processes_continue_after_a_failing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MIN_FOR_PROCESSES", 2)
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    for number in range(12):
        write(tmp_path / f"{number}.avi", avi(frames=16 + number))
    write(tmp_path / "7.avi", avi()[:3000])
    write(tmp_path / "9.avi", b"no video")
    report = verify("folder", tmp_path, full=True)
    findings_by_kind = findings(report)
    assert [name for kind in ("cut off", "no video") for name, _ in findings_by_kind[kind]] == ["7.avi", "9.avi"]
    counts = {item.name: info.decoded for item, info in zip(report.videos, report.infos, strict=True)}
    intact = [number for number in range(12) if number not in (7, 9)]
    assert {name: counts[name] for name in counts.keys() - {"7.avi", "9.avi"}} == {f"{n}.avi": 16 + n for n in intact}


def kill_own_process(entry: ClipFile) -> None:
    """Kill this process at the fourth file, as the kernel does when memory runs out."""
    if entry.name == "3":
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MIN_FOR_PROCESSES", 2)
    entries = [ClipFile(str(number), Path()) for number in range(8)]
    with pytest.raises(BadEnvironment, match="a process was killed after 0 of 8 videos"):
        list(parallel.map_ordered(kill_own_process, entries, processes=True, workers=2))


def test_prepared_folders_are_checked_against_lists_and_hashes(root: Path, tmp_path: Path) -> None:
    clip(root, TRAIN[0]).unlink()
    extra = write(clip(root, TRAIN[0].replace("g08", "g25")), avi(seed=99))
    prepared = prepare.prepare("ucf101", tmp_path / "prepared", data_root=root, height=16, width=16)
    report = verify("ucf101", prepared, full=True)
    assert findings(report) == {
        "missing": [(TRAIN[0], "in the train list")],
        "extra": [(f"{CLASSES[0]}/{extra.name}", "")],
    }
    assert "at 25 frames/s: 8" in report.text()
    assert [info.decoded for info in report.infos] == [FRAMES] * 8
    shard = next(prepared.glob("shards/*.npy"))
    flip_byte(shard, -1)
    [(fault, _)] = findings(verify("ucf101", prepared, full=True))["damaged"]
    assert shard.name in fault


def test_several_faults_are_all_listed(root: Path) -> None:
    clip(root, TRAIN[0]).unlink()
    clip(root, TRAIN[1]).write_bytes(avi(seed=1)[:2500])
    clip(root, TRAIN[2]).write_bytes(b"")
    clip(root, TRAIN[3]).write_text("nothing")
    clip(root, TRAIN[4]).write_bytes(with_declared_frames(avi(seed=4), 21))
    clip(root, TRAIN[5]).write_bytes(avi(3))
    report = verify("ucf101", root, full=True)
    findings_by_kind = {kind: [name for name, _ in cases] for kind, cases in findings(report).items()}
    assert findings_by_kind == {
        "missing": [TRAIN[0]],
        "empty": [TRAIN[2]],
        "no video": [TRAIN[3]],
        "cut off": [TRAIN[1]],
        "count": [TRAIN[4]],
        "short": [TRAIN[5]],
    }
    assert list(findings_by_kind) == sorted(findings_by_kind, key=list(KINDS).index)  # errors first
    assert report.errors == 5
    with pytest.raises(MissingData, match=r"1 missing.*1 empty.*1 no video.*1 cut off.*1 with another number"):
        require_no_errors(report)


# Frame folders and arrays.


def test_faults_of_frame_folders_are_found(tmp_path: Path) -> None:
    for i in range(6):
        write_frames(tmp_path / f"v{i}", grey_clip(i, frames=16))
    assert verify("folder", tmp_path, full=True).findings == ()
    image = tmp_path / "v1/0004.png"
    image.write_bytes(image.read_bytes()[:50])
    (tmp_path / "v2/0005.png").write_bytes(b"")
    (tmp_path / "v3/0006.png").unlink()
    write_frames(tmp_path / "v4", grey_clip(4, frames=1, width=12), "0015.png")
    write_frames(tmp_path / "v5", grey_clip(0, frames=16))
    quick, full = (findings(verify("folder", tmp_path, full=full, frames=15)) for full in (False, True))
    assert quick == {
        "empty": [("v2", "0005.png has 0 bytes")],
        "gaps": [("v3", "0005.png, then 0007.png")],
        "copies": [("v0", "also v5")],
    }
    assert [name for name, _ in full["undecodable"]] == ["v1"]
    assert "0004.png" in full["undecodable"][0][1]
    assert [name for name, _ in full["sizes"]] == ["v4"]


def test_a_size_change_late_in_a_frame_folder_is_found(tmp_path: Path) -> None:
    write_frames(tmp_path / "a/v", grey_clip(0, frames=24))
    write_frames(tmp_path / "a/v", grey_clip(0, frames=inspect_video.FRAMES_AT_ONCE, width=12), "1{:03}.png")
    for image in sorted((tmp_path / "a/v").glob("00*"))[inspect_video.FRAMES_AT_ONCE :]:
        image.unlink()  # the change is at the border of two batches
    assert findings(verify("folder", tmp_path / "a", full=True))["sizes"] == [("v", "another size from frame 16 on")]


def test_copies_in_an_array_are_found(tmp_path: Path) -> None:
    rows = np.stack([grey_clip(i, frames=16) for i in (0, 1, 0)])
    np.save(tmp_path / "clips.npy", rows)
    assert findings(verify("folder", tmp_path, full=True)) == {"copies": [("clips.npy[0]", "also clips.npy[2]")]}


def test_findings_name_the_folder_of_the_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "a.avi", avi())
        write(tmp_path / split / "b.avi", avi(seed=len(split)))
    assert findings(verify("folder", tmp_path)) == {
        "copies": [("train/a.avi", "also test/a.avi")],
        "shared": [("train/a.avi", "in train; in test: test/a.avi")],
    }


# Special names, and the command.


SPECIAL_NAMES = ('it\'s "it" $(touch x) #1.avi', "-rf.avi", "two\nlines.avi", "käse\u202e.avi", "back\\slash.avi")


def test_special_names_are_escaped_in_text_and_exact_in_json(tmp_path: Path, vfbench: Command) -> None:
    for seed, name in enumerate(SPECIAL_NAMES):
        write(tmp_path / name, avi(seed=seed)[:3000])
    outcome = vfbench("data", "verify", "folder", "--data-root", tmp_path)
    assert outcome.code == 4
    for printed in (SPECIAL_NAMES[0], SPECIAL_NAMES[1], "two\\nlines.avi", "käse\\u202e.avi", SPECIAL_NAMES[4]):
        assert f"  {printed} (cut off, " in outcome.out
    record = json.loads(vfbench("data", "verify", "folder", "--data-root", tmp_path, "--json").out)
    [cut] = [info for info in record["findings"] if info["kind"] == "cut off"]
    assert sorted(case["name"] for case in cut["cases"]) == sorted(SPECIAL_NAMES)


def test_the_command_lists_all_findings_and_exits_with_4(root: Path, tmp_path: Path, vfbench: Command) -> None:
    clip(root, TRAIN[0]).unlink()
    before = file_contents(root)
    file = tmp_path / "deep/record.json"
    outcome = vfbench("data", "verify", "ucf101", "--data-root", root, "--full", "--output", file)
    assert outcome.code == 4
    assert "NOT whole: 1 error, no warnings (decoded 160 frames)" in outcome.out
    assert "python -m vfbench data status ucf101" in outcome.out
    assert "error: ucf101 in" in outcome.err
    assert "1 missing" in outcome.err
    record: dict[str, Any] = json.loads(file.read_text())
    assert (record["errors"], record["decoded"], record["splits"]["train"]["listed"]) == (1, 160, 6)
    assert file_contents(root) == before


def test_an_intact_dataset_exits_with_0(root: Path, vfbench: Command) -> None:
    outcome = vfbench("data", "verify", "ucf101(split_list=1, height=64)", "--data-root", root)
    assert (outcome.code, "no errors" in outcome.out) == (0, True)


def test_an_output_in_the_dataset_is_refused(root: Path, vfbench: Command) -> None:
    before = file_contents(root)
    outcome = vfbench("data", "verify", "ucf101", "--data-root", root, "--output", root / "UCF-101/findings.json")
    assert (outcome.code, outcome.out) == (2, "")
    assert "choose another --output" in outcome.err
    assert file_contents(root) == before


@pytest.mark.parametrize("dataset_arguments", [("ucf101", "--data-root", "{}"), ("ucf101(root='{}')",)])
def test_an_output_in_the_data_root_is_refused(
    root: Path, vfbench: Command, dataset_arguments: tuple[str, ...]
) -> None:
    before = file_contents(root)
    outcome = vfbench(
        "data", "verify", *(argument.format(root) for argument in dataset_arguments), "--output", root / "findings.json"
    )
    assert (outcome.code, outcome.out) == (2, "")
    assert "choose another --output" in outcome.err
    assert file_contents(root) == before


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("ucf102", "did you mean 'ucf101'?"),
        ("shapes", "shapes is generated"),
        ("ucf101(split=2)", "did you mean 'split_list'?"),
        ("ucf101(split_list=4)", "split_list=4"),
    ],
)
def test_a_mistyped_dataset_is_refused_with_a_suggestion(
    root: Path, vfbench: Command, dataset: str, message: str
) -> None:
    outcome = vfbench("data", "verify", dataset, "--data-root", root)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_missing_dataset_is_refused_with_download_steps(tmp_path: Path, vfbench: Command) -> None:
    outcome = vfbench("data", "verify", "ucf101", "--data-root", tmp_path)
    assert outcome.code == 4
    assert "crcv.ucf.edu" in outcome.err
