"""Tests of `vfbench.data.completeness` and the report of `vfbench data verify`: partial copies, short lists, counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from clipfiles import grey_clip, write_frames
from conftest import Command
from datatrees import TEST, TRAIN, avi, findings, ucf101, write, write_lists

from vfbench.data import prepare
from vfbench.data.verify import require_no_errors, verify
from vfbench.datasets._ucf101_lists import CLASSES, official_name
from vfbench.errors import MissingData
from vfbench.utils.progress import format_rate

pytest.importorskip("av")

SKY = "Aa1_-567890"
TAICHI = "L82WHgYRq6I#000021#000479.mp4"


@pytest.fixture
def truncated_ucf101(tmp_path: Path) -> Path:
    """Two clips of UCF101 with the official class list and truncated split lists: two lines and none."""
    names = [official_name(action, "08", "01") for action in CLASSES[:2]]
    labels = "".join(f"{i} {name}\n" for i, name in enumerate(CLASSES, 1))
    write(tmp_path / "ucfTrainTestlist/classInd.txt", labels.encode())
    write(tmp_path / "ucfTrainTestlist/trainlist01.txt", f"{names[0]} 1\n{names[1]} 2\n".encode())
    write(tmp_path / "ucfTrainTestlist/testlist01.txt", b"")
    for seed, name in enumerate(names):
        write(tmp_path / "UCF-101" / name, avi(seed=seed))
    return tmp_path


# Partial copies and lists


def test_a_partial_copy_of_sky_timelapse_is_an_error(tmp_path: Path, vfbench: Command) -> None:
    for part in (1, 2):
        write_frames(tmp_path / f"sky_test/{SKY}/{SKY}_{part}", grey_clip(part, frames=16))
    assert findings(verify("sky_timelapse", tmp_path)) == {"partial": [("sky_timelapse", "2 of 2,617 videos")]}
    outcome = vfbench("data", "verify", "sky_timelapse", "--data-root", tmp_path)
    assert outcome.code == 4
    assert "python -m vfbench data status sky_timelapse" in outcome.out
    status = vfbench("data", "status", "sky_timelapse", "--data-root", tmp_path)
    assert "1xWLiU-MBGN7MrsFHQm4_yXmfHBsMbJQo" in status.out


def test_a_clip_in_two_folders_counts_once(tmp_path: Path) -> None:
    for split in ("sky_train", "sky_test"):
        write_frames(tmp_path / f"{split}/{SKY}/{SKY}_1", grey_clip(1, frames=16))
    assert findings(verify("sky_timelapse", tmp_path))["partial"] == [("sky_timelapse", "1 of 2,617 videos")]


def test_a_partial_copy_of_taichi_hd_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / TAICHI, avi())
    assert findings(verify("taichi_hd", tmp_path))["partial"] == [("taichi_hd", "1 of 3,334 videos")]


def test_ucf101_without_lists_is_compared_with_the_official_count(truncated_ucf101: Path) -> None:
    shutil.rmtree(truncated_ucf101 / "ucfTrainTestlist")
    report = verify("ucf101", truncated_ucf101)
    assert findings(report)["partial"] == [("ucf101", "2 of 13,320 videos")]
    with pytest.raises(MissingData, match="1 incomplete copy"):
        require_no_errors(report)


def test_a_dataset_prepared_from_a_partial_copy_is_partial(
    truncated_ucf101: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shutil.rmtree(truncated_ucf101 / "ucfTrainTestlist")
    out = tmp_path_factory.mktemp("prepared")
    prepared = prepare.prepare("ucf101", out, data_root=truncated_ucf101, height=16, width=16)
    assert findings(verify("ucf101", prepared))["partial"] == [("ucf101", "2 of 13,320 videos")]


def test_truncated_lists_are_reported(truncated_ucf101: Path, vfbench: Command) -> None:
    expected = [("the train list", "2 of 9,537 lines"), ("the test list", "0 of 3,783 lines")]
    assert findings(verify("ucf101", truncated_ucf101)) == {"lists": expected}
    outcome = vfbench("data", "verify", "ucf101", "--data-root", truncated_ucf101)
    assert outcome.code == 0
    assert "python -m vfbench data status ucf101" in outcome.out
    steps = vfbench("data", "status", "ucf101", "--data-root", truncated_ucf101).out
    assert "UCF101TrainTestSplits-RecognitionTask.zip" in steps


def test_custom_lists_may_have_any_length_above_zero(tmp_path: Path) -> None:
    root = ucf101(tmp_path)
    assert verify("ucf101", root).findings == ()
    write_lists(root, (*TRAIN, *TEST), ())
    assert findings(verify("ucf101", root)) == {"lists": [("the test list", "empty")]}


@pytest.mark.parametrize("split_list", [1, 2, 3])
def test_the_official_lists_are_complete(real_data: Path, split_list: int) -> None:
    assert "lists" not in findings(verify(f"ucf101(split_list={split_list})", real_data))


# Remedies


def test_a_folder_of_two_layouts_names_both_ways_to_list_clips(tmp_path: Path) -> None:
    write(tmp_path / "a.avi", avi())
    write_frames(tmp_path / "b", grey_clip(0, frames=16))
    with pytest.raises(MissingData, match=r"--list FILE, .*folder\(listing='FILE'\)"):
        verify("folder", tmp_path)
    (tmp_path / "list.txt").write_text("a.avi\n")
    assert len(verify(f"folder(listing='{tmp_path}/list.txt')", tmp_path).videos) == 1


# Numbers


def test_full_verification_counts_decoded_frames(real_data: Path) -> None:
    assert "37 to 37 a video, median 37, 37 decoded" in verify("folder", real_data / "broken", full=True).text()
    assert "107 in all" in verify("folder", real_data / "broken").text()


def test_a_full_verification_prints_a_frame_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(tmp_path / "v", grey_clip(0, frames=16))
    for full in (False, True):
        verify("folder", tmp_path, full=full)
        stderr = capsys.readouterr().err
        assert ("frames/s" in stderr, " 0 frames/s" in stderr) == (full, False)
    (tmp_path / "v/0000.png").write_bytes(b"")
    verify("folder", tmp_path, full=True)
    assert "frames/s" not in capsys.readouterr().err  # nothing was decoded


@pytest.mark.parametrize(
    ("rate", "text"), [(0.0, "0"), (0.25, "0.25"), (12.34, "12.3"), (999.7, "1,000"), (1912.3, "1,912")]
)
def test_rates_are_plain_numbers(rate: float, text: str) -> None:
    assert format_rate(rate) == text


def test_sizes_without_a_majority_are_a_warning(tmp_path: Path) -> None:
    for seed, height in enumerate((16, 16, 32, 32)):
        write(tmp_path / f"{seed}.avi", avi(height=height, seed=seed))
    report = verify("folder", tmp_path)
    assert findings(report) == {"several": [("32x16", "2, such as 0.avi"), ("32x32", "2, such as 2.avi")]}
    assert "warning: 4 of several sizes" in report.text()
    assert [example.others for example in report.findings[0].examples] == [("0.avi", "1.avi"), ("2.avi", "3.avi")]
    write(tmp_path / "4.avi", avi(seed=4))
    assert findings(verify("folder", tmp_path)) == {"resolution": [("2.avi", "32x32"), ("3.avi", "32x32")]}
