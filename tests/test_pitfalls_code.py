"""Faults that were found in code of the field, and that must not come back here: pitfall 21 of the project's list.

The others are in `test_pitfalls_data.py` and `test_pitfalls_numbers.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from clipfiles import pictures, write_frames
from pitfalls import CPU, DATA, inputs, judged, metric, seen
from transformers import CLIPConfig

import vfbench as package
from vfbench import plugins, video
from vfbench.clips import detect, mismatches
from vfbench.metrics import _clip, _clip_model, _i3d
from vfbench.metrics._i3d_network import I3D
from vfbench.protocol.presets import for_dataset, load
from vfbench.torchmetrics import VideoInceptionScore
from vfbench.weights import Filled

pytest.importorskip("av")  # without it no clip can be made, nor read


def test_pitfall_21_asking_again_changes_nothing() -> None:
    real, fake = DATA.clips("train", range(64)), DATA.clips("test", range(64))
    fvd = judged(output="features")
    first = seen(fvd, [fake], [real])
    assert float(fvd.compute()) == first
    assert seen(fvd, [real[:32]], []) != first  # more clips count
    fvd.reset()
    assert seen(fvd, [fake], [real]) == first  # and nothing of those before


@pytest.mark.parametrize("name", plugins.names("metric"))
def test_pitfall_21_features_are_left_as_they_were(name: str) -> None:
    scored = metric(name)
    pair = [values.copy() for values in inputs(scored)]
    before = [values.copy() for values in pair]
    for values in pair:
        values.setflags(write=False)
    scored.score(pair[0], pair[1], holdout=pair[1])
    assert all(np.array_equal(values, old) for values, old in zip(pair, before, strict=True))


def test_pitfall_21_the_epsilon_of_batch_norm_is_part_of_the_network() -> None:
    network, filled = I3D().folded(), Filled("0" * 64, weight_status="verified")
    made = [_i3d.I3DExtractor(network, filled, CPU, bn_eps=bn_eps) for bn_eps in (1e-3, 1e-5, 1e-3)]
    assert made[0].fingerprint == made[2].fingerprint != made[1].fingerprint
    told = {name: plugins.parse(for_dataset(load(name), "ucf101")["extractors"]["i3d"]) for name in ("tats", "latte")}
    assert {name: spec.options["bn_eps"] for name, spec in told.items()} == {"tats": 1e-5, "latte": 1e-3}


def test_pitfall_21_another_jpeg_quality_is_warned_of(tmp_path: Path) -> None:
    for quality in (75, 95):
        write_frames(tmp_path / str(quality) / "a", pictures(), "{:04}.jpg", quality=quality)
    coarse, fine = (detect(tmp_path / quality) for quality in ("75", "95"))
    (told,) = mismatches(fine, coarse)
    assert re.match(r"JPEG quantiser .*: real 5\.8, fake 29; compression alone moves a score", told)


def test_pitfall_21_floats_become_bytes_by_rounding() -> None:
    levels = torch.arange(256)
    for off in (-0.4, 0.0, 0.4):
        assert torch.equal(video.to_uint8(((levels + off) / 255).clamp(0, 1)), levels.to(torch.uint8))
    assert video.to_uint8(torch.tensor([-0.2, 254.6 / 255, 1.3])).tolist() == [0, 255, 255]


def test_pitfall_21_features_of_real_clips_are_kept_by_their_content(tmp_path: Path) -> None:
    def scored(run: str) -> tuple[str, float]:
        result = package.benchmark(
            model="noise",
            dataset=f"folder(root='{tmp_path / 'data'}')",
            num_samples=8,
            metrics=("fvd",),
            smoke=True,
            device="cpu",
            output=tmp_path / run,
        )
        return result["protocol"]["data_fingerprint"], result["scores"]["fvd"]["value"]

    clips, found = DATA.clips("train", range(32)), []
    for run, frames in (("first", clips), ("other", 255 - clips), ("again", clips)):
        for split in ("train", "test"):
            (tmp_path / "data" / split).mkdir(parents=True, exist_ok=True)
            images = frames.permute(0, 1, 3, 4, 2).numpy()
            np.save(tmp_path / "data" / split / "clips.npy", images)  # the same place, name and size
        found.append(scored(run))
    assert found[0] == found[2]
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


def test_pitfall_21_clip_sees_frames_with_its_own_mean_and_deviation() -> None:
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(text_config=small, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=4)
    grey = torch.full((1, 3, 40, 52), 51, dtype=torch.uint8)  # a fifth
    pixels = _clip.CLIPExtractor(_clip_model.untrained(config), CPU).prepared(grey)
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = (0.2 - torch.tensor(mean)) / torch.tensor(deviation)
    torch.testing.assert_close(pixels, expected[None, :, None, None].expand(1, 3, 16, 16))


def test_pitfall_21_the_inception_score_does_not_know_of_batches() -> None:
    fake = DATA.clips("test", range(64))
    scores = [seen(judged(VideoInceptionScore), torch.split(fake, size), []) for size in (64, 16, 5)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-6)
