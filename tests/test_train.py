"""Tests of `vfbench.training`: learning, saved files, stopping and resuming, videos, refused settings."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import write_video
from helpers import CPU, OneClip, perturb, tiny_dataset, tiny_vdm, tiny_videofusion
from torch import Tensor, nn

from vfbench.baselines import vdm
from vfbench.baselines.vdm import VDM
from vfbench.data import prepare as preparing
from vfbench.datasets import folder
from vfbench.datasets.shapes import Shapes
from vfbench.diffusion.model import DiffusionModel
from vfbench.errors import BadEnvironment, Interrupted, MissingData, UserError
from vfbench.interfaces import BuildContext, Dataset, Split
from vfbench.models import videofusion
from vfbench.training.distributed import ProcessGroup
from vfbench.training.train import TrainOptions, prepare_training, train
from vfbench.training.trainer import Trainer, lr_factor
from vfbench.utils import tensor_files as weights

pytestmark = pytest.mark.usefixtures("quick_training")

OPTIONS = TrainOptions(steps=6, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
STEPS = 60


class EmptyShapes(Shapes):
    def size(self, split: Split) -> int:
        return 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VDM]:
    """Folder of a VDM trained on one clip, and the model with its raw weights."""
    folder: Path = tmp_path_factory.mktemp("trained")
    model = tiny_vdm(perturbed=False)
    train(model, OneClip(tiny_dataset().shape), replace(OPTIONS, steps=STEPS), folder)
    return folder, model


def loss_of(model: DiffusionModel) -> float:
    """Loss on one clip at 32 fixed times."""
    clip = tiny_dataset().clips("train", [0] * 32).float() / 127.5 - 1
    with torch.no_grad():
        draws = model.draw(32, torch.Generator().manual_seed(7))
        losses = model.training_losses(clip, [0] * 32, [""] * 32, ["none"] * 32, draws)
    return float(torch.stack(list(losses.values())).sum())


def training_state(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "training.pt", weights_only=True)
    return loaded


def flat(tree: Any) -> dict[str, Any]:
    """Leaves of a nested state by path."""
    if isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {f"{key}.{name}": leaf for key, child in pairs for name, leaf in flat(child).items()}
    return {"": tree}


def assert_equal_states(first: Any, second: Any) -> None:
    left, right = flat(first), flat(second)
    assert left.keys() == right.keys()
    left.pop("seconds.", None)  # wall-clock time
    for name, value in left.items():
        equal = torch.equal(value, right[name]) if isinstance(value, Tensor) else value == right[name]
        assert equal, name


# Files of a training.


@pytest.mark.slow
def test_the_loss_falls(trained: tuple[Path, VDM]) -> None:
    folder, raw = trained
    averaged = vdm.build(BuildContext(tiny_dataset(), CPU, checkpoint=folder)).model
    before = loss_of(tiny_vdm(perturbed=False))
    assert loss_of(raw) < 0.8 * before
    assert loss_of(averaged) < 0.8 * before


def test_the_folder_has_the_documented_files(trained: tuple[Path, VDM]) -> None:
    folder, _ = trained
    files = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )
    sheets = [f"samples/step_{STEPS:06d}.{suffix}" for suffix in ("png", "webp")]
    assert files == ["README.md", "config.json", "log.jsonl", "model.safetensors", *sheets, "training.pt"]


def test_the_log_has_a_json_record_per_line(trained: tuple[Path, VDM]) -> None:
    folder, _ = trained
    (entry,) = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert entry.keys() == {"step", "network", "seconds"}
    assert entry["step"] == 50
    assert 0 < entry["network"] < 2


def test_the_log_has_the_mean_loss_since_the_last_line(quick_training: None, tmp_path: Path) -> None:
    losses: list[float] = []

    def record(trainer: Trainer) -> dict[str, float]:
        losses.append(advance(trainer)["network"])
        return {"network": losses[-1]}

    advance = Trainer.advance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "advance", record)
        patch.setattr("vfbench.training.trainer.LOG_EVERY", 3)
        train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, steps=7), tmp_path)
    first, second = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert first["network"] == pytest.approx(sum(losses[:3]) / 3)
    assert second["network"] == pytest.approx(sum(losses[3:6]) / 3)


def test_the_written_weights_are_the_average(trained: tuple[Path, VDM]) -> None:
    folder, raw = trained
    averaged, state = weights.read(folder / "model.safetensors"), training_state(folder)
    assert_equal_states(averaged, dict(state["ema"]))
    assert_equal_states(dict(raw.state_dict()), dict(state["model"]))
    assert not torch.equal(averaged["network.head.weight"], state["model"]["network.head.weight"])


def test_the_training_state_loads_with_weights_only(trained: tuple[Path, VDM]) -> None:
    state = training_state(trained[0])  # `weights_only=True`
    assert state.keys() == {"model", "ema", "optimizer", "step", "seconds", "spec", "extended"}
    assert state["step"] == STEPS
    assert json.loads(state["spec"])["options"]["lr"] == OPTIONS.lr


def test_the_half_option_writes_float16_weights(quick_training: None, tmp_path: Path) -> None:
    train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, steps=1, warmup=1, half=True), tmp_path)
    assert {t.dtype for t in weights.read(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert {t.dtype for t in training_state(tmp_path)["model"].values()} == {
        torch.float32
    }  # the resumable state stays float32


# Reproducibility.


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("create", [tiny_videofusion, tiny_vdm])
def test_resuming_is_bit_exact(
    quick_training: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, create: Callable[[], DiffusionModel]
) -> None:
    uninterrupted, resumed_run = tmp_path / "whole", tmp_path / "parts"
    train(create(), tiny_dataset(), OPTIONS, uninterrupted)
    _stop_after(monkeypatch, 3)
    with pytest.raises(Interrupted):
        train(create(), tiny_dataset(), OPTIONS, resumed_run)
    assert training_state(resumed_run)["step"] == 3
    # The initial weights of the resuming model must not matter.
    resumed = create()
    perturb(resumed)
    train(resumed, tiny_dataset(), OPTIONS, resumed_run, resume=True)
    assert_equal_states(training_state(uninterrupted), training_state(resumed_run))
    assert (uninterrupted / "model.safetensors").read_bytes() == (resumed_run / "model.safetensors").read_bytes()


def _stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Press Ctrl-C during that step."""
    original = Trainer.advance

    def interrupted(trainer: Trainer) -> dict[str, float]:
        losses = original(trainer)
        if trainer.step == step:
            signal.raise_signal(signal.SIGINT)
        return losses

    monkeypatch.setattr(Trainer, "advance", interrupted)


@pytest.mark.whole
def test_resuming_a_completed_training_changes_nothing(trained: tuple[Path, VDM]) -> None:
    folder, _ = trained
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    train(tiny_vdm(), OneClip(tiny_dataset().shape), replace(OPTIONS, steps=STEPS), folder, resume=True)
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


@pytest.mark.slow
def test_the_seed_chooses_the_batches(quick_training: None, tmp_path: Path) -> None:
    for name, seed in {"a": 0, "b": 0, "c": 1}.items():
        torch.manual_seed(ord(name))  # the global state must not matter
        train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, steps=2, seed=seed), tmp_path / name)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


def test_initial_weights_depend_on_the_seed_alone() -> None:
    (first, data), (same_seed, _), (other_seed, _) = (
        prepare_training("vdm", "shapes(frames=4)", "tiny", seed=s) for s in (1, 1, 2)
    )
    assert str(data.shape) == "4x32x32"
    assert_equal_states(dict(first.state_dict()), dict(same_seed.state_dict()))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other_seed.parameters(), strict=True))


# Videos.


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of noise: three videos of two classes whose names are in the vocabulary of the tiny models."""
    folder: Path = tmp_path_factory.mktemp("videos")
    for i, name in enumerate(("moves/a.avi", "moves/b.avi", "spins/c.avi")):
        noise = np.random.default_rng(i).integers(0, 256, (9 + i, 8, 12, 3), dtype=np.uint8)
        write_video(folder / name, noise)
    return folder


def video_dataset(root: Path) -> Dataset:
    return folder.build(root=str(root), frames=4, height=8, width=8)


def weights_after(dataset: Dataset, output: Path, **options: Any) -> bytes:
    return (train(tiny_vdm(), dataset, replace(OPTIONS, **options), output) / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_number_of_workers_does_not_change_the_weights(quick_training: None, videos: Path, tmp_path: Path) -> None:
    weights = {weights_after(video_dataset(videos), tmp_path / str(workers), workers=workers) for workers in (0, 1, 3)}
    assert len(weights) == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.slow
def test_crop_and_flip_change_the_weights(quick_training: None, videos: Path, tmp_path: Path) -> None:
    default = weights_after(video_dataset(videos), tmp_path / "default")
    explicit = weights_after(video_dataset(videos), tmp_path / "explicit", crop="random", flip=True)
    centre = weights_after(video_dataset(videos), tmp_path / "centre", crop="centre")
    unflipped = weights_after(video_dataset(videos), tmp_path / "unflipped", flip=False)
    assert default == explicit
    assert len({default, centre, unflipped}) == 3


@pytest.mark.slow
def test_resuming_on_videos_is_bit_exact(
    quick_training: None, monkeypatch: pytest.MonkeyPatch, videos: Path, tmp_path: Path
) -> None:
    uninterrupted, resumed_run = tmp_path / "whole", tmp_path / "parts"
    weights_after(video_dataset(videos), uninterrupted)
    with monkeypatch.context() as patch:
        _stop_after(patch, 3)
        with pytest.raises(Interrupted):
            weights_after(video_dataset(videos), resumed_run, workers=3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    with pytest.raises(UserError, match=r"other settings \(--flip saved, --no-flip now\)"):
        train(tiny_vdm(), video_dataset(videos), replace(OPTIONS, flip=False), resumed_run, resume=True)
    train(tiny_vdm(), video_dataset(videos), replace(OPTIONS, workers=1), resumed_run, resume=True)
    assert_equal_states(training_state(uninterrupted), training_state(resumed_run))


@pytest.mark.slow
def test_prepared_clips_train_like_centre_crops(quick_training: None, videos: Path, tmp_path: Path) -> None:
    out = preparing.prepare("folder(height=8, width=8)", tmp_path / "prepared", data_root=videos)
    centre = weights_after(video_dataset(videos), tmp_path / "centre", crop="centre")
    assert (
        weights_after(video_dataset(out), tmp_path / "a")
        == weights_after(video_dataset(out), tmp_path / "b", crop="centre")
        == centre
    )
    with pytest.raises(UserError, match="--crop random: folder was prepared"):
        weights_after(video_dataset(out), tmp_path / "c", crop="random")


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("first", ["files", "prepared"])
def test_resuming_may_switch_between_videos_and_prepared_clips(
    quick_training: None, monkeypatch: pytest.MonkeyPatch, videos: Path, tmp_path: Path, first: str
) -> None:
    out = preparing.prepare("folder(height=8, width=8)", tmp_path / "prepared", data_root=videos)
    sides = [(video_dataset(videos), "centre"), (video_dataset(out), None)][:: 1 if first == "files" else -1]
    with monkeypatch.context() as patch:
        _stop_after(patch, 3)
        with pytest.raises(Interrupted):
            weights_after(sides[0][0], tmp_path / "parts", crop=sides[0][1])
    train(tiny_vdm(), sides[1][0], replace(OPTIONS, crop=sides[1][1]), tmp_path / "parts", resume=True)
    weights_after(video_dataset(videos), tmp_path / "whole", crop="centre")
    assert_equal_states(training_state(tmp_path / "whole"), training_state(tmp_path / "parts"))


@pytest.mark.parametrize("option", [{"crop": "random"}, {"flip": False}], ids=str)
def test_crop_and_flip_are_refused_without_videos(tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(option))}: shapes has no videos to crop"):
        train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, **option), tmp_path)


def test_an_unreadable_video_stops_the_training(quick_training: None, videos: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(videos, tmp_path / "videos"))
    dataset = video_dataset(root)
    for path in root.rglob("*.avi"):
        path.write_bytes(b"<html>not found</html>")
    with pytest.raises(MissingData, match=r"[abc]\.avi"):
        weights_after(dataset, tmp_path / "run")


# Stopping, and refused settings.


def test_ctrl_c_saves_and_prints_the_resume_command(
    quick_training: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["vfbench", "train", "--model", "vdm", "--dataset", "shapes(frames=4)", "--resume"]
    )
    _stop_after(monkeypatch, 2)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as caught:
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    message = str(caught.value)
    assert "stopped after step 2 of 6" in message
    # A single --resume, and shell quoting.
    assert message.endswith("\n  python -m vfbench train --model vdm --dataset 'shapes(frames=4)' --resume")
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_training_runs_in_another_thread(quick_training: None, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(train, tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path).result()
    assert (tmp_path / "model.safetensors").exists()


def test_ctrl_c_in_the_last_step_finishes(
    quick_training: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _stop_after(monkeypatch, OPTIONS.steps)
    assert train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path) == tmp_path


def test_an_existing_run_is_not_overwritten(trained: tuple[Path, VDM]) -> None:
    with pytest.raises(UserError, match="holds a training run already: add --resume"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, trained[0])


def test_a_damaged_training_state_is_refused(quick_training: None, tmp_path: Path) -> None:
    train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, steps=1, warmup=1), tmp_path)
    file = tmp_path / "training.pt"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(MissingData, match=r"training\.pt is damaged"):
        train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, steps=1, warmup=1), tmp_path, resume=True)


@pytest.mark.slow
def test_repeated_steps_are_logged_once(quick_training: None, tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=100)
    train(tiny_vdm(), tiny_dataset(), options, tmp_path, stop=iter([False] * 49 + [True]).__next__)
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + json.dumps({"step": 100, "network": 0.0}) + "\n")  # logged after the last save
    train(tiny_vdm(), tiny_dataset(), options, tmp_path, resume=True)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [50, 100]


def test_resume_without_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"nothing to resume at .*training\.pt"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr": 0.5}, r"\(--lr 0\.01 saved, 0\.5 now\)"),
        ({"steps": 7}, "--steps 60 saved, 7 now"),
        ({"seed": 3}, "--seed 0 saved, 3 now"),
    ],
    ids=str,
)
def test_resuming_with_another_option_is_refused(
    trained: tuple[Path, VDM], changed: dict[str, Any], message: str
) -> None:
    options = replace(replace(OPTIONS, steps=STEPS), **changed)
    with pytest.raises(UserError, match=message):
        train(tiny_vdm(), OneClip(tiny_dataset().shape), options, trained[0], resume=True)


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_more_steps_extend_a_training(schedule: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, lr_schedule=schedule)
    for name, steps in (("extended", 3), ("extended", 6), ("whole", 6)):
        resume = (tmp_path / name).exists()
        train(tiny_vdm(), tiny_dataset(), replace(options, steps=steps), tmp_path / name, resume=resume)
    extended, whole = (training_state(tmp_path / name) for name in ("extended", "whole"))
    rates = [state["optimizer"]["param_groups"][0]["lr"] for state in (extended, whole)]
    assert rates[0] == rates[1]  # a cosine follows the schedule of the new number of steps
    weights = [flat(state["model"]) for state in (extended, whole)]
    equal = all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert equal == (schedule == "constant")
    assert "6; extended at step 3 from 3 to 6 steps" in (tmp_path / "extended/README.md").read_text()
    assert '"before": 3, "after": 6' in (tmp_path / "extended/log.jsonl").read_text()
    assert "extended" not in (tmp_path / "whole/README.md").read_text()


@pytest.mark.slow
def test_an_extended_training_keeps_its_default_warm_up(tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=10, warmup=None)
    train(tiny_vdm(), tiny_dataset(), options, tmp_path)
    train(tiny_vdm(), tiny_dataset(), replace(options, steps=21), tmp_path, resume=True)
    train(tiny_vdm(), tiny_dataset(), replace(options, steps=21), tmp_path, resume=True)  # the same command again
    assert "`warmup` 1," in (tmp_path / "README.md").read_text()
    with pytest.raises(UserError, match="--warmup 1 saved, 3 now"):
        train(tiny_vdm(), tiny_dataset(), replace(options, steps=30, warmup=3), tmp_path, resume=True)


def test_resuming_with_another_model_or_dataset_is_refused(trained: tuple[Path, VDM]) -> None:
    options = replace(OPTIONS, steps=STEPS)
    with pytest.raises(UserError, match=r"\(--model with parametrisation v saved, eps now\)"):
        train(tiny_vdm(parametrisation="eps"), tiny_dataset(), options, trained[0], resume=True)
    with pytest.raises(UserError, match=r"\(--dataset or --data-root with the clips \w+ saved, \w+ now\)"):
        train(tiny_vdm(), tiny_dataset(frames=5), options, trained[0], resume=True)


def test_resuming_may_change_options_without_effect_on_weights(trained: tuple[Path, VDM], tmp_path: Path) -> None:
    folder = shutil.copytree(trained[0], tmp_path / "resumed")
    options = replace(OPTIONS, steps=STEPS, save_every=1, sample_every=1, half=True)
    train(tiny_vdm(), OneClip(tiny_dataset().shape), options, folder, resume=True)
    before, after = (weights.read(path / "model.safetensors") for path in (trained[0], folder))
    assert {each.dtype for each in after.values()} == {torch.float16}
    assert all(torch.equal(after[name], each.half()) for name, each in before.items())


@pytest.mark.slow
def test_bfloat16_learns_like_float32(quick_training: None, tmp_path: Path) -> None:
    shape = tiny_dataset().shape
    for dtype in ("float32", "bfloat16"):
        options = replace(OPTIONS, steps=50, dtype=dtype)
        train(tiny_videofusion(perturbed=False), OneClip(shape), options, tmp_path / dtype)
    plain, short = (
        loss_of(videofusion.build(BuildContext(tiny_dataset(), CPU, checkpoint=tmp_path / dtype)).model)
        for dtype in ("float32", "bfloat16")
    )
    assert short == pytest.approx(plain, rel=0.05)
    assert short != plain
    assert plain < 0.9 * loss_of(tiny_videofusion(perturbed=False))


@pytest.mark.slow
def test_compile_is_called_on_every_network(
    quick_training: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiled: list[nn.Module] = []  # stubbed: the compiler cannot trace the runtime type checks
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: compiled.append(module))
    model = tiny_videofusion()
    train(model, tiny_dataset(), replace(OPTIONS, steps=1, warmup=1), tmp_path / "plain")
    assert compiled == []
    train(model, tiny_dataset(), replace(OPTIONS, steps=1, warmup=1, compile=True), tmp_path / "compiled")
    assert compiled == [model.base, model.residual]


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadEnvironment, match=r"cannot write to .*file"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path / "file" / "run")


def test_a_dataset_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="shapes: no train clips found"):
        train(tiny_vdm(), EmptyShapes(tiny_dataset().shape), OPTIONS, tmp_path)


def test_models_without_training_are_refused() -> None:
    with pytest.raises(UserError, match=r"'noise' cannot be trained.*pyoco, super_resolution, vdit, vdm, videofusion"):
        prepare_training("noise", "shapes", "tiny")


# Optimiser and batches.


def test_the_rate_warms_up_and_decays_to_a_twentieth() -> None:
    options = replace(OPTIONS, steps=1000, warmup=100)
    rates = [lr_factor(step, options) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1, abs=0.03)
    assert rates.index(max(rates)) == 99
    assert rates[-1] == pytest.approx(0.05, abs=0.001)


def test_every_step_has_clipped_gradients_and_its_own_rate(
    quick_training: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    norms: list[float] = []
    rates: list[list[float]] = []
    original = torch.optim.AdamW.step

    def recorded(optimizer: torch.optim.AdamW, *rest: Any) -> Any:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        rates.append([group["lr"] for group in optimizer.param_groups])
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        return original(optimizer, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    train(tiny_videofusion(base_lr=0.1), tiny_dataset(), replace(OPTIONS, steps=2, clip_norm=0.01), tmp_path)
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)
    # Half of the warm-up, then half of the cosine; the base network at a tenth.
    assert rates == [pytest.approx([0.005, 0.0005]), pytest.approx([0.00525, 0.000525])]


def test_batches_have_uint8_clips_with_their_labels_and_captions(tmp_path: Path) -> None:
    trainer = Trainer(tiny_vdm(), tiny_dataset(), replace(OPTIONS, batch_size=200), tmp_path, ProcessGroup("cpu"))
    clips, labels, captions, conditioning, *_ = next(trainer.batches)
    assert (clips.shape, clips.dtype) == ((200, 4, 3, 8, 8), torch.uint8)
    assert clips.float().std() > 32
    names = trainer.dataset.classes
    assert all(names[label].split()[0] in caption for label, caption in zip(labels, captions, strict=True))
    shares = {mode: sum(m == mode for m in conditioning) / 200 for mode in ("text", "class", "none")}
    assert shares == pytest.approx({"text": 0.8, "class": 0.1, "none": 0.1}, abs=0.1)
