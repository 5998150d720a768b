"""Tests of split batches: gradient accumulation, several processes, recomputed activations."""

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
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig, embedding_options
from vfbench.errors import UserError
from vfbench.interfaces import Dataset
from vfbench.nets.recompute import Recomputing
from vfbench.training.batches import Batch, TrainingBatches
from vfbench.training.clip_sampling import conditioning_probs, crop_options
from vfbench.training.distributed import ProcessGroup
from vfbench.training.precision import recompute
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer, more_parts
from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256

pytestmark = pytest.mark.usefixtures("quick_training")

OPTIONS = TrainOptions(steps=4, batch_size=4, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
HALVES = (slice(0, 4), slice(4, 8))


def tiny_vdit() -> VDiT:
    sizes = {"width": 16, "hidden": 32, "heads": 2, "depth": 2, "patch": 4, "embedding": 16}
    config = ModelConfig.from_preset("vdit", "tiny", vdit.PRESETS, tiny_dataset())
    torch.manual_seed(0)
    model = VDiT(replace(config, options={**config.options, "network": sizes}))
    perturb(model)
    return model


MODELS = pytest.mark.parametrize("create", [tiny_vdm, tiny_videofusion, tiny_vdit])


def trained_weights(output: Path, create: Callable[[], DiffusionModel] = tiny_vdm, **options: Any) -> dict[str, Tensor]:
    """Raw weights after a training."""
    train(create(), tiny_dataset(), replace(OPTIONS, **options), output)
    weights: dict[str, Tensor] = torch.load(output / "training.pt", weights_only=True)["model"]
    return weights


def assert_close_weights(
    actual: dict[str, Tensor], expected: dict[str, Tensor], create: Callable[[], DiffusionModel]
) -> None:
    """Require weights equal but for rounding, in predictions and in almost all values.

    A few weights change no output, such as the bias of an attention key: their gradient is rounding alone, and Adam
    steps along it."""
    assert actual.keys() == expected.keys()
    torch.testing.assert_close(prediction(create, actual), prediction(create, expected), rtol=1e-4, atol=1e-4)
    assert (prediction(create, expected) - prediction(create)).abs().max() > 1e-2  # training changed the predictions
    differences = torch.cat([(actual[name] - expected[name]).abs().flatten() for name in expected])
    assert (differences < 2e-5).float().mean() > 0.98


@torch.no_grad()
def prediction(create: Callable[[], DiffusionModel], state: dict[str, Tensor] | None = None) -> Tensor:
    model = create()
    model.load_state_dict(state or model.state_dict())
    return model.predict(clips_of(model), torch.tensor([300, 700]), embed(model, "text")).eps


# Contents of split batches.


def video_dataset(root: Path) -> Dataset:
    for i, name in enumerate(("moves/a.avi", "moves/b.avi", "spins/c.avi")):
        noise = np.random.default_rng(i).integers(0, 256, (9 + i, 8, 12, 3), dtype=np.uint8)
        write_video(root / name, noise)
    return folder.build(root=str(root), frames=4, height=8, width=8)


def batches(data: Dataset, share: slice, model: DiffusionModel | None = None, **options: Any) -> list[Batch]:
    settings = replace(OPTIONS, batch_size=8, **options)
    draw = (model or tiny_vdm()).draw
    crop, probabilities = crop_options(data, settings), conditioning_probs(data, settings)
    batch = TrainingBatches(data, settings, crop, probabilities, draw, share, CPU)(3)
    return batch.parts(settings.accumulate)


@pytest.mark.parametrize("kind", ["synthetic", "videos"])
def test_shares_and_parts_concatenate_to_the_batch(tmp_path: Path, kind: str) -> None:
    data = tiny_dataset() if kind == "synthetic" else video_dataset(tmp_path)
    (batch,) = batches(data, slice(0, 8))
    parts = [part for share in HALVES for part in batches(data, share, accumulate=2)]
    assert [len(part.clips) for part in parts] == [2, 2, 2, 2]
    assert torch.equal(torch.cat([part.clips for part in parts]), batch.clips)
    for name in ("labels", "captions", "conditioning"):
        assert [each for part in parts for each in getattr(part, name)] == getattr(batch, name)


def embedding_vdm() -> DiffusionModel:
    return tiny_vdm(embedding={**embedding_options(), "size": 16})


@pytest.mark.parametrize("create", [tiny_vdm, tiny_videofusion, tiny_vdit, embedding_vdm])
def test_parts_have_the_times_and_noise_of_the_batch(create: Callable[[], DiffusionModel]) -> None:
    (batch,) = batches(tiny_dataset(), slice(0, 8), create())
    parts = [part for share in HALVES for part in batches(tiny_dataset(), share, create(), accumulate=2)]
    assert batch.draws.keys() >= {"t", "noise"}
    for name, value in batch.draws.items():
        assert len(value) == 8
        assert torch.equal(torch.cat([part.draws[name] for part in parts]), value)


def test_draws_depend_on_the_generator_and_not_on_weights() -> None:
    with_embedding, without_embedding = (
        model.draw(3, torch.Generator().manual_seed(1)) for model in (embedding_vdm(), tiny_vdm(perturbed=False))
    )
    assert with_embedding.keys() > without_embedding.keys() == {"t", "noise"}
    assert all(torch.equal(with_embedding[name], without_embedding[name]) for name in without_embedding)


@pytest.mark.parametrize("rows", [1, 10])
def test_a_draw_without_a_row_for_each_clip_is_refused(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiffusionModel, "draw", lambda model, count, generator: {"noise": torch.zeros(rows, 3)})
    with pytest.raises(ValueError, match=rf"draw\(8, \.\.\.\) gave shape \({rows}, 3\) for 'noise': needs 8 rows"):
        batches(tiny_dataset(), slice(0, 8))


def test_a_batch_that_does_not_split_into_equal_parts_is_refused() -> None:
    (batch,) = batches(tiny_dataset(), slice(0, 8))
    with pytest.raises(ValueError, match="cannot split 8 clips into 3 equal parts"):
        batch.parts(3)


# Weights after split steps.


@pytest.mark.slow
@pytest.mark.one_case
@MODELS
def test_accumulated_steps_equal_full_batches(tmp_path: Path, create: Callable[[], DiffusionModel]) -> None:
    full, accumulated = (trained_weights(tmp_path / str(n), create, accumulate=n) for n in (1, 4))
    assert_close_weights(accumulated, full, create)
    assert any(not torch.equal(accumulated[name], full[name]) for name in full)  # the results differ by rounding


class LimitedMemory:
    """GPU memory for the gradients of `room` clips at once; records batch sizes in `batch_sizes`."""

    def __init__(self, room: int) -> None:
        self.room, self.batch_sizes = room, list[int]()

    def backward(self, trainer: Trainer, part: Batch, count: int, *, last: bool) -> Tensor:
        self.batch_sizes.append(len(part.clips))
        terms = _BACKWARD(trainer, part, count, last=last)  # so that the error comes after the gradients
        if len(part.clips) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return terms


_BACKWARD = Trainer._backward


@pytest.mark.slow
def test_out_of_memory_splits_the_step_and_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, memory = trained_weights(tmp_path / "parts", accumulate=4), LimitedMemory(room=1)
    monkeypatch.setattr(
        Trainer, "_backward", lambda trainer, part, count, *, last: memory.backward(trainer, part, count, last=last)
    )
    actual = trained_weights(tmp_path / "whole")
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert memory.batch_sizes[:6] == [4, 2, 1, 1, 1, 1]
    assert set(memory.batch_sizes[2:]) == {1}  # from here on
    messages = capsys.readouterr().err
    assert "step 1 does not fit into the memory of the GPU: continuing with --accumulate 2" in messages
    assert "continuing with --accumulate 4" in messages


@pytest.mark.parametrize(("parts", "clips", "more"), [(1, 8, 2), (1, 9, 3), (2, 12, 4), (4, 6, 6), (3, 7, 7)])
def test_more_parts_at_least_doubles_the_number_of_equal_parts(parts: int, clips: int, more: int) -> None:
    assert more_parts(parts, clips) == more


@pytest.mark.slow
def test_a_resumed_training_may_change_accumulate(tmp_path: Path) -> None:
    uninterrupted = trained_weights(tmp_path / "whole")
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path / "parts", stop=iter([False, True]).__next__)
    train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, accumulate=2), tmp_path / "parts", resume=True)
    assert_close_weights(
        torch.load(tmp_path / "parts" / "training.pt", weights_only=True)["model"], uninterrupted, tiny_vdm
    )


@pytest.mark.slow
def test_resuming_with_accumulation_is_bit_exact(tmp_path: Path) -> None:
    options = replace(OPTIONS, accumulate=2)
    uninterrupted = trained_weights(tmp_path / "whole", accumulate=2)
    train(tiny_vdm(), tiny_dataset(), options, tmp_path / "parts", stop=iter([False, True]).__next__)
    train(tiny_vdm(), tiny_dataset(), options, tmp_path / "parts", resume=True)
    resumed = torch.load(tmp_path / "parts" / "training.pt", weights_only=True)["model"]
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in uninterrupted)


def test_accumulate_must_divide_the_batch_size(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch-size 4: --accumulate 3 needs a multiple of 3"):
        trained_weights(tmp_path, accumulate=3)


def test_processes_must_divide_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = ProcessGroup("cpu")
    monkeypatch.setattr(processes, "world_size", 3)
    monkeypatch.setattr(processes, "rank", 2)
    assert processes.share(12, 2) == slice(8, 12)
    with pytest.raises(UserError, match="--batch-size 16: 3 processes with --accumulate 2 needs a multiple of 6"):
        processes.share(16, 2)


# Recomputation and precision.


def activation_bytes(model: DiffusionModel) -> int:
    """Bytes of activations stored for the backward pass of one step."""
    clip = tiny_dataset().clips("train", [0, 1]).float() / 127.5 - 1
    sizes: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        losses = model.training_losses(clip, [0, 0], ["", ""], ["none"] * 2, model.draw(2, torch.Generator()))
    assert losses
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    return sum(size for place, size in sizes.items() if place not in parameters)


@MODELS
def test_recomputing_stores_fewer_activations(create: Callable[[], DiffusionModel]) -> None:
    plain, model = create(), create()
    recompute(model)
    assert activation_bytes(model) < 0.5 * activation_bytes(plain)


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@MODELS
def test_recomputing_gives_equal_weights(tmp_path: Path, create: Callable[[], DiffusionModel], dtype: str) -> None:
    plain = trained_weights(tmp_path / "plain", create, dtype=dtype)
    recomputed = trained_weights(tmp_path / "again", create, dtype=dtype, checkpoint_activations=True)
    assert all(torch.equal(recomputed[name], plain[name]) for name in plain)


def test_a_model_that_cannot_recompute_is_refused() -> None:
    assert isinstance(tiny_vdm().network, Recomputing)
    with pytest.raises(UserError, match="--checkpoint-activations: no network of this model"):
        recompute(nn.Linear(1, 1))


@pytest.mark.slow
def test_bfloat16_training_keeps_float32_weights_and_average(tmp_path: Path) -> None:
    trained_weights(tmp_path / "short", dtype="bfloat16")
    trained_weights(tmp_path / "plain")
    state = torch.load(tmp_path / "short" / "training.pt", weights_only=True)
    for part in ("model", "ema"):
        assert {tensor.dtype for tensor in state[part].values()} == {torch.float32}
    averaged = tensor_files.read(tmp_path / "short" / "model.safetensors")
    assert {tensor.dtype for tensor in averaged.values()} == {torch.float32}
    name = "network.head.weight"
    assert not torch.equal(averaged[name], averaged[name].bfloat16().float())  # has more than the 8 bits of bfloat16
    assert not torch.equal(averaged[name], tensor_files.read(tmp_path / "plain" / "model.safetensors")[name])


# Several processes.

SCRIPT = """
import atexit
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, {tests!r})
from test_train_faults import infinite_gradient, with_added_loss
from test_train_parts import OPTIONS, Trainer, tiny_dataset, tiny_vdm
from vfbench.datasets.shapes import Shapes
from vfbench.errors import MissingData, UserError
from vfbench.training.distributed import ProcessGroup
from vfbench.training.train import train

Trainer.write_preview = lambda run: None
output = Path(sys.argv[1])


@atexit.register  # registered before the handler of a process group, and so called after it
def record_threads():
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
nonfinite = with_added_loss(tiny_vdm(), 2 if rank == 1 else 99, infinite_gradient)
for name, model, dataset, options in (
    ("broken", tiny_vdm(), Broken(tiny_dataset().shape), OPTIONS),
    ("odd", tiny_vdm(), tiny_dataset(), replace(OPTIONS, batch_size=5)),
    ("whole", tiny_vdm(), tiny_dataset(), OPTIONS),
    ("nonfinite", nonfinite, tiny_dataset(), replace(OPTIONS, save_every=1)),
):
    try:
        train(model, dataset, options, output / name)
    except UserError as error:
        (output / f"{{name}}.{{rank}}").write_text(f"{{type(error).__name__}}: {{error}}")
"""


@pytest.fixture(scope="module")
def distributed_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of the script, run by two processes."""
    output: Path = tmp_path_factory.mktemp("distributed")
    (output / "script.py").write_text(SCRIPT.format(tests=str(ROOT / "tests")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.run([*command, output / "script.py", output], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    (output / "stderr").write_text(process.stderr)
    return output


@pytest.mark.slow
def test_two_processes_train_like_one(distributed_output: Path, tmp_path: Path) -> None:
    single = trained_weights(tmp_path)
    for name in ("whole", "parts"):  # uninterrupted; stopped by one process and resumed with accumulation
        state = torch.load(distributed_output / name / "training.pt", weights_only=True)
        assert state["step"] == OPTIONS.steps
        assert_close_weights(state["model"], single, tiny_vdm)
    config = json.loads((distributed_output / "whole" / "config.json").read_text())
    assert config["sha256"] == file_sha256(distributed_output / "whole" / "model.safetensors")
    assert (distributed_output / "stderr").read_text().count("train vdm: 4/4 steps") == 2  # one line a training


@pytest.mark.slow
def test_an_error_in_one_process_stops_all(distributed_output: Path) -> None:
    errors = {path.name: path.read_text() for path in distributed_output.glob("*.[01]") if path.stem != "threads"}
    assert errors == {
        "broken.0": "UserError: process 1 of 2 stopped: b.avi is damaged",
        "broken.1": "MissingData: b.avi is damaged",
        **{
            f"odd.{r}": "UserError: --batch-size 5: 2 processes with --accumulate 1 needs a multiple of 2" for r in "01"
        },
        **{f"{name}.{r}": errors[f"{name}.0"] for name in ("whole", "nonfinite") for r in "01"},
    }
    assert "whole holds a training run already" in errors["whole.0"]
    assert re.search(r"step 2 is not finite, .*gradient norm (inf|nan)\): .* of step 1 ", errors["nonfinite.0"])
    state = torch.load(distributed_output / "nonfinite" / "training.pt", weights_only=True)
    assert state["step"] == 1
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="/proc lists threads on Linux only")
def test_no_process_group_thread_remains_at_exit(distributed_output: Path) -> None:
    for rank in "01":
        threads = (distributed_output / f"threads.{rank}").read_text()
        assert threads
        assert "gloo" not in threads  # a thread that frees a tensor while Python exits aborts the process
