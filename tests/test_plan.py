"""What a plan refuses before the first clip is made."""

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


class Way(Noise):
    """A sampler that is asked in some way."""

    def __init__(self, conditioning: Conditioning, *, reference: bool = False) -> None:
        super().__init__(tiny_dataset())
        self.conditioning, self.reference = conditioning, reference


def dataset(**lacking: tuple[str, ...]) -> Shapes:
    found = tiny_dataset()
    for name, words in lacking.items():
        setattr(found, name, words)
    return found


@pytest.mark.parametrize(
    ("model", "way", "lacking", "said"),
    [
        ("vdm", "text", ["words"], r"vdm goes by captions, and shapes has none: .*condition='class'.* or .*'none'"),
        ("vdm", "class", ["classes"], r"vdm goes by classes, and shapes has none: .*condition='text'.* or .*'none'"),
        ("vdm", "text", ["words", "classes"], r"ask it otherwise: --model \"vdm\(condition='none'\)\"$"),
        ("diffusers", "text", ["words"], "choose a dataset with captions, or another model"),
    ],
)
def test_a_model_that_is_told_nothing_is_refused(model: str, way: Conditioning, lacking: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        require_conditioning(model, Way(way), dataset(**dict.fromkeys(lacking, ())))


@pytest.mark.parametrize(
    ("sampler", "lacking"),
    [
        (Way("text"), ["classes"]),
        (Way("class"), ["words"]),
        (Way("none"), ["words", "classes"]),
        (Way("text", reference=True), ["words"]),
    ],
)
def test_what_is_not_asked_for_may_be_lacking(sampler: Way, lacking: list[str]) -> None:
    require_conditioning("vdm", sampler, dataset(**dict.fromkeys(lacking, ())))


def test_a_checkpoint_is_not_ignored_by_a_model_that_has_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="noise has no weights: leave out --checkpoint"):
        plan(RunOptions(model="noise", smoke=True, device="cpu", checkpoint=tmp_path, output=tmp_path / "run"))


def test_a_plan_tells_of_frames_that_are_made_and_not_scored() -> None:
    longer, own = (plan(RunOptions(model=f"videofusion{frames}", smoke=True)) for frames in ("(frames=32)", ""))
    assert "each of 32 frames of which the first 16 are looked at" in longer.describe()
    assert "frames of which" not in own.describe()


def test_a_run_of_another_configuration_of_the_same_weights_is_another_run(tmp_path: Path) -> None:
    tiny_videofusion().save(tmp_path)
    path = tmp_path / "model.safetensors"
    tensor_files.write(
        path, tensor_files.read(path)
    )  # without what they were saved with, as those that come with vfbench
    content = {**files.read_json(tmp_path / "config.json"), "sha256": file_sha256(path)}
    files.write_json(tmp_path / "config.json", content)
    asked = RunOptions(dataset="shapes(frames=4, height=8, width=8)", checkpoint=tmp_path, smoke=True, device="cpu")
    before = plan(asked)
    files.write_json(tmp_path / "config.json", {**content, "options": {**content["options"], "lam": 0.1}})
    after = plan(asked)
    assert before.sampler.weights == after.sampler.weights
    assert before.specification.id != after.specification.id


def test_an_empty_checkpoint_is_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingData, match=r"give the --output of a `python -m vfbench train`"):
        plan(RunOptions(checkpoint="", smoke=True, device="cpu"))
