"""What cannot be prepared, or not in that place, is said, and nothing that was there is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import contents
from datatrees import avi, declaring
from preparing import NAMES, SPEC, assert_same, load, shards

from vfbench.data import shards as writing
from vfbench.data.prepare import prepare
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.utils import files

pytest.importorskip("av")  # without it no clip can be made, nor read


# Videos.


def test_every_video_that_cannot_be_decoded_is_named_and_the_others_kept(
    small_shards: None, raw_ucf101: Path, own_ucf101: Path, tmp_path: Path
) -> None:
    for name, frames in ((NAMES[1], 9), (NAMES[3], 11)):
        damage(own_ucf101 / "UCF-101" / name, frames)
    with pytest.raises(MissingData) as caught:
        prepare(SPEC, tmp_path / "out", data_root=own_ucf101)
    message = str(caught.value)
    assert "2 videos cannot be prepared" in message
    assert [name in message for name in NAMES] == [False, True, False, True, False]
    assert not (tmp_path / "out" / "prepared.json").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}
    assert kept
    for name in NAMES[1::2]:
        shutil.copy(raw_ucf101 / "UCF-101" / name, own_ucf101 / "UCF-101" / name)
    out = prepare(SPEC, tmp_path / "out", data_root=own_ucf101)
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in shards(out)}.items()
    assert_same(load(raw_ucf101), load(out))


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
    monkeypatch.setattr(writing, "BYTES_AT_ONCE", piece)
    monkeypatch.setattr(writing, "GROUP_FRAMES", 5)
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


def test_every_file_that_is_no_video_is_named_before_the_work(own_ucf101: Path, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        (own_ucf101 / "UCF-101" / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(MissingData, match=rf"2 videos cannot be prepared:\n.*{NAMES[0]}.*\n.*{NAMES[1]}"):
        prepare(SPEC, tmp_path / "out", data_root=own_ucf101)
    assert not (tmp_path / "out" / "shards").exists()


# What was prepared already, and where.


def test_another_size_is_refused_saying_which_there_is(prepared_ucf101: Path) -> None:
    fitted = r"prepared as 8x8 centre-crop bilinear antialias=True, decoder auto; asked for: 16x8 centre-crop lanczos"
    with pytest.raises(UserError, match=fitted):
        load(prepared_ucf101, height=16, filter="lanczos")


def test_other_videos_are_refused(prepared_ucf101: Path) -> None:
    with pytest.raises(UserError, match=r"ucf101\(split_list=2\): .* was prepared with split_list=1"):
        load(prepared_ucf101, split_list=2)


def test_another_dataset_is_refused(prepared_ucf101: Path) -> None:
    with pytest.raises(MissingData, match="was prepared from ucf101, not from sky_timelapse"):
        load(prepared_ucf101, "sky_timelapse")


@pytest.mark.parametrize("inside", [".", "out", "UCF-101/out"])
def test_the_dataset_is_not_written_to(own_ucf101: Path, inside: str) -> None:
    before = contents(own_ucf101)
    with pytest.raises(UserError, match=r"lies in the dataset's folder .* another --output"):
        prepare(SPEC, own_ucf101 / inside, data_root=own_ucf101)
    assert contents(own_ucf101) == before


def test_the_dataset_is_not_written_to_through_a_link_either(own_ucf101: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(own_ucf101)
    with pytest.raises(UserError, match=r"lies in the dataset's folder .* another --output"):
        prepare(SPEC, tmp_path / "link" / "out", data_root=own_ucf101)


def test_a_folder_of_other_files_is_left_alone(raw_ucf101: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(thesis\.tex\): choose an empty --output"):
        prepare(SPEC, tmp_path, data_root=raw_ucf101)
    assert {name for name in contents(tmp_path) if name != ".lock"} == {"thesis.tex"}


def test_what_was_prepared_otherwise_is_left_alone(prepared_ucf101: Path, raw_ucf101: Path) -> None:
    before = contents(prepared_ucf101)
    with pytest.raises(UserError, match=r"was prepared with fitted 8x8 .*, not 16x16 .*: choose another --output"):
        prepare("ucf101(height=16, width=16)", prepared_ucf101, data_root=raw_ucf101)
    assert contents(prepared_ucf101) == before


def test_what_is_prepared_is_not_prepared_again(prepared_ucf101: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is already prepared, as 8x8"):
        prepare(SPEC, tmp_path / "out", data_root=prepared_ucf101)


def test_a_dataset_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shapes has no video files"):
        prepare("shapes", tmp_path / "out")


def test_a_full_disk_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path) -> None:
    usage = type("usage", (), {"free": 10**3})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BadEnvironment, match="needs 0 MB more and its disk has 0 MB free"):
        prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    assert shards(tmp_path / "out") == []


def test_a_folder_in_use_is_refused(raw_ucf101: Path, tmp_path: Path) -> None:
    with files.locked_folder(tmp_path / "out"), pytest.raises(BadEnvironment, match="is in use by another run"):
        prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
