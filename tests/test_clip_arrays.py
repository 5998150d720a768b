"""Tests of `vfbench.clips.arrays`: clips and features in .npy, .npz and .safetensors files."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import clip_names, grey_clips
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
