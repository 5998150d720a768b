"""Tests of run folders and datasets in object stores: an S3 server in this process, and fsspec's memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from conftest import Command, file_contents, python, results, without_timings
from preparing import SPEC
from processes import tasks

import vfbench as package
from vfbench import plugins
from vfbench.baselines.noise import Noise
from vfbench.errors import BadEnvironment, UserError
from vfbench.pipeline import workers
from vfbench.utils import process_id
from vfbench.utils.files import cache_folder
from vfbench.utils.store import Store, local_path, url_of

RUN: dict[str, Any] = {"model": "noise", "num_samples": 70, "metrics": ("fvd",), "device": "cpu", "batch_size": 16}
RUN["smoke"] = True
NOT_SHARED = {".lock", "comparisons.json"}
ELSEWHERE = "0123abcd.9"  # a process of another machine


@pytest.fixture
def on_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Function that gives this process the cache folder of a machine, by name; real features are common to all."""
    (real := cache_folder() / "real").mkdir(parents=True, exist_ok=True)

    def change(name: str) -> None:
        (folder := tmp_path / f"cache-{name}").mkdir()
        (folder / "real").symlink_to(real)
        monkeypatch.setenv("VFBENCH_CACHE", str(folder))

    return change


def contents(url: str) -> dict[str, bytes]:
    """Bytes of every object below a URL, by relative name."""
    files, root = fsspec.core.url_to_fs(url)
    found = files.find(root)
    return {name.removeprefix(root).lstrip("/"): files.cat_file(name) for name in found}


# Paths and URLs.


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/run", "s3://bucket/run"),
        ("S3://bucket/run/", "s3://bucket/run"),
        (Path("s3://bucket/run"), "s3://bucket/run"),
        (Path("gs://bucket/run") / "seed-1", "gs://bucket/run/seed-1"),
        ("runs/s3:/x", None),
        ("s3:/x", None),
        ("C:/runs", None),
        ("file:///tmp/x", None),
        ("simplecache::s3://bucket/run", None),
    ],
)
def test_a_url_is_told_from_a_path(path: str | Path, url: str | None) -> None:
    assert url_of(path) == url


def test_file_urls_are_local_paths(tmp_path: Path) -> None:
    assert local_path(f"file://{tmp_path}/run") == local_path(Path(f"file://{tmp_path}/run")) == tmp_path / "run"
    assert local_path("runs/x") == Path("runs/x")
    assert Store.of("runs/x") is Store.of(f"file://{tmp_path}") is None


# Objects.


@pytest.mark.parametrize("kind", ["s3", "memory"])
def test_files_are_published_and_fetched_where_they_differ(
    kind: str, request: pytest.FixtureRequest, on_machine: Callable[[str], None]
) -> None:
    url = f"{request.getfixturevalue('bucket')}/files" if kind == "s3" else "memory://run"
    on_machine("a")
    ours = Store(url)
    (ours.copy / "chunks").mkdir(parents=True)
    (file := ours.copy / "chunks" / "0").write_bytes(b"ours")
    ours.publish(ours.copy / "chunks", first=True)
    on_machine("b")
    theirs = Store(url)
    assert not theirs.fetch("chunks/1")
    (theirs.copy / "chunks").mkdir(parents=True)
    (theirs.copy / "chunks" / "0").write_bytes(b"theirs")
    theirs.publish(theirs.copy / "chunks" / "0", first=True)
    assert (theirs.copy / "chunks" / "0").read_bytes() == b"ours"  # the first stays
    before = (theirs.copy / "chunks" / "0").stat().st_ino
    theirs.fetch_folder("chunks")
    assert (theirs.copy / "chunks" / "0").stat().st_ino == before
    file.write_bytes(b"changed")
    ours.publish(file)
    assert theirs.fetch("chunks/0")
    assert (theirs.copy / "chunks" / "0").read_bytes() == b"changed"
    assert contents(url) == {"chunks/0": b"changed"}
    for _ in range(2):
        ours.remove("chunks/0")
    assert ours.entries("chunks") == {}


def test_a_cut_off_object_is_told(bucket: str, on_machine: Callable[[str], None], monkeypatch: Any) -> None:
    on_machine("a")
    store = Store(f"{bucket}/cut")
    store.copy.mkdir(parents=True)
    (store.copy / "0").write_bytes(b"content")
    put = store._files.pipe_file
    monkeypatch.setattr(store._files, "pipe_file", lambda name, content, mode: put(name, content[:3], mode=mode))
    with pytest.raises(BadEnvironment, match="3 of 7 bytes"):
        store.publish(store.copy / "0", first=True)
    assert contents(store.url) == {}


# Runs.


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the run on a disk."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    package.run(output=folder, **RUN)
    return folder


def require_same(url: str, alone: Path) -> None:
    """Fail unless scores, chunks, samples and card are those of the run on a disk, and no worker's file is left."""
    there, here = contents(url), file_contents(alone)
    assert without_timings(json.loads(there["results.json"])) == without_timings(results(alone))
    parts = ("chunks/", "samples/", "data.md", "manifest.csv", "scored.safetensors")
    same = {name for name in here if name.startswith(parts)}
    assert {name: there.get(name) for name in same} == {name: here[name] for name in same}
    assert {name.partition("/")[0] for name in there} == {name.partition("/")[0] for name in here} - NOT_SHARED


@pytest.mark.slow
def test_a_run_resumes_on_another_machine_and_is_read_on_a_third(
    bucket: str, alone: Path, on_machine: Callable[[str], None], vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, sizes = f"{bucket}/deep/run", list[int]()
    original = Noise.sample

    def sample(self: Noise, requests: Any) -> Any:
        sizes.append(len(requests))
        return original(self, requests)

    monkeypatch.setattr(Noise, "sample", sample)
    on_machine("a")
    assert package.run(output=url, **RUN).run_dir == url
    require_same(url, alone)
    files = fsspec.filesystem("s3")
    files.rm_file(f"{url}/results.json")
    files.rm_file(f"{url}/chunks/000001.safetensors")
    damaged = bytearray(files.cat_file(f"{url}/chunks/000002.safetensors"))
    damaged[-5] ^= 0xFF
    files.pipe_file(f"{url}/chunks/000002.safetensors", bytes(damaged))
    stopped = json.loads(vfbench("status", url, "--json").out)
    assert (stopped["state"], stopped["chunks_done"], stopped["folder"]) == ("stopped", 2, url)
    on_machine("b")
    sizes.clear()
    result = package.run(output=url, **RUN)
    assert sizes[-3:] == [16, 16, 6]
    require_same(url, alone)
    on_machine("c")
    assert package.load_results(url, Path(url), f"{url}/results.json")[0].to_json() == result.to_json()
    assert "70 of 70 clips" in vfbench("status", url).out
    assert vfbench("table", url, "--allow-mixed").out == vfbench("table", alone, "--allow-mixed").out
    assert vfbench("gate", url, "--baseline", alone, "--rule", "fvd:+5%").out.count("paired") == 1


@pytest.mark.parametrize("name", ["results.json", "training.pt"])
def test_a_folder_of_the_store_with_files_of_others_is_refused(name: str, on_machine: Callable[[str], None]) -> None:
    on_machine("a")
    url = f"memory://others-{name}"
    fsspec.filesystem("memory").pipe(f"/others-{name}/{name}", b"mine")
    with pytest.raises(UserError, match=rf"{url} holds a {name}.*--output"):
        package.run(output=url, **RUN)
    assert contents(url) == {name: b"mine"}


@pytest.mark.slow
def test_what_a_lost_connection_kept_here_is_published_and_another_run_takes_its_place(
    alone: Path,
    on_machine: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    on_machine("a")
    put, here = Store.publish, file_contents(alone / "chunks")

    def lose(self: Store, *paths: Path, first: bool = False) -> None:
        if any(path.name == "000001.safetensors" for path in paths):
            raise BadEnvironment("lost")
        put(self, *paths, first=first)

    with monkeypatch.context() as changed:
        changed.setattr(Store, "publish", lose)
        with pytest.raises(BadEnvironment):
            package.run(output="memory://run", **RUN)
    assert contents("memory://run/chunks").keys() == here.keys() - {"000001.safetensors", "000002.safetensors"}
    package.run(output="memory://run", **RUN)
    assert contents("memory://run/chunks") == here
    assert "resumed: 64 of 70" in capfd.readouterr().err
    with pytest.raises(UserError, match=r"memory://run holds another run \(seed: 0 there, 1 asked"):
        package.run(output="memory://run", **RUN, seed=1)
    fsspec.filesystem("memory").rm("/run", recursive=True)
    package.run(output="memory://run", **RUN, seed=1)
    assert all(content != here[name] for name, content in contents("memory://run/chunks").items())
    assert "cannot be used" not in capfd.readouterr().err  # nor was any chunk in the cache folder


def test_the_chunk_of_a_silent_worker_elsewhere_is_made_and_it_is_named(
    bucket: str, on_machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.01)
    on_machine("a")
    store = Store(f"{bucket}/silent")
    folder = store.copy / "workers"
    folder.mkdir(parents=True)
    (claim := folder / f"a.{ELSEWHERE}.json").write_text('{"rank": 7}')
    store.publish(claim)
    claim.unlink()
    worker, done = workers.Worker(store.copy, workers.Rank(), 0.3, store), list[str]()
    with worker.working():
        for item in worker.share(["a", "b"], done.__contains__):
            done.append(item)
    assert done == ["b", "a"]
    assert f"worker 7 ({ELSEWHERE}) showed no sign of life" in capfd.readouterr().err
    events = f"events/{process_id.process_id()}.jsonl"
    assert contents(store.url).keys() == {f"workers/failed.{ELSEWHERE}.json", events}
    worker.clear()
    assert contents(store.url).keys() == {events}


def test_the_item_of_a_lost_actor_is_free_in_the_store(on_machine: Callable[[str], None]) -> None:
    on_machine("a")
    files = fsspec.filesystem("memory")
    for item in ("000001", "000002"):
        process = ELSEWHERE if item == "000001" else "0123abcd.8"
        files.pipe_file(f"/actors/workers/{item}.{process}.json", b'{"rank": 7}')
    workers.release_process(Path("memory://actors"), ELSEWHERE)
    left = contents("memory://actors")
    assert left.keys() == {f"workers/failed.{ELSEWHERE}.json", "workers/000002.0123abcd.8.json"}
    assert json.loads(left[f"workers/failed.{ELSEWHERE}.json"])["rank"] == 7


@pytest.mark.slow
def test_workers_of_two_machines_give_the_run_of_one(bucket: str, tmp_path: Path) -> None:
    options = ["--model", "noise", "--metrics", "fvd", "--smoke", "--device", "cpu", "-n", "70", "--keep-clips"]
    command = python("-m", "vfbench", "run", *options, "--output")
    assert subprocess.run([*command, str(tmp_path / "alone")], check=False).returncode == 0
    processes = [
        subprocess.Popen(
            [*command, f"{bucket}/shared"],
            env={**os.environ, **variables, "VFBENCH_CACHE": str(tmp_path / f"cache-{number}")},
        )
        for number, variables in enumerate(tasks(2))
    ]
    assert [process.wait() for process in processes] == [0, 0]
    require_same(f"{bucket}/shared", tmp_path / "alone")
    for run, page in ((f"{bucket}/shared", "there"), (str(tmp_path / "alone"), "here")):
        package.write_report([run], tmp_path / page, allow_mixed=True, num_clips=40)
    clips = [file_contents(tmp_path / page / "clips") for page in ("there", "here")]
    assert clips[0] == clips[1]
    assert len(clips[0]) >= 80  # with the real ones


# Datasets.


def test_a_prepared_dataset_is_read_from_a_url(
    bucket: str, prepared_ucf101: Path, on_machine: Callable[[str], None]
) -> None:
    files = fsspec.filesystem("s3")
    files.put(str(prepared_ucf101), f"{bucket}/ucf101", recursive=True)
    on_machine("a")
    here, there = (
        plugins.load("dataset", plugins.parse(SPEC).merged({"root": str(root)}))
        for root in (prepared_ucf101, f"{bucket}/ucf101")
    )
    assert there.fingerprint == here.fingerprint
    assert (there.clips("train", [0, 1]) == here.clips("train", [0, 1])).all()
    shutil.rmtree(local_path(f"{bucket}/ucf101") / "shards")
    plugins.load("dataset", plugins.parse(SPEC).merged({"root": f"{bucket}/ucf101"}))


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["run", "--output", "s4://bucket/run"], 2, "did you mean s3://"),
        (["run", "--output", "s3://"], 2, "name a bucket"),
        (["run", "--output", "az://bucket/run"], 2, "adlfs"),
        (["run", "--output", "memory://run", "--workers", "2"], 2, "--workers"),
        (["run", "--model", "noise", "--smoke", "--output", "s3://nowhere/run"], 5, "s3://nowhere/run"),
        (
            ["run", "--model", "noise", "--dataset", "ucf101", "--data-root", "s3://bucket/none"],
            4,
            "s3://bucket/none holds no prepared.json",
        ),
        (["generate", "--output", "s3://bucket/x"], 2, "--output s3://bucket/x"),
        (["score", "--real", "shapes", "--fake", ".", "--output", "s3://bucket/x"], 2, "--output s3://bucket/x"),
        (["report", "s3://bucket/none", "-o", "x"], 4, "s3://bucket/none/results.json does not exist"),
        (["status", "s3://bucket/none"], 4, "s3://bucket/none holds no run"),
    ],
)
def test_what_a_store_cannot_do_is_one_line(
    arguments: list[str], code: int, named: str, bucket: str, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    outcome = vfbench(*arguments, "--quiet")
    assert (outcome.code, named in outcome.err) == (code, True), outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("AWS_ACCESS_KEY_ID", "", "AWS_PROFILE"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "see that it can be reached"),
    ],
)
def test_a_store_without_credentials_or_connection_is_named(
    variable: str, value: str, named: str, bucket: str, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as changed:
        changed.setenv(variable, value)
        if not value:
            changed.delenv("AWS_SECRET_ACCESS_KEY")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        outcome = vfbench("table", f"{bucket}/run")
        assert (outcome.code, named in outcome.err, f"{bucket}/run" in outcome.err) == (5, True, True), outcome.err
    fsspec.get_filesystem_class("s3").clear_instance_cache()
