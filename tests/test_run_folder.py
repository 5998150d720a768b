"""The run folder keeps what is whole, notices what is not, and belongs to one run and one process at a time."""

from __future__ import annotations

import json
import os
import shutil
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import contents, flip

from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.pipeline.folder import RunFolder, Specification
from vfbench.utils import files, tensor_files
from vfbench.utils.environment import Environment
from vfbench.utils.files import require_space, require_writable, write_text
from vfbench.utils.tensor_files import read_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2], dtype=torch.uint8)}


def specification(n_fake: int = 64, chunk_size: int = 4, **determines: Any) -> Specification:
    protocol = {"id": f"of {n_fake}", "n_fake": n_fake, "frames": 16}
    return Specification(
        determines={"model": "vdm", "seed": 0, "protocol": protocol, **determines},
        options={},
        environment=Environment(),
        chunk_size=chunk_size,
    )


RUN = specification()


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


# Files of tensors.


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, run="r1", seconds="1.5")
    tensors, metadata = read_tensors(path, run="r1")
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert metadata == {"run": "r1", "seconds": "1.5"}


def test_a_change_of_any_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, run="r1", seconds="1.5")
    whole = path.read_bytes()
    for place, bits in product(range(len(whole)), (0xFF, 1)):  # no text any more, and another letter or digit
        flip(path, place, bits)
        with pytest.raises(ValueError, match=r"unreadable|does not match its hash"):
            read_tensors(path)
        path.write_bytes(whole)
    read_tensors(path)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_a_file_cut_off_anywhere_is_found(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="unreadable"):
        read_tensors(path)


def test_a_file_without_a_hash_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensor_files.write(path, TENSORS)
    with pytest.raises(ValueError, match="does not match its hash"):
        read_tensors(path)


def test_a_whole_file_that_belongs_elsewhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, run="r1", requests="0-1")
    with pytest.raises(ValueError, match="belongs to requests 0-1, not 2-3"):
        read_tensors(path, run="r1", requests="2-3")
    with pytest.raises(ValueError, match="belongs to key None, not x"):
        read_tensors(path, key="x")


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text = tmp_path / "x.safetensors", tmp_path / "t.md"
    write_tensors(path, TENSORS)
    write_text(text, "old")
    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(BadEnvironment, match=r"x\.safetensors \(No space left on device\).* repeat the command"):
        write_tensors(path, {"a": torch.zeros(9)})
    with pytest.raises(BadEnvironment, match=r"t\.md \(No space left"):
        write_text(text, "new")
    assert torch.equal(read_tensors(path)[0]["a"], TENSORS["a"])
    assert text.read_text() == "old"


def test_json_has_one_form_and_no_nan() -> None:
    assert files.as_json({"b": 1, "a": None}) == '{\n  "b": 1,\n  "a": null\n}\n'
    assert tensor_files.digest({"b": 1, "a": 2}) == tensor_files.digest({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.as_json({"a": float("nan")})


# Whose folder it is.


def test_a_run_finds_its_folder_as_it_left_it(tmp_path: Path) -> None:
    with RunFolder.hold(tmp_path / "a" / "run", RUN) as folder:
        (folder.chunk_path(0)).write_bytes(b"chunk")
    with RunFolder.hold(tmp_path / "a" / "run", specification(chunk_size=9)) as folder:
        assert (folder.chunk_size, folder.run_id) == (4, RUN.id)
        assert folder.chunk_path(0).read_bytes() == b"chunk"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with RunFolder.hold(tmp_path, RUN):
        with pytest.raises(BadEnvironment, match="in use by another run") as caught, RunFolder.hold(tmp_path, RUN):
            pytest.fail("held twice")
        assert caught.value.exit_code == 5
    with RunFolder.hold(tmp_path, RUN):
        pass


@pytest.mark.parametrize("name", ["training.pt", "model.safetensors"])
def test_a_run_does_not_go_into_a_checkpoint(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"holds a {name}, so it is a checkpoint: choose another --output"):
        RunFolder.hold(tmp_path, RUN).__enter__()
    assert set(contents(tmp_path)) - {".lock"} == {name}


def test_an_empty_folder_stays_where_nothing_came_of_it(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    for name in ("theirs", "ours"):
        with files.locked_folder(tmp_path / name):
            assert (tmp_path / name).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    assert not list((tmp_path / "theirs").iterdir())


def test_another_run_is_refused_naming_what_differs_and_left_as_it_is(tmp_path: Path) -> None:
    with RunFolder.hold(tmp_path, RUN) as folder:
        (folder.chunk_path(0)).write_bytes(b"chunk")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"another run \(protocol: n_fake: 64 there, 256 asked for\)") as caught:
        RunFolder.hold(tmp_path, specification(256)).__enter__()
    assert caught.value.exit_code == 2
    assert contents(tmp_path) == before
    with RunFolder.hold(tmp_path, RUN):  # the refusal does not keep the lock
        pass


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_damaged_specification_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(MissingData, match=r"run\.json"):
        RunFolder.hold(tmp_path, RUN).__enter__()
    assert (tmp_path / "run.json").read_text() == content


def test_a_specification_of_some_other_tool_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"id": 7}')
    with pytest.raises(UserError, match="another run"):
        RunFolder.hold(tmp_path, RUN).__enter__()
    assert json.loads((tmp_path / "run.json").read_text()) == {"id": 7}


def test_unfinished_files_go_and_those_of_others_stay(tmp_path: Path) -> None:
    ours = ["chunks/.000001.safetensors.12", ".results.json.345", ".run.json.6", "samples/.sheet.png.7.tmp"]
    ours += ["samples/.clips.webp.8.tmp", "tables/.table.tex.9"]
    others = ["notes.txt", ".gitkeep", "chunks/.hidden", "chunks/000001.safetensors", "samples/.sheet.png"]
    others += ["tables/.table.md.bak", "data/.000001.safetensors.12", ".env.1"]
    for name in ours + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    with RunFolder.hold(tmp_path, RUN):
        left = contents(tmp_path).keys() - {".lock", "run.json"}
    assert left == set(others)


# Where it may be.


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "a" / "run"):
        with pytest.raises(BadEnvironment, match=r"cannot write to .*file is not a folder.*--output"):
            require_writable(path)
        with pytest.raises(BadEnvironment, match="cannot write to"):
            RunFolder.hold(path, RUN).__enter__()


def test_a_place_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK and Path(path).exists())
    with pytest.raises(BadEnvironment, match=f"no permission to write in {tmp_path}"):
        require_writable(tmp_path / "new" / "run")


def test_space_is_counted_with_the_chunks_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Any:
        asked.append(path)
        return SimpleNamespace(free=1_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    require_space(tmp_path / "new" / "run", 1_000_000)
    with pytest.raises(BadEnvironment, match="needs about 3 MB and its disk has 1 MB free"):
        require_space(tmp_path / "new" / "run", 3_000_000)
    assert set(asked) == {tmp_path}
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks" / "000000.safetensors").write_bytes(bytes(2_000_000))
    require_space(tmp_path, 3_000_000)
