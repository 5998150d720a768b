"""What every test stands on: no setting of the user's, a cache of its own, one thread, and small things to run."""

from __future__ import annotations

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
from helpers import Colour, perturb, tiny_vdm, tiny_videofusion
from preparing import SPEC, write_ucf101
from torch import Tensor

from vfbench import plugins
from vfbench.cli import main
from vfbench.data import shards
from vfbench.data.prepare import prepare
from vfbench.datasets import shapes
from vfbench.diffusion.model import DiffusionModel
from vfbench.metrics._shapes_judge import ShapesJudgeExtractor

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("VFBENCH_TEST_DATA", ROOT / "../shared/data")).resolve()
TIMINGS = ("seconds_per_clip", "peak_memory_bytes")  # all that may differ between two runs of one command


@pytest.fixture(autouse=True, scope="session")
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that the user has set reaches a test, nothing that a test does reaches the user."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VFBENCH_") and name != "VFBENCH_TEST_DATA"]:
            patch.delenv(name)
        patch.setenv("VFBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("OMP_NUM_THREADS", "1")  # of processes that tests start
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of genuine video files, which are no part of the repository."""
    if not (DATA / "ucf101").is_dir():
        pytest.skip(f"no real video files in {DATA}; set VFBENCH_TEST_DATA")
    return DATA


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny untrained models of Moving Shapes at its own size: folders `videofusion` and `vdm`."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for model in (tiny_videofusion(16), tiny_vdm(16)):
        _at_full_size(model).save(folder / model.config.model)
    return folder


def _at_full_size(model: DiffusionModel) -> DiffusionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        full = type(model)(replace(model.config, shape=shapes.build().shape))
    perturb(full)
    return full


@pytest.fixture
def few_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol of Moving Shapes with 128 real clips, so that a comparable run takes a second."""
    few = {**shapes.PROTOCOLS["shapes"], "n_real": 128}
    monkeypatch.setattr(shapes, "PROTOCOLS", {"shapes": few})


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to work in, which holds nothing that a test makes in its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused must be refused before the judge sees a clip."""

    def called(*_: Any) -> dict[str, Tensor]:
        raise AssertionError("a network runs")

    monkeypatch.setattr(ShapesJudgeExtractor, "__call__", called)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`Colour` stands in for all networks but the judge; says with which specs they were asked for."""
    asked: list[str] = []
    load = plugins.load

    def stand_in(kind: plugins.Kind, spec: plugins.Spec | str, *context: Any) -> Any:
        if kind != "extractor" or str(spec).startswith("shapes_judge"):
            return load(kind, spec, *context)
        asked.append(str(spec))
        outputs = ("features",) if str(spec).startswith(("videomae", "inception")) else ("logits", "similarity")
        return Colour("nonstandard" if "random" in str(spec) else "verified", outputs)

    monkeypatch.setattr(plugins, "load", stand_in)
    return asked


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def vfbench(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)

    return run


def python(*arguments: object) -> list[str]:
    """A command for a process of its own."""
    return [sys.executable, *map(str, arguments)]


def resumes(err: str) -> list[str]:
    """The arguments of the command that an interrupted run says goes on."""
    line = next(line for line in err.splitlines() if line.strip().startswith("python -m vfbench "))
    return shlex.split(line)[3:]


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


def lasting(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without its timings, and without the folder that a test has chosen."""
    cost = {key: value for key, value in result["cost"].items() if key not in TIMINGS}
    return {**{key: value for key, value in result.items() if key != "run_dir"}, "cost": cost}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def flip(path: Path, place: int, bits: int = 0xFF) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(content)


def close_clips(found: Tensor, expected: Tensor) -> None:
    """The same clips but for float rounding: one grey level, in one byte of a thousand."""
    difference = (found.int() - expected.int()).abs()
    assert found.shape == expected.shape
    assert int(difference.max()) <= 1
    assert float((difference == 0).float().mean()) >= 0.999
    assert len({bytes(clip.numpy().tobytes()) for clip in found}) == len(found)  # and not the same clip all over


def close_scores(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """The same scores to 1e-4; a CLIPSIM of nearly 0 to 1e-5 of a cosine's range of 1."""
    for name, score in expected["scores"].items():
        tolerance = 1e-5 if name == "clipsim" else 0.0
        assert found["scores"][name]["value"] == pytest.approx(score["value"], rel=1e-4, abs=tolerance)


@pytest.fixture(scope="session")
def raw_ucf101(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small UCF101 with its lists, which no test changes."""
    return write_ucf101(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def own_ucf101(raw_ucf101: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change."""
    return Path(shutil.copytree(raw_ucf101, tmp_path / "own"))


@pytest.fixture(scope="session")
def prepared_ucf101(raw_ucf101: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is prepared of it, which no test changes."""
    return prepare(SPEC, tmp_path_factory.mktemp("prepared") / "out", data_root=raw_ucf101)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of up to 24 frames: four of the small UCF101, of which the second holds two videos."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 24 * 3 * 8 * 8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny VideoFusion; a file whose tests want another has its own."""
    folder: Path = tmp_path_factory.mktemp("videofusion")
    tiny_videofusion().save(folder)
    return folder
