"""Tests of `vfbench.pipeline.plan`: requirements checked before the first clip is sampled."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tiny_dataset, tiny_videofusion

from vfbench.baselines.noise import Noise
from vfbench.datasets.shapes import Shapes
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Conditioning
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan, require_conditioning
from vfbench.utils import files, tensor_files
from vfbench.utils.files import file_sha256


class ConditionedNoise(Noise):
    """Noise sampler that claims this conditioning."""

    def __init__(self, conditioning: Conditioning, *, reference: bool = False) -> None:
        super().__init__(tiny_dataset())
        self.conditioning, self.reference = conditioning, reference


def dataset_without(*attributes: str) -> Shapes:
    dataset = tiny_dataset()
    for name in attributes:
        setattr(dataset, name, ())
    return dataset


@pytest.mark.parametrize(
    ("model", "conditioning", "missing", "message"),
    [
        ("vdm", "text", ["words"], r"vdm .*captions.* shapes .*condition='class'.*'none'"),
        ("vdm", "class", ["classes"], r"vdm .*classes.* shapes .*condition='text'.*'none'"),
        ("vdm", "text", ["words", "classes"], r"--model \"vdm\(condition='none'\)\"$"),
        ("diffusers", "text", ["words"], "dataset with captions, or another model"),
    ],
)
def test_conditioning_that_the_dataset_lacks_is_refused(
    model: str, conditioning: Conditioning, missing: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        require_conditioning(model, ConditionedNoise(conditioning), dataset_without(*missing))


@pytest.mark.parametrize(
    ("sampler", "missing"),
    [
        (ConditionedNoise("text"), ["classes"]),
        (ConditionedNoise("class"), ["words"]),
        (ConditionedNoise("none"), ["words", "classes"]),
        (ConditionedNoise("text", reference=True), ["words"]),
    ],
)
def test_unused_conditioning_may_be_missing(sampler: ConditionedNoise, missing: list[str]) -> None:
    require_conditioning("vdm", sampler, dataset_without(*missing))


def test_a_checkpoint_for_a_model_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"noise has no weights: .*--checkpoint"):
        plan(RunOptions(model="noise", smoke=True, device="cpu", checkpoint=tmp_path, output=tmp_path / "run"))


@pytest.mark.slow
def test_a_plan_notes_frames_that_are_not_scored() -> None:
    long, default = (
        plan(RunOptions(model=f"videofusion(steps=1{frames})", smoke=True)) for frames in (", frames=32", "")
    )
    assert "16 of the 32 frames of each scored" in long.describe()
    assert "frames of each scored" not in default.describe()


@pytest.mark.slow
def test_the_run_id_covers_the_configuration_of_the_weights(tmp_path: Path) -> None:
    tiny_videofusion().save(tmp_path)
    path = tmp_path / "model.safetensors"
    tensor_files.write(path, tensor_files.read(path))  # without metadata, as the shipped checkpoints
    content = {**files.read_json(tmp_path / "config.json"), "sha256": file_sha256(path)}
    files.write_json(tmp_path / "config.json", content)
    options = RunOptions(dataset="shapes(frames=4, height=8, width=8)", checkpoint=tmp_path, smoke=True, device="cpu")
    before = plan(options)
    files.write_json(tmp_path / "config.json", {**content, "options": {**content["options"], "lam": 0.1}})
    after = plan(options)
    assert before.sampler.weights == after.sampler.weights
    assert before.specification.id != after.specification.id


def test_an_empty_checkpoint_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingData, match=r"--output of a `python -m vfbench train`"):
        plan(RunOptions(checkpoint="", smoke=True, device="cpu"))
