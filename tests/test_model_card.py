"""The card beside a checkpoint says what was passed in, what the file holds, and nothing that was not measured."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_dataset, tiny_vdm, tiny_videofusion
from huggingface_hub import ModelCard

from vfbench.diffusion import hub
from vfbench.diffusion.model import DiffusionModel, ModelConfig
from vfbench.errors import BadEnvironment, MissingData
from vfbench.training import model_card
from vfbench.training.train import TrainOptions
from vfbench.utils import checkpoint

TRAINED = TrainOptions(steps=1000, batch_size=32, lr=3e-4, seed=7)
OPTIONS: dict[str, Any] = {**asdict(TRAINED), **TRAINED.weight_options(), "crop": None}


def card(folder: Path, model: DiffusionModel, *, half: bool = False, **given: Any) -> str:
    model.save(folder, half=half)
    options = {**OPTIONS, **given.pop("options", {})}
    facts = {"dataset": tiny_dataset(), "step": 250, "flops": 8000 * 1_234_000_000, "sha256": "ab" * 32, **given}
    model_card.write(folder, model.config, options=options, **facts)
    return (folder / hub.CARD_FILE).read_text(encoding="utf-8")


def of(text: str, row: str) -> str:
    """What a row of the card's tables says."""
    (found,) = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
    return found.split("|", 2)[2].removesuffix("|").strip()


def known(**changed: Any) -> ModelConfig:
    return replace(tiny_vdm().config, **changed)


def test_the_card_says_what_was_passed_in_and_what_the_file_holds(tmp_path: Path) -> None:
    model = tiny_vdm()
    text, data = card(tmp_path, model), tiny_dataset()
    assert of(text, "data") == f"`shapes`, split train: {data.size('train'):,} clips"
    assert of(text, "fingerprint") == f"`{data.fingerprint}`"
    assert of(text, "steps") == "250 of 1,000"
    assert of(text, "clips seen") == "8,000, 32 a step"
    assert of(text, "compute") == "9.87 TFLOP, forward and backward: 1.23 GFLOP a clip"
    assert of(text, "parameters") == f"{sum(p.numel() for p in model.parameters()):,}, stored as float32"
    assert of(text, "optimiser") == "`lr` 0.0003, `warmup` 100, `weight_decay` 0.0, `clip_norm` 1.0"
    assert (of(text, "seed"), of(text, "precision")) == ("7", "float32")
    assert of(text, "`model.safetensors`") == f"SHA-256 `{'ab' * 32}`"
    assert of(text, "a clip") == "4 frames of 8x8 pixels, RGB"
    assert of(text, "conditioning").startswith(
        f"one of {len(data.classes)} classes, or a caption of {len(data.words)} "
    )
    assert of(text, "`network`") == "channels [8, 16], blocks 1, patch 2, attention [1], embedding 16"
    assert "Its training is not finished: 250 of 1,000 steps." in text
    assert "VDM" in text.splitlines()[text.splitlines().index("# vdm, trained on shapes") + 2]


def test_a_training_that_is_done_is_not_called_unfinished(tmp_path: Path) -> None:
    text = card(tmp_path, tiny_vdm(), step=1000)
    assert of(text, "steps") == "1,000"
    assert "not finished" not in text


def test_the_type_of_the_weights_is_that_of_the_file(tmp_path: Path) -> None:
    assert of(card(tmp_path, tiny_vdm(), half=True), "parameters").endswith("stored as float16")


def test_no_score_is_named_and_the_command_that_measures_one_is(tmp_path: Path) -> None:
    text = card(tmp_path, tiny_videofusion(lam=0.3))
    assert "Not scored yet" in text
    assert not any(metric in text for metric in ("FVD", "KVD", "CLIPSIM"))
    run = "--model videofusion --dataset 'shapes(frames=4, height=8, width=8)' --checkpoint DIR"
    assert f"python -m vfbench run {run}" in text
    assert of(text, "`lam`") == "0.3"


def test_settings_that_were_not_given_or_say_nothing_of_the_weights_are_left_out(tmp_path: Path) -> None:
    text = card(tmp_path, tiny_vdm(), options={"flip": True, "magic": 3})
    assert of(text, "clip sampling") == "`flip` True"
    assert of(text, "other options") == "`magic` 3"
    assert "save_every" not in text
    assert "| clip sampling |" not in card(tmp_path, tiny_vdm())


# The hub's own words.


def front(text: str) -> Any:
    return ModelCard(text, ignore_metadata_errors=False).data


def test_the_hub_reads_the_card(tmp_path: Path) -> None:
    data = front(card(tmp_path, tiny_vdm()))
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "vfbench", "text-to-video")
    assert data.tags == ["video-generation", "diffusion", "vdm", "shapes"]
    assert data.get("license_name") is None


@pytest.mark.parametrize(
    ("changed", "task"),
    [
        ({}, "text-to-video"),
        ({"classes": ("sky",)}, None),
        ({"words": ()}, None),
        ({"shape": replace(known().shape, frames=1)}, "text-to-image"),
        ({"shape": replace(known().shape, frames=1), "words": ()}, "unconditional-image-generation"),
    ],
)
def test_the_task_is_one_that_the_hub_knows(changed: dict[str, Any], task: str | None) -> None:
    assert model_card._task(known(**changed)) == task


def _licence(tmp_path: Path, config: ModelConfig, **options: Any) -> tuple[str, str]:
    tiny_vdm().save(tmp_path)
    facts: dict[str, Any] = {"dataset": tiny_dataset(), "step": 1, "flops": 1, "sha256": ""}
    model_card.write(tmp_path, config, options={**OPTIONS, **options}, **facts)
    text = (tmp_path / hub.CARD_FILE).read_text()
    return front(text).license, text.split("## Licence\n\n")[1]


@pytest.mark.parametrize("dataset", ["ucf101", "sky_timelapse", "folder", "some_package.data"])
def test_the_terms_of_files_of_others_bind_the_weights(dataset: str, tmp_path: Path) -> None:
    licence, text = _licence(tmp_path, known(dataset=dataset))
    assert licence == "other"
    assert f"The weights were made from the videos of `{dataset}`, whose own terms bind" in text
    assert f"python -m vfbench data status {dataset}" in text
    assert "--data-root DATA" in (tmp_path / hub.CARD_FILE).read_text()


def test_the_terms_of_weights_of_others_bind_as_well(tmp_path: Path) -> None:
    options = {**tiny_videofusion().config.options, "base_sha256": "cd" * 32}
    licence, text = _licence(tmp_path, known(options=options))
    assert (licence, "`" + "cd" * 32 + "`" in text, "data status" in text) == ("other", True, False)
    licence, text = _licence(tmp_path, known(), init_from="ef" * 32)
    assert (licence, "the initial weights (`" + "ef" * 32 in text) == ("other", True)
    options = {**tiny_vdm().config.options, "embedding": {"encoder": "owner/clip", "sha256": "ab" * 32}}
    licence, text = _licence(tmp_path, known(options=options))
    assert (licence, "a CLIP (SHA-256 of its weights `" + "ab" * 32 in text) == ("other", True)
    licence, text = _licence(tmp_path, known(model="my_package.my_model"))
    assert (licence, "the code of `my_package.my_model`" in text) == ("other", True)
    assert _licence(tmp_path, known())[0] == "apache-2.0"


def test_a_name_that_a_file_tells_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strange.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert model_card.command(known(dataset="strange.py"), "DIR")[3:5] == ["--dataset", "strange.py"]
    assert model_card.command(known(dataset="strange"), "DIR")[5:7] == ["--data-root", "DATA"]


# On disk.


def test_a_card_without_weights_is_refused(tmp_path: Path) -> None:
    tiny_vdm().save(tmp_path)
    (tmp_path / checkpoint.TENSORS).unlink()
    facts: dict[str, Any] = {"dataset": tiny_dataset(), "options": OPTIONS, "step": 1, "flops": 1, "sha256": ""}
    with pytest.raises(MissingData, match=r"no model\.safetensors"):
        model_card.write(tmp_path, known(), **facts)
    assert not (tmp_path / hub.CARD_FILE).exists()


def test_a_card_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = card(tmp_path, tiny_vdm())

    def fails(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fails)
    facts: dict[str, Any] = {"dataset": tiny_dataset(), "options": OPTIONS, "flops": 1, "sha256": ""}
    with pytest.raises(BadEnvironment, match="disk full"):
        model_card.write(tmp_path, known(), step=1000, **facts)
    monkeypatch.undo()
    assert (tmp_path / hub.CARD_FILE).read_text() == before


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 "), (999, "999 "), (999.6, "1 k"), (8.153e9, "8.15 G"), (1.5e21, "1.5 Z"), (1e30, "1e+06 Y")],
)
def test_a_number_has_three_digits_and_a_prefix(value: float, text: str) -> None:
    assert model_card._si_format(value) == text
