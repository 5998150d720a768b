"""Tests of VideoFusion's networks: conditioning, mixing of frames, learning rates, the one-network form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import clips_of, embed, randn, sampler, tiny_dataset, tiny_one_network, tiny_videofusion
from torch import Tensor

from vfbench.baselines import vdm
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.priors import Decomposed
from vfbench.errors import UserError
from vfbench.interfaces import Conditioning
from vfbench.models import videofusion
from vfbench.models.videofusion import OneNetworkVideoFusion

TIMES = torch.tensor([300, 800])


@torch.no_grad()
def test_the_frame_index_changes_predictions() -> None:
    model = tiny_videofusion()
    z = clips_of(model)
    before = model.predict(z, TIMES, embed(model)).eps
    model.residual.frame.copy_(model.residual.frame.flip(0))
    assert not torch.isclose(model.predict(z, TIMES, embed(model)).eps, before).all()


@torch.no_grad()
def test_the_residual_network_mixes_all_frames() -> None:
    model = tiny_videofusion(16)
    x = randn(1, 16, 6, 8, 8)
    before = model.residual(x, TIMES[:1], embed(model, batch=1))
    x[:, 15] += 1.0
    change = (model.residual(x, TIMES[:1], embed(model, batch=1)) - before).abs().amax((0, 2, 3, 4))
    assert (change > 1e-5).all()  # including the first frame


@torch.no_grad()
@pytest.mark.parametrize("name", ["base", "residual"])
def test_time_changes_the_output(name: str) -> None:
    model = tiny_videofusion()
    network, x = getattr(model, name), randn(1, *((1, 3) if name == "base" else (4, 6)), 8, 8)
    early, late = (network(x, torch.tensor([t]), embed(model, batch=1)) for t in (10, 900))
    assert not torch.isclose(early, late).all()


@torch.no_grad()
@pytest.mark.parametrize("mode", ["class", "text"])
def test_conditioning_changes_all_frames(mode: Conditioning) -> None:
    model = tiny_videofusion()
    z = clips_of(model)
    modes: tuple[Conditioning, ...] = ("none", mode)
    unconditional, conditional = (model.predict(z, TIMES, embed(model, m)).eps for m in modes)
    assert ((conditional - unconditional).abs().amax((0, 2, 3, 4)) > 1e-6).all()


@torch.no_grad()
def test_each_mode_depends_on_its_field_only() -> None:
    condition = tiny_videofusion().condition
    left, right = (f"a small red circle moves {side} over blue dots" for side in ("left", "right"))

    def vectors(mode: Conditioning) -> Tensor:
        vectors_of_mode: Tensor = condition([3, 3, 3, 4], [left, right, left, left], [mode] * 4)
        return vectors_of_mode

    none, by_class, by_text = vectors("none"), vectors("class"), vectors("text")
    assert torch.equal(none, none[:1].expand_as(none))
    assert torch.equal(by_class[0], by_class[1])  # other words, same class
    assert not torch.isclose(by_class[2], by_class[3]).all()
    assert torch.allclose(by_text[2], by_text[3])  # other class, same words
    assert not torch.isclose(by_text[0], by_text[1]).all()


def test_captions_are_ignored_without_text_conditioning() -> None:
    condition = tiny_videofusion().condition
    assert condition([0, 1], ["a purple elephant", ""], ["none", "class"]).shape == (2, 16)


@pytest.mark.parametrize(
    ("caption", "message"),
    [("a small purple circle", "does not know 'purple'"), ("", "has 0 words"), ("red " * 25, "has 25 words")],
)
def test_invalid_captions_are_refused(caption: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_videofusion().condition([0], [caption], ["text"])


def test_the_base_network_has_its_own_learning_rate() -> None:
    model = tiny_videofusion(base_lr=0.1)
    others, base = model.parameter_groups(1e-3)
    assert (others["lr"], base["lr"]) == (1e-3, pytest.approx(1e-4))
    # In the order of the module: the optimiser's state is restored by position, not by name.
    assert [id(p) for p in base["params"]] == [id(p) for p in model.base.parameters()]
    all_ids = {id(p) for p in [*others["params"], *base["params"]]}
    assert all_ids == {id(p) for p in model.parameters()}
    assert len(others["params"]) + len(base["params"]) == len(all_ids)


# One-network form, and options of the noise decomposition.


def test_the_one_network_form_is_loaded_with_its_prior(tmp_path: Path) -> None:
    tiny_one_network(base_frame="last").save(tmp_path)
    loaded = sampler(tmp_path)
    assert isinstance(loaded.model, OneNetworkVideoFusion)
    assert loaded.model.noise_prior.base == 3  # type: ignore[attr-defined]  # Decomposed
    assert set(loaded.networks) == {"condition", "network"}


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_one_network_form_has_the_network_of_vdm(size: str) -> None:
    with torch.device("meta"):
        one_network, vdm_model = videofusion.create(tiny_dataset(), f"{size}-one"), vdm.create(tiny_dataset(), size)
    assert {n: t.shape for n, t in one_network.state_dict().items()} == {
        n: t.shape for n, t in vdm_model.state_dict().items()
    }


@pytest.mark.parametrize("preset", ["tiny", "tiny-one"])
def test_noise_options_reach_the_prior_and_the_checkpoint(preset: str, tmp_path: Path) -> None:
    model = videofusion.create(tiny_dataset(), preset, lam=0.3, lam_schedule="linear", base_frame=3)
    assert isinstance(model.noise_prior, Decomposed)
    assert model.noise_prior.lam.tolist() == pytest.approx([0.3 / 4, 0.3 / 2, 0.3 * 3 / 4, 1])
    model.save(tmp_path)
    loaded = sampler(tmp_path).model.noise_prior
    assert isinstance(loaded, Decomposed)
    assert torch.equal(loaded.lam, model.noise_prior.lam)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 1.5}, r"lambda 1\.5: it must lie in \[0, 1\]"),
        ({"lam": [0.5, 1.0]}, r"lambda \[0\.5, 1\.0\] has 2 values, the clip 4 frames"),
        ({"lam_schedule": "cosin"}, "did you mean 'cosine'"),
        ({"base_frame": 4}, "base frame 4: a clip of 4 frames has 0 to 3"),
    ],
    ids=str,
)
def test_invalid_noise_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        videofusion.create(tiny_dataset(), **options)


def test_an_unknown_form_is_refused() -> None:
    config = ModelConfig.from_preset("videofusion", "tiny", videofusion.PRESETS, tiny_dataset())
    with pytest.raises(UserError, match="known: one, two"):
        videofusion._model(replace(config, options={**config.options, "form": "three"}))
