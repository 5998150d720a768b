"""Tests of `vfbench.video.decode` and `count_frames`: chosen frames, pixels, rotation, refused files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vfbench import video
from vfbench.errors import MissingData
from vfbench.video.rotation import apply_matrix


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """Lossless video of 20 frames; frame k has grey 10 k."""
    av = pytest.importorskip("av")
    path = tmp_path / "greys:1, #2.avi"  # special in URLs and shells
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=24, height=16, pix_fmt="bgr0")
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((16, 24, 3), 10 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frame_means(clip: Tensor) -> list[float]:
    return [round(frame.float().mean().item(), 4) for frame in clip]


# Frames.


def test_decode_takes_start_frames_and_stride(greys: Path) -> None:
    clip = video.decode(greys, start=3, frames=4, stride=2)
    assert (clip.dtype, tuple(clip.shape), clip.is_contiguous(memory_format=torch.channels_last)) == (
        *(torch.uint8, (4, 3, 16, 24)),
        True,  # the layout of decoded frames
    )
    assert frame_means(clip) == [30, 50, 70, 90]


def test_decode_without_frames_reads_to_the_end(greys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(greys.parent)
    assert frame_means(video.decode(greys.name, start=15)) == [150, 160, 170, 180, 190]
    assert frame_means(video.decode(greys, stride=8)) == [0, 80, 160]


def test_decode_past_the_last_frame_is_refused(greys: Path) -> None:
    assert frame_means(video.decode(greys, start=1, frames=10, stride=2))[-1] == 190
    with pytest.raises(MissingData, match=r"greys.*: needs 10 frames from 2 at stride 2, declared 20, decoded 20"):
        video.decode(greys, start=2, frames=10, stride=2)
    with pytest.raises(MissingData, match="needs all frames from 20, declared 20, decoded 20"):
        video.decode(greys, start=20)


@pytest.mark.parametrize("options", [{"start": -1}, {"frames": 0}, {"stride": 0}])
def test_decode_refuses_invalid_numbers(greys: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="start counts from 0"):
        video.decode(greys, **options)


UCF101_COUNTS = {
    "ApplyEyeMakeup_g01": 164,  # a reader at constant frame rate doubles its first frame
    "BaseballPitch_g01": 107,
    "Basketball_g01": 141,
    "SoccerJuggling_g23": 240,
    "SoccerJuggling_g24": 251,
}


def test_real_frame_counts(real_data: Path) -> None:
    for name, count in UCF101_COUNTS.items():
        path = real_data / "ucf101" / "UCF-101" / name.split("_")[0] / f"v_{name}_c01.avi"
        assert video.count_frames(path) == count, name
    decoder = {"hf_datasets_66x50.mov": 82, "discard_first_keyframe.mp4": 25, "av1_video.mkv": 125, "unordered.mov": 4}
    for name, count in (decoder | {"-video-with-dash-.mp4": 5}).items():
        assert video.count_frames(real_data / "decoder" / name) == count, name
    assert video.count_frames(real_data / "taichi_hd" / "w2awOCDRtrc#001729#002009.mp4") == 280


NAMES = [
    "a b",
    "q'\"",
    "$(x)",
    "#1",
    "-dash",
    "c:d",
    "http:x",
    "\u00fc\u65e5\u672c",
    "%03d",
    "pipe:0",
    "back\\slash",
    "\udcff",
]


@pytest.mark.parametrize("name", NAMES)
def test_special_file_names_are_read(name: str, greys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(greys, tmp_path / f"{name}.avi")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / f"{name}.avi", f"{name}.avi"):
        assert frame_means(video.decode(path, start=3, frames=2)) == [30, 40]
        assert video.header(path).frames == 20


def test_decoding_in_threads_gives_the_same_frames(real_data: Path) -> None:
    paths = sorted((real_data / "ucf101/UCF-101").rglob("*.avi"))[1:4]
    jobs = [(path, start) for start in (7, 50) for path in paths]
    with ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(lambda job: video.decode(job[0], start=job[1], frames=4), jobs))
    for (path, start), clip in zip(jobs, clips, strict=True):
        assert torch.equal(clip, video.decode(path, start=start, frames=4))


# Pixels.


def test_ucf101_frame_means_and_order(real_data: Path) -> None:
    path = real_data / "ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"
    assert frame_means(video.decode(path, frames=3)) == pytest.approx([87.1196, 87.2279, 86.1584], abs=0.02)


def test_countdown_means(real_data: Path) -> None:
    clip = video.decode(real_data / "decoder/mmcv_test_countdown.mp4")
    assert tuple(clip.shape) == (168, 3, 240, 294)
    assert frame_means(clip[[0, 63, 64]]) == pytest.approx([94, 94, 205], abs=0.5)


def test_golden_frames_are_bit_exact(real_data: Path) -> None:
    golden = sorted((real_data / "decoder_golden").glob("*.pt"))
    assert len(golden) == 6
    for path in golden:
        match = re.fullmatch(r"(.+)\.stream(\d+)\.frame(\d+)\.pt", path.name)
        assert match
        name, stream, start = match[1], int(match[2]), int(match[3])
        frame = video.decode(real_data / "decoder" / name, start=start, frames=1, stream=stream)[0]
        assert torch.equal(frame.permute(1, 2, 0), torch.load(path, weights_only=True)), path.name


def test_a_rotated_video_is_decoded_upright(real_data: Path) -> None:
    flat = video.decode(real_data / "decoder/video_0.mov", frames=1)
    turned = video.decode(real_data / "decoder/video_90.mov", frames=1)
    assert (flat.shape[2:], turned.shape[2:]) == ((320, 568), (568, 320))
    av = pytest.importorskip("av")
    with av.open(str(real_data / "decoder/video_90.mov")) as container:
        stored = torch.from_numpy(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    assert torch.equal(turned[0].permute(1, 2, 0), stored.rot90(-1, (0, 1)))  # -90: a quarter clockwise


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), [[0, 1, 2], [3, 4, 5]]),
        ((0, 1, -1, 0), [[3, 0], [4, 1], [5, 2]]),  # a quarter clockwise
        ((0, -1, 1, 0), [[2, 5], [1, 4], [0, 3]]),  # a quarter counterclockwise
        ((-1, 0, 0, -1), [[5, 4, 3], [2, 1, 0]]),  # upside down
        ((-1, 0, 0, 1), [[2, 1, 0], [5, 4, 3]]),  # mirrored, as by a front camera
    ],
)
def test_display_matrix(matrix: tuple[int, int, int, int], expected: list[list[int]]) -> None:
    image = np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3, 1), 3, axis=2)
    a, b, c, d = (65536 * x for x in matrix)
    assert apply_matrix(image, (a, b, 0, c, d, 0, 0, 0, 1 << 30))[..., 0].tolist() == expected


# Refused files.


@pytest.mark.parametrize("name", ["text_renamed.avi", "zero_byte.avi", "mp4_truncated_before_moov.mp4"])
def test_a_broken_file_is_refused(real_data: Path, name: str) -> None:
    with pytest.raises(MissingData, match=f"broken/{name}: needs 16 frames from 2, decoded 0 "):
        video.decode(real_data / "broken" / name, start=2, frames=16)
    with pytest.raises(MissingData, match=name):
        video.count_frames(real_data / "broken" / name)


@pytest.mark.parametrize("read", [video.decode, video.count_frames, video.header, video.check_complete])
def test_paths_that_are_no_file_are_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")  # reading it would block
    for name, reason in {
        "folder": "a folder",
        "pipe": "a pipe, socket or device",
        "none": "No such file or directory",
    }.items():
        with pytest.raises(MissingData, match=rf"{name}\.mp4: {reason}"):
            read(tmp_path / f"{name}.mp4")


def test_a_truncated_file_is_read_up_to_its_end(real_data: Path) -> None:
    path = real_data / "broken/truncated_40pct.avi"
    assert video.count_frames(path) == len(video.decode(path, frames=37)) == 37
    with pytest.raises(MissingData, match=r"truncated_40pct\.avi: needs 16 frames from 22, declared 107, decoded 37"):
        video.decode(path, start=22, frames=16)


def test_a_damaged_file_is_read_up_to_the_damage(real_data: Path) -> None:
    path = real_data / "decoder/corrupted.mp4"
    assert len(video.decode(path, start=1, frames=2, stride=26)) == 2
    for frames in (29, None):
        with pytest.raises(MissingData, match=r"corrupted\.mp4: needs .*, declared 50, decoded 28 \(Invalid data"):
            video.decode(path, start=27, frames=frames)


def test_short_videos_are_refused(real_data: Path) -> None:
    assert len(video.decode(real_data / "odd/fifteen_frames.mp4", frames=15)) == 15
    for name, count in {"fifteen_frames.mp4": 15, "one_frame.mp4": 1}.items():
        with pytest.raises(MissingData, match=f"{name}: needs 16 frames from 0, declared {count}, decoded {count} "):
            video.decode(real_data / "odd" / name, frames=16)


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "empty.avi"), "w") as container:
        container.add_stream("ffv1", rate=25, width=24, height=16, pix_fmt="bgr0")
        container.start_encoding()
    for read in (video.count_frames, video.decode):
        with pytest.raises(MissingData, match=r"empty\.avi: .*declared 0, decoded 0"):
            read(tmp_path / "empty.avi")


def test_a_missing_video_stream_is_refused(real_data: Path) -> None:
    with pytest.raises(MissingData, match="no video stream 1"):
        video.decode(real_data / "decoder/nasa_13013.mp4", frames=1, stream=1)
