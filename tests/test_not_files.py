"""Tests of paths that are no regular files: none is opened, since reading a pipe would wait for ever."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from clipfiles import grey_clip, write_frames
from conftest import Command

from vfbench import clips, video
from vfbench.clips import arrays
from vfbench.clips.caption_file import read_captions
from vfbench.clips.manifest import read_manifest
from vfbench.data.inspect_video import content_hashes, inspect_entry
from vfbench.errors import MissingData, UserError
from vfbench.utils import files, tensor_files
from vfbench.utils.checkpoint import require_checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in the file system")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # the length of its path is limited


def link_to_pipe(path: Path) -> None:
    os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path}.pipe")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


MAKERS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "link to a pipe": link_to_pipe,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": make_socket,
    "folder": Path.mkdir,
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to itself": make_loop,
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "video": ("a.mp4", video.decode),
    "video header": ("a.avi", video.header),
    "video completeness": ("a.avi", video.check_complete),
    "animation": ("a.webp", video.decode),
    "array": ("a.npy", arrays.examine),
    "compressed array": ("a.npz", arrays.open_clips),
    "tensors": ("a.safetensors", arrays.examine),
    "shard": ("a.npy", arrays.open_shard),
    "prompts": ("a.tsv", lambda path: read_captions(path, "prompt")),
    "manifest": ("a.csv", read_manifest),
    "results": ("results.json", files.read_json),
    "weights": ("a.safetensors", tensor_files.read),
    "checkpoint": ("config.json", lambda path: require_checkpoint(path.parent)),
    "hash": ("a.bin", files.file_sha256),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("reader", READERS)
def test_a_path_that_is_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reader: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name, read = READERS[reader]
    MAKERS[kind](tmp_path / name)
    with pytest.raises((MissingData, OSError), match=name if reader != "checkpoint" else "config"):
        read(tmp_path / name)
    assert tensor_files.read_metadata(tmp_path / name) == {}


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind not in ("folder", "link to itself")])
def test_a_frame_that_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    write_frames(tmp_path / "c", grey_clip()[:2])
    monkeypatch.chdir(tmp_path / "c")
    MAKERS[kind](tmp_path / "c/0002.png")
    folder = clips.detect(tmp_path)
    with pytest.raises(MissingData, match=r"c/0002\.png"):
        clips.read_clip(folder, 0, frames=3)
    with pytest.raises(MissingData, match="c"):
        clips.content_hash(folder)
    assert inspect_entry(folder.entries[0], full=True).problem is not None
    assert list(content_hashes(folder.entries)) == [""]


def test_a_link_to_itself_is_refused_among_clips(tmp_path: Path) -> None:
    make_loop(tmp_path / "a.mp4")
    with pytest.raises(MissingData, match=r"a\.mp4: Too many levels of symbolic links"):
        clips.detect(tmp_path)


def test_a_configuration_that_is_no_file_is_refused(tmp_path: Path, vfbench: Command) -> None:
    os.mkfifo(tmp_path / "a.toml")
    outcome = vfbench("--config", tmp_path / "a.toml", "ls")
    assert (outcome.code, "a.toml is not a file" in outcome.err) == (UserError.exit_code, True)
