"""Every decoder on every real file: it either gives PyAV's frames, wherever one starts, or it is not used for the file.

What a decoder does by itself is read here without vfbench, so that a file on which it is wrong is known to be one.
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
from vfbench.video import pyav
from vfbench.video.frame_range import FrameRange

av = pytest.importorskip("av")
SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".webm")
# Hostile files and those of reports have right outcomes of their own, file by file.
APART = ("hostile", "reports")
FILES = sorted(
    path
    for path in DATA.rglob("*")
    if path.suffix in SUFFIXES and path.is_file() and path.relative_to(DATA).parts[0] not in APART
)
UCF101 = [path for path in FILES if path.parts[-3] == "UCF-101"]
LEVELS = 2  # by which a right pixel may differ
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
WRONG = {  # at least; each for another reason
    "decord": ("discard_first_keyframe.mp4", "h264_10bits.mp4", "h265_video.mp4"),
    "torchcodec": ("h264_10bits.mp4", "v_ApplyEyeMakeup_g01_c01.avi"),
}


def named(path: Path) -> str:
    return str(path.relative_to(DATA))


WHOLE = [
    pytest.param(path, id=named(path), marks=[pytest.mark.slow] * (path.name in LARGE))
    for path in FILES
    if path.name not in DAMAGED
]


def difference(found: Tensor, expected: Tensor) -> int:
    return int((found.int() - expected.int()).abs().max()) if found.shape == expected.shape else 255


def alone(name: str, path: Path, numbers: Sequence[int] | None) -> Tensor:
    """Frames as a decoder gives them by itself from a newly opened file, all of them if no numbers are given."""
    if name == "decord":
        import decord

        reader = decord.VideoReader(str(path), num_threads=1)
        frames = reader.get_batch(range(len(reader)) if numbers is None else numbers).asnumpy()
        return torch.from_numpy(frames).permute(0, 3, 1, 2)
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
    found: Tensor = decoder.get_frames_at(list(range(len(decoder)) if numbers is None else numbers)).data
    return found


def right(name: str, path: Path, expected: Tensor) -> bool:
    """Whether a decoder by itself gives the frames of a file in their order, and each of some after a jump."""
    last = len(expected) - 1
    try:
        jumps = [k for k in (1, last // 3, last // 2, last - 1, last) if 0 <= k <= last]
        alike = [(alone(name, path, None), expected), *((alone(name, path, [k]), expected[k : k + 1]) for k in jumps)]
    except Exception:  # each has its own
        return False
    return all(difference(*pair) <= LEVELS for pair in alike)


def windows(count: int) -> list[tuple[int, int | None, int]]:
    """Starts, numbers of frames and strides: from the beginning, to the end, the last clip, the last frame."""
    clip = min(16, count)
    return [
        *((0, clip, 1), (count - clip, clip, 1), (count - 1, 1, 1), (count // 3, None, 7)),
        *((count // 2, max(clip // 4, 1), 1), (1 % count, max(count // 5, 1), 3)),
    ]


def used(name: str, path: Path) -> bool:
    with contextlib.suppress(UserError):
        return video.choose_decoder(path, name) == name
    return False


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("path", WHOLE)
def test_a_decoder_is_right_or_not_used(path: Path, name: str) -> None:
    expected = video.decode(path)
    trusted = right(name, path, expected)
    if path.name in WRONG[name]:
        assert not trusted
    if not used(name, path):
        assert path.name not in PLAIN
        return
    assert trusted
    for start, frames, stride in windows(len(expected)):
        clip = video.decode(path, start=start, frames=frames, stride=stride, decoder=name)
        assert difference(clip, expected[start::stride][:frames]) <= LEVELS, (start, frames, stride)


@pytest.mark.parametrize("name", ["pyav", *OTHERS])
def test_damage_is_found_by_all_decoders(name: str, real_data: Path) -> None:
    path = real_data / "broken/truncated_40pct.avi"
    with pytest.raises(MissingData, match=r"truncated_40pct\.avi: needs 16 .*, declared 107, decoded 37 \("):
        video.decode(path, start=22, frames=16, decoder=name)
    with pytest.raises(MissingData, match=r"corrupted\.mp4: needs .*, declared 50, decoded 28 \("):
        video.decode(real_data / "decoder/corrupted.mp4", start=27, frames=9, decoder=name)
    for broken in ("text_renamed.avi", "zero_byte.avi", "mp4_truncated_before_moov.mp4"):
        with pytest.raises(MissingData, match=broken):
            video.decode(real_data / "broken" / broken, frames=1, decoder=name)
    with pytest.raises(MissingData, match=r"needs 16 frames from 0, declared 15, decoded 15 \("):
        video.decode(real_data / "odd/fifteen_frames.mp4", frames=16, decoder=name)


@pytest.mark.parametrize("name", OTHERS)
def test_others_read_any_name(name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for stem in ("a b", "q'\"", "$(x)", "#1", "-dash", "c:d", "http:x", "\u00fc\u65e5\u672c", "%03d"):
        shutil.copy(real_data / "odd/fifteen_frames.mp4", f"{stem}.mp4")
        assert len(video.decode(f"{stem}.mp4", frames=15, decoder=name)) == 15, stem


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_plain_is_said(name: str, real_data: Path) -> None:
    reasons = {
        "nasa_13013.mp4": "it has several video streams",
        "h264_10bits.mp4": "its pixels are yuv420p10le",
        "h265_video.mp4": "it is hevc in mov",
        "video_90.mov": "it is rotated",
        "discard_first_keyframe.mp4": "its container hides some frames",
        "../ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": "it has B-frames in an AVI",
    }
    for file, reason in reasons.items():
        with pytest.raises(UserError, match=rf"{file}: {name} may misread this file: {reason}.*decoder='auto'"):
            video.choose_decoder(real_data / "decoder" / file, name)


def test_auto_is_pyav_everywhere(real_data: Path) -> None:
    assert {video.choose_decoder(path) for path in FILES} == {"pyav"}
    assert video.decoder_version("pyav").startswith("pyav 1")


def test_a_decoder_that_is_unknown_or_not_installed_is_named(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = real_data / "odd/fifteen_frames.mp4"
    with pytest.raises(UserError, match="no decoder called 'decrod': did you mean 'decord'"):
        video.decode(path, decoder="decrod")
    with pytest.raises(UserError, match="no decoder called 'auto'"):
        video.decoder_version("auto")
    monkeypatch.setitem(sys.modules, "decord", None)
    for call in (lambda: video.decoder_version("decord"), lambda: video.decode(path, decoder="decord")):
        with pytest.raises(BadEnvironment, match=r"decord cannot be loaded .*: pip install decord"):
            call()


# Jumps of PyAV


def first_decoded(path: Path, start: int) -> int:
    try:
        return next(iter(pyav._frames(path, FrameRange(start, 1), None, seek=True)))[0]
    except pyav._UnsafeSeek:
        return 0


@pytest.mark.parametrize("path", UCF101, ids=lambda path: path.stem)
def test_a_jump_gives_the_same_frames(path: Path) -> None:
    whole = video.decode(path)
    for start in range(0, len(whole) - 1, 5):
        assert torch.equal(video.decode(path, start=start, frames=2), whole[start : start + 2]), start
    assert torch.equal(video.decode(path, start=61), whole[61:])
    assert (first_decoded(path, 60) > 40) == ("ApplyEyeMakeup" not in path.name)  # which has B-frames


def changed(source: Path, path: Path, number: int, change: Callable[[bytes], bytes]) -> Path:
    """An AVI with one packet changed."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for i, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            copy = av.Packet(change(bytes(packet)) if i == number else bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            new.mux(copy)
    return path


def uncoded(packet: bytes) -> bytes:
    """A P-frame of MPEG-4 (ISO 14496-2, 6.2.5) that says it is not coded: its time, here of 15 bits, and no more."""
    bits = f"{int.from_bytes(packet[:9]):072b}"
    coded = bits.index("0", 34) + 1 + 1 + 15 + 1
    assert bits[32:34] + bits[coded] == "011"
    return int(bits[:coded] + "0" + "1" * (71 - coded), 2).to_bytes(9)


def padded(packet: bytes) -> bytes:
    """The same, as long as it was: in the index of the file it looks like the others."""
    return uncoded(packet).ljust(len(packet), b"\xff")


@pytest.mark.parametrize("change", [uncoded, padded])
def test_no_jump_over_a_frame_that_is_not_coded(
    real_data: Path, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = changed(real_data / BASEBALL, tmp_path / "x.avi", 20, change)
    whole = video.decode(path)
    assert (len(whole), first_decoded(path, 60)) == (106, 0)
    assert torch.equal(video.decode(path, start=60, frames=4), whole[60:64])


def test_no_jump_over_two_frames_in_a_packet(real_data: Path, tmp_path: Path) -> None:
    path = changed(real_data / BASEBALL, tmp_path / "x.avi", 20, lambda packet: packet + packet)
    assert first_decoded(path, 60) == 0


def test_a_jump_passes_over_damage_that_changes_none_of_its_frames(real_data: Path, tmp_path: Path) -> None:
    path = changed(real_data / BASEBALL, tmp_path / "x.avi", 20, lambda packet: packet[: len(packet) // 2])
    assert first_decoded(path, 60) > 20
    found = video.decode(path, start=60, frames=4)
    assert torch.equal(found, video.decode(real_data / BASEBALL, start=60, frames=4))
    assert torch.equal(found, video.decode(path)[60:64])


def test_no_jump_to_a_damaged_frame(real_data: Path, tmp_path: Path) -> None:
    path = changed(real_data / BASEBALL, tmp_path / "x.avi", 48, lambda packet: packet[:2000] + packet[2100:])
    whole = video.decode(path)
    assert torch.equal(video.decode(path, start=50, frames=4), whole[50:54])


def test_no_jump_by_an_index_that_is_wrong(real_data: Path, tmp_path: Path) -> None:
    content = bytearray((real_data / BASEBALL).read_bytes())
    content[content.rindex(b"idx1") + 8 + 16 * 55 + 4] |= 0x10  # AVIIF_KEYFRAME
    (tmp_path / "x.avi").write_bytes(content)
    found = video.decode(tmp_path / "x.avi", start=58, frames=4)
    assert torch.equal(found, video.decode(real_data / BASEBALL)[58:62])


def test_a_jump_into_damage_says_how_much_comes_before_it(real_data: Path, tmp_path: Path) -> None:
    path = changed(real_data / BASEBALL, tmp_path / "x.avi", 62, lambda packet: b"\0" * 40)
    with pytest.raises(MissingData, match=r"needs 16 frames from 60, declared \d+, decoded 62 "):
        video.decode(path, start=60, frames=16)
