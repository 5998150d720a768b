"""Tests of `vfbench.video`: conversion to uint8, WebP animations and sample sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vfbench import video
from vfbench.errors import BadEnvironment, UserError


@pytest.mark.pitfall("bytes cut off instead of rounded")
def test_to_uint8_rounds_and_clamps() -> None:
    x = torch.tensor([0.4, 0.6, 1.5, 2.5, 254.4, 254.6, 255.0, 300.0, -3.0]) / 255
    assert video.to_uint8(x).tolist() == [0, 1, 2, 2, 254, 255, 255, 255, 0]
    assert video.to_uint8(torch.arange(256) / 255).tolist() == list(range(256))
    assert video.to_uint8(torch.tensor([0.5])).tolist() == [128]  # 127.5 rounds to even


def test_to_uint8_computes_half_precision_in_float32() -> None:
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(video.to_uint8(x), video.to_uint8(x.float()))


def test_to_uint8_refuses_integers_and_nan() -> None:
    with pytest.raises(TypeError):
        video.to_uint8(torch.ones(3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="NaN"):
        video.to_uint8(torch.tensor([0.5, float("nan")]))


@pytest.mark.pitfall("floats as bytes")
def test_require_byte_range_refuses_truncated_floats() -> None:
    clips = torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8)
    assert video.require_byte_range(clips) is clips  # black
    clips[0, 1, 2, 3, 3] = 1
    with pytest.raises(UserError, match="all bytes of these clips are 0 or 1"):
        video.require_byte_range(clips)
    clips[0, 0, 0, 0, 0] = 2
    assert video.require_byte_range(clips) is clips


# Image files.


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def frames_of(path: Path) -> Tensor:
    with Image.open(path) as image:
        images = []
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            images.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))
    return torch.stack(images)


def test_webp_of_a_clip_is_lossless(tmp_path: Path) -> None:
    clip = noise(5, 3, 8, 12)
    path = tmp_path / "new folder" / "clip.webp"
    video.write_webp(path, clip, fps=8)
    assert torch.equal(frames_of(path), clip)
    with Image.open(path) as image:
        image.load()
        assert (image.info["duration"], image.info["loop"]) == (125, 0)
    assert [file.name for file in path.parent.iterdir()] == ["clip.webp"]


def test_webp_of_clips_is_a_grid(tmp_path: Path) -> None:
    clips = noise(3, 4, 3, 8, 12)
    video.write_webp(tmp_path / "grid.webp", clips, scale=2)
    grid = frames_of(tmp_path / "grid.webp")
    assert tuple(grid.shape) == (4, 3, 2 * 16 + video.GAP, 2 * 24 + video.GAP)
    assert torch.equal(grid[..., -15::2, 1:24:2], clips[2])  # the third clip starts the second row
    assert (grid[..., -16:, -24:] == video.BACKGROUND).all()


def test_sheet_shows_evenly_spread_frames(tmp_path: Path) -> None:
    clips = noise(2, 15, 3, 8, 12)
    video.write_sheet(tmp_path / "sheet.png", clips)
    sheet = frames_of(tmp_path / "sheet.png")[0]
    assert tuple(sheet.shape) == (3, 2 * 8 + video.GAP, 8 * 12 + 7 * video.GAP)
    for column, frame in enumerate((0, 2, 4, 6, 8, 10, 12, 14)):
        left = column * (12 + video.GAP)
        assert torch.equal(sheet[:, -8:, left : left + 12], clips[1, frame])
    video.write_sheet(tmp_path / "few.png", clips[:, :3], columns=5, scale=3)
    assert frames_of(tmp_path / "few.png").shape[3] == 3 * 36 + 2 * video.GAP


def test_sheet_captions_are_below_their_rows(tmp_path: Path) -> None:
    clips = torch.zeros(2, 1, 3, 8, 8, dtype=torch.uint8)
    video.write_sheet(tmp_path / "sheet.png", clips, captions=["", "a much longer caption"])
    sheet = frames_of(tmp_path / "sheet.png")[0].float()
    pitch = 8 + 2 * video.FONT_SIZE
    assert sheet.shape[2] > 100
    assert (sheet[:, 8:pitch] == video.BACKGROUND).all()
    assert (sheet[:, pitch : pitch + 8, :8] == 0).all()
    assert (sheet[:, pitch + 8 :] < 128).any()
    with pytest.raises(ValueError, match="1 captions for 2 clips"):
        video.write_sheet(tmp_path / "sheet.png", clips, captions=["one"])


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sheet.png"
    path.write_bytes(b"old")

    def raise_disk_full(self: Image.Image, file: Path, *_: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", raise_disk_full)
    with pytest.raises(BadEnvironment, match=r"cannot write .*sheet\.png \(No space left"):
        video.write_sheet(path, noise(1, 1, 3, 4, 4))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
