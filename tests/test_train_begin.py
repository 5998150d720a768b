"""What a training begins with: options of models, presets of equal compute, the weights of another training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, contents
from helpers import tiny_dataset, tiny_vdm, tiny_videofusion
from torch import Tensor
from typer.main import get_command

from vfbench.cli import app
from vfbench.datasets.shapes import Shapes
from vfbench.diffusion import flops as cost
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.priors import Mixed
from vfbench.diffusion.single_network import OneUNet
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import Clips
from vfbench.training import match_flops, resume
from vfbench.training import model_card as modelcard
from vfbench.training.train import TrainOptions, prepare_training, train
from vfbench.training.trainer import Trainer, lr_factor
from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256

OPTIONS = TrainOptions(steps=2, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
SMALL = "shapes(frames=4, height=8, width=8)"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No sample sheets: they take longer than a tiny training. And an empty folder to work in."""
    monkeypatch.setattr(Trainer, "write_preview", lambda run: None)
    monkeypatch.chdir(tmp_path)


# Options of a model.


def test_options_of_a_name_reach_the_model() -> None:
    model, _ = prepare_training("pyoco(alpha=3)", SMALL, "tiny")
    assert model.config.options["alpha"] == 3.0
    model, _ = prepare_training("videofusion(lam=[0, 1, 0.5, 0.25])", SMALL, "tiny", options={"base_frame": 1})
    assert (model.config.options["lam"], model.config.options["base_frame"]) == ([0.0, 1.0, 0.5, 0.25], 1)


@pytest.mark.parametrize(
    ("model", "named"),
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
def test_wrong_options_end_with_2_before_any_clip_is_read(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str, named: str
) -> None:
    def clips(*_: Any, **__: Any) -> Clips:
        raise AssertionError("a clip was read")

    monkeypatch.setattr(Shapes, "clips", clips)
    done = vfbench("train", "--model", model, "--dataset", SMALL)
    assert done.code == 2
    assert re.search(named, done.err), done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "named"),
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
def test_flags_out_of_range_are_refused(vfbench: Command, flags: list[object], named: str) -> None:
    done = vfbench("train", "--model", "vdm", "--dataset", SMALL, *flags)
    assert done.code == (4 if "--init-from" in flags else 2)
    assert named in done.err
    assert "Traceback" not in done.err


def test_options_are_checked_in_python_too() -> None:
    with pytest.raises(UserError, match="no --dtype called 'float16'"):
        TrainOptions(steps=1, dtype="float16")


def test_a_short_training_warms_up_for_a_tenth_of_it() -> None:
    short, long = (TrainOptions(steps=steps) for steps in (50, 5000))
    assert (short.warmup_steps, long.warmup_steps) == (5, 200)
    assert short.weight_options()["warmup"] == 5
    assert max(lr_factor(step, short) for step in range(50)) > 0.95


def test_no_warm_up_begins_at_the_full_rate() -> None:
    assert lr_factor(0, replace(OPTIONS, warmup=0)) == 1


def test_clips_that_do_not_fit_the_network_are_refused() -> None:
    with pytest.raises(UserError, match=r"does not fit shapes: clips of 4x10x10 cannot be cut"):
        prepare_training("vdit", "shapes(frames=4, height=10, width=10)", "tiny")


def test_flags_and_options_of_the_base_generator_are_the_same(vfbench: Command, tmp_path: Path) -> None:
    missing = ("--dataset", SMALL, "--steps", 1)
    flags = vfbench("train", "--base-init", "frozen", "--base-from", tmp_path, *missing)
    spec = vfbench("train", "--model", f"videofusion(base_init='frozen', base_from='{tmp_path}')", *missing)
    assert (flags.code, flags.err) == (spec.code, spec.err)
    assert str(tmp_path) in flags.err


# Equal compute.


def test_a_matched_preset_costs_what_the_reference_does(capsys: pytest.CaptureFixture[str]) -> None:
    model, data = prepare_training("vdit", SMALL, "tiny", match_flops="vdm", seed=1)
    (again, _), (other, _) = (prepare_training("vdit", SMALL, "tiny", match_flops="vdm", seed=seed) for seed in (1, 2))
    assert model.config.preset == "tiny at the FLOPs of vdm tiny"
    first, second, third = (dict(each.state_dict()) for each in (model, again, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)
    # Told: the preset, what it became, and the reference.
    before, after, reference = capsys.readouterr().err.splitlines()[:3]
    wanted = match_flops.describe("vdm", "tiny", data)
    made, learnt = (f"{flops / 1e9:,.2f}" for flops in (wanted.flops_per_clip, wanted.training_flops))
    cost = f"{made} GFLOP to sample a clip, {learnt} to train on one, {wanted.parameters:,} parameters"
    assert reference == f"vdm tiny  {cost}"
    assert before.startswith("preset    ")
    assert after.startswith("matched   ")
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in after
    assert before != after


@pytest.mark.slow
def test_a_matched_training_is_recorded_and_goes_on_with_its_reference_alone(vfbench: Command, tmp_path: Path) -> None:
    start = ("train", "--model", "vdit", "--dataset", SMALL, "--steps", 2, "--batch-size", 1, "--output", "run")
    assert vfbench(*start, "--match-flops", "vdm").code == 0
    assert json.loads(Path("run/config.json").read_text())["preset"] == "tiny at the FLOPs of vdm tiny"
    assert vfbench(*start, "--match-flops", "vdm", "--resume").code == 0
    done = vfbench(*start, "--resume")
    assert done.code == 2
    assert "(--match-flops vdm:tiny saved, none now): give the saved ones again" in done.err


# The weights of another training.


def state_of(model: DiffusionModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def donor(tmp_path: Path) -> Path:
    """A checkpoint of a tiny VDM, in half precision, whose weights the configuration does not say."""
    tiny_vdm().save(tmp_path / "donor", half=True)
    return tmp_path / "donor"


def test_a_training_begins_with_the_weights_of_another(donor: Path, tmp_path: Path) -> None:
    fresh = tiny_vdm(perturbed=False)
    options = replace(OPTIONS, lr=1e-12, init_from=donor)
    train(fresh, tiny_dataset(), options, tmp_path / "run")
    expected = {name: tensor.half().float() for name, tensor in state_of(tiny_vdm()).items()}
    saved = tensor_files.read(tmp_path / "run" / "model.safetensors")  # the average began there, too
    for name, tensor in expected.items():
        torch.testing.assert_close(saved[name], tensor)
        torch.testing.assert_close(fresh.state_dict()[name], tensor)


def test_where_the_weights_came_from_is_recorded(donor: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, init_from=str(donor))
    train(tiny_vdm(perturbed=False), tiny_dataset(), options, tmp_path / "run")
    digest = file_sha256(donor / "model.safetensors")
    spec = json.loads(torch.load(tmp_path / "run" / "training.pt", weights_only=True)["spec"])
    assert spec["options"]["init_from"] == digest
    assert digest in (tmp_path / "run" / "README.md").read_text()
    moved = donor.rename(tmp_path / "elsewhere")
    before = contents(tmp_path / "run")
    train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, init_from=moved), tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before
    with pytest.raises(UserError, match=rf"\(--init-from {digest} saved, none now\)"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("create", "named"),
    [
        (lambda: tiny_vdm(5), r"--init-from .*donor was trained with frames 4, this model has 5"),
        (lambda: tiny_vdm(parametrisation="eps"), "trained with parametrisation v, this model has eps"),
        (lambda: tiny_vdm(schedule="linear"), "trained with schedule cosine, this model has linear"),
    ],
)
def test_what_differs_on_purpose_is_refused(
    donor: Path, tmp_path: Path, create: Callable[[], DiffusionModel], named: str
) -> None:
    model = create()
    with pytest.raises(UserError, match=named):
        train(model, tiny_dataset(model.config.shape.frames), replace(OPTIONS, init_from=donor), tmp_path / "run")


def test_other_classes_are_refused(donor: Path, tmp_path: Path) -> None:
    config = json.loads((donor / "config.json").read_text())
    (donor / "config.json").write_text(json.dumps({**config, "classes": ["cat", "dog"]}))
    with pytest.raises(UserError, match=r"trained with classes \('cat', 'dog'\), this model has"):
        train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, init_from=donor), tmp_path / "run")


def test_another_model_and_tensors_that_do_not_fit_are_named(donor: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, init_from=donor)
    with pytest.raises(MissingData, match="is a checkpoint of 'vdm', not of 'videofusion'"):
        train(tiny_videofusion(), tiny_dataset(), options, tmp_path / "run")
    wider = tiny_vdm(network={**tiny_vdm().config.options["network"], "channels": [8, 24]})
    with pytest.raises(MissingData, match=r"'network\.\S+' has shape \(\S.*\), needed \(\S.*\)"):
        train(wider, tiny_dataset(), options, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


# What a training goes on with.


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("videofusion(lam_schedule='cosine')", "videofusion", "--model with lam_schedule cosine saved, none now"),
        ("vdm", "vdm(embedding='learnt')", "--model with embedding none saved, learnt now"),
        ("vdm(embedding='learnt')", "vdm", "--model with embedding learnt saved, none now"),
    ],
)
def test_a_training_goes_on_with_the_options_it_began_with(
    before: str, after: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_training_flops", 1)
    train(*prepare_training(before, SMALL, "tiny"), OPTIONS, tmp_path)
    with pytest.raises(UserError, match=named):
        train(*prepare_training(after, SMALL, "tiny"), OPTIONS, tmp_path, resume=True)


LEARNT = {"encoder": "learnt", "size": 64, "sha256": ""}


def record(**options: Any) -> dict[str, Any]:
    """What a training of a small model would record, as JSON has it."""
    config = {"model": "vdm", "preset": "tiny", "dataset": "shapes", "shape": {"frames": 4}, "classes": ["a"]}
    return {
        "config": {**config, "options": {"network": {"width": 8}}},
        "data": "aa",
        "options": {"lr": 0.001, **options},
    }


def other(**config: Any) -> dict[str, Any]:
    """The same of another model or another dataset, whose clips are others too."""
    return {**record(), "config": {**record()["config"], **config}, "data": "bb" if "model" not in config else "aa"}


@pytest.mark.parametrize(
    ("saved", "current", "expected"),
    [
        (record(), record(), []),
        (
            other(conditions={"text": 0.0, "class": 0.9, "none": 0.1}),
            other(conditions={"text": 0.8, "class": 0.1, "none": 0.1}),
            ["--conditions class=0.9,none=0.1 saved, text=0.8,class=0.1,none=0.1 now"],
        ),
        (
            other(preset="tiny at the FLOPs of vdm small"),
            other(preset="tiny"),
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
        (record(crop="random", flip=True), other(dataset="ucf101"), ["--dataset shapes saved, ucf101 now"]),
        (
            record(),
            other(model="vdit", preset="small", options={"network": {"heads": 2}}),
            ["--model vdm saved, vdit now"],
        ),
        (record(), other(dataset="ucf101", shape={"frames": 8}, classes=["b"]), ["--dataset shapes saved, ucf101 now"]),
        (record(), other(shape={"frames": 8}), ["--dataset with frames 4 saved, 8 now"]),
        (record(), other(classes=["b"]), ["--dataset or --data-root with the clips aa saved, bb now"]),
    ],
    ids=str,
)
def test_what_has_changed_is_told_in_flags(saved: dict[str, Any], current: dict[str, Any], expected: list[str]) -> None:
    assert resume.differences(saved, current) == expected


def test_another_base_generator_is_told_in_flags() -> None:
    scratch, finetune = (
        {"config": {"options": options}, "options": {}}
        for options in ({"base_init": "scratch"}, {"base_init": "finetune", "base_sha256": "aa"})
    )
    assert resume.differences(scratch, finetune) == [
        "--base-init scratch saved, finetune now",
        "--base-from none saved, aa now",
    ]


def test_every_option_of_the_weights_is_told_as_a_flag_there_is() -> None:
    flags = {flag for option in get_command(app).commands["train"].params for flag in option.opts}  # type: ignore[attr-defined]
    changes = [resume.differences({"options": {}}, {"options": {name: 1}}) for name in OPTIONS.weight_options()]
    assert {line.split()[0] for (line,) in changes} <= flags
    assert len(changes) > 5


def test_a_warm_up_that_follows_from_the_steps_is_not_told_beside_them() -> None:
    saved, current = ({"options": TrainOptions(steps=steps).weight_options()} for steps in (50, 100))
    assert resume.differences(saved, current) == ["--steps 50 saved, 100 now"]


def test_a_model_whose_flops_cannot_be_counted_is_trained_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks_at_values(*_: Any) -> int:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr("vfbench.diffusion.flops.training_flops", looks_at_values)
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    assert "| compute | not counted |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("processes", "options", "mend"),
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
def test_a_gpu_that_is_too_small_for_a_step_is_said(
    processes: int, options: dict[str, Any], mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(run: Trainer) -> None:
        run.processes.world_size = processes
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "advance", too_small)
    with pytest.raises(BadEnvironment, match=f"step 1 does not fit .*: {mend}$"):
        train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, batch_size=6, **options), tmp_path)


def test_an_empty_reference_is_not_taken_for_none() -> None:
    with pytest.raises(UserError, match="reference ''"):
        prepare_training("vdm", SMALL, "tiny", match_flops="")


def test_a_model_that_only_its_own_function_can_build_is_trained_and_counted(tmp_path: Path) -> None:
    model = OneUNet(tiny_vdm().config, Mixed(1.0))  # not made of its configuration alone
    train(model, tiny_dataset(), OPTIONS, tmp_path)
    counted = re.search(r"\| compute \| (\S+ \S+)", (tmp_path / "README.md").read_text())
    assert counted is not None
    expected = cost.training_flops(tiny_vdm()) * OPTIONS.batch_size * OPTIONS.steps
    assert counted[1] == f"{modelcard._si_format(expected)}FLOP,"


def test_a_card_that_fails_leaves_a_training_that_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("no card")

    with monkeypatch.context() as patched:
        patched.setattr(modelcard, "write", broken)
        with pytest.raises(ValueError, match="no card"):
            train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, resume=True)
    assert (tmp_path / "model.safetensors").is_file()


def test_the_seconds_of_a_log_go_on_when_it_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resume.save_state(tmp_path, {}, 5, 1000.0, {})
    assert resume.load_state(tmp_path, {}, {}) == (5, 1000.0)
    options = replace(OPTIONS, steps=50, batch_size=1)
    train(tiny_vdm(), tiny_dataset(), options, tmp_path / "run", stop=lambda: True)
    found = torch.load(tmp_path / "run" / "training.pt", weights_only=True)
    torch.save({**found, "seconds": 1000.0}, tmp_path / "run" / "training.pt")
    train(tiny_vdm(), tiny_dataset(), options, tmp_path / "run", resume=True)
    (line,) = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert 1000 < json.loads(line)["seconds"] < 2000


@pytest.mark.parametrize(
    ("options", "begun", "said"),
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
def test_a_card_says_which_compute_it_does_not_know(options: dict[str, str], begun: str | None, said: str) -> None:
    config = tiny_vdm().config
    config = replace(config, options={**config.options, **options})
    given = {"batch_size": 2, "steps": 4, "init_from": begun}
    rows = dict(modelcard._training_rows(config, tiny_dataset(), given, 4, 8_000))
    assert rows["compute"] == f"8 kFLOP, forward and backward: 1 kFLOP a clip{said}"
