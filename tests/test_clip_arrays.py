"""Tests of `vfbench.clips.arrays`: clips and features in .npy, .npz and .safetensors files."""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import clip_names, grey_clips
from conftest import DATA, Command
from safetensors.torch import save_file

from vfbench import clips as folders
from vfbench.clips import arrays
from vfbench.errors import MissingData, UserError

pytest.importorskip("av")  # needed to write the clips


# Array files


SAVERS: Mapping[str, Callable[[Path, np.ndarray], None]] = {
    "plain.npy": np.save,
    "turned.npy": lambda path, x: np.save(path, np.asfortranarray(x)),
    "stored.npz": lambda path, x: np.savez(path, x),
    "packed.npz": lambda path, x: np.savez_compressed(path, anything=x),
    "several.npz": lambda path, x: np.savez(path, labels=np.arange(3), clips=x),
}


@pytest.mark.parametrize("name", SAVERS)
def test_clips_are_read_from_array_files(tmp_path: Path, name: str) -> None:
    SAVERS[name](tmp_path / name, grey_clips())
    folder = folders.detect(tmp_path)
    assert (folder.kind, clip_names(folder)) == ("arrays", [f"{name}[{i}]" for i in range(3)])
    clips = folders.read_clips(folder, [2, 0], frames=3, stride=4)
    assert torch.equal(clips, torch.from_numpy(grey_clips()[[2, 0], 0:12:4]).permute(0, 1, 4, 2, 3))
    assert isinstance(arrays.open_clips(tmp_path / name), np.memmap) is (name != "packed.npz")
    notes = {"packed.npz": "packed.npz is compressed", "several.npz": "several.npz: not read: labels"}
    assert len(folder.notes) == (name in notes)
    assert all(note.startswith(notes[name]) for note in folder.notes)


def test_array_files_are_read_in_natural_order(tmp_path: Path) -> None:
    for i in (2, 10):
        np.save(tmp_path / f"part{i}.npy", np.full((2, 3, 4, 4, 3), i, np.uint8))
    folder = folders.detect(tmp_path)
    assert clip_names(folder) == ["part2.npy[0]", "part2.npy[1]", "part10.npy[0]", "part10.npy[1]"]
    assert folders.read_clips(folder, [1, 2], frames=3).amax((1, 2, 3, 4)).tolist() == [2, 10]


def test_a_replaced_array_file_is_read_again(tmp_path: Path) -> None:
    for value in (7, 9):
        np.savez_compressed(tmp_path / "a.npz", np.full((1, 3, 4, 4, 3), value, np.uint8))
        os.utime(tmp_path / "a.npz", ns=(value, value))
        assert folders.read_clips(folders.detect(tmp_path), [0], frames=3).max() == value


def test_a_compressed_file_is_read_once_for_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", grey_clips())
    folder, calls, second = folders.detect(tmp_path), [], threading.Event()
    load = np.load

    def slow_load(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 1:
            second.set()
        second.wait(0.3)  # time for a second thread to start
        return load(*arguments, **options)

    monkeypatch.setattr(np, "load", slow_load)
    with ThreadPoolExecutor(8) as pool:
        clips = list(pool.map(lambda i: folders.read_clip(folder, i % 3, frames=3), range(8)))
    assert len(calls) == 1
    assert torch.equal(clips[4], torch.from_numpy(grey_clips()[1, :3]).permute(0, 3, 1, 2))


ZEROS = np.zeros


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (ZEROS((2, 4, 3, 8, 9), np.uint8), "uint8 (2, 4, 3, 8, 9); .*(B, T, H, W, 3).*(N, D).*"
         "x.transpose(0, 1, 3, 4, 2)"),
        (ZEROS((2, 3, 4, 8, 9), np.uint8), "uint8 (2, 3, 4, 8, 9); .*x.transpose(0, 2, 3, 4, 1)"),
        (ZEROS((4, 8, 9, 3), np.uint8), "uint8 (4, 8, 9, 3); .*x[None]"),
        (ZEROS((2, 4, 8, 9, 1), np.uint8), "uint8 (2, 4, 8, 9, 1); needed"),
        (ZEROS((2, 4), np.uint8), "uint8 (2, 4); needed"),
        (ZEROS((0, 4, 8, 9, 3), np.uint8), "uint8 (0, 4, 8, 9, 3) is empty"),
        (np.float32(5), "float32 () is empty"),
        (np.linspace(-1, 1, 2 * 4 * 3 * 3 * 3, dtype=np.float32).reshape(2, 4, 3, 3, 3)[::-1],
         "float32 (2, 4, 3, 3, 3), 0.0046"),
        (np.full((2, 4, 3, 3, 3), 0.5), "float64 (2, 4, 3, 3, 3), 0.5 to 0.5 .*vfbench.video.to_uint8(x)"),
        (ZEROS((2, 4, 8, 9, 3), np.int64), "int64 (2, 4, 8, 9, 3); needed"),
        (ZEROS((2, 4), np.int64), "int64 (2, 4); needed"),
        (ZEROS((2, 4), np.complex64), "complex64 (2, 4); needed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.pitfall("floats as bytes")
def test_other_arrays_are_refused_with_type_and_shape(
    tmp_path: Path, array: np.ndarray, message: str, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, array)
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(MissingData, match=f"{re.escape(str(path))}: {pattern}"):
        folders.detect(tmp_path)


def test_an_ambiguous_or_empty_archive_is_refused(tmp_path: Path) -> None:
    clips = ZEROS((2, 4, 8, 9, 3), np.uint8)
    for named_arrays in ({"left": clips, "right": clips}, {"clips": clips, "arr_0": clips}):
        np.savez(tmp_path / "a.npz", **named_arrays)  # type: ignore[arg-type]  # the stubs take a name for allow_pickle
        with pytest.raises(MissingData, match=r"a\.npz .*clips"):
            folders.detect(tmp_path)
    np.savez(tmp_path / "a.npz")
    with pytest.raises(MissingData, match="no array"):
        folders.detect(tmp_path)


def test_damaged_and_pickled_array_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "valid.npy", grey_clips())
    np.savez(tmp_path / "valid.npz", grey_clips())
    save_file({"f": torch.zeros(2, 3)}, tmp_path / "valid.safetensors")
    for path in sorted(tmp_path.glob("valid*")):
        valid = path.read_bytes()
        for content in (b"", b"<html>not found</html>", valid[:90], valid[:-1]):
            bad = tmp_path / "bad" / f"bad{path.suffix}"
            bad.parent.mkdir(exist_ok=True)
            bad.write_bytes(content)
            with pytest.raises(MissingData, match=rf"bad\{path.suffix}: "):
                folders.read_clips(folders.detect(bad), [2], frames=1)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(MissingData, match=r"objects\.npy: object \(1,\)"):
        folders.detect(tmp_path / "objects.npy")


CLIP_HEADER = {"descr": "|u1", "fortran_order": False, "shape": (2, 3, 4, 4, 3)}


def npy(header: Mapping[str, Any], size: int = 288) -> bytes:
    """An npy file with this header and `size` bytes of values."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, dict(header))
    return content.getvalue() + bytes(size)


def npz(content: bytes, compression: int = zipfile.ZIP_DEFLATED, **claims: int) -> bytes:
    """An npz file of one npy file, whose directory claims other sizes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("clips.npy", content)
        for name, value in claims.items():
            setattr(archive.infolist()[0], name, value)
    return file.getvalue()


HUGE = {**CLIP_HEADER, "shape": (10**12, 3, 4, 4, 3)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", npy(HUGE)),
        ("a.npy", npy({**CLIP_HEADER, "shape": (-2, 3, 4, 4, 3)})),
        ("a.npy", npy({**CLIP_HEADER, "shape": (-2, -3, 4, 4, 3)})),
        ("a.npy", npy({**CLIP_HEADER, "shape": (2**70, 3, 4, 4, 3)})),
        ("a.npy", npy({**CLIP_HEADER, "descr": "|S1000"})),
        ("a.npy", npy({**CLIP_HEADER, "descr": [("r", "|u1"), ("g", "|u1")], "shape": (2, 3, 4, 4)})),
        ("a.npy", npy({**CLIP_HEADER, "descr": "no type"})),
        ("a.npy", npy(CLIP_HEADER).replace(b"False", b"(((((")),
        ("a.npy", npy(CLIP_HEADER)[:6] + bytes([2, 0, 255, 255, 255, 255]) + bytes(400)),
        ("a.npz", npz(npy(HUGE))),
        ("a.npz", npz(npy(HUGE), file_size=1 << 60)),
        ("a.npz", npz(npy(HUGE), zipfile.ZIP_STORED, file_size=1 << 60, compress_size=1 << 60)),
        ("a.npz", npz(npy(CLIP_HEADER), zipfile.ZIP_LZMA)),
        ("a.npz", npz(npy(CLIP_HEADER)).replace(b"clips.npy", b"other.npy", 1)),
        ("a.safetensors", struct.pack("<Q", 1 << 60) + b"{"),
    ],
)
def test_claims_of_a_header_are_refused_before_memory_is_taken(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MissingData, match=rf"{re.escape(name)}: "):
        folders.read_clips(folders.detect(tmp_path), [0], frames=1)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_value_is_refused(tmp_path: Path, compression: int) -> None:
    values = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 4, 3)).astype(np.uint8)
    content = npz(npy(CLIP_HEADER)[:-288] + values.tobytes(), compression)
    place = content.index(b"clips.npy") + 250
    (tmp_path / "a.npz").write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    with pytest.raises(MissingData, match=r"a\.npz: no readable"):
        folders.read_clips(folders.detect(tmp_path), [0], frames=1)


@pytest.mark.parametrize("dtype", [">f2", ">f4", "<f8", ">f8"])
def test_features_of_every_byte_order_are_read(tmp_path: Path, dtype: str) -> None:
    values = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "f.npy", np.asfortranarray(values.astype(dtype)))
    assert folders.read_features(folders.detect(tmp_path)).tolist() == values.tolist()


@pytest.mark.parametrize("name", ["claims_1e12_clips.npy", "negative_rows.npy", "lzma_damaged.npz"])
def test_reported_array_files_are_refused(name: str, tmp_path: Path, vfbench: Command) -> None:
    if not (DATA / "hostile" / name).is_file():
        pytest.skip(f"no {DATA / 'hostile' / name}: set VFBENCH_TEST_DATA")
    outcome = vfbench("score", "--real", "shapes", "--fake", DATA / "hostile" / name, "--smoke", "--dry-run")
    assert (outcome.code, name in outcome.err, "Traceback" in outcome.err) == (4, True, False)


# Features


def test_features_are_read_from_every_format(tmp_path: Path) -> None:
    values = torch.arange(6.0).reshape(3, 2) / 7
    np.save(tmp_path / "f1.npy", values.numpy())
    np.savez_compressed(tmp_path / "f2.npz", features=values.numpy(), ids=np.arange(3))
    save_file({"anything": values.half()}, tmp_path / "f10.safetensors")
    folder = folders.detect(tmp_path)
    assert (folder.kind, len(folder), folder.entries[-1].name) == ("features", 9, "f10.safetensors[2]")
    assert torch.equal(folders.read_features(folder), torch.cat([values, values, values.half().float()]))
    np.save(tmp_path / "double.npy", values.double().numpy() + 1e-12)
    assert torch.equal(folders.read_features(folders.detect(tmp_path / "double.npy")), values.double() + 1e-12)


def test_bad_or_mixed_features_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.array([[1.0], [np.nan], [np.inf]]))
    folder = folders.detect(tmp_path)
    with pytest.raises(MissingData, match=r"f\.npy: row 1 .*NaN.*2"):
        folders.read_features(folder)
    with pytest.raises(UserError, match=r"f\.npy .*features, not clips"):
        folders.read_clips(folder, [0], frames=1)
    np.save(tmp_path / "g.npy", ZEROS((2, 5), np.float32))
    with pytest.raises(MissingData, match=r"1 in f\.npy, 5 in g\.npy"):
        folders.detect(tmp_path)
    np.save(tmp_path / "f.npy", grey_clips())
    with pytest.raises(MissingData, match=r"array clips \(f\.npy\) and feature rows \(g\.npy\)"):
        folders.detect(tmp_path)
    with pytest.raises(UserError, match="arrays, not features"):
        folders.read_features(folders.detect(tmp_path / "f.npy"))
    save_file({"clips": torch.zeros(2, 4, 8, 8, 3, dtype=torch.uint8)}, tmp_path / "c.safetensors")
    with pytest.raises(MissingData, match=r"c\.safetensors: .*\.npy or \.npz"):
        folders.detect(tmp_path / "c.safetensors")
