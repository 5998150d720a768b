"""Tests of VideoFusion checkpoints: half precision, shipped files, damage and changed configurations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CPU, NO_TIME, build_context, requests, sampler, tiny_dataset, tiny_vdm, tiny_videofusion

from vfbench.errors import MissingCheckpoint, MissingData
from vfbench.interfaces import BuildContext, ClipShape
from vfbench.models import videofusion
from vfbench.utils import tensor_files as weights
from vfbench.utils.files import file_sha256


def test_half_precision_halves_the_file_and_keeps_clips(checkpoint: Path, tmp_path: Path) -> None:
    tiny_videofusion().save(tmp_path, half=True)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path, checkpoint)]
    assert 0.5 < sizes[0] / sizes[1] < 0.6
    model = sampler(tmp_path)
    assert {p.dtype for p in model.model.parameters()} == {torch.float32}
    assert (model.sample(requests(4)).int() - sampler(checkpoint).sample(requests(4)).int()).abs().float().mean() < 2


Damage = Callable[[Path], object]


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _rename_model(folder: Path) -> None:
    tiny_vdm().save(folder)


def _widen(folder: Path) -> None:
    tiny_videofusion(base={**NO_TIME, "channels": [16, 16]}).save(folder / "other")
    (folder / "other" / "model.safetensors").replace(folder / "model.safetensors")


def _remove_option(folder: Path) -> None:
    _edit_config(folder, lambda config: config["options"].pop("lam"))


def _edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def _with_options(**options: Any) -> Damage:
    return lambda folder: _edit_config(folder, lambda config: config["options"].update(options))


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "model.safetensors is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "a config.json and no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json is not valid JSON: it holds list"),
        (
            lambda folder: (folder / "config.json").write_text('{"model": "videofusion"}'),
            "config.json: preset: Field required",
        ),
        (_rename_model, "checkpoint of 'vdm', not of 'videofusion'"),
        (_widen, "has shape"),
        (_remove_option, "config.json does not describe a videofusion .*lam"),
        (_with_options(lam=2.0), r"config.json does not describe a videofusion \(lambda 2"),
        (
            _with_options(parametrisation="epsilon"),
            "config.json does not describe .*no parametrisation called 'epsilon'",
        ),
        (_with_options(base_init="thawed"), "config.json does not describe .*no base init called 'thawed'"),
        (_with_options(base={"channels": [-32, 64]}), "config.json does not describe a videofusion"),
        (_with_options(lam=0.4), r"has changed since its weights were saved \(options.lam was 0.5, is 0.4\)"),
        (_with_options(schedule="linear"), "options.schedule was cosine, is linear"),
        (_with_options(parametrisation="eps"), "options.parametrisation was v, is eps"),
        (_with_options(lamda=0.5), "options.lamda was None, is 0.5"),
        (lambda folder: _edit_config(folder, lambda config: config.pop("sha256")), "records no SHA-256"),
    ],
)
def test_a_damaged_checkpoint_is_refused_naming_the_file(tmp_path: Path, damage: Damage, message: str) -> None:
    tiny_videofusion().save(tmp_path)
    sampler(tmp_path)
    damage(tmp_path)
    with pytest.raises(MissingData, match=message) as caught:
        sampler(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_weights_without_a_saved_config_follow_config_json(tmp_path: Path) -> None:
    tiny_videofusion().save(tmp_path)
    path = tmp_path / "model.safetensors"
    weights.write(path, weights.read(path))
    _edit_config(tmp_path, lambda config: config.update(sha256=file_sha256(path)))
    _with_options(lam=0.4)(tmp_path)
    assert sampler(tmp_path).model.config.options["lam"] == 0.4


def test_a_checkpoint_of_another_clip_shape_is_refused(checkpoint: Path) -> None:
    with pytest.raises(MissingData, match="shapes at 4x8x8, this run uses shapes at 5x8x8"):
        videofusion.build(build_context(checkpoint, frames=5))


def test_a_missing_checkpoint_is_refused_with_the_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vfbench.utils.checkpoint.SHIPPED_FOLDER", tmp_path)
    with pytest.raises(MissingCheckpoint, match=r"'videofusion' for shapes at 4x8x8: .*--checkpoint"):
        videofusion.build(BuildContext(tiny_dataset(), CPU))


def test_a_shipped_checkpoint_is_found_by_dataset_and_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vfbench.utils.checkpoint.SHIPPED_FOLDER", tmp_path)
    tiny_videofusion().save(tmp_path / "shapes" / "videofusion")
    assert videofusion.build(BuildContext(tiny_dataset(), CPU)).shape == ClipShape(4, 8, 8)


def test_presets_round_trip_through_json() -> None:
    assert json.loads(json.dumps(videofusion.PRESETS)) == videofusion.PRESETS
