"""Tests of `vfbench.utils.tensor_files`, `files` and `checkpoint`: atomic writes, damaged files, refused folders."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_vdm, tiny_videofusion
from torch import Tensor, nn

from vfbench.diffusion.model_config import ModelConfig
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.models.videofusion import VideoFusion
from vfbench.utils import checkpoint as checkpoint_
from vfbench.utils import files
from vfbench.utils import tensor_files as tensor_files_
from vfbench.utils.files import file_sha256

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64)}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_tensors_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    transposed = torch.arange(6.0).view(2, 3).T  # not contiguous
    tensor_files_.write(path, {**TENSORS, "c": transposed, "d": nn.Parameter(torch.ones(2))}, {"source": "test"})
    loaded = tensor_files_.read(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in {**TENSORS, "c": transposed}.items())
    assert loaded["b"].dtype == torch.int64
    assert not loaded["d"].requires_grad
    assert names(tmp_path) == ["w.safetensors"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    tensor_files_.write(path, TENSORS)

    def interrupted(*_: Any) -> None:
        raise OSError("stopped before the rename")

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(BadEnvironment, match="before the rename"):
        tensor_files_.write(path, {"a": torch.zeros(9)})
    assert torch.equal(tensor_files_.read(path)["a"], TENSORS["a"])


def test_files_have_the_default_permissions(tmp_path: Path) -> None:
    tensor_files_.write(tmp_path / "w.safetensors", TENSORS)
    files.write_json(tmp_path / "x.json", {})
    (tmp_path / "plain").write_text("")
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


class Bomb:
    """Pickles to code that creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    torch.save({"a": Bomb(tmp_path / "executed")}, path)
    with pytest.raises(MissingData, match=r"w\.safetensors is damaged or not a safetensors file"):
        tensor_files_.read(path)
    assert names(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "w.safetensors"
    tensor_files_.write(path, TENSORS)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(MissingData, match=r"w\.safetensors is damaged"):
        tensor_files_.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"no weights at .*none\.safetensors"):
        tensor_files_.read(tmp_path / "none.safetensors")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"vfbench" * 1000)
    assert file_sha256(path) == hashlib.sha256(b"vfbench" * 1000).hexdigest()


def test_json_is_written_atomically_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"b": [1, 2], "a": "x"})
    assert files.read_json(path) == {"a": "x", "b": [1, 2]}
    assert path.read_text().index('"b"') < path.read_text().index('"a"')  # in the order of the dict
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})  # NaN is no valid JSON
    assert files.read_json(path)["a"] == "x"
    assert names(tmp_path) == ["x.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        ("{}".encode("utf-16-le"), "is not UTF-8 text: a null byte at byte 1"),
        (b"[1]", "is not valid JSON: it holds list"),
        (b"\xff", "is not UTF-8"),
        (b"[" * 1_000_000, "is not valid JSON: .*nested"),
        (b'{"a": ' * 1_000_000, "is not valid JSON: .*nested"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "is not valid JSON: .*nested"),
        (b'{"a": NaN}', "is not valid JSON: NaN"),
        (b'{"a": -Infinity}', "is not valid JSON: -Infinity"),
        (b'{"a": 1e400}', "is not valid JSON: 1e400"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON: 999"),
        (b'{"a": 9223372036854775808}', "is not valid JSON: 9223372036854775808"),
        (b'{"a": {"b": 1, "b": 2}}', "is not valid JSON: 'b' is given twice"),
        (b'{"a": ["\\ud800"]}', r"is not valid JSON: '\\ud800'"),
        (b'{"a": "' + b"x" * 2000 + b'"}', "has more than 1,000 bytes"),
    ],
)
def test_damaged_json_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str) -> None:
    if "1,000 bytes" in message:
        monkeypatch.setattr(files, "LARGEST_JSON", 1000)
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(MissingData, match=rf"x\.json {message}"):
        files.read_json(path)


def test_missing_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"none\.json does not exist"):
        files.read_json(tmp_path / "none.json")


def test_loading_keeps_the_dtype_of_the_module(tmp_path: Path) -> None:
    path, source, target = tmp_path / "w.safetensors", nn.Linear(3, 2), nn.Linear(3, 2)
    tensor_files_.write(path, tensor_files_.to_half(source.state_dict()))
    tensor_files_.load_into(target, path)
    assert target.weight.dtype == torch.float32
    assert torch.equal(target.weight, source.weight.half().float())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, "'bias' is missing"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "extra": torch.zeros(1)}, "'extra' is not part"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"'weight' has shape \(3, 2\), needed \(2, 3\)"),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2, dtype=torch.int64)},
            r"'bias' holds torch.int64, needed torch.float32",
        ),
    ],
)
def test_loading_refuses_other_tensors(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    path, module = tmp_path / "w.safetensors", nn.Linear(3, 2)
    before = module.weight.clone()
    tensor_files_.write(path, tensors)
    with pytest.raises(MissingData, match=message) as caught:
        tensor_files_.load_into(module, path)
    assert str(path) in str(caught.value)
    assert torch.equal(module.weight, before)  # nothing was loaded


def test_loading_reports_damage_then_shapes_then_the_hash(tmp_path: Path) -> None:
    """The hash is wrong in each case and reported only without a more specific reason."""
    path, module = tmp_path / "w.safetensors", nn.Linear(3, 2)
    matching = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    tensor_files_.write(path, matching)
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(MissingData, match="is damaged or not a safetensors file"):
        tensor_files_.load_into(module, path, "ab" * 32)
    tensor_files_.write(path, {**matching, "weight": torch.zeros(9, 3)})
    with pytest.raises(MissingData, match=r"'weight' has shape \(9, 3\), needed \(2, 3\)"):
        tensor_files_.load_into(module, path, "ab" * 32)
    path.write_bytes(content)
    with pytest.raises(MissingData, match=f"its SHA-256 is {file_sha256(path)}, expected {'ab' * 32}"):
        tensor_files_.load_into(module, path, "ab" * 32)
    assert tensor_files_.load_into(module, path, file_sha256(path)) == file_sha256(path)


def test_weights_of_another_model_are_refused_naming_a_tensor(tmp_path: Path) -> None:
    model = tiny_vdm()
    model.save(tmp_path)
    tiny_videofusion().save(tmp_path / "other")
    swapped = (tmp_path / "other" / checkpoint_.TENSORS).read_bytes()
    (tmp_path / checkpoint_.TENSORS).write_bytes(swapped)
    with pytest.raises(MissingData, match=r"does not fit this model: 'base\.[\w.]+' is not part of the model"):
        tensor_files_.load_into(model, tmp_path / checkpoint_.TENSORS, model.config.sha256)


# Checkpoint folders.


def _write_run_json(folder: Path, checkpoint: str) -> None:
    files.write_json(folder / "run.json", {"options": {"checkpoint": {"value": checkpoint, "origin": "default"}}})


def _save_without(name: str) -> Any:
    def make(folder: Path) -> None:
        tiny_vdm().save(folder)
        (folder / name).unlink()

    return make


NO_CHECKPOINTS = {
    "empty": (lambda folder: None, "here is empty: give the --output of a `python -m vfbench train`"),
    "pictures": (lambda folder: (folder / "a.png").write_text(""), r"here holds no config\.json: give the --output"),
    "a run": (lambda folder: _write_run_json(folder, "None"), "the folder of a run, .*: leave out --checkpoint"),
    "a run of mine": (
        lambda folder: _write_run_json(folder, "runs/me"),
        "a run, .*no weights: use --checkpoint runs/me",
    ),
    "a pipeline": (
        lambda folder: files.write_json(folder / "model_index.json", {}),
        r"pipeline of diffusers: use --model \"diffusers\(id='.*here'\)\"",
    ),
    "of diffusers": (
        lambda folder: files.write_json(folder / "config.json", {"_class_name": "UNet2DModel"}),
        r"config\.json describes a 'UNet2DModel' of another library",
    ),
    "of transformers": (
        lambda folder: files.write_json(folder / "config.json", {"model_type": "bert"}),
        r"config\.json describes a 'bert' of another library",
    ),
    "nothing": (lambda folder: files.write_json(folder / "config.json", {}), r"config\.json names no model"),
    "another": (lambda folder: tiny_videofusion().save(folder), "a checkpoint of 'videofusion', .*--model videofusion"),
    "half copied": (
        _save_without("model.safetensors"),
        r"has a config\.json and no model\.safetensors: copy that file",
    ),
}


@pytest.mark.parametrize(("make", "message"), NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_folders_that_are_no_checkpoint_are_refused_with_a_reason(make: Any, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    make(folder)
    with pytest.raises(MissingData, match=message):
        checkpoint_.require_checkpoint(folder, "vdm")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model/model.safetensors", "is a file of a checkpoint: give its folder, .*model$"),
        ("model/config.json", "is a file of a checkpoint: give its folder, .*model$"),
        ("clip.mp4", r"is a file: a checkpoint is a folder with config\.json and model\.safetensors"),
        ("gone", "gone does not exist: give the --output of a `python -m vfbench train`$"),
    ],
)
def test_paths_that_are_no_folder_are_refused(path: str, message: str, tmp_path: Path) -> None:
    tiny_vdm().save(tmp_path / "model")
    (tmp_path / "clip.mp4").write_text("")
    with pytest.raises(MissingData, match=message):
        checkpoint_.require_checkpoint(tmp_path / path, "vdm")
    checkpoint_.require_checkpoint(tmp_path / "model", "vdm")
    checkpoint_.require_checkpoint(tmp_path / "model")


def test_a_name_like_one_of_the_hub_gets_a_suggestion() -> None:
    with pytest.raises(MissingData, match="or hub:someone/videos for a checkpoint on the hub"):
        checkpoint_.require_checkpoint(Path("someone/videos"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lam": 1.5}, r"lambda 1\.5"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"base_frame": 9}, "base frame 9|base_frame 9"),
        ({"base": {"wings": 2}}, "wings"),
        ({"base": {"channels": []}}, "channels"),
    ],
)
def test_an_invalid_option_in_a_config_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    tiny_videofusion().save(tmp_path)
    path = tmp_path / checkpoint_.CONFIG
    content = files.read_json(path)
    files.write_json(path, {**content, "options": {**content["options"], **changed}})
    config = ModelConfig.read(path, "videofusion")
    with (
        pytest.raises(MissingData, match=rf"config\.json does not describe a videofusion \(.*({message})"),
        checkpoint_.config_errors(path, "videofusion"),
    ):
        VideoFusion(config)


@pytest.mark.parametrize("conditions", [7, ["text"], {"foo": 1.0}, {"text": 0.0}, {"text": -1.0}, {"text": "a"}])
def test_invalid_conditions_in_a_config_are_refused(conditions: Any, tmp_path: Path) -> None:
    tiny_videofusion().save(tmp_path)
    path = tmp_path / checkpoint_.CONFIG
    files.write_json(path, {**files.read_json(path), "conditions": conditions})
    with pytest.raises(MissingData, match=r"config\.json(: | does not describe a videofusion .)conditions"):
        ModelConfig.read(path, "videofusion")


def test_a_missing_field_in_a_config_is_refused(tmp_path: Path) -> None:
    tiny_videofusion().save(tmp_path)
    path = tmp_path / checkpoint_.CONFIG
    content = files.read_json(path)
    del content["shape"]
    files.write_json(path, content)
    with pytest.raises(MissingData, match=r"config\.json: shape: "):
        ModelConfig.read(path, "videofusion")


@pytest.mark.parametrize("error", [BadEnvironment("diffusers is missing"), MissingData("another file")])
def test_config_errors_passes_other_errors_through(error: UserError, tmp_path: Path) -> None:
    with pytest.raises(type(error), match=str(error)), checkpoint_.config_errors(tmp_path, "vdm"):
        raise error


def test_halving_keeps_integers_and_halves_the_file(tmp_path: Path) -> None:
    state = {"w": torch.randn(300, 100), "count": torch.tensor(70_000)}
    half = tensor_files_.to_half(state)
    assert (half["w"].dtype, half["count"].item()) == (torch.float16, 70_000)
    for name, tensors in {"full": state, "half": half}.items():
        tensor_files_.write(tmp_path / name, tensors)
    ratio = (tmp_path / "half").stat().st_size / (tmp_path / "full").stat().st_size
    assert ratio == pytest.approx(0.5, abs=0.01)


def test_halving_refuses_values_beyond_float16() -> None:
    with pytest.raises(UserError, match=r"'large' holds 70000, .*65504.* --resume and without --half"):
        tensor_files_.to_half({"small": torch.ones(2), "large": torch.tensor([7e4])})


def test_a_shipped_checkpoint_has_a_config_and_the_preset_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_, "SHIPPED_FOLDER", tmp_path)
    usual, other = tmp_path / "shapes" / "vdm", tmp_path / "shapes" / "vdm-wide"
    for folder, preset in ((usual, "tiny"), (other, "wide")):
        folder.mkdir(parents=True)
        assert checkpoint_.shipped("shapes", "vdm", preset) is None
        files.write_json(folder / "config.json", {"preset": preset})
        assert checkpoint_.shipped("shapes", "vdm", preset) == folder
    assert checkpoint_.shipped("shapes", "vdm") == usual
    assert checkpoint_.shipped("shapes", "vdm", "narrow") is None


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    tensor_files_.write(
        tmp_path / "w.safetensors", {"weight": torch.full((2, 2), float("nan")), "bias": torch.zeros(2)}
    )
    with pytest.raises(MissingData, match=r"holds NaN or infinity in 'weight'"):
        tensor_files_.load_into(layer, tmp_path / "w.safetensors")
