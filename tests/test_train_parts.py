"""A batch in parts, over processes or one after the other, teaches the same as a whole one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import write_video
from conftest import ROOT
from helpers import CPU, clips_of, embed, perturb, tiny_dataset, tiny_vdm, tiny_videofusion
from torch import Tensor, nn

from vfbench.baselines import vdit
from vfbench.baselines.vdit import VDiT
from vfbench.datasets import folder
from vfbench.diffusion.model import DiffusionModel, ModelConfig, embedding_options
from vfbench.errors import UserError
from vfbench.interfaces import Dataset
from vfbench.nets.recompute import Recomputing
from vfbench.training.batches import Batch, TrainingBatches
from vfbench.training.distributed import ProcessGroup
from vfbench.training.options import conditioning_probs, crop_options
from vfbench.training.precision import recompute
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer, more_parts
from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256

OPTIONS = TrainOptions(steps=4, batch_size=4, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
HALVES = (slice(0, 4), slice(4, 8))


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample sheets and no counting of FLOPs: they take longer than a tiny training."""
    monkeypatch.setattr(Trainer, "write_preview", lambda run: None)
    monkeypatch.setattr(Trainer, "_training_flops", 1)


def tiny_vdit() -> VDiT:
    sizes = {"width": 16, "hidden": 32, "heads": 2, "depth": 2, "patch": 4, "embedding": 16}
    config = ModelConfig.from_preset("vdit", "tiny", vdit.PRESETS, tiny_dataset())
    torch.manual_seed(0)
    model = VDiT(replace(config, options={**config.options, "network": sizes}))
    perturb(model)
    return model


MODELS = pytest.mark.parametrize("create", [tiny_vdm, tiny_videofusion, tiny_vdit])


def learnt(output: Path, create: Callable[[], DiffusionModel] = tiny_vdm, **options: Any) -> dict[str, Tensor]:
    """The raw weights after a training."""
    train(create(), tiny_dataset(), replace(OPTIONS, **options), output)
    found: dict[str, Tensor] = torch.load(output / "training.pt", weights_only=True)["model"]
    return found


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor], create: Callable[[], DiffusionModel]) -> None:
    """The same but for rounding: what the model says, and almost all weights.

    A few change no output, such as the bias of a key: their gradient is rounding alone, and Adam makes steps of it.
    """
    assert found.keys() == expected.keys()
    torch.testing.assert_close(said(create, found), said(create, expected), rtol=1e-4, atol=1e-4)
    assert (said(create, expected) - said(create)).abs().max() > 1e-2  # something was learnt
    apart = torch.cat([(found[name] - expected[name]).abs().flatten() for name in expected])
    assert (apart < 2e-5).float().mean() > 0.98


@torch.no_grad()
def said(create: Callable[[], DiffusionModel], state: dict[str, Tensor] | None = None) -> Tensor:
    model = create()
    model.load_state_dict(state or model.state_dict())
    return model.predict(clips_of(model), torch.tensor([300, 700]), embed(model, "text")).eps


# What is drawn.


def real(root: Path) -> Dataset:
    for i, name in enumerate(("moves/a.avi", "moves/b.avi", "spins/c.avi")):
        noise = np.random.default_rng(i).integers(0, 256, (9 + i, 8, 12, 3), dtype=np.uint8)
        write_video(root / name, noise)
    return folder.build(root=str(root), frames=4, height=8, width=8)


def batches(data: Dataset, share: slice, model: DiffusionModel | None = None, **options: Any) -> list[Batch]:
    wanted = replace(OPTIONS, batch_size=8, **options)
    draw = (model or tiny_vdm()).draw
    batch = TrainingBatches(
        data, wanted, crop_options(data, wanted), conditioning_probs(data, wanted), draw, share, CPU
    )(3)
    return batch.parts(wanted.accumulate)


@pytest.mark.parametrize("kind", ["made", "read"])
def test_shares_and_parts_of_a_batch_are_the_batch(tmp_path: Path, kind: str) -> None:
    data = tiny_dataset() if kind == "made" else real(tmp_path)
    (whole,) = batches(data, slice(0, 8))
    parts = [part for share in HALVES for part in batches(data, share, accumulate=2)]
    assert [len(part.clips) for part in parts] == [2, 2, 2, 2]
    assert torch.equal(torch.cat([part.clips for part in parts]), whole.clips)
    for name in ("labels", "captions", "conditioning"):
        assert [each for part in parts for each in getattr(part, name)] == getattr(whole, name)


def embedded() -> DiffusionModel:
    return tiny_vdm(embedding={**embedding_options(), "size": 16})


@pytest.mark.parametrize("create", [tiny_vdm, tiny_videofusion, tiny_vdit, embedded])
def test_parts_meet_the_times_and_noise_of_the_whole(create: Callable[[], DiffusionModel]) -> None:
    (whole,) = batches(tiny_dataset(), slice(0, 8), create())
    parts = [part for share in HALVES for part in batches(tiny_dataset(), share, create(), accumulate=2)]
    assert whole.draws.keys() >= {"t", "noise"}
    for name, value in whole.draws.items():
        assert len(value) == 8
        assert torch.equal(torch.cat([part.draws[name] for part in parts]), value)


def test_what_is_drawn_follows_from_the_generator_and_not_from_weights() -> None:
    one, two = (model.draw(3, torch.Generator().manual_seed(1)) for model in (embedded(), tiny_vdm(perturbed=False)))
    assert one.keys() > two.keys() == {"t", "noise"}
    assert all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize("rows", [1, 10])
def test_a_draw_without_a_row_for_each_clip_is_refused(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiffusionModel, "draw", lambda model, count, generator: {"noise": torch.zeros(rows, 3)})
    with pytest.raises(ValueError, match=rf"draw\(8, \.\.\.\) gave shape \({rows}, 3\) for 'noise': needs 8 rows"):
        batches(tiny_dataset(), slice(0, 8))


def test_a_batch_that_does_not_split_into_equal_parts_is_refused() -> None:
    (whole,) = batches(tiny_dataset(), slice(0, 8))
    with pytest.raises(ValueError, match="cannot split 8 clips into 3 equal parts"):
        whole.parts(3)


# What is learnt.


@MODELS
def test_accumulating_teaches_what_a_whole_batch_does(tmp_path: Path, create: Callable[[], DiffusionModel]) -> None:
    whole, parts = (learnt(tmp_path / str(n), create, accumulate=n) for n in (1, 4))
    assert_alike(parts, whole, create)
    assert any(not torch.equal(parts[name], whole[name]) for name in whole)  # it was another computation


class Full:
    """A GPU whose memory takes the gradients of so many clips at once."""

    def __init__(self, room: int) -> None:
        self.room, self.tried = room, list[int]()

    def learn(self, run: Trainer, part: Batch, count: int, *, last: bool) -> Tensor:
        self.tried.append(len(part.clips))
        terms = _LEARN(run, part, count, last=last)  # the gradients are there already when it fails
        if len(part.clips) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return terms


_LEARN = Trainer._backward


def test_a_step_that_does_not_fit_is_made_in_smaller_parts_and_teaches_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, memory = learnt(tmp_path / "parts", accumulate=4), Full(room=1)
    monkeypatch.setattr(
        Trainer, "_backward", lambda run, part, count, *, last: memory.learn(run, part, count, last=last)
    )
    found = learnt(tmp_path / "whole")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert memory.tried[:6] == [4, 2, 1, 1, 1, 1]
    assert set(memory.tried[2:]) == {1}  # from here on
    told = capsys.readouterr().err
    assert "step 1 does not fit into the memory of the GPU: continuing with --accumulate 2" in told
    assert "continuing with --accumulate 4" in told


@pytest.mark.parametrize(("parts", "clips", "more"), [(1, 8, 2), (1, 9, 3), (2, 12, 4), (4, 6, 6), (3, 7, 7)])
def test_a_batch_is_cut_into_at_least_twice_as_many_equal_parts(parts: int, clips: int, more: int) -> None:
    assert more_parts(parts, clips) == more


def test_a_resumed_run_may_accumulate_otherwise(tmp_path: Path) -> None:
    whole = learnt(tmp_path / "whole")
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path / "parts", stop=iter([False, True]).__next__)
    train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, accumulate=2), tmp_path / "parts", resume=True)
    assert_alike(torch.load(tmp_path / "parts" / "training.pt", weights_only=True)["model"], whole, tiny_vdm)


def test_stopped_and_resumed_in_parts_is_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    options = replace(OPTIONS, accumulate=2)
    whole = learnt(tmp_path / "whole", accumulate=2)
    train(tiny_vdm(), tiny_dataset(), options, tmp_path / "parts", stop=iter([False, True]).__next__)
    train(tiny_vdm(), tiny_dataset(), options, tmp_path / "parts", resume=True)
    found = torch.load(tmp_path / "parts" / "training.pt", weights_only=True)["model"]
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_batch_that_does_not_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch-size 4: --accumulate 3 needs a multiple of 3"):
        learnt(tmp_path, accumulate=3)


def test_a_batch_that_does_not_split_over_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = ProcessGroup("cpu")
    monkeypatch.setattr(processes, "world_size", 3)
    monkeypatch.setattr(processes, "rank", 2)
    assert processes.share(12, 2) == slice(8, 12)
    with pytest.raises(UserError, match="--batch-size 16: 3 processes with --accumulate 2 needs a multiple of 6"):
        processes.share(16, 2)


# Less memory.


def kept_for_backward(model: DiffusionModel) -> int:
    """Bytes of activations that one step keeps."""
    clip = tiny_dataset().clips("train", [0, 1]).float() / 127.5 - 1
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model.training_losses(clip, [0, 0], ["", ""], ["none"] * 2, model.draw(2, torch.Generator()))
    assert losses
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    return sum(size for place, size in sizes.items() if place not in own)


@MODELS
def test_recomputing_keeps_less(create: Callable[[], DiffusionModel]) -> None:
    plain, model = create(), create()
    recompute(model)
    assert kept_for_backward(model) < 0.5 * kept_for_backward(plain)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@MODELS
def test_recomputing_changes_nothing(tmp_path: Path, create: Callable[[], DiffusionModel], dtype: str) -> None:
    plain = learnt(tmp_path / "plain", create, dtype=dtype)
    again = learnt(tmp_path / "again", create, dtype=dtype, checkpoint_activations=True)
    assert all(torch.equal(again[name], plain[name]) for name in plain)


def test_a_model_that_cannot_recompute_is_refused() -> None:
    assert isinstance(tiny_vdm().network, Recomputing)
    with pytest.raises(UserError, match="--checkpoint-activations: no network of this model"):
        recompute(nn.Linear(1, 1))


def test_average_and_weights_are_float32_in_bfloat16(tmp_path: Path) -> None:
    learnt(tmp_path / "short", dtype="bfloat16")
    learnt(tmp_path / "plain")
    state = torch.load(tmp_path / "short" / "training.pt", weights_only=True)
    for part in ("model", "ema"):
        assert {tensor.dtype for tensor in state[part].values()} == {torch.float32}
    saved = tensor_files.read(tmp_path / "short" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    name = "network.head.weight"
    assert not torch.equal(saved[name], saved[name].bfloat16().float())  # finer than bfloat16 can say
    assert not torch.equal(saved[name], tensor_files.read(tmp_path / "plain" / "model.safetensors")[name])


# Several processes.

SCRIPT = """
import atexit
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, {tests!r})
from test_train_faults import spoilt, steep
from test_train_parts import OPTIONS, Trainer, tiny_dataset, tiny_vdm
from vfbench.datasets.shapes import Shapes
from vfbench.errors import MissingData, UserError
from vfbench.training.distributed import ProcessGroup
from vfbench.training.train import train

Trainer.write_preview = lambda run: None
output = Path(sys.argv[1])


@atexit.register  # registered before the handler of a process group, and so called after it
def tell_threads():
    threads = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    (output / f"threads.{{rank}}").write_text(" ".join(threads))


rank = ProcessGroup("cpu").rank


class Broken(Shapes):
    def clips(self, split, indices, device=None):
        if rank == 1:
            raise MissingData("b.avi is damaged")
        return super().clips(split, indices, device)


train(tiny_vdm(), tiny_dataset(), OPTIONS, output / "whole")
train(tiny_vdm(), tiny_dataset(), OPTIONS, output / "parts", stop=iter([False, rank == 1]).__next__)
train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, accumulate=2), output / "parts", resume=True)
for name, model, dataset, options in (
    ("broken", tiny_vdm(), Broken(tiny_dataset().shape), OPTIONS),
    ("odd", tiny_vdm(), tiny_dataset(), replace(OPTIONS, batch_size=5)),
    ("whole", tiny_vdm(), tiny_dataset(), OPTIONS),
    ("steep", spoilt(tiny_vdm(), 2 if rank == 1 else 99, steep), tiny_dataset(), replace(OPTIONS, save_every=1)),
):
    try:
        train(model, dataset, options, output / name)
    except UserError as error:
        (output / f"{{name}}.{{rank}}").write_text(f"{{type(error).__name__}}: {{error}}")
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made of the script."""
    output: Path = tmp_path_factory.mktemp("together")
    (output / "script.py").write_text(SCRIPT.format(tests=str(ROOT / "tests")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, output / "script.py", output], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (output / "stderr").write_text(done.stderr)
    return output


@pytest.mark.slow
def test_two_processes_learn_what_one_does(together: Path, tmp_path: Path) -> None:
    alone = learnt(tmp_path)
    for name in ("whole", "parts"):  # undisturbed; stopped by one of them, and taken up in smaller parts
        state = torch.load(together / name / "training.pt", weights_only=True)
        assert state["step"] == OPTIONS.steps
        assert_alike(state["model"], alone, tiny_vdm)
    config = json.loads((together / "whole" / "config.json").read_text())
    assert config["sha256"] == file_sha256(together / "whole" / "model.safetensors")
    assert (together / "stderr").read_text().count("train vdm: 4/4 steps") == 2  # one line a training


@pytest.mark.slow
def test_what_fails_in_one_process_ends_all(together: Path) -> None:
    told = {path.name: path.read_text() for path in together.glob("*.[01]") if path.stem != "threads"}
    assert told == {
        "broken.0": "UserError: process 1 of 2 stopped: b.avi is damaged",
        "broken.1": "MissingData: b.avi is damaged",
        **{
            f"odd.{r}": "UserError: --batch-size 5: 2 processes with --accumulate 1 needs a multiple of 2" for r in "01"
        },
        **{f"{name}.{r}": told[f"{name}.0"] for name in ("whole", "steep") for r in "01"},
    }
    assert "whole holds a training run already" in told["whole.0"]
    assert re.search(r"step 2 is not finite, .*gradient norm (inf|nan)\): .* of step 1 ", told["steep.0"])
    state = torch.load(together / "steep" / "training.pt", weights_only=True)
    assert state["step"] == 1
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux tells the threads of a process")
def test_no_thread_of_the_process_group_outlives_it(together: Path) -> None:
    for rank in "01":
        threads = (together / f"threads.{rank}").read_text()
        assert threads
        assert "gloo" not in threads  # one that lets go of a tensor while Python ends aborts the process
