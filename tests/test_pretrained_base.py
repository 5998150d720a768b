"""VideoFusion's base generator from a checkpoint: taken over whole, then fine-tuned at its own rate or left alone."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from clipfiles import pictures, write_frames
from embedded import EMBEDDING
from helpers import (
    NO_TIME,
    UNET,
    clips_of,
    embed,
    perturb,
    requests,
    setting,
    tiny_dataset,
    tiny_vdm,
    tiny_videofusion,
)
from torch import Tensor

from vfbench.baselines import vdm
from vfbench.cli.config import parse_weights
from vfbench.datasets import folder as folder_dataset
from vfbench.diffusion.model import DiffusionModel
from vfbench.errors import MissingData, UserError
from vfbench.models import videofusion
from vfbench.models.videofusion import OneNetworkVideoFusion, VideoFusion
from vfbench.training import train as training
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer
from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256

TIMES = torch.tensor([300, 800])
OPTIONS = TrainOptions(steps=4, batch_size=2, lr=1e-2, warmup=1, ema=0.9, save_every=100, sample_every=100)
TWO = replace(OPTIONS, steps=2)
PRETRAINED = ("finetune", "frozen")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The presets `tiny` and `tiny-image` are smaller still, and a training makes no sample sheets."""
    monkeypatch.setitem(vdm.PRESETS, "tiny-image", {**vdm.PRESETS["tiny-image"], "network": NO_TIME})
    sizes = {"base": NO_TIME, "residual": UNET}
    monkeypatch.setitem(videofusion.PRESETS, "tiny", {**videofusion.PRESETS["tiny"], **sizes})
    monkeypatch.setattr(Trainer, "write_preview", lambda run: None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A checkpoint of an image model: a VDM of one frame."""
    return saved(tiny_vdm(1, network=NO_TIME), tmp_path / "images")


def saved(model: DiffusionModel, folder: Path) -> Path:
    perturb(model)  # so that it is not what any new model begins with
    model.save(folder)
    return folder


def created(source: Path | None, init: str = "finetune", **options: Any) -> VideoFusion:
    model = videofusion.create(tiny_dataset(), base_init=init, base_from=source, **options)  # type: ignore[arg-type]
    assert isinstance(model, VideoFusion)
    return model


def state_of(folder: Path) -> dict[str, Tensor]:
    return tensor_files.read(folder / "model.safetensors")


# What is taken over.


@pytest.mark.parametrize("init", PRETRAINED)
def test_an_image_model_becomes_the_base_generator(images: Path, init: str) -> None:
    model, state = created(images, init), state_of(images)
    for name, tensor in model.state_dict().items():
        if not name.startswith("residual."):
            assert torch.equal(tensor, state[name.replace("base.", "network.", 1)]), name
    teacher = tiny_vdm(1, network=NO_TIME)
    teacher.load_state_dict(state)
    frame, condition = clips_of(model)[:, :1], embed(teacher, "text")
    torch.testing.assert_close(embed(model, "text"), condition)  # a frozen encoder may take a fused path
    with torch.no_grad():
        assert torch.equal(
            model._denoise_image(frame, TIMES, condition).x0, teacher.predict(frame, TIMES, condition).x0
        )


def test_the_size_of_the_base_generator_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    wide = saved(tiny_vdm(1, network={**NO_TIME, "channels": [24, 32]}), tmp_path)
    assert created(wide).config.options["base"]["channels"] == [24, 32]


def test_a_videofusion_hands_on_its_base_generator(tmp_path: Path) -> None:
    model, state = created(saved(tiny_videofusion(), tmp_path)), state_of(tmp_path)
    handed = [name for name, tensor in model.state_dict().items() if torch.equal(tensor, state[name])]
    assert {name for name in state if not name.startswith("residual.")} <= set(handed)
    assert not torch.equal(model.residual.frame, state["residual.frame"])


def test_the_checkpoint_remembers_where_the_base_generator_came_from(images: Path, tmp_path: Path) -> None:
    model = created(images, "frozen", lam=0.3)
    model.save(tmp_path / "model")
    loaded = videofusion.build(setting(tmp_path / "model")).model
    assert loaded.config.options["base_init"] == "frozen"
    assert loaded.config.options["base_sha256"] == model.config.options["base_sha256"]
    other = created(saved(tiny_vdm(1, network=NO_TIME, perturbed=False), tmp_path / "other"))
    assert other.config.options["base_sha256"] != model.config.options["base_sha256"]
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in model.state_dict().items())


# How it learns.


def trained(model: VideoFusion, folder: Path, **options: Any) -> dict[str, Tensor]:
    """Weights after a few steps, not averaged."""
    train(model, tiny_dataset(), replace(OPTIONS, **options), folder)
    return model.state_dict()


def test_a_frozen_base_generator_stays_as_it_was_and_so_does_what_it_reads(images: Path, tmp_path: Path) -> None:
    model = created(images, "frozen")
    (group,) = model.parameter_groups(1e-3)
    assert [id(p) for p in group["params"]] == [id(p) for p in model.residual.parameters()]
    # Gradients that no step uses would add up from step to step, and weigh in the clipping of those that are used.
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"residual"}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = trained(model, tmp_path / "run")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("residual.") for name in changed)
    assert set(model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model))) == {"residual"}


def test_a_pretrained_base_generator_learns_at_its_own_rate(images: Path, tmp_path: Path) -> None:
    others, base = created(images).parameter_groups(1e-3)
    assert (others["lr"], base["lr"]) == (1e-3, pytest.approx(1e-4))  # a tenth unless told otherwise
    model = created(images, base_lr=0.01)
    others, base = model.parameter_groups(1e-3)
    assert base["lr"] == pytest.approx(1e-5)
    assert [id(p) for p in others["params"]] == [id(p) for p in model.residual.parameters()]
    assert [id(p) for p in base["params"]] == [id(p) for p in [*model.base.parameters(), *model.condition.parameters()]]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = trained(model, tmp_path / "run", steps=1)
    # The first step of Adam is as long as the rate.
    steps = {
        part: (after[f"{part}.head.bias"] - before[f"{part}.head.bias"]).abs().max() for part in ("base", "residual")
    }
    assert float(steps["base"] / steps["residual"]) == pytest.approx(0.01, rel=0.01)


def test_a_pretrained_base_generator_needs_no_loss_of_images(images: Path) -> None:
    both = {"base", "residual"}
    cases: list[tuple[Path | None, str, dict[str, Any], set[str]]] = [
        (images, "finetune", {}, both),
        (images, "finetune", {"images": 2}, both | {"images"}),  # it may have one
        (images, "frozen", {"images": 0}, {"residual"}),
        (None, "scratch", {}, both | {"images"}),
    ]
    for source, init, options, terms in cases:
        model = created(source, init, **options)
        assert set(model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model))) == terms


@pytest.mark.parametrize("init", PRETRAINED)
def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(images: Path, tmp_path: Path, init: str) -> None:
    _resumed(images, tmp_path, init)


def _resumed(images: Path, tmp_path: Path, init: str) -> None:
    """Train once in one go and once in two, and compare the weights."""
    asked = iter([False, True])
    for name in ("whole", "parts"):
        torch.manual_seed(0)
        stop = (lambda: next(asked)) if name == "parts" else (lambda: False)
        train(created(images, init), tiny_dataset(), OPTIONS, tmp_path / name, stop=stop)
    train(created(images, init), tiny_dataset(), OPTIONS, tmp_path / "parts", resume=True)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_an_image_model_is_trained_as_the_message_says(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"makes clips of 4 frames, a base generator makes images: train one with\n"
    ) as caught:
        created(saved(tiny_vdm(), tmp_path / "clips"))
    words = iter(shlex.split(str(caught.value).splitlines()[1].removeprefix("  python -m vfbench train ")))
    flags = dict(zip(words, words, strict=True))
    assert flags.keys() == {"--model", "--preset", "--dataset", "--output"}
    model, data = training.prepare_training(flags["--model"], flags["--dataset"], flags["--preset"])
    assert data.shape == tiny_dataset(1).shape
    train(model, data, TWO, tmp_path / "model")
    assert created(tmp_path / "model").config.options["base"] == vdm.PRESETS["tiny-image"]["network"]


def test_the_message_says_that_a_dataset_on_disk_has_a_root(tmp_path: Path) -> None:
    write_frames(tmp_path / "data" / "greys" / "one", pictures(height=24, width=24))
    data = folder_dataset.build(root=str(tmp_path / "data"), frames=4, height=8, width=16)
    with pytest.raises(UserError) as caught:
        videofusion.create(data, base_init="finetune", base_from=saved(tiny_vdm(), tmp_path / "clips"))
    assert " --dataset 'folder(frames=1, height=8, width=16)' --data-root DATA --output DIR" in str(caught.value)


# Mistakes.


def test_images_are_refused_naming_the_model_that_learns_them() -> None:
    data = tiny_dataset(1)
    with pytest.raises(UserError, match=r"shapes has clips of 1x8x8: .* --model vdm --preset tiny-image$"):
        videofusion.create(data)
    assert vdm.create(data, "tiny-image").config.shape == data.shape
    assert isinstance(videofusion.create(data, "tiny-one"), OneNetworkVideoFusion)  # whose loss is of all frames
    assert isinstance(videofusion.create(tiny_dataset(2)), VideoFusion)


@pytest.mark.parametrize(
    ("init", "given", "options", "named"),
    [
        ("finetune", False, {}, "base init 'finetune' needs base_from"),
        ("frozen", False, {}, "base init 'frozen' needs base_from"),
        ("scratch", True, {}, "base init 'scratch' does not read"),
        ("frozen", True, {"base_lr": 0.1}, r"base_lr 0\.1: a frozen base generator does not learn"),
        ("finetune", True, {"base_lr": 0.0}, r"base_lr 0\.0: choose a finite number above 0"),
        ("finetune", True, {"base_lr": math.inf}, "base_lr inf: choose a finite number above 0"),
        ("finetune", True, {"base_lr": math.nan}, "base_lr nan"),
        ("freeze", True, {}, "did you mean 'frozen'"),
        ("finetune", True, {"preset": "tiny-one"}, "preset tiny-one has one network"),
        ("frozen", True, {"images": 2}, "images 2: a frozen base generator does not learn"),
        ("finetune", True, {"parametrisation": "epz"}, "no parametrisation called 'epz': did you mean 'eps'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, images: Path, init: str, given: bool, options: dict[str, Any], named: str
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match=named):
        created(images if given else None, init, **options)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"parametrisation": "eps"}, r"parametrisation eps, preset tiny has v: .*\(parametrisation='eps'\)\"$"),
        ({"schedule": "linear"}, r"schedule linear, preset tiny has cosine: .*\(schedule='linear'\)\"$"),
        ({"network": {**NO_TIME, "embedding": 32}}, "embedding 32, preset tiny has 16"),
    ],
    ids=str,
)
def test_an_image_model_of_another_kind_is_refused_naming_what_differs(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=named) as caught:
        created(saved(tiny_vdm(1, **{"network": NO_TIME, **change}), tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("option", "value"), [("parametrisation", "eps"), ("schedule", "linear")])
def test_an_image_model_of_another_kind_is_taken_as_the_message_says(tmp_path: Path, option: str, value: str) -> None:
    given: dict[str, Any] = {option: value}
    folder = saved(tiny_vdm(1, network=NO_TIME, **given), tmp_path)
    assert created(folder, **given).config.options[option] == value


def _edit(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_an_image_model_of_other_classes_is_refused(images: Path) -> None:
    _edit(images, classes=["cat", "dog"])
    with pytest.raises(UserError, match=r"trained with classes \('cat', 'dog'\)"):
        created(images)


@pytest.mark.parametrize("side", [("height", 16), ("width", 4)])
def test_an_image_model_of_another_size_is_refused(images: Path, side: tuple[str, int]) -> None:
    shape = {"frames": 1, "height": 8, "width": 8} | dict([side])
    _edit(images, shape=shape)
    made = f"{shape['height']}x{shape['width']}"
    flags = re.escape(
        f"--dataset 'shapes(frames=1, height=8, width=8)', which may start from this one: --init-from {images}"
    )
    with pytest.raises(UserError, match=f"images makes images of {made}, the dataset has 8x8: train one with {flags}$"):
        created(images)


def test_an_image_model_of_another_size_is_trained_on_as_the_message_says(tmp_path: Path) -> None:
    train(
        *training.prepare_training("vdm", "shapes(frames=1, height=16, width=16)", "tiny-image"),
        TWO,
        tmp_path / "large",
    )
    with pytest.raises(UserError, match=f"--init-from {tmp_path / 'large'}$"):
        created(tmp_path / "large")
    model, data = training.prepare_training("vdm", "shapes(frames=1, height=8, width=8)", "tiny-image")
    train(model, data, replace(TWO, init_from=tmp_path / "large"), tmp_path / "small")
    assert created(tmp_path / "small").config.options["base"] == model.config.options["network"]


UNTOLD = [  # what an image model was told, what clips are to be shown with, and what is new of it
    ({"none": 1.0}, None, "none=1, this training has text and class too"),
    ({"class": 0.75, "none": 0.25}, {"text": 1.0}, "class=0.75,none=0.25, this training has text too"),
    ({"text": 1.0, "none": 0.0}, {"text": 0.5, "none": 0.5}, "text=1, this training has none too"),
]


def _retell(folder: Path, conditions: dict[str, float]) -> None:
    """As if it had been trained with these conditions."""
    tensor_files.write(folder / "model.safetensors", state_of(folder))
    _edit(folder, conditions=conditions, sha256=file_sha256(folder / "model.safetensors"))


@pytest.mark.parametrize(("told", "conditions", "named"), UNTOLD)
def test_a_frozen_base_generator_is_shown_nothing_that_it_was_never_told(
    images: Path, tmp_path: Path, told: dict[str, float], conditions: dict[str, float] | None, named: str
) -> None:
    _retell(images, told)
    with pytest.raises(
        UserError, match=f"images was trained with the conditions {named}, .* or --base-init finetune$"
    ) as caught:
        trained(created(images, "frozen"), tmp_path / "run", conditions=conditions)
    assert not (tmp_path / "run" / "config.json").exists()
    said = str(caught.value).partition("--conditions ")[2].partition(", or ")[0]
    assert parse_weights(said, "--conditions") == {way: weight for way, weight in told.items() if weight}
    trained(created(images, "frozen"), tmp_path / "mended", steps=1, conditions=parse_weights(said, "--conditions"))
    trained(created(images), tmp_path / "finetuned", steps=1, conditions=conditions)


def test_a_frozen_base_generator_may_be_shown_less_and_whatever_is_not_recorded(images: Path, tmp_path: Path) -> None:
    trained(created(images, "frozen"), tmp_path / "whatever", steps=1)
    _retell(images, {"text": 0.8, "class": 0.1, "none": 0.1})
    trained(created(images, "frozen"), tmp_path / "less", steps=1, conditions={"text": 0.5, "none": 0.5})


def test_a_checkpoint_of_a_model_without_image_network_is_refused(images: Path) -> None:
    _edit(images, model="vdit")
    with pytest.raises(UserError, match="checkpoint of 'vdit': choose one of vdm, pyoco"):
        created(images)


def test_damaged_weights_are_refused_naming_the_file(images: Path) -> None:
    state = state_of(images)
    tensor_files.write(images / "model.safetensors", {name: tensor + 1 for name, tensor in state.items()})
    with pytest.raises(MissingData, match=r"model.safetensors is damaged or of another training"):
        created(images)


def test_a_configuration_that_was_changed_after_the_training_is_refused(images: Path) -> None:
    _edit(images, preset="other")
    with pytest.raises(MissingData, match=r"has changed since its weights were saved \(preset was .*, is other\)"):
        created(images)


def test_a_missing_tensor_is_named(images: Path) -> None:
    state = state_of(images)
    del state["network.head.bias"]
    tensor_files.write(images / "model.safetensors", state)
    _edit(images, sha256="")
    with pytest.raises(MissingData, match=r"lacks 'head\.bias'"):
        created(images)


# A base generator that reads the embedding of its frame.


EMBEDDED: dict[str, Any] = {"embedding": EMBEDDING}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset `tiny` conditions on the embedding of the base frame."""
    monkeypatch.setitem(videofusion.PRESETS, "tiny", {**videofusion.PRESETS["tiny"], **EMBEDDED})


def test_an_image_model_hands_on_the_embedding_that_it_reads(reads: None, tmp_path: Path) -> None:
    model, state = created(saved(tiny_vdm(1, network=NO_TIME, **EMBEDDED), tmp_path)), state_of(tmp_path)
    handed = {name for name, tensor in model.state_dict().items() if name in state and torch.equal(tensor, state[name])}
    assert {name for name in state if name.startswith("frame_embedding.")} <= handed


def test_an_image_model_that_reads_none_answers_as_it_did(reads: None, images: Path) -> None:
    model, frame = created(images), clips_of(created(images))[:, :1]
    added, _ = model.frame_embedding.encode_frames(frame, torch.tensor([True, False]))  # type: ignore[union-attr]  # it has one
    assert not added.any()  # until the projection has learnt


@pytest.mark.parametrize("changed", [{"size": 16}, None], ids=["another", "none here"])
def test_another_embedding_than_the_image_models_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, Any] | None
) -> None:
    options = {} if changed is None else {"embedding": {**EMBEDDED["embedding"], **changed}}
    monkeypatch.setitem(videofusion.PRESETS, "tiny", {**videofusion.PRESETS["tiny"], **options})
    with pytest.raises(UserError, match=r"was trained with the embedding .*'size': 8.* preset tiny has"):
        created(saved(tiny_vdm(1, network=NO_TIME, **EMBEDDED), tmp_path))


def test_an_embedding_of_frames_of_another_size_is_refused(reads: None, tmp_path: Path) -> None:
    folder = saved(tiny_vdm(1, network=NO_TIME, **EMBEDDED), tmp_path)
    _edit(folder, shape={"frames": 1, "height": 16, "width": 16})
    # Whose encoder of another size cannot begin with its weights.
    with pytest.raises(UserError, match=r"images of 16x16, the dataset has 8x8: .*, height=8, width=8\)'$"):
        created(folder)


def test_a_frozen_base_generator_cannot_learn_to_read_an_embedding(reads: None, images: Path) -> None:
    with pytest.raises(UserError, match=r"images was trained without the embedding .* finetune, or embedding none$"):
        created(images, "frozen")
    assert created(images, "frozen", embedding="none").frame_embedding is None


def test_nor_can_one_of_the_hub(reads: None, tmp_path: Path) -> None:
    library = pytest.importorskip("diffusers", reason="a base generator of the hub needs diffusers, which is an extra")
    sizes = {"block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    library.UNet2DModel(sample_size=8, **sizes, **blocks).save_pretrained(tmp_path)
    library.DDPMScheduler().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"was trained without the embedding .* finetune, or embedding none$"):
        created(tmp_path, "frozen", schedule="linear")
    assert created(tmp_path, "frozen", schedule="linear", embedding="none").frame_embedding is None
    model = created(tmp_path, schedule="linear")  # fine-tuned it learns to read one, which is new here
    others, _ = model.parameter_groups(1.0)
    at_full_rate = {id(p) for p in others["params"]}
    new = [p for name, p in model.named_parameters() if name.startswith("frame_embedding.")]
    assert new
    assert all(id(p) in at_full_rate for p in new)


def rates(model: VideoFusion) -> dict[str, float]:
    """The rate of each part that learns, where that of R is 1; the embedding's parts one by one."""
    of_tensor = {id(p): group["lr"] for group in model.parameter_groups(1.0) for p in group["params"]}
    named = [(name.partition(".layers")[0], p) for name, p in model.named_parameters() if id(p) in of_tensor]
    parts = {(re.findall(r"^frame_embedding\.\w+|^\w+", name)[0], of_tensor[id(p)]) for name, p in named}
    assert len(dict(parts)) == len(parts)  # one rate a part
    return dict(parts)


PARTS = [f"frame_embedding.{name}" for name in ("encoder", "prior", "projection")]


def test_an_embedding_that_the_base_generator_brought_learns_at_its_rate(
    reads: None, images: Path, tmp_path: Path
) -> None:
    of_base, of_residual = (dict.fromkeys(PARTS, rate) for rate in (0.1, 1.0))
    for reader in (tiny_vdm(1, network=NO_TIME, **EMBEDDED), tiny_videofusion(**EMBEDDED)):
        model = created(saved(reader, tmp_path / reader.config.model))
        assert rates(model) == {"base": 0.1, "condition": 0.1, "residual": 1.0, **of_base}
    assert rates(created(images)) == {"base": 0.1, "condition": 0.1, "residual": 1.0, **of_residual}  # new here
    scratch = created(None, "scratch", base_lr=0.1)
    assert rates(scratch) == {"base": 0.1, "condition": 1.0, "residual": 1.0, **of_residual}


def test_a_frozen_base_generator_keeps_the_embedding_that_it_reads(reads: None, tmp_path: Path) -> None:
    folder = saved(tiny_vdm(1, network=NO_TIME, **EMBEDDED), tmp_path / "images")
    model, brought = created(folder, "frozen"), state_of(folder)
    assert rates(model) == {"residual": 1.0}
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"residual"}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = trained(model, tmp_path / "run")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in changed} == {"residual"}
    made = videofusion.build(setting(tmp_path / "run"), steps=2)
    assert made.sample(requests(4, 5)).shape == (2, 4, 3, 8, 8)
    written = state_of(tmp_path / "run")
    kept = [name for name in brought if name.startswith(("condition.", "frame_embedding."))]
    assert len(kept) > len(PARTS)
    assert all(torch.equal(written[name], brought[name]) for name in kept)


@pytest.mark.parametrize("init", PRETRAINED)
def test_with_an_embedding_it_is_resumed_bit_for_bit_as_well(reads: None, tmp_path: Path, init: str) -> None:
    _resumed(saved(tiny_vdm(1, network=NO_TIME, **EMBEDDED), tmp_path / "images"), tmp_path, init)
