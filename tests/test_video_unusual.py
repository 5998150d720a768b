"""Tests of healthy videos that are unusual: hidden frames, empty packets, tags, EXIF, animated images; and of bombs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from clipfiles import grey_clip
from conftest import DATA, Command
from PIL import Image

from vfbench import clips, video
from vfbench.data.verify import require_no_errors, verify
from vfbench.errors import MissingData, UserError
from vfbench.video.packets import Shown, one_frame_each, shown

av = pytest.importorskip("av")

SIDE, FRAMES = 16, 6
REPORTED = ["reports/h1_tag_latin1", "reports/h2_mjpeg_exif", "reports/h3_vp8_hidden", "reports/h9_webp"]


def moving(frames: int = FRAMES) -> np.ndarray:
    """Clip (T, 16, 16, 3) of a ramp that moves by 4 pixels a frame."""
    ramp = np.tile(np.arange(SIDE, dtype=np.uint8) * 15, (SIDE, 1))
    return np.stack([np.roll(ramp, 4 * t, 1) for t in range(frames)])[..., None].repeat(3, 3)


def packets(codec: str, pixels: str) -> list[bytes]:
    """Encoded frames of `moving`, one a packet."""
    content = io.BytesIO()
    with av.open(content, "w", format="avi") as container:
        stream = container.add_stream(codec, rate=8, pix_fmt=pixels, height=SIDE, width=SIDE)
        for image in moving():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    content.seek(0)
    with av.open(content) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def write_avi(path: Path, frames: Sequence[bytes], fourcc: bytes, *, side: int = SIDE, index: bool = True) -> Path:
    """AVI of encoded frames, written as they are."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    size, count = (side, side), len(frames)
    header = struct.pack("<4s4s10I4H", b"vids", fourcc, 0, 0, 0, 1, 8, 0, count, 0, 0, 0, 0, 0, *size)
    form = struct.pack("<I2i2H4s5I", 40, *size, 1, 24, fourcc, 0, 0, 0, 0, 0)
    stream = chunk(b"LIST", b"strl" + chunk(b"strh", header) + chunk(b"strf", form))
    main = struct.pack("<14I", 125000, 0, 0, 16, count, 0, 1, 0, *size, 0, 0, 0, 0)
    movi, entries = b"movi", b""
    for frame in frames:
        entries += b"00dc" + struct.pack("<3I", 16, len(movi), len(frame))
        movi += chunk(b"00dc", frame)
    body = b"AVI " + chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + stream) + chunk(b"LIST", movi)
    path.write_bytes(chunk(b"RIFF", body + (chunk(b"idx1", entries) if index else b"")))
    return path


def healthy(path: Path) -> int:
    """Number of frames of a file, which is the same by its header and by decoding."""
    assert video.header(path).frames == video.count_frames(path) == len(video.decode(path))
    return video.header(path).frames


# Frame counts.


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(("codec", "fourcc", "pixels"), [("mpeg4", b"XVID", "yuv420p"), ("mjpeg", b"MJPG", "yuvj420p")])
def test_empty_packets_are_no_frames(tmp_path: Path, codec: str, fourcc: bytes, pixels: str, index: bool) -> None:
    frames = packets(codec, pixels)
    assert healthy(write_avi(tmp_path / "a.avi", frames, fourcc, index=index)) == FRAMES
    frames[2] = frames[-1] = b""
    assert healthy(write_avi(tmp_path / "a.avi", frames, fourcc, index=index)) == FRAMES - 2


COMMENT = b"\x21\xfe\x05hello\x00"
GRAPHIC_CONTROL = b"\x21\xf9\x04\x00\x0a\x00\x00\x00"


@pytest.mark.parametrize("tail", [COMMENT + b";", COMMENT * 2 + b";", GRAPHIC_CONTROL + b";", b";" + COMMENT])
def test_a_comment_at_the_end_of_a_gif_is_no_frame(tmp_path: Path, tail: bytes) -> None:
    first, *rest = map(Image.fromarray, moving())
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=100)
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(content.removesuffix(b";") + tail)
    assert healthy(tmp_path / "a.gif") == FRAMES
    require_no_errors(verify("folder", tmp_path, full=True, frames=1))


@pytest.mark.parametrize(
    ("codec", "first", "last", "is_shown"),
    [
        ("vp8", 0x10, 0, True),
        ("vp8", 0x01, 0, False),
        ("vp9", 0x82, 0, True),  # show_frame
        ("vp9", 0x88, 0, True),  # show_existing_frame
        ("vp9", 0x84, 0, False),
        ("vp9", 0x84, 0xC1, True),  # a superframe
        ("vp9", 0xB1, 0, True),  # profile 3
        ("vp9", 0xB2, 0, False),
        ("h264", 0, 0, True),
    ],
)
def test_hidden_frames_are_told_by_their_first_byte(codec: str, first: int, last: int, is_shown: bool) -> None:
    class Packet(bytearray):
        size, is_discard, pts, is_keyframe = 3, False, 0, True

    assert bool(shown(Packet([first, 0, last]), codec)) is is_shown  # type: ignore[arg-type]  # stands for a packet


def records(*times: int | None, keyframe: bool = True, size: int = 99) -> list[Shown]:
    return [Shown(time, keyframe or i > 0, size) for i, time in enumerate(times)]


@pytest.mark.parametrize(
    ("packets", "codec", "expected"),
    [
        (records(0, 2, 1), "h264", True),
        (records(None, None), "h264", True),
        (records(), "h264", True),
        (records(0, 1, 1), "av1", False),  # two parts of one time
        (records(2, 0, 1), "hevc", False),  # frames before the first keyframe may not decode
        (records(0, 1, keyframe=False), "h264", False),
        (records(0, 1, size=7), "mpeg4", False),  # perhaps no picture
        (records(0, 1, size=7), "h264", True),
    ],
)
def test_packets_that_may_show_no_frame_are_decoded(packets: list[Shown], codec: str, expected: bool) -> None:
    assert one_frame_each(packets, codec) is expected


# Tags and side data.


def test_a_tag_in_another_encoding_is_no_damage(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        container.metadata["title"] = "cafe"
        stream = container.add_stream("mpeg4", rate=8, pix_fmt="yuv420p", height=SIDE, width=SIDE)
        for image in moving():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    content = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(content.replace(b"cafe", b"caf\xe9"))
    assert healthy(tmp_path / "a.avi") == FRAMES


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (6, -1), (8, 1)])
def test_exif_in_frames_of_a_video_is_read(tmp_path: Path, orientation: int, turned: int) -> None:
    frames = []
    for image in moving():
        exif, content = Image.Exif(), io.BytesIO()
        exif[0x0112], exif[0x010F] = orientation, "a camera"
        Image.fromarray(image).save(content, "JPEG", quality=95, exif=exif)
        frames.append(content.getvalue())
    assert healthy(write_avi(tmp_path / "a.avi", frames, b"MJPG")) == FRAMES
    actual = video.decode(tmp_path / "a.avi").int()
    expected = torch.from_numpy(np.rot90(moving(), turned, (1, 2)).copy()).permute(0, 3, 1, 2).int()
    assert (actual - expected).abs().float().mean() < 8  # of JPEG


def test_an_orientation_of_an_image_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "c").mkdir()
    for suffix in ("png", "jpg"):
        Image.fromarray(grey_clip()[0]).save(tmp_path / f"c/1.{suffix}", exif=exif)
        assert tuple(clips.read_clip(clips.detect(tmp_path), 0, frames=1).shape[2:]) == (8, 10)
        (tmp_path / f"c/1.{suffix}").unlink()


def test_an_unknown_codec_is_named(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "a.avi", packets("mjpeg", "yuvj420p"), b"ZZZZ")
    for read in (video.header, video.decode, video.count_frames):
        with pytest.raises(MissingData, match=r"a\.avi: its codec is not known"):
            read(path)


# Animated images.


def animate(path: Path, images: np.ndarray, durations: Sequence[int] | int = 125, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = map(Image.fromarray, images)
    form = "PNG" if path.suffix == ".apng" else "WEBP"
    first.save(path, form, save_all=True, append_images=rest, duration=durations, **options)
    return path


ANIMATED = pytest.mark.parametrize("name", ["a.webp", "a.apng", "A.WEBP"])


@ANIMATED
def test_animated_images_are_read_by_frames(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name.lower() == "a.webp" else {}
    path = animate(tmp_path / "x" / name, moving(), [125, 500, 125, 125, 125, 125], **options)
    header = video.header(path)
    assert (header.frames, header.height, header.width, header.rate, header.pixels) == (6, SIDE, SIDE, 8.0, "rgb24")
    assert torch.equal(video.decode(path), torch.from_numpy(moving()).permute(0, 3, 1, 2))
    assert torch.equal(video.decode(path, start=1, frames=2, stride=2), video.decode(path)[[1, 3]])
    assert [len(group) for group in video.frame_groups(path, group=4)] == [4, 2]
    with pytest.raises(MissingData, match=r"needs 7 frames .*declared 6, decoded 6"):
        video.decode(path, frames=7)
    folder = clips.detect(tmp_path)
    assert (folder.kind, "equal neighbours" in folder.notes[0]) == ("videos", True)
    assert clips.decoder_versions(folder).startswith("pillow ")
    assert verify("folder", tmp_path, full=True, frames=1).findings[0].kind == "rate"
    with pytest.raises(UserError, match="use decoder='auto'"):
        video.decode(path, decoder="decord")


def test_a_damaged_or_transparent_animation_is_named(tmp_path: Path) -> None:
    path = animate(tmp_path / "a.webp", moving(), lossless=True)
    content = path.read_bytes()
    for damaged in (b"", b"<html>", content[:40], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(MissingData, match=r"a\.webp: no readable image"):
            video.decode(path)
    clear = np.concatenate([moving(), np.full_like(moving()[..., :1], 200)], -1)
    with pytest.raises(MissingData, match=r"a\.webp is transparent"):
        video.decode(animate(path, clear, lossless=True))


def test_a_default_image_is_no_frame_of_an_animation(tmp_path: Path) -> None:
    path = animate(tmp_path / "a.apng", moving(), default_image=True)
    assert healthy(path) == FRAMES - 1
    assert torch.equal(video.decode(path, frames=1)[0], torch.from_numpy(moving()[1]).permute(2, 0, 1))


def test_an_animated_png_among_frames_is_refused(tmp_path: Path) -> None:
    animate(tmp_path / "c/1.apng", moving()).rename(tmp_path / "c/1.png")
    with pytest.raises(MissingData, match=r"c/1\.png is an animation: name it \.apng"):
        clips.read_clip(clips.detect(tmp_path), 0, frames=1)


def test_previews_of_vfbench_can_be_read(tmp_path: Path) -> None:
    clip = torch.from_numpy(moving()).permute(0, 3, 1, 2)
    video.write_webp(tmp_path / "a.webp", clip)
    assert torch.equal(video.decode(tmp_path / "a.webp"), clip)


# Frames that are too large.


def claim_png(side: int) -> bytes:
    """Small PNG that claims `side` x `side` pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def claim_gif(side: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(moving()[0]).save(content, "GIF")
    return content.getvalue()[:6] + struct.pack("<2H", side, side) + content.getvalue()[10:]


def claim_webp(side: int) -> bytes:
    head = b"WEBPVP8X" + struct.pack("<2I", 10, 2) + (side - 1).to_bytes(3, "little") * 2
    return b"RIFF" + struct.pack("<I", len(head)) + head


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9000, 10000, 50000])
@pytest.mark.parametrize(
    ("name", "content"),
    [("c/1.png", claim_png), ("a.gif", claim_gif), ("a.apng", claim_png), ("a.avi", None)],
)
def test_frames_beyond_the_limit_are_named(
    tmp_path: Path, name: str, content: Callable[[int], bytes] | None, side: int
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if content is None:
        write_avi(path, [bytes(99)] * 3, b"XVID", side=side)
    else:
        path.write_bytes(content(side))
    folder = clips.detect(tmp_path)
    with pytest.raises(MissingData, match=rf"{name}: .*67,108,864 pixels"):
        clips.count_frames(folder.entries[0])
    if content:
        with pytest.raises(MissingData, match=rf"{name}: .*67,108,864 pixels"):
            clips.read_clip(folder, 0, frames=1)


def test_a_later_frame_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    small = io.BytesIO()
    Image.fromarray(moving()[0]).save(small, "PNG")
    path = write_avi(tmp_path / "a.avi", [small.getvalue(), claim_png(9000)], b"MPNG")
    with pytest.raises(MissingData, match=r"a\.avi: needs 2 frames .*67,108,864 pixels"):
        video.decode(path, frames=2)


# Reported files, which the repository does not hold.


@pytest.mark.parametrize("name", REPORTED)
def test_reported_files_are_healthy(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {DATA / name}: set VFBENCH_TEST_DATA")
    for entry in clips.detect(DATA / name).entries:
        assert healthy(entry.path) == (18 if "vp8" in name else 20)
    require_no_errors(verify("folder", DATA / name, full=True))


def test_a_reported_image_bomb_is_named(tmp_path: Path, vfbench: Command) -> None:
    if not (DATA / "hostile").is_dir():
        pytest.skip(f"no {DATA / 'hostile'}: set VFBENCH_TEST_DATA")
    (tmp_path / "fake/a").mkdir(parents=True)
    (tmp_path / "fake/a/1.png").symlink_to(DATA / "hostile/bomb_50000x50000.png")
    outcome = vfbench("data", "verify", "folder", "--data-root", tmp_path / "fake")
    assert (outcome.code, "Traceback" in outcome.err) == (4, False)
    assert "67,108,864" in outcome.out + outcome.err
