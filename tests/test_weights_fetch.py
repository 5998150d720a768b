"""Tests of `weights fetch` against servers that break off, send wrong files or do not answer."""

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
from conftest import Command, flip_byte
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
    """HTTP server of `files`: at most `limit` bytes per response and `budget` in all.

    Records (name, start byte) of requests in `requests`. May ignore ranges, omit Content-Length, or shrink the limit
    by a byte per response."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.limit, self.budget = 10**9, 10**9
        self.ranges, self.lengths, self.shrinks = True, True, False
        self.requests: list[tuple[str, int]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:  # name required by BaseHTTPRequestHandler
        requested_start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.requests.append((self.path[1:], requested_start))
        if (content := self.server.files.get(self.path[1:])) is None:
            return self.send_error(404)
        start = requested_start if self.server.ranges else 0
        if start >= len(content):
            return self._answer(416, 0, f"bytes */{len(content)}")
        span = f"bytes {start}-{len(content) - 1}/{len(content)}" if start else None
        self._answer(206 if start else 200, len(content) - start, span)
        sent = content[start:][: min(self.server.limit, self.server.budget)]
        self.server.budget -= len(sent)
        self.server.limit -= self.server.shrinks
        self.wfile.write(sent)  # then close, whatever Content-Length says
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
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, with network access allowed."""
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


def published_network(*urls: str, content: bytes, size: int | None = None) -> Network:
    """Inception with a single published file."""
    file = Download("x.pth", urls, hashlib.sha256(content).hexdigest(), size)
    return Network("inception", "", "file", (Source((file,)),), manual=("a shelf",))


def remaining_files(weights_folder: Path) -> list[str]:
    """Files in the folder except the lock."""
    return sorted(
        str(p.relative_to(weights_folder)) for p in weights_folder.rglob("*") if p.is_file() and p.name != ".lock"
    )


def test_fetched_weights_are_verified_and_converted(
    server: Server, weights_folder: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    server.files["x"] = content
    path, result = fetch.fetch(published_network(server.url("x"), content=content, size=len(content)))
    assert path == weights_folder / "inception.safetensors"
    assert result.verified
    assert torch.equal(tensor_files.read(path)["fc.weight"], randn(20, 50))
    assert remaining_files(weights_folder) == ["inception.safetensors"]
    assert server.requests == [("x", 0)]
    kilobytes = -(-len(content) // 1000)
    assert f"x.pth: {kilobytes}/{kilobytes} kB" in capfd.readouterr().err


def test_existing_weights_are_not_fetched_again(
    server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["x"] = content
    network = published_network(server.url("x"), content=content)
    first = fetch.fetch(network)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch.fetch(network) == first
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["damaged", "other"])
def test_damaged_or_other_weights_are_replaced(kind: str, server: Server, content: bytes) -> None:
    server.files["x"] = content
    network = published_network(server.url("x"), content=content)
    path, _ = fetch.fetch(network)
    if kind == "damaged":
        flip_byte(path, -1)
    else:
        verify.write_converted(Weights(network, {"a": torch.ones(1)}, {"other.pth": "0" * 64}), path)
    assert fetch.fetch(network)[1].verified
    assert torch.equal(tensor_files.read(path)["fc.weight"], randn(20, 50))


def test_a_broken_connection_is_resumed(server: Server, weights_folder: Path, content: bytes) -> None:
    server.files["x"], server.limit = content, 1500
    fetch.fetch(published_network(server.url("x"), content=content))
    assert server.requests == [("x", start) for start in range(0, len(content), 1500)]
    assert remaining_files(weights_folder) == ["inception.safetensors"]


def test_the_next_command_resumes_a_partial_file(server: Server, weights_folder: Path, content: bytes) -> None:
    network = published_network(server.url("x"), content=content)
    server.files["x"], server.budget = content, 1234
    with pytest.raises(MissingData, match=f"{server.url('x')}: broke off at byte 1234"):
        fetch.fetch(network)
    (part,) = remaining_files(weights_folder)
    assert re.fullmatch(r"downloads/x\.pth\.[0-9a-f]{8}\.part", part)
    server.requests, server.budget = [], 10**9
    assert fetch.fetch(network)[1].verified
    assert server.requests == [("x", 1234)]


@pytest.mark.parametrize("more", [0, 7])
def test_a_complete_partial_file_is_used_and_a_longer_one_is_not(
    more: int, server: Server, weights_folder: Path, content: bytes
) -> None:
    network = published_network(server.url("x"), content=content)
    server.files["x"], server.budget = content, 10
    with pytest.raises(MissingData):
        fetch.fetch(network)
    (weights_folder / remaining_files(weights_folder)[0]).write_bytes(content + b"!" * more)
    server.requests, server.budget = [], 10**9
    assert fetch.fetch(network)[1].verified
    assert server.requests == [("x", len(content) + more), *([("x", 0)] if more else [])]


def test_a_server_without_ranges_restarts_the_download(server: Server, weights_folder: Path, content: bytes) -> None:
    network = published_network(server.url("x"), content=content)
    server.files["x"], server.budget = content, 1234
    with pytest.raises(MissingData):
        fetch.fetch(network)
    server.ranges, server.budget = False, 10**9
    assert fetch.fetch(network)[1].verified


def test_a_server_without_progress_is_given_up(server: Server, content: bytes) -> None:
    """Without ranges each attempt restarts: it must get further than the one before."""
    server.files["x"], server.ranges, server.limit = content, False, 2000
    server.shrinks = True
    with pytest.raises(MissingData, match="broke off at byte 1999"):
        fetch.fetch(published_network(server.url("x"), content=content))


def test_without_content_length_the_hash_decides(server: Server, weights_folder: Path, content: bytes) -> None:
    network = published_network(server.url("x"), content=content)
    server.files["x"], server.lengths, server.limit = content, False, 1500
    with pytest.raises(MissingData, match=r"its SHA-256 is [0-9a-f]{64}, expected"):
        fetch.fetch(network)
    server.limit = 10**9
    assert fetch.fetch(network)[1].verified


def test_a_file_with_a_wrong_hash_is_refused_and_removed(server: Server, weights_folder: Path, content: bytes) -> None:
    server.files["x"] = content[:-1] + b"?"
    wrong, right = (hashlib.sha256(some).hexdigest() for some in (server.files["x"], content))
    with pytest.raises(MissingData, match=f"{server.url('x')}: its SHA-256 is {wrong}, expected {right}"):
        fetch.fetch(published_network(server.url("x"), content=content))
    assert remaining_files(weights_folder) == []


def test_a_file_of_another_size_is_not_downloaded(server: Server, weights_folder: Path, content: bytes) -> None:
    server.files["x"] = b"<html>"
    with pytest.raises(MissingData, match="it has 6 bytes, expected 5000"):
        fetch.fetch(published_network(server.url("x"), content=content, size=5000))
    assert remaining_files(weights_folder) == []


def unreachable_url() -> str:
    """URL of a closed port."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/x"


@pytest.mark.pitfall("dead links to weights")
def test_mirrors_are_tried_in_order(server: Server, weights_folder: Path, content: bytes) -> None:
    server.files |= {"wrong": b"x" * 5000, "right": content, "spare": content}
    urls = [unreachable_url(), *(server.url(name) for name in ("gone", "wrong", "right", "spare"))]
    assert fetch.fetch(published_network(*urls, content=content))[1].verified
    assert [name for name, _ in server.requests] == ["gone", "wrong", "right"]
    assert remaining_files(weights_folder) == ["inception.safetensors"]


def test_all_failures_are_listed_with_remedies(server: Server, content: bytes) -> None:
    unreachable = unreachable_url()
    with pytest.raises(MissingData) as caught:
        fetch.fetch(published_network(unreachable, server.url("gone"), content=content))
    message = str(caught.value)
    assert re.search(rf"{unreachable}: .*refused", message)
    assert f"{server.url('gone')}: HTTP 404 Not Found" in message
    assert "a shelf (by hand)" in message
    assert message.endswith("python -m vfbench weights import inception FILE")


# I3D: sources of two files, verified by tensors instead of file hashes.


def checkpoint(folder: Path, seed: int = 0) -> dict[str, bytes]:
    write_bundle(folder / "model.ckpt", arrays_of(seed))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def bundle_at(server: Server, folder: str) -> Source:
    names = ("model.ckpt.index", "model.ckpt.data-00000-of-00001")
    return Source(tuple(Download(name, (server.url(f"{folder}/{name}"),)) for name in names))


def test_the_next_source_is_tried_when_one_holds_other_weights(
    server: Server, weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(i3d, "table", table)
    for source, seed in (("inflated", 1), ("right", 0)):
        files = checkpoint(tmp_path / source, seed)
        server.files |= {f"{source}/{name}": content for name, content in files.items()}
    sources = tuple(bundle_at(server, source) for source in ("gone", "inflated", "right"))
    path, result = fetch.fetch(Network("i3d", "", "tensors", sources))
    assert result.verified
    assert remaining_files(weights_folder) == [path.name]
    path.unlink()
    with pytest.raises(
        MissingData, match=r"(?s)gone/model.ckpt.index: HTTP 404.*inflated/model.ckpt.index: .*inflated from ImageNet"
    ):
        fetch.fetch(Network("i3d", "", "tensors", sources[:2]))


def test_a_complete_file_is_kept_when_the_other_fails(
    server: Server, weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(i3d, "table", table)
    files = {f"a/{name}": content for name, content in checkpoint(tmp_path / "a").items()}
    server.files["a/model.ckpt.index"] = files["a/model.ckpt.index"]
    network = Network("i3d", "", "tensors", (bundle_at(server, "a"),))
    with pytest.raises(MissingData, match="data-00000-of-00001: HTTP 404"):
        fetch.fetch(network)
    assert remaining_files(weights_folder) == ["downloads/model.ckpt.index"]
    server.files, server.requests = files, []
    assert fetch.fetch(network)[1].verified
    assert [name for name, _ in server.requests] == ["a/model.ckpt.data-00000-of-00001"]


# Offline, locks and full disks.


@pytest.mark.parametrize("value", ["1", "true", "ON"])
@pytest.mark.parametrize("name", catalogue.NETWORKS)
def test_offline_every_url_is_printed_and_none_requested(
    name: str, value: str, weights_folder: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(fetch, "urlopen", pytest.fail)
    outcome = vfbench("weights", "fetch", name)
    assert outcome.code == 4
    assert outcome.err.startswith("error: HF_HUB_OFFLINE is set, so nothing is downloaded")
    assert all(url in outcome.err for url in catalogue.NETWORKS[name].urls)
    assert f"python -m vfbench weights import {name} FILE" in outcome.err
    assert not weights_folder.exists()


def test_the_command_prints_the_verified_file(
    server: Server, weights_folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    server.files["x"] = content
    monkeypatch.setitem(catalogue.NETWORKS, "inception", published_network(server.url("x"), content=content))
    outcome = vfbench("weights", "fetch", "inception")
    assert outcome.code == 0, outcome.err
    assert re.fullmatch(
        rf"inception: the published file: x\.pth has SHA-256 \w+\n{weights_folder}/inception.safetensors\n", outcome.out
    )


def test_a_second_fetch_is_refused(server: Server, content: bytes) -> None:
    server.files["x"] = content
    with folder.locked_downloads(), pytest.raises(BadEnvironment, match="in use by another `weights fetch`"):
        fetch.fetch(published_network(server.url("x"), content=content))


def test_a_full_disk_does_not_try_the_next_mirror(
    server: Server, weights_folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files |= {"x": content, "y": content}

    def raise_disk_full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Progress, "advance", raise_disk_full)  # called while the file is written
    with pytest.raises(BadEnvironment, match="No space left on device"):
        fetch.fetch(published_network(server.url("x"), server.url("y"), content=content))
    assert [name for name, _ in server.requests] == ["x"]
