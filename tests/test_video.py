from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vfbench import cut, video
from vfbench.errors import BadEnvironment, MissingData


@pytest.fixture(scope="module")
def data() -> Path:
    """The folder of real video files, described by the README beside them."""
    pytest.importorskip("av")
    root = Path(__file__).parent.parent
    folder = Path(os.environ.get("VFBENCH_TEST_DATA", root / "../shared/data")).resolve()
    if not (folder / "decoder_golden").is_dir():
        pytest.skip(f"no real video files in {folder}; set VFBENCH_TEST_DATA")
    return folder


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """A lossless video of 20 frames, frame k of one grey 10 k."""
    av = pytest.importorskip("av")
    path = tmp_path / "greys:1, #2.avi"  # a name that a URL or a shell would misread
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=24, height=16, pix_fmt="bgr0")
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((16, 24, 3), 10 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def levels(clip: Tensor) -> list[float]:
    return [round(frame.float().mean().item(), 4) for frame in clip]


# Decoding: which frames


def test_decode_takes_the_frames_asked_for(greys: Path) -> None:
    clip = video.decode(greys, start=3, frames=4, stride=2)
    assert (clip.dtype, tuple(clip.shape), clip.is_contiguous()) == (torch.uint8, (4, 3, 16, 24), True)
    assert levels(clip) == [30, 50, 70, 90]


def test_decode_without_a_number_reads_to_the_end(greys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(greys.parent)
    assert levels(video.decode(greys.name, start=15)) == [150, 160, 170, 180, 190]
    assert levels(video.decode(greys, stride=8)) == [0, 80, 160]


def test_decode_may_end_with_the_last_frame_but_not_after_it(greys: Path) -> None:
    assert levels(video.decode(greys, start=1, frames=10, stride=2))[-1] == 190
    with pytest.raises(MissingData, match=r"greys.*: needs 10 frames from 2 at stride 2, decoded 20"):
        video.decode(greys, start=2, frames=10, stride=2)
    with pytest.raises(MissingData, match="needs all frames from 20, decoded 20"):
        video.decode(greys, start=20)


@pytest.mark.parametrize("wrong", [{"start": -1}, {"frames": 0}, {"stride": 0}])
def test_decode_refuses_senseless_numbers(greys: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="start counts from 0"):
        video.decode(greys, **wrong)


UCF101_COUNTS = {
    "ApplyEyeMakeup_g01": 164,  # a reader at constant frame rate doubles its first frame
    "BaseballPitch_g01": 107,
    "Basketball_g01": 141,
    "SoccerJuggling_g23": 240,
    "SoccerJuggling_g24": 251,
}


def test_real_frame_counts(data: Path) -> None:
    for name, count in UCF101_COUNTS.items():
        path = data / "ucf101" / "UCF-101" / name.split("_")[0] / f"v_{name}_c01.avi"
        assert video.count_frames(path) == count, name
    decoder = {"hf_datasets_66x50.mov": 82, "discard_first_keyframe.mp4": 25, "av1_video.mkv": 125, "unordered.mov": 4}
    for name, count in (decoder | {"-video-with-dash-.mp4": 5}).items():
        assert video.count_frames(data / "decoder" / name) == count, name
    assert video.count_frames(data / "taichi_hd" / "w2awOCDRtrc#001729#002009.mp4") == 280


# Decoding: which pixels


def test_ucf101_frame_means_and_order(data: Path) -> None:
    path = data / "ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"
    assert levels(video.decode(path, frames=3)) == pytest.approx([87.1196, 87.2279, 86.1584], abs=0.02)


def test_countdown_means(data: Path) -> None:
    clip = video.decode(data / "decoder/mmcv_test_countdown.mp4")
    assert tuple(clip.shape) == (168, 3, 240, 294)
    assert levels(clip[[0, 63, 64]]) == pytest.approx([94, 94, 205], abs=0.5)


def test_golden_frames_are_bit_exact(data: Path) -> None:
    golden = sorted((data / "decoder_golden").glob("*.pt"))
    assert len(golden) == 6
    for path in golden:
        match = re.fullmatch(r"(.+)\.stream(\d+)\.frame(\d+)\.pt", path.name)
        assert match
        name, stream, start = match[1], int(match[2]), int(match[3])
        frame = video.decode(data / "decoder" / name, start=start, frames=1, stream=stream)[0]
        assert torch.equal(frame.permute(1, 2, 0), torch.load(path, weights_only=True)), path.name


def test_a_rotated_video_is_shown_upright(data: Path) -> None:
    flat = video.decode(data / "decoder/video_0.mov", frames=1)
    turned = video.decode(data / "decoder/video_90.mov", frames=1)
    assert (flat.shape[2:], turned.shape[2:]) == ((320, 568), (568, 320))
    av = pytest.importorskip("av")
    with av.open(str(data / "decoder/video_90.mov")) as container:
        stored = torch.from_numpy(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    assert torch.equal(turned[0].permute(1, 2, 0), stored.rot90(-1, (0, 1)))  # -90: a quarter clockwise


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), [[0, 1, 2], [3, 4, 5]]),
        ((0, 1, -1, 0), [[3, 0], [4, 1], [5, 2]]),  # a quarter clockwise
        ((0, -1, 1, 0), [[2, 5], [1, 4], [0, 3]]),  # a quarter counterclockwise
        ((-1, 0, 0, -1), [[5, 4, 3], [2, 1, 0]]),  # upside down
        ((-1, 0, 0, 1), [[2, 1, 0], [5, 4, 3]]),  # mirrored, as by a front camera
    ],
)
def test_display_matrix(matrix: tuple[int, int, int, int], shown: list[list[int]]) -> None:
    image = np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3, 1), 3, axis=2)
    a, b, c, d = (65536 * x for x in matrix)
    assert video._upright(image, (a, b, 0, c, d, 0, 0, 0, 1 << 30))[..., 0].tolist() == shown


# Decoding: what is refused


@pytest.mark.parametrize(
    "name", ["text_renamed.avi", "zero_byte.avi", "mp4_truncated_before_moov.mp4", "no_such_file.avi"]
)
def test_a_broken_file_is_named(data: Path, name: str) -> None:
    with pytest.raises(MissingData, match=f"broken/{name}: needs 16 frames from 2, decoded 0 "):
        video.decode(data / "broken" / name, start=2, frames=16)
    with pytest.raises(MissingData, match=name):
        video.count_frames(data / "broken" / name)


def test_a_cut_file_gives_what_it_has_and_no_more(data: Path) -> None:
    path = data / "broken/truncated_40pct.avi"
    assert video.count_frames(path) == len(video.decode(path, frames=37)) == 37
    with pytest.raises(MissingData, match=r"truncated_40pct\.avi: needs 16 frames from 22, decoded 37"):
        video.decode(path, start=22, frames=16)


def riff(declared: int, size: int) -> bytes:
    """The beginning of an AVI whose head declares `declared` bytes behind the first 8, as a file of `size` bytes."""
    return (b"RIFF" + declared.to_bytes(4, "little") + b"AVI ").ljust(size, b"x")


@pytest.mark.parametrize("content", [riff(92, 99), riff(1 << 30, 12)])
def test_an_avi_that_was_cut_off_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.avi"
    path.write_bytes(content)
    declared = int.from_bytes(content[4:8], "little") + 8
    with pytest.raises(
        MissingData, match=rf"x\.avi: cut off, {len(content)} of {declared:,} bytes; get this file again"
    ):
        video.check_whole(path)


@pytest.mark.parametrize("content", [riff(92, 100), riff(92, 101), riff(0, 50), riff(0xFFFFFFFF, 50), b"", b"ftyp" * 9])
def test_a_whole_avi_one_of_open_size_and_other_files_pass(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.avi"
    path.write_bytes(content)
    video.check_whole(path)


def test_a_file_that_is_not_there_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"x\.avi: No such file or directory; get this file again"):
        video.check_whole(str(tmp_path / "x.avi"))


def test_a_file_damaged_within_is_read_up_to_the_damage(data: Path) -> None:
    path = data / "decoder/corrupted.mp4"
    assert len(video.decode(path, start=1, frames=2, stride=26)) == 2
    for frames in (29, None):
        with pytest.raises(MissingData, match=r"corrupted\.mp4: needs .*, decoded 28 \(Invalid data"):
            video.decode(path, start=27, frames=frames)


def test_short_videos_are_refused(data: Path) -> None:
    assert len(video.decode(data / "odd/fifteen_frames.mp4", frames=15)) == 15
    for name, count in {"fifteen_frames.mp4": 15, "one_frame.mp4": 1}.items():
        with pytest.raises(MissingData, match=f"{name}: needs 16 frames from 0, decoded {count} "):
            video.decode(data / "odd" / name, frames=16)


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "empty.avi"), "w") as container:
        container.add_stream("ffv1", rate=25, width=24, height=16, pix_fmt="bgr0")
        container.start_encoding()
    for read in (video.count_frames, video.decode):
        with pytest.raises(MissingData, match=r"empty\.avi: needs all frames from 0, decoded 0 \(the video"):
            read(tmp_path / "empty.avi")


def test_a_stream_that_is_no_video_is_refused(data: Path) -> None:
    with pytest.raises(MissingData, match="no video stream 1"):
        video.decode(data / "decoder/nasa_13013.mp4", frames=1, stream=1)


# Pixels


def test_to_uint8_rounds_and_clamps() -> None:
    x = torch.tensor([0.4, 0.6, 1.5, 2.5, 254.4, 254.6, 255.0, 300.0, -3.0]) / 255
    assert video.to_uint8(x).tolist() == [0, 1, 2, 2, 254, 255, 255, 255, 0]
    assert video.to_uint8(torch.arange(256) / 255).tolist() == list(range(256))
    assert video.to_uint8(torch.tensor([0.5])).tolist() == [128]  # 127.5 goes to the even byte


def test_to_uint8_computes_half_precision_in_float32() -> None:
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(video.to_uint8(x), video.to_uint8(x.float()))


def test_to_uint8_refuses_what_is_no_colour() -> None:
    with pytest.raises(TypeError):
        video.to_uint8(torch.ones(3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="NaN"):
        video.to_uint8(torch.tensor([0.5, float("nan")]))


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(4, 4), (13, 7), (50, 60)])
@pytest.mark.parametrize("antialias", [True, False])
def test_resize_keeps_a_constant(size: tuple[int, int], antialias: bool) -> None:
    for value in (0, 1, 127, 254, 255):
        clips = torch.full((2, 3, 3, 16, 20), value, dtype=torch.uint8)
        assert torch.equal(cut.resize(clips, *size, antialias=antialias), clips.new_full((2, 3, 3, *size), value))


def test_resize_to_the_same_size_changes_nothing() -> None:
    clips = noise(2, 3, 3, 9, 12)
    assert torch.equal(cut.resize(clips, 9, 12), clips)


def test_resize_has_half_pixel_centres_and_rounds() -> None:
    row = torch.tensor([0, 100], dtype=torch.uint8).expand(3, 1, 2)
    assert cut.resize(row, 1, 4)[0, 0].tolist() == [0, 25, 75, 100]
    row = torch.tensor([0, 0, 11, 11], dtype=torch.uint8).expand(3, 1, 4)
    assert cut.resize(row, 1, 2, antialias=False)[0, 0].tolist() == [0, 11]
    assert cut.resize(row, 1, 2)[0, 0].tolist() == [2, 9]  # 11/7 and 66/7: the wider filter, not truncated


def test_resize_shrinks_as_pil_does() -> None:
    image = noise(3, 40, 50)
    ours = cut.resize(image, 16, 20).permute(1, 2, 0)
    theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((20, 16), Image.Resampling.BILINEAR)
    assert (ours.int() - torch.from_numpy(np.array(theirs)).int()).abs().max() <= 1


def test_resize_refuses_floats() -> None:
    with pytest.raises(TypeError):
        cut.resize(torch.rand(3, 4, 4), 2, 2)


def test_centre_crop() -> None:
    assert cut.centre_crop(torch.arange(7).to(torch.uint8).expand(2, 3, 3, 7))[0, 0, 0].tolist() == [2, 3, 4]
    tall = torch.arange(6).to(torch.uint8).reshape(6, 1).expand(3, 6, 3)
    assert cut.centre_crop(tall)[0, :, 0].tolist() == [1, 2, 3]  # an odd margin: more is cut below


# Writing


def frames_of(path: Path) -> Tensor:
    with Image.open(path) as image:
        images = []
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            images.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))
    return torch.stack(images)


def test_webp_of_a_clip_reads_back_exactly(tmp_path: Path) -> None:
    clip = noise(5, 3, 8, 12)
    path = tmp_path / "new folder" / "clip.webp"
    video.write_webp(path, clip, fps=8)
    assert torch.equal(frames_of(path), clip)
    with Image.open(path) as image:
        image.load()
        assert (image.info["duration"], image.info["loop"]) == (125, 0)
    assert [file.name for file in path.parent.iterdir()] == ["clip.webp"]


def test_webp_of_clips_plays_them_in_a_grid(tmp_path: Path) -> None:
    clips = noise(3, 4, 3, 8, 12)
    video.write_webp(tmp_path / "grid.webp", clips, scale=2)
    shown = frames_of(tmp_path / "grid.webp")
    assert tuple(shown.shape) == (4, 3, 2 * 16 + video.GAP, 2 * 24 + video.GAP)
    assert torch.equal(shown[..., -15::2, 1:24:2], clips[2])  # the third clip starts the second row
    assert (shown[..., -16:, -24:] == video.PAPER).all()


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


def test_sheet_captions_stand_under_their_rows(tmp_path: Path) -> None:
    clips = torch.zeros(2, 1, 3, 8, 8, dtype=torch.uint8)
    video.write_sheet(tmp_path / "sheet.png", clips, captions=["", "a much longer caption"])
    sheet = frames_of(tmp_path / "sheet.png")[0].float()
    pitch = 8 + 2 * video.FONT_SIZE
    assert sheet.shape[2] > 100
    assert (sheet[:, 8:pitch] == video.PAPER).all()
    assert (sheet[:, pitch : pitch + 8, :8] == 0).all()
    assert (sheet[:, pitch + 8 :] < 128).any()
    with pytest.raises(ValueError, match="1 captions for 2 clips"):
        video.write_sheet(tmp_path / "sheet.png", clips, captions=["one"])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sheet.png"
    path.write_bytes(b"old")

    def full(self: Image.Image, file: Path, *_: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(BadEnvironment, match=r"cannot write .*sheet\.png \(No space left"):
        video.write_sheet(path, noise(1, 1, 3, 4, 4))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
