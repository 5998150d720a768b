"""Tests of the video decoders on real files: a decoder returns PyAV's frames or is not used for the file.

Each decoder is also called without vfbench, to know the files that it misreads.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from conftest import DATA
from torch import Tensor

from vfbench import video
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.video import other_decoders, pyav
from vfbench.video.frame_range import FrameRange

av = pytest.importorskip("av")
SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".webm")
# Folders of hostile and reported files, which have tests with an expected outcome per file.
EXCLUDED = ("hostile", "reports")
FILES = sorted(
    path
    for path in DATA.rglob("*")
    if path.suffix in SUFFIXES and path.is_file() and path.relative_to(DATA).parts[0] not in EXCLUDED
)
UCF101 = [path for path in FILES if path.parts[-3] == "UCF-101"]
LEVELS = 2  # tolerance of a pixel value
BASEBALL = "ucf101/UCF-101/BaseballPitch/v_BaseballPitch_g01_c01.avi"
DAMAGED = (
    *("text_renamed.avi", "zero_byte.avi", "mp4_truncated_before_moov.mp4"),
    *("truncated_40pct.avi", "corrupted.mp4"),
)
LARGE = (
    *("testsrc2_vp9.webm", "av1_video.mkv", "nasa_13013.mp4", "L82WHgYRq6I#000021#000479.mp4"),
    *("v_SoccerJuggling_g23_c01.avi", "v_SoccerJuggling_g24_c01.avi"),
)
PLAIN = ("fifteen_frames.mp4", "portrait_180x320.mp4", "v_Basketball_g01_c01.avi", "w2awOCDRtrc#001729#002009.mp4")
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} is not installed"))
    for name in ("decord", "torchcodec")
]
MISREAD = {  # examples of different faults
    "decord": ("discard_first_keyframe.mp4", "h264_10bits.mp4", "h265_video.mp4"),
    "torchcodec": ("h264_10bits.mp4", "v_ApplyEyeMakeup_g01_c01.avi"),
}


def relative_name(path: Path) -> str:
    return str(path.relative_to(DATA))


READABLE = [
    pytest.param(path, id=relative_name(path), marks=[pytest.mark.slow] * (path.name in LARGE))
    for path in FILES
    if path.name not in DAMAGED
]


def difference(actual: Tensor, expected: Tensor) -> int:
    return int((actual.int() - expected.int()).abs().max()) if actual.shape == expected.shape else 255


def decode_directly(name: str, path: Path, indices: Sequence[int] | None) -> Tensor:
    """Frames from a decoder without vfbench, all of them if `indices` is None."""
    if name == "decord":
        import decord

        reader = decord.VideoReader(str(path), num_threads=1)
        array = reader.get_batch(range(len(reader)) if indices is None else indices).asnumpy()
        return torch.from_numpy(array).permute(0, 3, 1, 2)
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
    frames: Tensor = decoder.get_frames_at(list(range(len(decoder)) if indices is None else indices)).data
    return frames


def decodes_correctly(name: str, path: Path, expected: Tensor) -> bool:
    """Compare a decoder without vfbench with the expected frames, in sequence and after seeking."""
    last = len(expected) - 1
    try:
        seeks = [k for k in (1, last // 3, last // 2, last - 1, last) if 0 <= k <= last]
        pairs = [(decode_directly(name, path, None), expected)]
        pairs += [(decode_directly(name, path, [k]), expected[k : k + 1]) for k in seeks]
    except Exception:  # each decoder has its own exception types
        return False
    return all(difference(*pair) <= LEVELS for pair in pairs)


def windows(count: int) -> list[tuple[int, int | None, int]]:
    """Start, frame count and stride of test clips: the first and last clip, the last frame, and others."""
    clip = min(16, count)
    return [
        *((0, clip, 1), (count - clip, clip, 1), (count - 1, 1, 1), (count // 3, None, 7)),
        *((count // 2, max(clip // 4, 1), 1), (1 % count, max(count // 5, 1), 3)),
    ]


def is_used(name: str, path: Path) -> bool:
    with contextlib.suppress(UserError):
        return video.choose_decoder(path, name) == name
    return False


@pytest.mark.one_case
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("path", READABLE)
def test_a_decoder_is_correct_or_not_used(path: Path, name: str) -> None:
    expected = video.decode(path)
    correct = decodes_correctly(name, path, expected)
    if path.name in MISREAD[name]:
        assert not correct
    if not is_used(name, path):
        assert path.name not in PLAIN
        return
    assert correct
    for start, frames, stride in windows(len(expected)):
        clip = video.decode(path, start=start, frames=frames, stride=stride, decoder=name)
        assert difference(clip, expected[start::stride][:frames]) <= LEVELS, (start, frames, stride)


@pytest.mark.parametrize("name", ["pyav", *OTHERS])
def test_every_decoder_reports_damaged_files(name: str, real_data: Path) -> None:
    path = real_data / "broken/truncated_40pct.avi"
    with pytest.raises(MissingData, match=r"truncated_40pct\.avi: needs 16 .*107.* 37 "):
        video.decode(path, start=22, frames=16, decoder=name)
    with pytest.raises(MissingData, match=r"corrupted\.mp4: needs .*50.* 28 "):
        video.decode(real_data / "decoder/corrupted.mp4", start=27, frames=9, decoder=name)
    for broken in ("text_renamed.avi", "zero_byte.avi", "mp4_truncated_before_moov.mp4"):
        with pytest.raises(MissingData, match=broken):
            video.decode(real_data / "broken" / broken, frames=1, decoder=name)
    with pytest.raises(MissingData, match=r"needs 16 frames .*decoded 15 "):
        video.decode(real_data / "odd/fifteen_frames.mp4", frames=16, decoder=name)


@pytest.mark.parametrize("name", OTHERS)
def test_other_decoders_read_any_file_name(
    name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for stem in ("a b", "q'\"", "$(x)", "#1", "-dash", "c:d", "http:x", "\u00fc\u65e5\u672c", "%03d"):
        shutil.copy(real_data / "odd/fifteen_frames.mp4", f"{stem}.mp4")
        assert len(video.decode(f"{stem}.mp4", frames=15, decoder=name)) == 15, stem


@pytest.mark.parametrize("name", OTHERS)
def test_a_decoder_refuses_unusual_files_with_the_reason(name: str, real_data: Path) -> None:
    reasons = {
        "nasa_13013.mp4": "it has several video streams",
        "h264_10bits.mp4": "its pixels are yuv420p10le",
        "h265_video.mp4": "it is hevc in mov",
        "video_90.mov": "it is rotated",
        "discard_first_keyframe.mp4": "its container hides some frames",
        "../ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": "it has B-frames in an AVI",
    }
    for file, reason in reasons.items():
        with pytest.raises(UserError, match=rf"{file}: {name} .*{reason}.*decoder='auto'"):
            video.choose_decoder(real_data / "decoder" / file, name)


def test_auto_always_uses_pyav(real_data: Path) -> None:
    assert {video.choose_decoder(path) for path in FILES} == {"pyav"}
    assert video.decoder_version("pyav").startswith("pyav 1")


def test_an_unknown_or_missing_decoder_is_refused(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = real_data / "odd/fifteen_frames.mp4"
    with pytest.raises(UserError, match=r"'decrod'.*'decord'"):
        video.decode(path, decoder="decrod")
    with pytest.raises(UserError, match="'auto'"):
        video.decoder_version("auto")
    monkeypatch.setitem(sys.modules, "decord", None)
    for call in (lambda: video.decoder_version("decord"), lambda: video.decode(path, decoder="decord")):
        with pytest.raises(BadEnvironment, match=r"pip install decord"):
            call()


# Seeking with PyAV


def first_decoded(path: Path, start: int) -> int:
    try:
        return next(iter(pyav._frames(path, FrameRange(start, 1), None, seek=True)))[0]
    except pyav._UnsafeSeek:
        return 0


@pytest.mark.one_case
@pytest.mark.parametrize("path", UCF101, ids=lambda path: path.stem)
def test_seeking_returns_equal_frames(path: Path) -> None:
    frames = video.decode(path)
    for start in range(0, len(frames) - 1, 5):
        assert torch.equal(video.decode(path, start=start, frames=2), frames[start : start + 2]), start
    assert torch.equal(video.decode(path, start=61), frames[61:])
    assert (first_decoded(path, 60) > 40) == ("ApplyEyeMakeup" not in path.name)  # this one has B-frames


def change_packet(source: Path, path: Path, index: int, change: Callable[[bytes], bytes]) -> Path:
    """Copy an AVI with one packet changed."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for i, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            copy = av.Packet(change(bytes(packet)) if i == index else bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            new.mux(copy)
    return path


def not_coded(packet: bytes) -> bytes:
    """Turn an MPEG-4 P-frame into one with vop_coded = 0 (ISO 14496-2, 6.2.5): a time of 15 bits and no content."""
    bits = f"{int.from_bytes(packet[:9]):072b}"
    coded = bits.index("0", 34) + 1 + 1 + 15 + 1
    assert bits[32:34] + bits[coded] == "011"
    return int(bits[:coded] + "0" + "1" * (71 - coded), 2).to_bytes(9)


def not_coded_padded(packet: bytes) -> bytes:
    """As `not_coded`, padded to the length of the packet, so that the index of the file is unchanged."""
    return not_coded(packet).ljust(len(packet), b"\xff")


@pytest.mark.parametrize("change", [not_coded, not_coded_padded])
def test_no_seek_across_a_frame_that_is_not_coded(
    real_data: Path, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = change_packet(real_data / BASEBALL, tmp_path / "x.avi", 20, change)
    frames = video.decode(path)
    assert (len(frames), first_decoded(path, 60)) == (106, 0)
    assert torch.equal(video.decode(path, start=60, frames=4), frames[60:64])


def test_no_seek_across_two_frames_in_a_packet(real_data: Path, tmp_path: Path) -> None:
    path = change_packet(real_data / BASEBALL, tmp_path / "x.avi", 20, lambda packet: packet + packet)
    assert first_decoded(path, 60) == 0


def test_seeking_skips_damage_before_the_keyframe(real_data: Path, tmp_path: Path) -> None:
    path = change_packet(real_data / BASEBALL, tmp_path / "x.avi", 20, lambda packet: packet[: len(packet) // 2])
    assert first_decoded(path, 60) > 20
    clip = video.decode(path, start=60, frames=4)
    assert torch.equal(clip, video.decode(real_data / BASEBALL, start=60, frames=4))
    assert torch.equal(clip, video.decode(path)[60:64])


def test_no_seek_to_a_damaged_frame(real_data: Path, tmp_path: Path) -> None:
    path = change_packet(real_data / BASEBALL, tmp_path / "x.avi", 48, lambda packet: packet[:2000] + packet[2100:])
    frames = video.decode(path)
    assert torch.equal(video.decode(path, start=50, frames=4), frames[50:54])


def test_a_wrong_index_does_not_change_the_frames(real_data: Path, tmp_path: Path) -> None:
    content = bytearray((real_data / BASEBALL).read_bytes())
    content[content.rindex(b"idx1") + 8 + 16 * 55 + 4] |= 0x10  # AVIIF_KEYFRAME
    (tmp_path / "x.avi").write_bytes(content)
    clip = video.decode(tmp_path / "x.avi", start=58, frames=4)
    assert torch.equal(clip, video.decode(real_data / BASEBALL)[58:62])


def test_damage_after_a_seek_is_reported_with_the_decoded_frames(real_data: Path, tmp_path: Path) -> None:
    path = change_packet(real_data / BASEBALL, tmp_path / "x.avi", 62, lambda packet: b"\0" * 40)
    with pytest.raises(MissingData, match=r"needs 16 frames from 60, .*decoded 62 "):
        video.decode(path, start=60, frames=16)


def test_every_decoder_has_a_name() -> None:
    assert ("auto", "pyav", *other_decoders.MODULES) == video.DECODERS
