"""Tests of VideoFusion's pretrained base generator: loading, freezing, fine-tuning, refused checkpoints."""

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
from clipfiles import grey_clip, write_frames
from embedded import EMBEDDING
from helpers import (
    NO_TIME,
    build_context,
    clips_of,
    embed,
    perturb,
    requests,
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
from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256

pytestmark = pytest.mark.usefixtures("quick_training")

TIMES = torch.tensor([300, 800])
OPTIONS = TrainOptions(steps=4, batch_size=2, lr=1e-2, warmup=1, ema=0.9, save_every=100, sample_every=100)
TWO_STEPS = replace(OPTIONS, steps=2)
PRETRAINED = ("finetune", "frozen")


@pytest.fixture(autouse=True)
def small(small_presets: None, quick_training: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the preset `tiny-image` too."""
    monkeypatch.setitem(vdm.PRESETS, "tiny-image", {**vdm.PRESETS["tiny-image"], "network": NO_TIME})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Checkpoint of an image model: a VDM of one frame."""
    return save_perturbed(tiny_vdm(1, network=NO_TIME), tmp_path / "images")


def save_perturbed(model: DiffusionModel, folder: Path) -> Path:
    perturb(model)  # to differ from initial weights
    model.save(folder)
    return folder


def create_model(source: Path | None, init: str = "finetune", **options: Any) -> VideoFusion:
    model = videofusion.create(tiny_dataset(), base_init=init, base_from=source, **options)  # type: ignore[arg-type]
    assert isinstance(model, VideoFusion)
    return model


def state_of(folder: Path) -> dict[str, Tensor]:
    return tensor_files.read(folder / "model.safetensors")


# Loaded weights.


@pytest.mark.parametrize("init", PRETRAINED)
def test_the_base_generator_has_the_weights_of_the_image_model(images: Path, init: str) -> None:
    model, state = create_model(images, init), state_of(images)
    for name, tensor in model.state_dict().items():
        if not name.startswith("residual."):
            assert torch.equal(tensor, state[name.replace("base.", "network.", 1)]), name
    teacher = tiny_vdm(1, network=NO_TIME)
    teacher.load_state_dict(state)
    frame, condition = clips_of(model)[:, :1], embed(teacher, "text")
    torch.testing.assert_close(embed(model, "text"), condition)  # a frozen encoder may use a fused kernel
    with torch.no_grad():
        assert torch.equal(
            model._denoise_image(frame, TIMES, condition).x0, teacher.predict(frame, TIMES, condition).x0
        )


def test_the_checkpoint_sets_the_size_of_the_base_generator(tmp_path: Path) -> None:
    wide = save_perturbed(tiny_vdm(1, network={**NO_TIME, "channels": [24, 32]}), tmp_path)
    assert create_model(wide).config.options["base"]["channels"] == [24, 32]


def test_the_base_generator_of_a_videofusion_is_loaded(tmp_path: Path) -> None:
    model, state = create_model(save_perturbed(tiny_videofusion(), tmp_path)), state_of(tmp_path)
    loaded = [name for name, tensor in model.state_dict().items() if torch.equal(tensor, state[name])]
    assert {name for name in state if not name.startswith("residual.")} <= set(loaded)
    assert not torch.equal(model.residual.frame, state["residual.frame"])


def test_the_origin_of_the_base_generator_is_recorded(images: Path, tmp_path: Path) -> None:
    model = create_model(images, "frozen", lam=0.3)
    model.save(tmp_path / "model")
    loaded = videofusion.build(build_context(tmp_path / "model")).model
    assert loaded.config.options["base_init"] == "frozen"
    assert loaded.config.options["base_sha256"] == model.config.options["base_sha256"]
    other = create_model(save_perturbed(tiny_vdm(1, network=NO_TIME, perturbed=False), tmp_path / "other"))
    assert other.config.options["base_sha256"] != model.config.options["base_sha256"]
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in model.state_dict().items())


# Training.


def train_and_get_weights(model: VideoFusion, folder: Path, **options: Any) -> dict[str, Tensor]:
    """Raw weights after a few steps."""
    train(model, tiny_dataset(), replace(OPTIONS, **options), folder)
    return model.state_dict()


def test_a_frozen_base_generator_and_its_embeddings_do_not_change(images: Path, tmp_path: Path) -> None:
    model = create_model(images, "frozen")
    (group,) = model.parameter_groups(1e-3)
    assert [id(p) for p in group["params"]] == [id(p) for p in model.residual.parameters()]
    # Unused gradients would accumulate and count in gradient clipping.
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"residual"}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = train_and_get_weights(model, tmp_path / "run")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("residual.") for name in changed)
    assert set(model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model))) == {"residual"}


def test_a_pretrained_base_generator_learns_at_its_own_rate(images: Path, tmp_path: Path) -> None:
    others, base = create_model(images).parameter_groups(1e-3)
    assert (others["lr"], base["lr"]) == (1e-3, pytest.approx(1e-4))  # default: a tenth
    model = create_model(images, base_lr=0.01)
    others, base = model.parameter_groups(1e-3)
    assert base["lr"] == pytest.approx(1e-5)
    assert [id(p) for p in others["params"]] == [id(p) for p in model.residual.parameters()]
    assert [id(p) for p in base["params"]] == [id(p) for p in [*model.base.parameters(), *model.condition.parameters()]]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = train_and_get_weights(model, tmp_path / "run", steps=1)
    # Adam's first step has the length of the rate.
    steps = {
        part: (after[f"{part}.head.bias"] - before[f"{part}.head.bias"]).abs().max() for part in ("base", "residual")
    }
    assert float(steps["base"] / steps["residual"]) == pytest.approx(0.01, rel=0.01)


def test_the_image_loss_is_optional_for_pretrained_base_generators(images: Path) -> None:
    terms_of_both = {"base", "residual"}
    cases: list[tuple[Path | None, str, dict[str, Any], set[str]]] = [
        (images, "finetune", {}, terms_of_both),
        (images, "finetune", {"images": 2}, terms_of_both | {"images"}),  # optional
        (images, "frozen", {"images": 0}, {"residual"}),
        (None, "scratch", {}, terms_of_both | {"images"}),
    ]
    for source, init, options, expected in cases:
        model = create_model(source, init, **options)
        assert set(model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model))) == expected


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("init", PRETRAINED)
def test_resuming_is_bit_exact(images: Path, tmp_path: Path, init: str) -> None:
    _check_resuming(images, tmp_path, init)


def _check_resuming(images: Path, tmp_path: Path, init: str) -> None:
    """Require equal weights from one training and from a stopped and resumed one."""
    stops = iter([False, True])
    for name in ("whole", "parts"):
        torch.manual_seed(0)
        stop = (lambda: next(stops)) if name == "parts" else (lambda: False)
        train(create_model(images, init), tiny_dataset(), OPTIONS, tmp_path / name, stop=stop)
    train(create_model(images, init), tiny_dataset(), OPTIONS, tmp_path / "parts", resume=True)
    uninterrupted, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert uninterrupted == resumed


def test_the_command_in_the_message_trains_an_image_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="makes clips of 4 frames") as caught:
        create_model(save_perturbed(tiny_vdm(), tmp_path / "clips"))
    words = iter(shlex.split(str(caught.value).splitlines()[1].removeprefix("  python -m vfbench train ")))
    flags = dict(zip(words, words, strict=True))
    assert flags.keys() == {"--model", "--preset", "--dataset", "--output"}
    model, data = training.prepare_training(flags["--model"], flags["--dataset"], flags["--preset"])
    assert data.shape == tiny_dataset(1).shape
    train(model, data, TWO_STEPS, tmp_path / "model")
    assert create_model(tmp_path / "model").config.options["base"] == vdm.PRESETS["tiny-image"]["network"]


def test_the_command_in_the_message_has_the_data_root(tmp_path: Path) -> None:
    write_frames(tmp_path / "data" / "greys" / "one", grey_clip(height=24, width=24))
    data = folder_dataset.build(root=str(tmp_path / "data"), frames=4, height=8, width=16)
    with pytest.raises(UserError) as caught:
        videofusion.create(data, base_init="finetune", base_from=save_perturbed(tiny_vdm(), tmp_path / "clips"))
    assert " --dataset 'folder(frames=1, height=8, width=16)' --data-root DATA --output DIR" in str(caught.value)


# Refused options and checkpoints.


def test_datasets_of_images_are_refused_naming_an_image_model() -> None:
    data = tiny_dataset(1)
    with pytest.raises(UserError, match=r"shapes has clips of 1x8x8: .* --model vdm --preset tiny-image$"):
        videofusion.create(data)
    assert vdm.create(data, "tiny-image").config.shape == data.shape
    assert isinstance(videofusion.create(data, "tiny-one"), OneNetworkVideoFusion)  # one network for all frames
    assert isinstance(videofusion.create(tiny_dataset(2)), VideoFusion)


@pytest.mark.parametrize(
    ("init", "with_checkpoint", "options", "message"),
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
        ("frozen", True, {"stop_gradient": False}, "stop_gradient False: a frozen base generator"),
        ("finetune", True, {"parametrisation": "epz"}, "no parametrisation called 'epz': did you mean 'eps'"),
    ],
)
def test_contradicting_options_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    images: Path,
    init: str,
    with_checkpoint: bool,
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match=message):
        create_model(images if with_checkpoint else None, init, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parametrisation": "eps"}, r"parametrisation eps, preset tiny has v: .*\(parametrisation='eps'\)\"$"),
        ({"schedule": "linear"}, r"schedule linear, preset tiny has cosine: .*\(schedule='linear'\)\"$"),
        ({"network": {**NO_TIME, "embedding": 32}}, "embedding 32, preset tiny has 16"),
    ],
    ids=str,
)
def test_an_image_model_with_other_options_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        create_model(save_perturbed(tiny_vdm(1, **{"network": NO_TIME, **change}), tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("option", "value"), [("parametrisation", "eps"), ("schedule", "linear")])
def test_an_image_model_with_equal_options_is_loaded(tmp_path: Path, option: str, value: str) -> None:
    options: dict[str, Any] = {option: value}
    folder = save_perturbed(tiny_vdm(1, network=NO_TIME, **options), tmp_path)
    assert create_model(folder, **options).config.options[option] == value


def _edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_an_image_model_of_other_classes_is_refused(images: Path) -> None:
    _edit_config(images, classes=["cat", "dog"])
    with pytest.raises(UserError, match=r"trained with classes \('cat', 'dog'\)"):
        create_model(images)


@pytest.mark.parametrize("side", [("height", 16), ("width", 4)])
def test_an_image_model_of_another_size_is_refused(images: Path, side: tuple[str, int]) -> None:
    shape = {"frames": 1, "height": 8, "width": 8} | dict([side])
    _edit_config(images, shape=shape)
    size = f"{shape['height']}x{shape['width']}"
    flags = re.escape(
        f"--dataset 'shapes(frames=1, height=8, width=8)', which may start from this one: --init-from {images}"
    )
    with pytest.raises(UserError, match=f"images of {size}, .*8x8: .*{flags}$"):
        create_model(images)


@pytest.mark.slow
def test_an_image_model_of_another_size_can_initialise_one(tmp_path: Path) -> None:
    larger = training.prepare_training("vdm", "shapes(frames=1, height=16, width=16)", "tiny-image")
    train(*larger, TWO_STEPS, tmp_path / "large")
    with pytest.raises(UserError, match=f"--init-from {tmp_path / 'large'}$"):
        create_model(tmp_path / "large")
    model, data = training.prepare_training("vdm", "shapes(frames=1, height=8, width=8)", "tiny-image")
    train(model, data, replace(TWO_STEPS, init_from=tmp_path / "large"), tmp_path / "small")
    assert create_model(tmp_path / "small").config.options["base"] == model.config.options["network"]


MISSING_CONDITIONING = [  # of the image model, of the new training, and the message
    ({"none": 1.0}, None, "none=1, this training has text and class too"),
    ({"class": 0.75, "none": 0.25}, {"text": 1.0}, "class=0.75,none=0.25, this training has text too"),
    ({"text": 1.0, "none": 0.0}, {"text": 0.5, "none": 0.5}, "text=1, this training has none too"),
]


def _record_conditioning(folder: Path, conditions: dict[str, float]) -> None:
    """Change the recorded conditioning probabilities of a checkpoint."""
    tensor_files.write(folder / "model.safetensors", state_of(folder))
    _edit_config(folder, conditions=conditions, sha256=file_sha256(folder / "model.safetensors"))


@pytest.mark.one_case
@pytest.mark.parametrize(("trained_conditions", "conditions", "message"), MISSING_CONDITIONING)
def test_new_conditioning_is_refused_for_a_frozen_base_generator(
    images: Path,
    tmp_path: Path,
    trained_conditions: dict[str, float],
    conditions: dict[str, float] | None,
    message: str,
) -> None:
    _record_conditioning(images, trained_conditions)
    with pytest.raises(UserError, match=f"conditions {message}, .*--base-init finetune$") as caught:
        train_and_get_weights(create_model(images, "frozen"), tmp_path / "run", conditions=conditions)
    assert not (tmp_path / "run" / "config.json").exists()
    flag = str(caught.value).partition("--conditions ")[2].partition(", or ")[0]
    assert parse_weights(flag, "--conditions") == {
        mode: weight for mode, weight in trained_conditions.items() if weight
    }
    train_and_get_weights(
        create_model(images, "frozen"), tmp_path / "mended", steps=1, conditions=parse_weights(flag, "--conditions")
    )
    train_and_get_weights(create_model(images), tmp_path / "finetuned", steps=1, conditions=conditions)


@pytest.mark.slow
def test_less_or_unrecorded_conditioning_is_allowed_when_frozen(images: Path, tmp_path: Path) -> None:
    train_and_get_weights(create_model(images, "frozen"), tmp_path / "whatever", steps=1)
    _record_conditioning(images, {"text": 0.8, "class": 0.1, "none": 0.1})
    train_and_get_weights(
        create_model(images, "frozen"), tmp_path / "less", steps=1, conditions={"text": 0.5, "none": 0.5}
    )


def test_a_checkpoint_of_a_model_without_image_network_is_refused(images: Path) -> None:
    _edit_config(images, model="vdit")
    with pytest.raises(UserError, match="checkpoint of 'vdit': choose one of vdm, pyoco"):
        create_model(images)


def test_damaged_weights_are_refused_naming_the_file(images: Path) -> None:
    state = state_of(images)
    tensor_files.write(images / "model.safetensors", {name: tensor + 1 for name, tensor in state.items()})
    with pytest.raises(MissingData, match=r"model.safetensors is damaged or of another training"):
        create_model(images)


def test_a_changed_config_is_refused(images: Path) -> None:
    _edit_config(images, preset="other")
    with pytest.raises(MissingData, match=r"has changed .*\(preset was .*, is other\)"):
        create_model(images)


def test_a_missing_tensor_is_named(images: Path) -> None:
    state = state_of(images)
    del state["network.head.bias"]
    tensor_files.write(images / "model.safetensors", state)
    _edit_config(images, sha256="")
    with pytest.raises(MissingData, match=r"lacks 'head\.bias'"):
        create_model(images)


# Frame embeddings.


EMBEDDED: dict[str, Any] = {"embedding": EMBEDDING}


@pytest.fixture
def embedding_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset `tiny` with an embedding of the base frame."""
    monkeypatch.setitem(videofusion.PRESETS, "tiny", {**videofusion.PRESETS["tiny"], **EMBEDDED})


def test_the_frame_embedding_of_an_image_model_is_loaded(embedding_preset: None, tmp_path: Path) -> None:
    model, state = create_model(save_perturbed(tiny_vdm(1, network=NO_TIME, **EMBEDDED), tmp_path)), state_of(tmp_path)
    loaded = {name for name, tensor in model.state_dict().items() if name in state and torch.equal(tensor, state[name])}
    assert {name for name in state if name.startswith("frame_embedding.")} <= loaded


def test_a_new_frame_embedding_changes_no_prediction(embedding_preset: None, images: Path) -> None:
    model, frame = create_model(images), clips_of(create_model(images))[:, :1]
    added, _ = model.frame_embedding.encode_frames(frame, torch.tensor([True, False]))  # type: ignore[union-attr]
    assert not added.any()  # the projection starts at zero


@pytest.mark.parametrize("changed", [{"size": 16}, None], ids=["another", "none here"])
def test_a_frame_embedding_with_other_options_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, Any] | None
) -> None:
    options = {} if changed is None else {"embedding": {**EMBEDDED["embedding"], **changed}}
    monkeypatch.setitem(videofusion.PRESETS, "tiny", {**videofusion.PRESETS["tiny"], **options})
    with pytest.raises(UserError, match=r"the embedding .*'size': 8.* preset tiny has"):
        create_model(save_perturbed(tiny_vdm(1, network=NO_TIME, **EMBEDDED), tmp_path))


def test_a_frame_embedding_of_another_frame_size_is_refused(embedding_preset: None, tmp_path: Path) -> None:
    folder = save_perturbed(tiny_vdm(1, network=NO_TIME, **EMBEDDED), tmp_path)
    _edit_config(folder, shape={"frames": 1, "height": 16, "width": 16})
    # Its encoder weights do not fit another frame size.
    with pytest.raises(UserError, match=r"16x16, .*8x8: .*, height=8, width=8\)'$"):
        create_model(folder)


def test_a_new_frame_embedding_is_refused_for_a_frozen_base(embedding_preset: None, images: Path) -> None:
    with pytest.raises(UserError, match=r"without the embedding .* finetune, or embedding none$"):
        create_model(images, "frozen")
    assert create_model(images, "frozen", embedding="none").frame_embedding is None


def test_a_new_frame_embedding_is_refused_for_a_frozen_base_of_the_hub(embedding_preset: None, tmp_path: Path) -> None:
    library = pytest.importorskip("diffusers", reason="base generators of the hub need the extra diffusers")
    sizes = {"block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    library.UNet2DModel(sample_size=8, **sizes, **blocks).save_pretrained(tmp_path)
    library.DDPMScheduler().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"without the embedding .* finetune, or embedding none$"):
        create_model(tmp_path, "frozen", schedule="linear")
    assert create_model(tmp_path, "frozen", schedule="linear", embedding="none").frame_embedding is None
    model = create_model(tmp_path, schedule="linear")  # fine-tuning trains a new one
    others, _ = model.parameter_groups(1.0)
    at_full_rate = {id(p) for p in others["params"]}
    new = [p for name, p in model.named_parameters() if name.startswith("frame_embedding.")]
    assert new
    assert all(id(p) in at_full_rate for p in new)


def relative_rates(model: VideoFusion) -> dict[str, float]:
    """Learning rate of each trained part relative to --lr, with the parts of the embedding one by one."""
    rate_of = {id(p): group["lr"] for group in model.parameter_groups(1.0) for p in group["params"]}
    parameters = [(name.partition(".layers")[0], p) for name, p in model.named_parameters() if id(p) in rate_of]
    parts = {(re.findall(r"^frame_embedding\.\w+|^\w+", name)[0], rate_of[id(p)]) for name, p in parameters}
    assert len(dict(parts)) == len(parts)  # one rate per part
    return dict(parts)


PARTS = [f"frame_embedding.{name}" for name in ("encoder", "prior", "projection")]


def test_a_loaded_frame_embedding_has_the_rate_of_the_base(
    embedding_preset: None, images: Path, tmp_path: Path
) -> None:
    of_base, of_residual = (dict.fromkeys(PARTS, rate) for rate in (0.1, 1.0))
    for reader in (tiny_vdm(1, network=NO_TIME, **EMBEDDED), tiny_videofusion(**EMBEDDED)):
        model = create_model(save_perturbed(reader, tmp_path / reader.config.model))
        assert relative_rates(model) == {"base": 0.1, "condition": 0.1, "residual": 1.0, **of_base}
    assert relative_rates(create_model(images)) == {
        "base": 0.1,
        "condition": 0.1,
        "residual": 1.0,
        **of_residual,
    }  # not loaded
    scratch = create_model(None, "scratch", base_lr=0.1)
    assert relative_rates(scratch) == {"base": 0.1, "condition": 1.0, "residual": 1.0, **of_residual}


def test_a_frozen_base_generator_keeps_its_frame_embedding(embedding_preset: None, tmp_path: Path) -> None:
    folder = save_perturbed(tiny_vdm(1, network=NO_TIME, **EMBEDDED), tmp_path / "images")
    model, loaded = create_model(folder, "frozen"), state_of(folder)
    assert relative_rates(model) == {"residual": 1.0}
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"residual"}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = train_and_get_weights(model, tmp_path / "run")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in changed} == {"residual"}
    sampler = videofusion.build(build_context(tmp_path / "run"), steps=2)
    assert sampler.sample(requests(4, 5)).shape == (2, 4, 3, 8, 8)
    written = state_of(tmp_path / "run")
    frozen = [name for name in loaded if name.startswith(("condition.", "frame_embedding."))]
    assert len(frozen) > len(PARTS)
    assert all(torch.equal(written[name], loaded[name]) for name in frozen)


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("init", PRETRAINED)
def test_resuming_with_a_frame_embedding_is_bit_exact(embedding_preset: None, tmp_path: Path, init: str) -> None:
    _check_resuming(save_perturbed(tiny_vdm(1, network=NO_TIME, **EMBEDDED), tmp_path / "images"), tmp_path, init)
