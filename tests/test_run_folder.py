"""Tests of `vfbench.pipeline.folder`: hashed tensor files, one run and one process per folder, writable places."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import file_contents, flip_byte

from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.pipeline.chunk_layout import ChunkLayout
from vfbench.pipeline.folder import RunFolder, Specification
from vfbench.utils import files, process_id, tensor_files
from vfbench.utils.environment import Environment
from vfbench.utils.files import require_space, require_writable, write_text
from vfbench.utils.tensor_files import read_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2], dtype=torch.uint8)}


def specification(n_fake: int = 64, chunk_size: int = 4, **options: Any) -> Specification:
    protocol = {"id": f"of {n_fake}", "n_fake": n_fake, "frames": 16}
    return Specification(
        determines={"model": "vdm", "seed": 0, "protocol": protocol, **options},
        options={},
        environment=Environment(),
        layout=ChunkLayout(requests=n_fake, chunk_size=chunk_size, batch_size=2, threads=1),
    )


RUN = specification()


def raise_disk_full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


# Tensor files.


def test_tensors_and_metadata_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, run="r1", seconds="1.5")
    tensors, metadata = read_tensors(path, run="r1")
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert metadata == {"run": "r1", "seconds": "1.5"}


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    metadata = {f"key{number}": f"ü{number}" for number in range(9)}
    for name in ("x", "y"):
        write_tensors(tmp_path / name, TENSORS, **metadata)
        assert read_tensors(tmp_path / name)[1] == metadata
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_any_changed_byte_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, run="r1", seconds="1.5")
    content = path.read_bytes()
    for place, bits in product(range(len(content)), (0xFF, 1)):  # invalid text, and another letter or digit
        flip_byte(path, place, bits)
        with pytest.raises(ValueError, match=r"unreadable|does not match its hash"):
            read_tensors(path)
        path.write_bytes(content)
    read_tensors(path)


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_truncated_file_is_detected(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="unreadable"):
        read_tensors(path)


def test_a_file_without_a_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensor_files.write(path, TENSORS)
    with pytest.raises(ValueError, match="does not match its hash"):
        read_tensors(path)


def test_an_intact_file_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, run="r1", requests="0-1")
    with pytest.raises(ValueError, match="belongs to requests 0-1, not 2-3"):
        read_tensors(path, run="r1", requests="2-3")
    with pytest.raises(ValueError, match="belongs to key None, not x"):
        read_tensors(path, key="x")


def test_a_full_disk_is_reported_and_the_old_file_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text = tmp_path / "x.safetensors", tmp_path / "t.md"
    write_tensors(path, TENSORS)
    write_text(text, "old")
    monkeypatch.setattr(Path, "write_bytes", raise_disk_full)
    monkeypatch.setattr(Path, "write_text", raise_disk_full)
    with pytest.raises(BadEnvironment, match=r"x\.safetensors \(No space left on device\)"):
        write_tensors(path, {"a": torch.zeros(9)})
    with pytest.raises(BadEnvironment, match=r"t\.md \(No space left"):
        write_text(text, "new")
    assert torch.equal(read_tensors(path)[0]["a"], TENSORS["a"])
    assert text.read_text() == "old"


def test_json_is_canonical_without_nan() -> None:
    assert files.as_json({"b": 1, "a": None}) == '{\n  "b": 1,\n  "a": null\n}\n'
    assert files.json_digest({"b": 1, "a": 2}) == files.json_digest({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.as_json({"a": float("nan")})


# Ownership of a folder.


def test_a_run_resumes_in_its_folder(tmp_path: Path) -> None:
    RunFolder.join(tmp_path / "a" / "run", RUN)
    folder = RunFolder.join(tmp_path / "a" / "run", specification(chunk_size=9))
    assert (folder.layout, folder.run_id) == (RUN.layout, RUN.id)


def test_of_two_runs_that_begin_at_once_one_has_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, exists = specification(256), Path.exists

    def begun_meanwhile(path: Path) -> bool:
        """False for a `run.json` that another process writes right after this look at it."""
        if path.name == "run.json" and not exists(path):
            path.write_text(files.as_json(other.to_json()))
            return False
        return exists(path)

    monkeypatch.setattr(Path, "exists", begun_meanwhile)
    with pytest.raises(UserError, match="256 there, 64 asked for"):
        RunFolder.join(tmp_path, RUN)
    assert json.loads((tmp_path / "run.json").read_text())["id"] == other.id
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("layout", [{}, {"chunk_size": 0}, {"threads": "2"}, [1]])
def test_a_damaged_layout_is_refused(tmp_path: Path, layout: Any) -> None:
    folder = RunFolder.join(tmp_path, RUN)
    content = RUN.to_json()
    content["layout"] = {**content["layout"], **layout} if layout and isinstance(layout, dict) else layout
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(MissingData, match=r"run\.json: layout"):
        _ = folder.layout


@pytest.mark.parametrize("name", ["training.pt", "model.safetensors", "results.json", "data.md"])
def test_a_folder_with_files_of_others_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"{name}.*--output"):
        RunFolder.join(tmp_path, RUN)
    assert set(file_contents(tmp_path)) - {".lock"} == {name}


def test_an_unused_new_folder_is_removed_and_an_existing_one_kept(tmp_path: Path) -> None:
    (tmp_path / "existing").mkdir()
    for name in ("existing", "new"):
        with files.locked_folder(tmp_path / name):
            assert (tmp_path / name).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["existing"]
    assert not list((tmp_path / "existing").iterdir())


def test_an_unused_folder_is_removed_while_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[bool] = []
    monkeypatch.setattr("filelock.FileLock.release", lambda lock: left.append((tmp_path / "new").exists()))
    with files.locked_folder(tmp_path / "new"):
        pass
    assert left == [False]


def test_the_folder_of_another_run_is_refused_and_kept(tmp_path: Path) -> None:
    (RunFolder.join(tmp_path, RUN).chunks / "000000.safetensors").write_bytes(b"chunk")
    before = file_contents(tmp_path)
    with pytest.raises(UserError, match=r"another run \(protocol: n_fake: 64 there, 256 asked for\)") as caught:
        RunFolder.join(tmp_path, specification(256))
    assert caught.value.exit_code == 2
    assert file_contents(tmp_path) == before


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_damaged_specification_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(MissingData, match=r"run\.json"):
        RunFolder.join(tmp_path, RUN)
    assert (tmp_path / "run.json").read_text() == content


def test_a_foreign_run_json_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"id": 7}')
    with pytest.raises(UserError, match="another run"):
        RunFolder.join(tmp_path, RUN)
    assert json.loads((tmp_path / "run.json").read_text()) == {"id": 7}


def test_temporary_files_of_runs_are_removed_and_others_kept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    process = f"{process_id.machine_id()}.{ended.pid}"
    temporary = [f"chunks/.000001.safetensors.{process}.tmp", f".results.json.{process}.tmp"]
    temporary += [f"samples/.sheet.png.{process}.tmp", "tables/.table.tex.0123abcd.9.tmp"]
    others = [f".data.md.{process_id.process_id()}.tmp", "tables/.table.md.0123abcd.9.tmp"]  # of those that work
    others += ["notes.txt", ".gitkeep", "chunks/.hidden", "chunks/000001.safetensors", "samples/.sheet.png"]
    others += ["tables/.table.md.bak", "data/.000001.safetensors.12", ".env.1"]
    for name in temporary + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    os.utime(tmp_path / "tables/.table.tex.0123abcd.9.tmp", (0, 0))
    RunFolder.join(tmp_path, RUN)
    remaining = file_contents(tmp_path).keys() - {"run.json"}
    assert remaining == set(others)


# Places for a folder.


def test_a_file_as_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "a" / "run"):
        with pytest.raises(BadEnvironment, match=r"cannot write to .*file is not a folder.*--output"):
            require_writable(path)
        with pytest.raises(BadEnvironment, match="cannot write to"):
            RunFolder.join(path, RUN)


def test_a_folder_without_write_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK and Path(path).exists())
    with pytest.raises(BadEnvironment, match=f"no permission to write in {tmp_path}"):
        require_writable(tmp_path / "new" / "run")


def test_required_space_counts_existing_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[Path] = []

    def usage(path: Path) -> Any:
        paths.append(path)
        return SimpleNamespace(free=1_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    require_space(tmp_path / "new" / "run", 1_000_000)
    with pytest.raises(BadEnvironment, match="needs about 3 MB and its disk has 1 MB free"):
        require_space(tmp_path / "new" / "run", 3_000_000)
    assert set(paths) == {tmp_path}
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks" / "000000.safetensors").write_bytes(bytes(2_000_000))
    require_space(tmp_path, 3_000_000)
