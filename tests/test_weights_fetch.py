"""`weights fetch` against servers that break off, send the wrong file or are dead: the right one comes, or none."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, flip
from helpers import randn
from weight_files import arrays_of, table, write_bundle

from vfbench.errors import BadEnvironment, MissingData
from vfbench.utils import tensor_files
from vfbench.utils.progress import Progress
from vfbench.weights import cache as folder
from vfbench.weights import catalogue, fetch, i3d, verify
from vfbench.weights.catalogue import Download, Network, Source
from vfbench.weights.verify import Weights


class Server(ThreadingHTTPServer):
    """Serves `files`, at most `limit` bytes an answer and `budget` in all; `asked` is what was asked, and from where.

    It may know nothing of ranges, not tell how long a file is, or send a byte less each time.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.limit, self.budget = 10**9, 10**9
        self.ranges, self.lengths, self.shrinks = True, True, False
        self.asked: list[tuple[str, int]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:  # its caller's name
        asked = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.asked.append((self.path[1:], asked))
        if (content := self.server.files.get(self.path[1:])) is None:
            return self.send_error(404)
        start = asked if self.server.ranges else 0
        if start >= len(content):
            return self._answer(416, 0, f"bytes */{len(content)}")
        span = f"bytes {start}-{len(content) - 1}/{len(content)}" if start else None
        self._answer(206 if start else 200, len(content) - start, span)
        sent = content[start:][: min(self.server.limit, self.server.budget)]
        self.server.budget -= len(sent)
        self.server.limit -= self.server.shrinks
        self.wfile.write(sent)  # and then the connection ends, whatever was promised
        return None

    def _answer(self, status: int, length: int, span: str | None) -> None:
        self.send_response(status)
        if self.server.lengths:
            self.send_header("Content-Length", str(length))
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights; the network may be used."""
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(fetch, "CHUNK", 1000)
    return tmp_path / "weights"


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A state dict of some kilobytes."""
    torch.save({"fc.weight": randn(20, 50)}, tmp_path / "x.pth")
    return (tmp_path / "x.pth").read_bytes()


def published(*urls: str, content: bytes, size: int | None = None) -> Network:
    """Inception, if this were its only file."""
    file = Download("x.pth", urls, hashlib.sha256(content).hexdigest(), size)
    return Network("inception", "", "file", (Source((file,)),), manual=("a shelf",))


def left(place: Path) -> list[str]:
    """What lies in the folder, but for the lock."""
    return sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file() and p.name != ".lock")


def test_what_is_fetched_is_proven_converted_and_tidied(
    server: Server, place: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    server.files["x"] = content
    path, result = fetch.fetch(published(server.url("x"), content=content, size=len(content)))
    assert path == place / "inception.safetensors"
    assert result.verified
    assert torch.equal(tensor_files.read(path)["fc.weight"], randn(20, 50))
    assert left(place) == ["inception.safetensors"]
    assert server.asked == [("x", 0)]
    kilobytes = -(-len(content) // 1000)
    assert f"x.pth: {kilobytes}/{kilobytes} kB" in capfd.readouterr().err


def test_what_is_here_already_is_not_fetched_again(
    server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["x"] = content
    network = published(server.url("x"), content=content)
    first = fetch.fetch(network)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch.fetch(network) == first
    assert len(server.asked) == 1


@pytest.mark.parametrize("spoilt", ["damaged", "other"])
def test_what_is_damaged_or_another_network_is_replaced(spoilt: str, server: Server, content: bytes) -> None:
    server.files["x"] = content
    network = published(server.url("x"), content=content)
    path, _ = fetch.fetch(network)
    if spoilt == "damaged":
        flip(path, -1)
    else:
        verify.write_converted(Weights(network, {"a": torch.ones(1)}, {"own.pth": "0" * 64}), path)
    assert fetch.fetch(network)[1].verified
    assert torch.equal(tensor_files.read(path)["fc.weight"], randn(20, 50))


def test_a_connection_that_breaks_off_is_taken_up_again(server: Server, place: Path, content: bytes) -> None:
    server.files["x"], server.limit = content, 1500
    fetch.fetch(published(server.url("x"), content=content))
    assert server.asked == [("x", start) for start in range(0, len(content), 1500)]
    assert left(place) == ["inception.safetensors"]


def test_the_next_command_goes_on_where_the_last_one_stopped(server: Server, place: Path, content: bytes) -> None:
    network = published(server.url("x"), content=content)
    server.files["x"], server.budget = content, 1234
    with pytest.raises(MissingData, match=f"{server.url('x')}: broke off at byte 1234"):
        fetch.fetch(network)
    (part,) = left(place)
    assert re.fullmatch(r"downloads/x\.pth\.[0-9a-f]{8}\.part", part)
    server.asked, server.budget = [], 10**9
    assert fetch.fetch(network)[1].verified
    assert server.asked == [("x", 1234)]


@pytest.mark.parametrize("more", [0, 7])
def test_a_part_that_is_whole_already_is_used_and_one_that_is_too_long_is_not(
    more: int, server: Server, place: Path, content: bytes
) -> None:
    network = published(server.url("x"), content=content)
    server.files["x"], server.budget = content, 10
    with pytest.raises(MissingData):
        fetch.fetch(network)
    (place / left(place)[0]).write_bytes(content + b"!" * more)
    server.asked, server.budget = [], 10**9
    assert fetch.fetch(network)[1].verified
    assert server.asked == [("x", len(content) + more), *([("x", 0)] if more else [])]


def test_a_server_without_ranges_sends_all_of_it_again(server: Server, place: Path, content: bytes) -> None:
    network = published(server.url("x"), content=content)
    server.files["x"], server.budget = content, 1234
    with pytest.raises(MissingData):
        fetch.fetch(network)
    server.ranges, server.budget = False, 10**9
    assert fetch.fetch(network)[1].verified


def test_a_server_that_never_gets_further_is_given_up(server: Server, content: bytes) -> None:
    """Without ranges it begins anew each time: more must come than the time before."""
    server.files["x"], server.ranges, server.limit = content, False, 2000
    server.shrinks = True
    with pytest.raises(MissingData, match="broke off at byte 1999"):
        fetch.fetch(published(server.url("x"), content=content))


def test_a_server_that_does_not_tell_the_length_is_believed_only_with_the_right_hash(
    server: Server, place: Path, content: bytes
) -> None:
    network = published(server.url("x"), content=content)
    server.files["x"], server.lengths, server.limit = content, False, 1500
    with pytest.raises(MissingData, match=r"its SHA-256 is [0-9a-f]{64}, expected"):
        fetch.fetch(network)
    server.limit = 10**9
    assert fetch.fetch(network)[1].verified


def test_a_wrong_hash_is_said_and_the_file_not_kept(server: Server, place: Path, content: bytes) -> None:
    server.files["x"] = content[:-1] + b"?"
    wrong, right = (hashlib.sha256(some).hexdigest() for some in (server.files["x"], content))
    with pytest.raises(MissingData, match=f"{server.url('x')}: its SHA-256 is {wrong}, expected {right}"):
        fetch.fetch(published(server.url("x"), content=content))
    assert left(place) == []


def test_a_file_of_another_size_is_not_even_read(server: Server, place: Path, content: bytes) -> None:
    server.files["x"] = b"<html>"
    with pytest.raises(MissingData, match="it has 6 bytes, expected 5000"):
        fetch.fetch(published(server.url("x"), content=content, size=5000))
    assert left(place) == []


def dead() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/x"


@pytest.mark.pitfall("dead links to weights")
def test_mirrors_are_tried_in_order(server: Server, place: Path, content: bytes) -> None:
    server.files |= {"wrong": b"x" * 5000, "right": content, "spare": content}
    urls = [dead(), *(server.url(name) for name in ("gone", "wrong", "right", "spare"))]
    assert fetch.fetch(published(*urls, content=content))[1].verified
    assert [name for name, _ in server.asked] == ["gone", "wrong", "right"]
    assert left(place) == ["inception.safetensors"]


def test_every_failure_is_named_with_what_else_can_be_done(server: Server, content: bytes) -> None:
    nobody = dead()
    with pytest.raises(MissingData) as caught:
        fetch.fetch(published(nobody, server.url("gone"), content=content))
    said = str(caught.value)
    assert re.search(rf"{nobody}: .*refused", said)
    assert f"{server.url('gone')}: HTTP 404 Not Found" in said
    assert "a shelf (by hand)" in said
    assert said.endswith("python -m vfbench weights import inception FILE")


# I3D: a source of two files, sources with other weights, no hash needed.


def checkpoint(folder: Path, seed: int = 0) -> dict[str, bytes]:
    write_bundle(folder / "model.ckpt", arrays_of(seed))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def bundle_at(server: Server, where: str) -> Source:
    names = ("model.ckpt.index", "model.ckpt.data-00000-of-00001")
    return Source(tuple(Download(name, (server.url(f"{where}/{name}"),)) for name in names))


def test_the_next_source_is_tried_when_one_holds_other_weights(
    server: Server, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(i3d, "table", table)
    for where, seed in (("inflated", 1), ("right", 0)):
        files = checkpoint(tmp_path / where, seed)
        server.files |= {f"{where}/{name}": content for name, content in files.items()}
    sources = tuple(bundle_at(server, where) for where in ("gone", "inflated", "right"))
    path, result = fetch.fetch(Network("i3d", "", "tensors", sources))
    assert result.verified
    assert left(place) == [path.name]
    path.unlink()
    with pytest.raises(
        MissingData, match=r"(?s)gone/model.ckpt.index: HTTP 404.*inflated/model.ckpt.index: .*inflated from ImageNet"
    ):
        fetch.fetch(Network("i3d", "", "tensors", sources[:2]))


def test_a_file_that_came_whole_is_kept_when_the_other_does_not(
    server: Server, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(i3d, "table", table)
    files = {f"a/{name}": content for name, content in checkpoint(tmp_path / "a").items()}
    server.files["a/model.ckpt.index"] = files["a/model.ckpt.index"]
    network = Network("i3d", "", "tensors", (bundle_at(server, "a"),))
    with pytest.raises(MissingData, match="data-00000-of-00001: HTTP 404"):
        fetch.fetch(network)
    assert left(place) == ["downloads/model.ckpt.index"]
    server.files, server.asked = files, []
    assert fetch.fetch(network)[1].verified
    assert [name for name, _ in server.asked] == ["a/model.ckpt.data-00000-of-00001"]


# When nothing may or can be fetched.


@pytest.mark.parametrize("value", ["1", "true", "ON"])
@pytest.mark.parametrize("name", catalogue.NETWORKS)
def test_offline_nothing_is_asked_and_every_address_is_named(
    name: str, value: str, place: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(fetch, "urlopen", pytest.fail)
    done = vfbench("weights", "fetch", name)
    assert done.code == 4
    assert done.err.startswith("error: HF_HUB_OFFLINE is set, so nothing is downloaded")
    assert all(url in done.err for url in catalogue.NETWORKS[name].urls)
    assert f"python -m vfbench weights import {name} FILE" in done.err
    assert not place.exists()


def test_the_command_prints_what_came(
    server: Server, place: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    server.files["x"] = content
    monkeypatch.setitem(catalogue.NETWORKS, "inception", published(server.url("x"), content=content))
    done = vfbench("weights", "fetch", "inception")
    assert done.code == 0, done.err
    assert re.fullmatch(
        rf"inception: the published file: x\.pth has SHA-256 \w+\n{place}/inception.safetensors\n", done.out
    )


def test_two_commands_do_not_write_into_one_file(server: Server, content: bytes) -> None:
    server.files["x"] = content
    with folder.locked_downloads(), pytest.raises(BadEnvironment, match="in use by another `weights fetch`"):
        fetch.fetch(published(server.url("x"), content=content))


def test_a_full_disk_is_no_fault_of_the_mirror(
    server: Server, place: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files |= {"x": content, "y": content}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Progress, "advance", full)  # stands within what writes the file
    with pytest.raises(BadEnvironment, match="No space left on device"):
        fetch.fetch(published(server.url("x"), server.url("y"), content=content))
    assert [name for name, _ in server.asked] == ["x"]
