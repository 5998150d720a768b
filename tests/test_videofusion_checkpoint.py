"""The checkpoint of a VideoFusion: half as large on request, found where it is shipped, refused where damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CPU, NO_TIME, requests, sampler, setting, tiny_dataset, tiny_vdm, tiny_videofusion

from vfbench.errors import MissingCheckpoint, MissingData
from vfbench.interfaces import BuildContext, ClipShape
from vfbench.models import videofusion
from vfbench.utils import tensor_files as weights
from vfbench.utils.files import file_sha256


def test_half_precision_is_half_as_large_and_almost_the_same(checkpoint: Path, tmp_path: Path) -> None:
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


def _forget_option(folder: Path) -> None:
    _configured(folder, lambda config: config["options"].pop("lam"))


def _configured(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def _optioned(**options: Any) -> Damage:
    return lambda folder: _configured(folder, lambda config: config["options"].update(options))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_truncate, "model.safetensors is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "a config.json and no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json holds list"),
        (lambda folder: (folder / "config.json").write_text('{"model": "videofusion"}'), "'shape' is missing"),
        (_rename_model, "checkpoint of 'vdm', not of 'videofusion'"),
        (_widen, "has shape"),
        (_forget_option, "config.json does not describe a videofusion .*lam"),
        (_optioned(lam=2.0), r"config.json does not describe a videofusion \(lambda 2"),
        (_optioned(parametrisation="epsilon"), "config.json does not describe .*no parametrisation called 'epsilon'"),
        (_optioned(base_init="thawed"), "config.json does not describe .*no base init called 'thawed'"),
        (_optioned(base={"channels": [-32, 64]}), "config.json does not describe a videofusion"),
        (_optioned(lam=0.4), r"has changed since its weights were saved \(options.lam was 0.5, is 0.4\)"),
        (_optioned(schedule="linear"), "options.schedule was cosine, is linear"),
        (_optioned(parametrisation="eps"), "options.parametrisation was v, is eps"),
        (_optioned(lamda=0.5), "options.lamda was None, is 0.5"),
        (lambda folder: _configured(folder, lambda config: config.pop("sha256")), "records no SHA-256"),
    ],
)
def test_a_damaged_checkpoint_is_refused_naming_the_file(tmp_path: Path, damage: Damage, named: str) -> None:
    tiny_videofusion().save(tmp_path)
    sampler(tmp_path)
    damage(tmp_path)
    with pytest.raises(MissingData, match=named) as caught:
        sampler(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_weights_that_do_not_say_what_they_were_saved_with_are_taken_at_their_configuration(tmp_path: Path) -> None:
    tiny_videofusion().save(tmp_path)
    path = tmp_path / "model.safetensors"
    weights.write(path, weights.read(path))
    _configured(tmp_path, lambda config: config.update(sha256=file_sha256(path)))
    _optioned(lam=0.4)(tmp_path)
    assert sampler(tmp_path).model.config.options["lam"] == 0.4


def test_a_checkpoint_of_another_clip_shape_is_refused_naming_both(checkpoint: Path) -> None:
    with pytest.raises(MissingData, match="shapes at 4x8x8, this run uses shapes at 5x8x8"):
        videofusion.build(setting(checkpoint, frames=5))


def test_without_a_checkpoint_the_error_names_model_and_clips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vfbench.utils.checkpoint.SHIPPED_FOLDER", tmp_path)
    with pytest.raises(MissingCheckpoint, match=r"'videofusion' for shapes at 4x8x8: .*--checkpoint"):
        videofusion.build(BuildContext(tiny_dataset(), CPU))


def test_a_shipped_checkpoint_is_found_by_dataset_and_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vfbench.utils.checkpoint.SHIPPED_FOLDER", tmp_path)
    tiny_videofusion().save(tmp_path / "shapes" / "videofusion")
    assert videofusion.build(BuildContext(tiny_dataset(), CPU)).shape == ClipShape(4, 8, 8)


def test_presets_survive_json_so_that_a_checkpoint_can_describe_itself() -> None:
    assert json.loads(json.dumps(videofusion.PRESETS)) == videofusion.PRESETS
