"""Tests of `vfbench.clips` on genuine files: UCF101, Sky Time-lapse, Tai-Chi-HD, and broken and unusual files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from clipfiles import clip_names, grey_levels

from vfbench import clips as folders
from vfbench.errors import MissingData

pytest.importorskip("av")  # reads the clips


def test_genuine_ucf101(real_data: Path) -> None:
    with pytest.raises(MissingData, match=r"videos \(5: UCF-101/.*\) and frame folders \(2: jpegs_c3d/"):
        folders.detect(real_data / "ucf101")  # split lists are ignored
    folder = folders.detect(real_data / "ucf101/UCF-101")
    assert (folder.kind, len(folder), folder.classes[0], folder.notes) == ("videos", 5, "ApplyEyeMakeup", ())
    assert grey_levels(folders.read_clip(folder, 0, frames=3)) == pytest.approx([87.1196, 87.2279, 86.1584], abs=0.02)
    assert folders.too_short(folder, frames=141) == ["BaseballPitch/v_BaseballPitch_g01_c01.avi"]


def test_genuine_frame_folders(real_data: Path) -> None:
    with pytest.raises(MissingData, match=r"3 levels deep.*/sky_test"):
        folders.detect(real_data / "sky_timelapse")
    sky = folders.detect(real_data / "sky_timelapse/sky_test")
    assert (sky.kind, len(sky), len(sky.classes), sky.entries[0].name) == (
        "frames", 6, 6, "mdganREAL00/mdganREAL00_1"
    )  # fmt: skip
    clips = folders.read_clips(sky, range(6), frames=16, stride=2)
    assert tuple(clips.shape) == (6, 16, 3, 128, 128)
    assert clips.float().std((1, 2, 3, 4)).min() > 5
    with pytest.raises(MissingData, match="mdganREAL00_1 has 32 frames"):
        folders.read_clips(sky, [0], frames=16, stride=3)


def test_genuine_taichi_png_and_mp4_are_equal(real_data: Path) -> None:
    png, mp4 = folders.detect(real_data / "taichi_png"), folders.detect(real_data / "taichi_hd")
    assert png.entries[0].name == "test/w2awOCDRtrc#001729#002009.mp4"  # a folder
    assert [name in mp4.notes[0] for name in ("taichi256_pairs.csv", "taichi-metadata.csv")] == [True, True]
    assert torch.equal(folders.read_clip(png, 0, frames=16), folders.read_clip(mp4, 1, frames=16))
    mismatches = folders.mismatches(mp4, png)
    assert mismatches[0].startswith("compression: real h264 yuv420p, fake lossless")
    assert mismatches[1].startswith("frames a clip: real 280 to 458, fake 16")


def test_genuine_broken_and_unusual_files_are_refused(real_data: Path) -> None:
    broken = folders.detect(real_data / "broken")
    for i, name in enumerate(clip_names(broken)):
        with pytest.raises(MissingData, match=f"broken/{re.escape(name)}"):
            folders.read_clip(broken, i, frames=16)
    unusual = folders.detect(real_data / "odd")
    assert folders.too_short(unusual, frames=16) == ["fifteen_frames.mp4", "one_frame.mp4"]
    with pytest.raises(MissingData, match=r"fifteen_frames\.mp4: needs 16 frames .*decoded 15"):
        folders.read_clip(unusual, 0, frames=16)
    with pytest.raises(MissingData, match=r"portrait_180x320\.mp4 has 180x320 pixels"):
        folders.read_clips(unusual, [2], frames=15)
