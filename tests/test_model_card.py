"""Tests of `vfbench.training.model_card`: facts, licence and hub metadata of the card beside a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_dataset, tiny_vdm, tiny_videofusion
from huggingface_hub import ModelCard

from vfbench.diffusion import hub
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig
from vfbench.errors import BadEnvironment, MissingData
from vfbench.training import model_card
from vfbench.training.train import TrainOptions
from vfbench.utils import checkpoint

TRAINED = TrainOptions(steps=1000, batch_size=32, lr=3e-4, seed=7, device="cpu")
OPTIONS = replace(TRAINED.on_device(), warmup=TRAINED.warmup_steps)


def write_card(folder: Path, model: DiffusionModel, *, half: bool = False, **facts: Any) -> str:
    """Save a checkpoint with its card and return the card."""
    model.save(folder, half=half)
    options = replace(OPTIONS, **facts.pop("options", {}))
    facts = {"dataset": tiny_dataset(), "step": 250, "flops": 8000 * 1_234_000_000, "sha256": "ab" * 32, **facts}
    model_card.write(folder, model.config, options=options, **facts)
    return (folder / hub.CARD_FILE).read_text(encoding="utf-8")


def table_cell(text: str, row: str) -> str:
    """Value of a row in the card's tables."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
    return line.split("|", 2)[2].removesuffix("|").strip()


def vdm_config(**changes: Any) -> ModelConfig:
    return replace(tiny_vdm().config, **changes)


def test_the_card_gives_training_settings_and_weights(tmp_path: Path) -> None:
    model = tiny_vdm()
    text, data = write_card(tmp_path, model), tiny_dataset()
    assert table_cell(text, "data") == f"`shapes`, split train: {data.size('train'):,} clips"
    assert table_cell(text, "fingerprint") == f"`{data.fingerprint}`"
    assert table_cell(text, "steps") == "250 of 1,000"
    assert table_cell(text, "clips seen") == "8,000, 32 a step"
    assert table_cell(text, "compute") == "9.87 TFLOP, forward and backward: 1.23 GFLOP a clip"
    assert table_cell(text, "parameters") == f"{sum(p.numel() for p in model.parameters()):,}, stored as float32"
    assert (
        table_cell(text, "optimiser")
        == "`lr` 0.0003, `lr_schedule` cosine, `warmup` 100, `weight_decay` 0.0, `clip_norm` 1.0"
    )
    assert (table_cell(text, "seed"), table_cell(text, "precision")) == ("7", "float32")
    assert table_cell(text, "`model.safetensors`") == f"SHA-256 `{'ab' * 32}`"
    assert table_cell(text, "a clip") == "4 frames of 8x8 pixels, RGB"
    conditioning = table_cell(text, "conditioning")
    assert conditioning.startswith(f"one of {len(data.classes)} classes, or a caption of {len(data.words)} ")
    assert table_cell(text, "`network`") == "channels [8, 16], blocks 1, patch 2, attention [1], embedding 16"
    assert "not finished: 250 of 1,000 steps" in text
    assert "VDM" in text.splitlines()[text.splitlines().index("# vdm, trained on shapes") + 2]


def test_a_finished_training_is_not_called_unfinished(tmp_path: Path) -> None:
    text = write_card(tmp_path, tiny_vdm(), step=1000)
    assert table_cell(text, "steps") == "1,000"
    assert "not finished" not in text


def test_the_card_names_the_dtype_of_the_weights(tmp_path: Path) -> None:
    assert table_cell(write_card(tmp_path, tiny_vdm(), half=True), "parameters").endswith("stored as float16")


def test_the_card_has_no_scores_but_the_command_to_score(tmp_path: Path) -> None:
    text = write_card(tmp_path, tiny_videofusion(lam=0.3))
    assert "Not scored yet" in text
    assert not any(metric in text for metric in ("FVD", "KVD", "CLIPSIM"))
    run = "--model videofusion --dataset 'shapes(frames=4, height=8, width=8)' --checkpoint DIR"
    assert f"python -m vfbench run {run}" in text
    assert table_cell(text, "`lam`") == "0.3"


def test_default_and_irrelevant_settings_are_omitted(tmp_path: Path) -> None:
    text = write_card(tmp_path, tiny_vdm(), options={"flip": True})
    assert table_cell(text, "clip sampling") == "`flip` True"
    assert "save_every" not in text
    assert "| clip sampling |" not in write_card(tmp_path, tiny_vdm())


# Hub metadata and licence.


def metadata(text: str) -> Any:
    return ModelCard(text, ignore_metadata_errors=False).data


def test_the_metadata_is_valid_for_the_hub(tmp_path: Path) -> None:
    data = metadata(write_card(tmp_path, tiny_vdm()))
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "vfbench", "text-to-video")
    assert data.tags == ["video-generation", "diffusion", "vdm", "shapes"]
    assert data.get("license_name") is None


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({}, "text-to-video"),
        ({"classes": ("sky",)}, None),
        ({"words": ()}, None),
        ({"shape": replace(vdm_config().shape, frames=1)}, "text-to-image"),
        ({"shape": replace(vdm_config().shape, frames=1), "words": ()}, "unconditional-image-generation"),
    ],
)
def test_the_hub_task_follows_from_shape_and_conditioning(changes: dict[str, Any], task: str | None) -> None:
    assert model_card._task(vdm_config(**changes)) == task


def write_licence(tmp_path: Path, config: ModelConfig, **options: Any) -> tuple[str, str]:
    tiny_vdm().save(tmp_path)
    facts: dict[str, Any] = {"dataset": tiny_dataset(), "step": 1, "flops": 1, "sha256": ""}
    model_card.write(tmp_path, config, options=replace(OPTIONS, **options), **facts)
    text = (tmp_path / hub.CARD_FILE).read_text()
    return metadata(text).license, text.split("## Licence\n\n")[1]


@pytest.mark.parametrize("dataset", ["ucf101", "sky_timelapse", "folder", "some_package.data"])
def test_weights_of_a_downloaded_dataset_have_its_licence(dataset: str, tmp_path: Path) -> None:
    licence, text = write_licence(tmp_path, vdm_config(dataset=dataset))
    assert licence == "other"
    assert f"`{dataset}`" in text
    assert f"python -m vfbench data status {dataset}" in text
    assert "--data-root DATA" in (tmp_path / hub.CARD_FILE).read_text()


@pytest.mark.slow
def test_weights_from_other_weights_or_code_have_their_licence(tmp_path: Path) -> None:
    options = {**tiny_videofusion().config.options, "base_sha256": "cd" * 32}
    licence, text = write_licence(tmp_path, vdm_config(options=options))
    assert (licence, "`" + "cd" * 32 + "`" in text, "data status" in text) == ("other", True, False)
    licence, text = write_licence(tmp_path, vdm_config(), init_from="ef" * 32)
    assert (licence, "the initial weights (`" + "ef" * 32 in text) == ("other", True)
    options = {**tiny_vdm().config.options, "embedding": {"encoder": "owner/clip", "sha256": "ab" * 32}}
    licence, text = write_licence(tmp_path, vdm_config(options=options))
    assert (licence, "a CLIP (SHA-256 of its weights `" + "ab" * 32 in text) == ("other", True)
    licence, text = write_licence(tmp_path, vdm_config(model="my_package.my_model"))
    assert (licence, "the code of `my_package.my_model`" in text) == ("other", True)
    assert write_licence(tmp_path, vdm_config())[0] == "apache-2.0"


def test_dataset_names_from_a_config_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strange.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert model_card.command(vdm_config(dataset="strange.py"), "DIR")[3:5] == ["--dataset", "strange.py"]
    assert model_card.command(vdm_config(dataset="strange"), "DIR")[5:7] == ["--data-root", "DATA"]


# Files.


def test_a_card_without_weights_is_refused(tmp_path: Path) -> None:
    tiny_vdm().save(tmp_path)
    (tmp_path / checkpoint.TENSORS).unlink()
    facts: dict[str, Any] = {"dataset": tiny_dataset(), "options": OPTIONS, "step": 1, "flops": 1, "sha256": ""}
    with pytest.raises(MissingData, match=r"no model\.safetensors"):
        model_card.write(tmp_path, vdm_config(), **facts)
    assert not (tmp_path / hub.CARD_FILE).exists()


def test_a_failed_write_keeps_the_old_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_card(tmp_path, tiny_vdm())

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    facts: dict[str, Any] = {"dataset": tiny_dataset(), "options": OPTIONS, "flops": 1, "sha256": ""}
    with pytest.raises(BadEnvironment, match="disk full"):
        model_card.write(tmp_path, vdm_config(), step=1000, **facts)
    monkeypatch.undo()
    assert (tmp_path / hub.CARD_FILE).read_text() == before


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 "), (999, "999 "), (999.6, "1 k"), (8.153e9, "8.15 G"), (1.5e21, "1.5 Z"), (1e30, "1e+06 Y")],
)
def test_a_number_has_three_digits_and_a_prefix(value: float, text: str) -> None:
    assert model_card._si_format(value) == text
