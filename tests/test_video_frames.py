"""Tests of `vfbench.video.frame_groups`, and of `vfbench.video.mpeg4`: packet headers that prove exact seeks."""

from __future__ import annotations

import io
import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datatrees import avi, with_declared_frames

from vfbench import video
from vfbench.errors import MissingData
from vfbench.video import mpeg4

av = pytest.importorskip("av")


@pytest.fixture
def mpeg4_video(tmp_path: Path) -> Path:
    """MPEG-4 AVI of 20 frames."""
    path = tmp_path / "x.avi"
    path.write_bytes(avi())
    return path


# Groups of frames.


@pytest.mark.parametrize(("group", "sizes"), [(1, [1] * 20), (7, [7, 7, 6]), (10, [10, 10]), (20, [20]), (99, [20])])
def test_groups_concatenate_to_the_video(mpeg4_video: Path, group: int, sizes: list[int]) -> None:
    groups = list(video.frame_groups(mpeg4_video, group=group))
    assert [len(part) for part in groups] == sizes
    assert torch.equal(torch.cat(groups), video.decode(mpeg4_video))
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in groups)


def test_groups_of_real_files_concatenate_to_the_video(real_data: Path) -> None:
    for name in ("odd/fifteen_frames.mp4", "decoder/video_90.mov", "decoder/discard_first_keyframe.mp4"):
        assert torch.equal(
            torch.cat(list(video.frame_groups(real_data / name, group=8))), video.decode(real_data / name)
        )


def test_a_file_is_opened_and_decoded_once(mpeg4_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    original = av.open

    def counted(*arguments: Any, **options: Any) -> Any:
        opened.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(av, "open", counted)
    assert len(list(video.frame_groups(mpeg4_video, group=3))) == 7
    assert len(opened) == 1  # the AVI header is read without PyAV


@pytest.mark.parametrize("group", [3, 10, 99])
@pytest.mark.parametrize("declared", [1, 10, 19, 21, 50])
def test_a_wrong_declared_frame_count_is_refused_before_the_last_group(
    mpeg4_video: Path, group: int, declared: int
) -> None:
    mpeg4_video.write_bytes(with_declared_frames(mpeg4_video.read_bytes(), declared))
    groups = video.frame_groups(mpeg4_video, group=group)
    for _ in range((declared - 1) // group if declared < 20 else 20 // group):
        assert len(next(groups)) == group
    with pytest.raises(MissingData, match=rf"x\.avi: needs all .* declared {declared}, decoded 20 \(another number"):
        next(groups)


def test_a_file_without_frames_is_refused(real_data: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "empty.avi"), "w") as container:
        container.add_stream("ffv1", rate=25, width=24, height=16, pix_fmt="bgr0")
        container.start_encoding()
    for path in (tmp_path / "empty.avi", real_data / "broken/zero_byte.avi"):
        with pytest.raises(MissingData, match=path.name):
            list(video.frame_groups(path, group=4))


def test_groups_before_damage_are_read(real_data: Path) -> None:
    groups = video.frame_groups(real_data / "decoder/corrupted.mp4", group=8)
    assert [len(next(groups)) for _ in range(3)] == [8, 8, 8]
    with pytest.raises(MissingData, match=r"corrupted\.mp4: .* declared 50, decoded 28 \(Invalid data"):
        next(groups)


@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_other_decoders_give_groups(real_data: Path, decoder: str) -> None:
    pytest.importorskip(decoder)
    path = real_data / "odd/fifteen_frames.mp4"
    groups = list(video.frame_groups(path, group=8, decoder=decoder))
    assert [len(part) for part in groups] == [8, 7]
    assert int((torch.cat(groups).int() - video.decode(path).int()).abs().max()) <= 2


# MPEG-4 packet headers, written bit by bit.


def packed_bits(*fields: tuple[int, int]) -> bytes:
    """Pack (value, number of bits) pairs, padded with ones."""
    bits = "".join(f"{value:0{count}b}" for value, count in fields)
    bits += "1" * (-len(bits) % 8 + 64)
    return int(bits, 2).to_bytes(len(bits) // 8)


def layer(ticks: int, *, version: bool = False, aspect: bool = False, control: int = 0, shape: int = 0) -> bytes:
    """Video object layer with `ticks` per second (ISO 14496-2, 6.2.3)."""
    fields = [(0, 1), (17, 8), *([(1, 1), (5, 4), (1, 3)] if version else [(0, 1)])]
    fields += [(15, 4), (12, 8), (11, 8)] if aspect else [(1, 4)]
    fields += [[(0, 1)], [(1, 1), (1, 2), (1, 1), (0, 1)], [(1, 1), (1, 2), (1, 1), (1, 1), (5, 79)]][control]
    return b"\0\0\1\x20" + packed_bits(*fields, (shape, 2), (1, 1), (ticks, 16), (1, 1))


def frame(kind: int, bits: int, *, seconds: int = 0, coded: int = 1) -> bytes:
    """Video object plane whose time has `bits` bits (ISO 14496-2, 6.2.5)."""
    later = [(1, 1)] * seconds + [(0, 1)]
    return b"\0\0\1\xb6" + packed_bits((kind, 2), *later, (1, 1), (3, bits), (1, 1), (coded, 1))


@pytest.mark.parametrize(
    ("ticks", "bits"), [(1, 1), (2, 1), (3, 2), (25, 5), (32, 5), (33, 6), (30000, 15), (65535, 16)]
)
def test_time_bits_of_a_layer(ticks: int, bits: int) -> None:
    for version, aspect, control in itertools.product((False, True), (False, True), range(3)):
        content = b"\0\0\1\xb0\3" + layer(ticks, version=version, aspect=aspect, control=control)
        assert mpeg4.time_bits(content) == bits, (version, aspect, control)
        assert mpeg4.time_bits(layer(7) + content) == bits  # the last one counts
        assert mpeg4.coded_frame_bits(content + frame(0, bits), 9) == bits


def test_an_unsupported_layer_gives_zero_bits() -> None:
    assert mpeg4.time_bits(b"", 5) == mpeg4.time_bits(b"\0\0\1\xb0\3", 5) == 5
    assert mpeg4.time_bits(layer(25, shape=1), 5) == mpeg4.time_bits(layer(25)[:6], 5) == 0
    assert mpeg4.coded_frame_bits(frame(0, 5), 0) == 0


@pytest.mark.parametrize("bits", [5, 15])
@pytest.mark.parametrize("seconds", [0, 1, 3])
def test_coded_frames_are_recognised(bits: int, seconds: int) -> None:
    assert [mpeg4.coded_frame_bits(frame(kind, bits, seconds=seconds), bits) for kind in range(4)] == [bits, bits, 0, 0]
    assert mpeg4.coded_frame_bits(frame(1, bits, seconds=seconds, coded=0), bits) == 0
    assert mpeg4.coded_frame_bits(frame(1, bits, seconds=seconds) * 2, bits) == 0
    assert mpeg4.coded_frame_bits(frame(1, bits, seconds=seconds)[4:], bits) == 0
    assert mpeg4.coded_frame_bits(frame(1, bits, seconds=seconds)[:5], bits) == 0


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(15)])
@pytest.mark.parametrize("between", [0, 2])
def test_encoder_output_is_parsed(rate: Fraction, between: int) -> None:
    from av.video.frame import PictureType

    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=rate, width=32, height=16, options={"bf": str(between), "g": "12"})
        for image in np.random.default_rng(0).integers(0, 256, (50, 16, 32, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with av.open(io.BytesIO(file.getvalue())) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        bits = mpeg4.time_bits(container.streams.video[0].codec_context.extradata)
    with av.open(io.BytesIO(file.getvalue())) as container:
        kinds = [PictureType(picture.pict_type).name for picture in container.decode(video=0)]
    assert bits == (rate.numerator - 1).bit_length()
    assert sum(mpeg4.coded_frame_bits(packet, bits) > 0 for packet in packets) == sum(kind != "B" for kind in kinds)
    assert ("B" in kinds) == bool(between)
