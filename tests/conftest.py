"""Fixtures of all tests: an isolated environment with its own cache and one thread, tiny checkpoints and datasets."""

from __future__ import annotations

import gc
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import NO_TIME, UNET, Colour, perturb, tiny_vdm, tiny_videofusion
from preparing import SPEC, write_ucf101
from torch import Tensor

from vfbench import plugins
from vfbench.baselines import vdm
from vfbench.cli import main
from vfbench.data import shards
from vfbench.data.prepare import prepare
from vfbench.datasets import shapes
from vfbench.diffusion.model import DiffusionModel
from vfbench.metrics._shapes_judge import ShapesJudgeExtractor
from vfbench.models import videofusion
from vfbench.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("VFBENCH_TEST_DATA", ROOT / "../shared/data")).resolve()
TIMINGS = ("seconds_per_clip", "peak_memory_bytes")  # the only values that differ between two runs of one command


gc.disable()  # until all tests are collected: each pass over torch's many objects takes a third of a second


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what the tests make, not over modules and collected tests: a sixth faster."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out the thorough tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as thorough all cases but the first of the tests marked `one_case`."""
    seen = set()
    for item in items:
        if item.get_closest_marker("one_case"):
            test = item.nodeid.partition("[")[0]
            if test in seen:
                item.add_marker(pytest.mark.thorough)
            seen.add(test)


@pytest.fixture(autouse=True, scope="session")
def _isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the user's settings and cache from the tests, and the tests' from the user."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VFBENCH_") and name != "VFBENCH_TEST_DATA"]:
            patch.delenv(name)
        patch.setenv("VFBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("OMP_NUM_THREADS", "1")  # for the subprocesses of tests
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of genuine video files, which the repository does not hold."""
    if not (DATA / "ucf101").is_dir():
        pytest.skip(f"no real video files in {DATA}; set VFBENCH_TEST_DATA")
    return DATA


@pytest.fixture(scope="session")
def reports(real_data: Path) -> Path:
    """Folder of inputs that users have reported, which the repository does not hold."""
    if not (folder := real_data / "reports").is_dir():
        pytest.skip(f"no {folder}; set VFBENCH_TEST_DATA to a folder with it")
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of tiny untrained models at the clip size of Moving Shapes: folders `videofusion` and `vdm`."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for model in (tiny_videofusion(16), tiny_vdm(16)):
        _at_full_size(model).save(folder / model.config.model)
    return folder


@pytest.fixture(scope="session")
def alone(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the run of three chunks, made by one process."""
    from processes import run_command, run_of_three_chunks  # which imports from here

    folder = tmp_path_factory.mktemp("alone") / "run"
    outcome = run_command(run_of_three_chunks(checkpoints, folder))
    assert outcome.returncode == 0, outcome.stderr
    return folder


def _at_full_size(model: DiffusionModel) -> DiffusionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        full = type(model)(replace(model.config, shape=shapes.build().shape))
    perturb(full)
    return full


@pytest.fixture
def few_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the protocol of Moving Shapes to 128 real clips, so that a comparable run takes a second."""
    few = {**shapes.PROTOCOLS["shapes"], "n_real": 128}
    monkeypatch.setattr(shapes, "PROTOCOLS", {"shapes": few})


@pytest.fixture
def quick_training(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write no sample sheets and count no FLOPs: both take longer than a tiny training. `whole` tests do both."""
    if request.node.get_closest_marker("whole"):
        return
    omit_extras(monkeypatch)


def omit_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings write no sample sheets and count no FLOPs."""
    monkeypatch.setattr(Trainer, "write_preview", lambda trainer: None)
    monkeypatch.setattr(Trainer, "_training_flops", 1)


@pytest.fixture
def small_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the presets `tiny` of VideoFusion and VDM, and `tiny-prior` of VDM."""
    base_and_residual = {"base": NO_TIME, "residual": UNET}
    monkeypatch.setitem(videofusion.PRESETS, "tiny", {**videofusion.PRESETS["tiny"], **base_and_residual})
    for name in ("tiny", "tiny-prior"):
        monkeypatch.setitem(vdm.PRESETS, name, {**vdm.PRESETS[name], "network": UNET})


@pytest.fixture
def empty_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an empty folder the working directory."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture
def no_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if the judge embeds a clip: bad input must be refused earlier."""

    def fail(*_: Any) -> dict[str, Tensor]:
        raise AssertionError("the judge was called")

    monkeypatch.setattr(ShapesJudgeExtractor, "__call__", fail)


@pytest.fixture
def loaded_specs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace all extractors but the judge by `Colour`; the value lists the specs that were loaded."""
    specs: list[str] = []
    load = plugins.load

    def stand_in(kind: plugins.Kind, spec: plugins.Spec | str, *context: Any) -> Any:
        if kind != "extractor" or str(spec).startswith("shapes_judge"):
            return load(kind, spec, *context)
        specs.append(str(spec))
        outputs = ("features",) if str(spec).startswith(("videomae", "inception")) else ("logits", "similarity")
        return Colour("nonstandard" if "random" in str(spec) else "verified", outputs)

    monkeypatch.setattr(plugins, "load", stand_in)
    return specs


@dataclass(frozen=True)
class CommandResult:
    """Exit code and captured output of a command line."""

    code: int
    out: str
    err: str


Command = Callable[..., CommandResult]


@pytest.fixture
def vfbench(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process."""

    def run(*arguments: object) -> CommandResult:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exited:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(exited.value.code, int)
        return CommandResult(exited.value.code, out, err)

    return run


def python(*arguments: object) -> list[str]:
    """Command line of a Python subprocess."""
    return [sys.executable, *map(str, arguments)]


def resume_arguments(err: str) -> list[str]:
    """Arguments of the command that resumes an interrupted run, from its error output."""
    line = next(line for line in err.splitlines() if line.strip().startswith("python -m vfbench "))
    return shlex.split(line)[3:]


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


def without_timings(result: Mapping[str, Any]) -> dict[str, Any]:
    """Result without its timings, the signature that depends on them, and its run folder."""
    cost = {key: value for key, value in (result["cost"] or {}).items() if key not in TIMINGS}
    return {**{key: value for key, value in result.items() if key not in ("run_dir", "signature")}, "cost": cost}


def file_contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file below a folder, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def flip_byte(path: Path, offset: int, bits: int = 0xFF) -> None:
    """Flip these bits of the byte at `offset`."""
    content = bytearray(path.read_bytes())
    content[offset] ^= bits
    path.write_bytes(content)


def close_clips(actual: Tensor, expected: Tensor) -> None:
    """Assert equal clips up to float rounding: one grey level, in one byte of a thousand."""
    difference = (actual.int() - expected.int()).abs()
    assert actual.shape == expected.shape
    assert int(difference.max()) <= 1
    assert float((difference == 0).float().mean()) >= 0.999
    assert len({bytes(clip.numpy().tobytes()) for clip in actual}) == len(actual)  # no clip repeated


def close_scores(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Assert equal scores to a relative 1e-4; CLIPSIM, a cosine that can be near 0, to an absolute 1e-5."""
    for name, score in expected["scores"].items():
        tolerance = 1e-5 if name == "clipsim" else 0.0
        assert actual["scores"][name]["value"] == pytest.approx(score["value"], rel=1e-4, abs=tolerance)


@pytest.fixture(scope="session")
def raw_ucf101(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small UCF101 with its split lists; read-only."""
    return write_ucf101(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def ucf101_copy(raw_ucf101: Path, tmp_path: Path) -> Path:
    """Writable copy of `raw_ucf101`."""
    return Path(shutil.copytree(raw_ucf101, tmp_path / "copy"))


@pytest.fixture(scope="session")
def prepared_ucf101(raw_ucf101: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared dataset of `raw_ucf101`; read-only."""
    return prepare(SPEC, tmp_path_factory.mktemp("prepared") / "out", data_root=raw_ucf101)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of at most 24 frames: the small UCF101 has four, the second with two videos."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 24 * 3 * 8 * 8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint folder of a tiny VideoFusion; some test files override this fixture."""
    folder: Path = tmp_path_factory.mktemp("videofusion")
    tiny_videofusion().save(folder)
    return folder


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of a bucket on an S3 server in this process, for which it has credentials."""
    import fsspec
    from moto.moto_api._internal.models import moto_api_backend
    from moto.server import ThreadedMotoServer

    moto_api_backend.reset()  # all servers of a process share their buckets
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as changed:
        variables = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}
        for name, value in {**variables, "EC2_METADATA_DISABLED": "true", "MAX_ATTEMPTS": "1"}.items():
            changed.setenv(f"AWS_{name}", value)
        changed.setattr("s3fs.S3FileSystem.retries", 1)
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # of the server of another test file
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()
