"""Tests of how a training starts: model options, `--match-flops`, `--init-from`, and the settings of a resumed run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, file_contents
from helpers import UNET, clips_of, embed, tiny_dataset, tiny_vdm, tiny_videofusion
from torch import Tensor

from vfbench.baselines import pyoco
from vfbench.cli import command_line
from vfbench.datasets.shapes import Shapes
from vfbench.diffusion import flops as cost
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.priors import Mixed
from vfbench.diffusion.single_network import OneUNet
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import Clips
from vfbench.training import match_flops, resume
from vfbench.training import model_card as modelcard
from vfbench.training.build import load_initial_weights
from vfbench.training.train import TrainOptions, prepare_training, train
from vfbench.training.trainer import Trainer, lr_factor
from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256

pytestmark = pytest.mark.usefixtures("quick_training")

OPTIONS = TrainOptions(steps=2, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
SMALL = "shapes(frames=4, height=8, width=8)"


@pytest.fixture(autouse=True)
def _small(small_presets: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Write no sample sheets, and work in an empty folder."""
    monkeypatch.setattr(Trainer, "write_preview", lambda trainer: None)
    monkeypatch.chdir(tmp_path)


# Model options and flags.


def test_options_in_a_spec_reach_the_model() -> None:
    model, _ = prepare_training("pyoco(alpha=3)", SMALL, "tiny")
    assert model.config.options["alpha"] == 3.0
    model, _ = prepare_training("videofusion(lam=[0, 1, 0.5, 0.25], base_frame=1)", SMALL, "tiny")
    assert (model.config.options["lam"], model.config.options["base_frame"]) == ([0.0, 1.0, 0.5, 0.25], 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("videofusion(lam=1.5)", r"lambda 1\.5: it must lie in \[0, 1\]"),
        ("videofusion(lamb=1)", "no option of model videofusion called 'lamb': did you mean 'lam'"),
        ("videofusion(lam='half')", "option lam='half' of model videofusion must be float, a list of float or None"),
        ("videofusion(lam=[0, '1'])", "must be float, a list of float or None"),
        ("videofusion(base_from=1)", "option base_from=1 of model videofusion must be str or None"),
        ("videofusion(base_init=1)", "option base_init=1 of model videofusion must be str"),
        ("videofusion(base_init='frozen')", "base init 'frozen' needs base_from"),
        ("videofusion(steps=50)", "option steps of model videofusion is for sampling, not for training"),
        ("pyoco(alpha=-1)", "alpha -1"),
    ],
)
def test_wrong_model_options_exit_with_2_before_any_clip_is_read(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str, message: str
) -> None:
    def clips(*_: Any, **__: Any) -> Clips:
        raise AssertionError("a clip was read")

    monkeypatch.setattr(Shapes, "clips", clips)
    outcome = vfbench("train", "--model", model, "--dataset", SMALL)
    assert outcome.code == 2
    assert re.search(message, outcome.err), outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", 0], "--steps 0: must be at least 1"),
        (["--steps", -2], "--steps -2: must be at least 1"),
        (["--batch-size", 0], "--batch-size 0: must be at least 1"),
        (["--accumulate", 0], "--accumulate 0: must be at least 1"),
        (["--batch-size", 4, "--accumulate", 3], "--batch-size 4: --accumulate 3 needs a multiple of 3"),
        (["--lr", 0], "--lr 0.0: must be above 0"),
        (["--lr", "nan"], "--lr nan: must be above 0"),
        (["--clip-norm", -1], "--clip-norm -1.0: must be above 0"),
        (["--weight-decay", -1], "--weight-decay -1.0: must be at least 0"),
        (["--warmup", -1], "--warmup -1: must be at least 0"),
        (["--warmup", 51, "--steps", 50], "--warmup 51: longer than --steps 50"),
        (["--ema", 1], "--ema 1.0: must be at least 0 and less than 1"),
        (["--workers", -1], "--workers -1: must be at least 0"),
        (["--save-every", 0], "--save-every 0: must be at least 1"),
        (["--sample-every", 0], "--sample-every 0: must be at least 1"),
        (["--crop", "center"], "no --crop called 'center': did you mean 'centre'"),
        (["--base-init", "frozen"], "--base-init frozen: vdm has no option base_init"),
        (["--match-flops", "vdmm"], "did you mean 'vdm'"),
        (["--init-from", "nowhere"], "nowhere does not exist"),
    ],
    ids=str,
)
def test_flags_out_of_range_are_refused(vfbench: Command, flags: list[object], message: str) -> None:
    outcome = vfbench("train", "--model", "vdm", "--dataset", SMALL, *flags)
    assert outcome.code == (4 if "--init-from" in flags else 2)
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_options_built_in_python_are_checked() -> None:
    with pytest.raises(UserError, match="no --dtype called 'float16'"):
        TrainOptions(steps=1, dtype="float16")


def test_short_trainings_warm_up_for_a_tenth_of_their_steps() -> None:
    short, long = (TrainOptions(steps=steps) for steps in (50, 5000))
    assert (short.warmup_steps, long.warmup_steps) == (5, 200)
    assert short.warmup_steps == 5
    assert max(lr_factor(step, short) for step in range(50)) > 0.95


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert lr_factor(0, replace(OPTIONS, warmup=0)) == 1


def test_clips_that_do_not_fit_the_network_are_refused() -> None:
    with pytest.raises(UserError, match=r"does not fit shapes: clips of 4x10x10 cannot be cut"):
        prepare_training("vdit", "shapes(frames=4, height=10, width=10)", "tiny")


def test_base_generator_flags_equal_model_options(vfbench: Command, tmp_path: Path) -> None:
    missing = ("--dataset", SMALL, "--steps", 1)
    flags = vfbench("train", "--base-init", "frozen", "--base-from", tmp_path, *missing)
    spec = vfbench("train", "--model", f"videofusion(base_init='frozen', base_from='{tmp_path}')", *missing)
    assert (flags.code, flags.err) == (spec.code, spec.err)
    assert str(tmp_path) in flags.err


# Equal compute.


@pytest.mark.slow
def test_match_flops_prints_preset_matched_size_and_reference(capsys: pytest.CaptureFixture[str]) -> None:
    model, data = prepare_training("vdit", SMALL, "tiny", match_flops="pyoco", seed=1)
    (same_seed, _), (other_seed, _) = (
        prepare_training("vdit", SMALL, "tiny", match_flops="pyoco", seed=seed) for seed in (1, 2)
    )
    assert model.config.preset == "tiny at the FLOPs of pyoco tiny"
    first, second, third = (dict(each.state_dict()) for each in (model, same_seed, other_seed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)
    # Three lines: the preset, its matched size, the reference.
    preset_line, matched_line, reference_line = capsys.readouterr().err.splitlines()[:3]
    reference_cost = match_flops.describe("pyoco", "tiny", data)
    sampling, training = (
        f"{flops / 1e9:,.2f}" for flops in (reference_cost.flops_per_clip, reference_cost.training_flops)
    )
    cost = f"{sampling} GFLOP to sample a clip, {training} to train on one, {reference_cost.parameters:,} parameters"
    assert reference_line == f"pyoco tiny  {cost}"
    assert preset_line.startswith("preset      ")
    assert matched_line.startswith("matched     ")
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in matched_line
    assert preset_line != matched_line


@pytest.mark.slow
def test_match_flops_is_recorded_and_required_on_resume(vfbench: Command, tmp_path: Path) -> None:
    start = ("train", "--model", "vdit", "--dataset", SMALL, "--steps", 2, "--batch-size", 1, "--output", "run")
    assert vfbench(*start, "--match-flops", "pyoco").code == 0
    assert json.loads(Path("run/config.json").read_text())["preset"] == "tiny at the FLOPs of pyoco tiny"
    assert vfbench(*start, "--match-flops", "pyoco", "--resume").code == 0
    outcome = vfbench(*start, "--resume")
    assert outcome.code == 2
    assert "--match-flops pyoco:tiny saved, none now" in outcome.err


# Initial weights of another checkpoint.


def state_of(model: DiffusionModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def donor(tmp_path: Path) -> Path:
    """A checkpoint of a tiny VDM in half precision; its configuration has no hash of the weights."""
    tiny_vdm().save(tmp_path / "donor", half=True)
    return tmp_path / "donor"


def test_init_from_starts_with_the_weights_of_a_checkpoint(donor: Path, tmp_path: Path) -> None:
    model = tiny_vdm(perturbed=False)
    options = replace(OPTIONS, lr=1e-12, init_from=donor)
    train(model, tiny_dataset(), options, tmp_path / "run")
    expected = {name: tensor.half().float() for name, tensor in state_of(tiny_vdm()).items()}
    averaged = tensor_files.read(tmp_path / "run" / "model.safetensors")  # the moving average starts there too
    for name, tensor in expected.items():
        torch.testing.assert_close(averaged[name], tensor)
        torch.testing.assert_close(model.state_dict()[name], tensor)


def test_a_frame_condition_is_new_where_the_initial_weights_have_none(donor: Path, tmp_path: Path) -> None:
    model = tiny_vdm(network={**UNET, "frame_condition": True})
    train(model, tiny_dataset(), replace(OPTIONS, lr=1e-12, init_from=donor), tmp_path / "run")
    loaded, saved = model.state_dict(), tensor_files.read(donor / "model.safetensors")
    assert {name.split(".")[1] for name in loaded.keys() - saved.keys()} == {"frame_condition"}
    for name, tensor in saved.items():
        torch.testing.assert_close(loaded[name], tensor.float())


def test_initial_weights_may_be_of_another_model_with_the_same_network(donor: Path, tmp_path: Path) -> None:
    options = {**pyoco.PRESETS["tiny"], "network": UNET}
    model = pyoco.PYoCo(replace(tiny_vdm().config, model="pyoco", options=options))
    train(model, tiny_dataset(), replace(OPTIONS, lr=1e-12, init_from=donor), tmp_path / "run")
    for name, tensor in tensor_files.read(donor / "model.safetensors").items():
        torch.testing.assert_close(model.state_dict()[name], tensor.float())


def test_a_video_model_that_starts_from_an_image_model_makes_each_frame_like_it(tmp_path: Path) -> None:
    train(tiny_vdm(1), tiny_dataset(frames=1), OPTIONS, tmp_path / "images")
    model = tiny_vdm(network={**UNET, "frame_condition": True}, perturbed=False)
    assert load_initial_weights(model, tmp_path / "images") == file_sha256(tmp_path / "images" / "model.safetensors")
    image_model = tiny_vdm(1)
    load_initial_weights(image_model, tmp_path / "images")
    x, t = clips_of(model), torch.tensor([100, 900])
    condition = embed(model)
    with torch.no_grad():
        frames = [image_model.network(x[:, i : i + 1], t, condition) for i in range(x.shape[1])]
        torch.testing.assert_close(model.network(x, t, condition), torch.cat(frames, dim=1))


@pytest.mark.slow
def test_the_hash_of_the_initial_weights_is_recorded(donor: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, init_from=str(donor))
    train(tiny_vdm(perturbed=False), tiny_dataset(), options, tmp_path / "run")
    digest = file_sha256(donor / "model.safetensors")
    spec = json.loads(torch.load(tmp_path / "run" / "training.pt", weights_only=True)["spec"])
    assert spec["options"]["init_from"] == digest
    assert digest in (tmp_path / "run" / "README.md").read_text()
    moved = donor.rename(tmp_path / "empty_cwd")
    before = file_contents(tmp_path / "run")
    train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, init_from=moved), tmp_path / "run", resume=True)
    assert file_contents(tmp_path / "run") == before
    with pytest.raises(UserError, match=rf"\(--init-from {digest} saved, none now\)"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: tiny_vdm(5), r"--init-from .*donor was trained with frames 4, this model has 5"),
        (lambda: tiny_vdm(parametrisation="eps"), "trained with parametrisation v, this model has eps"),
        (lambda: tiny_vdm(schedule="linear"), "trained with schedule cosine, this model has linear"),
    ],
)
def test_initial_weights_of_other_settings_are_refused(
    donor: Path, tmp_path: Path, create: Callable[[], DiffusionModel], message: str
) -> None:
    model = create()
    with pytest.raises(UserError, match=message):
        train(model, tiny_dataset(model.config.shape.frames), replace(OPTIONS, init_from=donor), tmp_path / "run")


def test_initial_weights_of_other_classes_are_refused(donor: Path, tmp_path: Path) -> None:
    config = json.loads((donor / "config.json").read_text())
    (donor / "config.json").write_text(json.dumps({**config, "classes": ["cat", "dog"]}))
    with pytest.raises(UserError, match=r"trained with classes \('cat', 'dog'\), this model has"):
        train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, init_from=donor), tmp_path / "run")


def test_initial_weights_of_another_model_or_shape_are_refused(donor: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, init_from=donor)
    with pytest.raises(MissingData, match=r"'base\.\S+' is missing from the file"):
        train(tiny_videofusion(), tiny_dataset(), options, tmp_path / "run")
    wider = tiny_vdm(network={**tiny_vdm().config.options["network"], "channels": [8, 24]})
    with pytest.raises(MissingData, match=r"'network\.\S+' has shape \(\S.*\), needed \(\S.*\)"):
        train(wider, tiny_dataset(), options, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


# Settings of a resumed training.


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("videofusion(lam_schedule='cosine')", "videofusion", "--model with lam_schedule cosine saved, none now"),
        ("vdm", "vdm(embedding='learnt')", "--model with embedding none saved, learnt now"),
        ("vdm(embedding='learnt')", "vdm", "--model with embedding learnt saved, none now"),
    ],
)
def test_resume_with_other_model_options_is_refused(
    first: str, second: str, message: str, quick_training: None, small_presets: None, tmp_path: Path
) -> None:
    train(*prepare_training(first, SMALL, "tiny"), OPTIONS, tmp_path)
    with pytest.raises(UserError, match=message):
        train(*prepare_training(second, SMALL, "tiny"), OPTIONS, tmp_path, resume=True)


LEARNT = {"encoder": "learnt", "size": 64, "sha256": ""}


def record(**options: Any) -> dict[str, Any]:
    """Spec of a training of a small model, as saved in `training.pt`."""
    config = {"model": "vdm", "preset": "tiny", "dataset": "shapes", "shape": {"frames": 4}, "classes": ["a"]}
    return {
        "config": {**config, "options": {"network": {"width": 8}}},
        "data": "aa",
        "options": {"lr": 0.001, **options},
    }


def settings(options: TrainOptions) -> dict[str, Any]:
    """Settings of a training with these options, as saved in `training.pt`."""
    resolved = replace(options, warmup=options.warmup_steps)
    return resume.Settings(tiny_vdm().config, "aa", resolved).to_json()


def changed_record(**config: Any) -> dict[str, Any]:
    """`record()` with changed config fields; a changed dataset has other clips too."""
    return {**record(), "config": {**record()["config"], **config}, "data": "bb" if "model" not in config else "aa"}


@pytest.mark.parametrize(
    ("previous", "current", "expected"),
    [
        (record(), record(), []),
        (
            changed_record(conditions={"text": 0.0, "class": 0.9, "none": 0.1}),
            changed_record(conditions={"text": 0.8, "class": 0.1, "none": 0.1}),
            ["--conditions class=0.9,none=0.1 saved, text=0.8,class=0.1,none=0.1 now"],
        ),
        (
            changed_record(preset="tiny at the FLOPs of vdm small"),
            changed_record(preset="tiny"),
            ["--match-flops vdm:small saved, none now"],
        ),
        (
            record(),
            {**record(), "config": {**record()["config"], "options": {"network": {"width": 8}, "embedding": LEARNT}}},
            ["--model with embedding none saved, learnt now"],
        ),
        (record(), record(lr=0.01), ["--lr 0.001 saved, 0.01 now"]),
        (
            record(batch_size=4, ema=0.9),
            record(batch_size=8, ema=0.5),
            ["--batch-size 4 saved, 8 now", "--ema 0.9 saved, 0.5 now"],
        ),
        (record(flip=True), record(flip=False), ["--flip saved, --no-flip now"]),
        (record(crop="random", flip=True), changed_record(dataset="ucf101"), ["--dataset shapes saved, ucf101 now"]),
        (
            record(),
            changed_record(model="vdit", preset="small", options={"network": {"heads": 2}}),
            ["--model vdm saved, vdit now"],
        ),
        (
            record(),
            changed_record(dataset="ucf101", shape={"frames": 8}, classes=["b"]),
            ["--dataset shapes saved, ucf101 now"],
        ),
        (record(), changed_record(shape={"frames": 8}), ["--dataset with frames 4 saved, 8 now"]),
        (record(), changed_record(classes=["b"]), ["--dataset or --data-root with the clips aa saved, bb now"]),
    ],
    ids=str,
)
def test_changed_settings_are_listed_as_flags(
    previous: dict[str, Any], current: dict[str, Any], expected: list[str]
) -> None:
    assert resume.changed_settings(previous, current) == expected


def test_a_changed_base_generator_is_listed_as_flags() -> None:
    scratch, finetune = (
        {"config": {"options": options}, "options": {}}
        for options in ({"base_init": "scratch"}, {"base_init": "finetune", "base_sha256": "aa"})
    )
    assert resume.changed_settings(scratch, finetune) == [
        "--base-init scratch saved, finetune now",
        "--base-from none saved, aa now",
    ]


def test_every_weight_option_is_listed_by_an_existing_flag() -> None:
    flags = {flag for option in command_line().commands["train"].params for flag in option.opts}
    changes = [
        resume.changed_settings({"options": {}}, {"options": {name: 1}}) for name in settings(OPTIONS)["options"]
    ]
    assert {line.split()[0] for (line,) in changes} <= flags
    assert len(changes) > 5


def test_a_default_warm_up_is_not_listed_beside_changed_steps() -> None:
    previous, current = (settings(TrainOptions(steps=steps)) for steps in (50, 100))
    assert resume.changed_settings(previous, current) == ["--steps 50 saved, 100 now"]


@pytest.mark.whole
def test_a_model_whose_flops_cannot_be_counted_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reads_values(*_: Any) -> int:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr("vfbench.diffusion.flops.training_flops", reads_values)
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    assert "| compute | not counted |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("processes", "options", "remedy"),
    [
        (1, {"accumulate": 6}, "repeat the command with --checkpoint-activations"),
        (1, {"accumulate": 6, "checkpoint_activations": True}, "choose a smaller --preset"),
        (
            2,
            {"accumulate": 1},
            r"repeat the command with --accumulate 3 or --checkpoint-activations",
        ),
        (2, {"accumulate": 3}, "repeat the command with --checkpoint-activations"),
    ],
)
def test_out_of_memory_names_the_flags_that_save_memory(
    processes: int, options: dict[str, Any], remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(trainer: Trainer) -> None:
        trainer.processes.world_size = processes
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "advance", out_of_memory)
    with pytest.raises(BadEnvironment, match=f"step 1 does not fit .*: {remedy}$"):
        train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, batch_size=6, **options), tmp_path)


def test_an_empty_match_flops_is_refused() -> None:
    with pytest.raises(UserError, match="reference ''"):
        prepare_training("vdm", SMALL, "tiny", match_flops="")


class MixedNoise(OneUNet):
    """A model whose noise prior is not in the configuration."""

    @staticmethod
    def make_noise_prior(config: ModelConfig) -> Mixed:
        return Mixed(1.0)


@pytest.mark.slow
@pytest.mark.whole
def test_a_model_built_from_more_than_its_config_is_trained(tmp_path: Path) -> None:
    train(MixedNoise(tiny_vdm().config), tiny_dataset(), OPTIONS, tmp_path)
    counted = re.search(r"\| compute \| (\S+ \S+)", (tmp_path / "README.md").read_text())
    assert counted is not None
    expected = cost.training_flops(tiny_vdm()) * OPTIONS.batch_size * OPTIONS.steps
    assert counted[1] == f"{modelcard._si_format(expected)}FLOP,"


def test_a_failing_model_card_leaves_a_training_that_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("no card")

    with monkeypatch.context() as patched:
        patched.setattr(modelcard, "write", broken)
        with pytest.raises(ValueError, match="no card"):
            train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, resume=True)
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.slow
def test_logged_seconds_continue_after_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_settings = resume.Settings(tiny_vdm().config, "aa", OPTIONS)
    resume.save_state(tmp_path, {}, 5, 1000.0, run_settings)
    assert resume.load_state(tmp_path, {}, run_settings)[:2] == (5, 1000.0)
    options = replace(OPTIONS, steps=50, batch_size=1)
    train(tiny_vdm(), tiny_dataset(), options, tmp_path / "run", stop=lambda: True)
    state = torch.load(tmp_path / "run" / "training.pt", weights_only=True)
    torch.save({**state, "seconds": 1000.0}, tmp_path / "run" / "training.pt")
    train(tiny_vdm(), tiny_dataset(), options, tmp_path / "run", resume=True)
    (line,) = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert 1000 < json.loads(line)["seconds"] < 2000


@pytest.mark.parametrize(
    ("options", "init_from", "note"),
    [
        ({}, None, ""),
        ({}, "aa", ", without the training of the initial weights"),
        ({"base_sha256": "bb"}, None, ", without the training of the pretrained base generator"),
        (
            {"base_sha256": "bb"},
            "aa",
            ", without the training of the initial weights and the pretrained base generator",
        ),
    ],
)
def test_the_card_names_compute_that_is_not_counted(options: dict[str, str], init_from: str | None, note: str) -> None:
    config = tiny_vdm().config
    config = replace(config, options={**config.options, **options})
    training_options = TrainOptions(batch_size=2, steps=4, init_from=init_from)
    rows = dict(modelcard._training_rows(config, tiny_dataset(), training_options, 4, 8_000))
    assert rows["compute"] == f"8 kFLOP, forward and backward: 1 kFLOP a clip{note}"
