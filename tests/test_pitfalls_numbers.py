"""What goes wrong in the field between clips and number, and what holds it here: pitfalls of the project's list.

Each test is short and looks from outside; thorough ones stand in the file of the module. The others of the 21 are in
`test_pitfalls_data.py` and `test_pitfalls_code.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import Command
from pitfalls import CPU, DATA, inputs, judged, metric, protocol, seen
from pretrained_files import save, state_of, table
from samples import FAKE, LOGITS, REAL, gaussian

from vfbench import plugins, video
from vfbench.clips import detect
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import BuildContext, Request
from vfbench.report.table import build
from vfbench.weights import catalogue, fetch, i3d
from vfbench.weights.catalogue import Download, Network, Source

ROOT = Path(__file__).parent.parent


def asked(count: int) -> list[Request]:
    return [Request(i, i, 0, "") for i in range(count)]


def test_each_of_the_21_pitfalls_has_a_test() -> None:
    sources = "".join((ROOT / "tests" / f"test_pitfalls_{part}.py").read_text() for part in ("data", "numbers", "code"))
    assert set(map(int, re.findall(r"^def test_pitfall_(\d\d)_", sources, re.MULTILINE))) == set(range(1, 22))


# How many clips, and the arithmetic.


def test_pitfall_04_fvd_is_of_all_clips_and_never_a_mean_over_batches() -> None:
    real, fake = DATA.clips("train", range(128)), DATA.clips("test", range(128))
    by_batch = partial(judged, output="features")
    together = seen(by_batch(), torch.split(fake, 32), torch.split(real, 32))
    assert together == pytest.approx(seen(by_batch(), [fake], [real]))
    halves = zip(torch.split(fake, 64), torch.split(real, 64), strict=True)
    averaged = np.mean([seen(by_batch(), [a], [b]) for a, b in halves])
    assert averaged > 1.5 * together  # what a mean over batches would have said
    with pytest.raises(UserError, match="has seen 32 generated clips, and needs at least 64"):
        seen(by_batch(), [fake[:32]], [real[:32]])


def test_pitfall_04_number_and_bias_stand_beside_the_value() -> None:
    score = metric("fvd").score(gaussian(400, 4, seed=1), gaussian(500, 4, seed=2))
    assert (score.n_fake, score.n_real) == (400, 500)
    assert score.slope is not None
    assert score.limit is not None
    assert score.slope > 0
    assert score.limit < score.value
    assert "strongly biased" in metric("fvd").score(FAKE[:20], REAL).note


SPECTRA = {"flat": np.ones(400), "steep": np.logspace(3, -12, 400), "few": np.r_[np.ones(5), np.zeros(395)]}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("count", [4, 128, 600])
def test_pitfall_05_no_matrix_root_can_spoil_the_distance(
    spectrum: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(scipy.linalg, "sqrtm")
    fvd = metric("fvd")
    real = gaussian(count, 400, seed=1) * SPECTRA[spectrum]
    assert fvd.score(real + 0.5, real).value == pytest.approx(400 * 0.25, rel=1e-6)
    scaled = fvd.score(1.5 * real, real).value  # means and deviations are half as much again
    expected = 0.25 * ((real.mean(axis=0) ** 2).sum() + real.var(axis=0, ddof=1).sum())
    assert scaled == pytest.approx(expected, rel=1e-6)


# What the network sees, and which network.


def test_pitfall_06_bytes_that_were_floats_in_0_to_1_are_refused() -> None:
    clips = (DATA.clips("train", range(2)) > 100).to(torch.uint8)
    with pytest.raises(UserError, match="multiply floats in"):
        plugins.load("extractor", "shapes_judge", CPU)(clips, asked(2), ["features"])
    with pytest.raises(UserError, match="multiply floats in"):
        judged(output="features").update(clips)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255)])
def test_pitfall_06_floats_are_refused_whatever_their_range(tmp_path: Path, low: int, high: int) -> None:
    np.save(tmp_path / "a.npy", np.linspace(low, high, 2 * 4 * 8 * 8 * 3, dtype=np.float32).reshape(1, 8, 8, 8, 3))
    with pytest.raises(MissingData, match=rf"float32 .*, {low} to {high} in the first; .*to_uint8"):
        detect(tmp_path)
    with pytest.raises(TypeError):
        video.checked(torch.zeros(1, 4, 3, 8, 8))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights that does not exist yet."""
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_pitfall_07_the_imagenet_inflated_i3d_is_refused_for_fvd(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    assert len(i3d.table()) == 230
    assert not any(row.scratch == row.imagenet for row in i3d.table())
    monkeypatch.setattr(i3d, "table", table)  # of a small stand-in
    done = vfbench("weights", "import", "i3d", save(tmp_path / "rgb_imagenet.pt", state_of(seed=1)))
    assert done.code == 4
    assert "0 of 7 tensors are those of the published I3D" in done.err
    assert "rgb_imagenet, the I3D inflated from ImageNet" in done.err
    assert not weights.exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a mirror that has `i3d.pth`, and nothing else."""
    save(tmp_path / "mirror.pth", {"fc.weight": torch.ones(3)}).rename(tmp_path / "i3d.pth")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def test_pitfall_08_a_dead_link_is_no_dead_end(
    server: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    sha256 = hashlib.sha256((tmp_path / "i3d.pth").read_bytes()).hexdigest()
    mirrors = Download("i3d.pth", (f"{server}/gone.pth", f"{server}/i3d.pth"), sha256)
    place, judgement = fetch.fetch(Network("inception", "", "file", (Source((mirrors,)),)))
    assert (place, judgement.standard) == (weights / "inception.safetensors", True)


def test_pitfall_08_missing_weights_name_every_way_to_them(weights: Path, vfbench: Command) -> None:
    with pytest.raises(MissingData, match="python -m vfbench weights fetch i3d"):
        plugins.load("extractor", "i3d", CPU)
    published = catalogue.NETWORKS["i3d"]
    assert len({url.split("/")[2] for url in published.urls}) >= 3  # hosts
    told = vfbench("weights", "where", "i3d").out
    assert all(url in told for url in published.urls)
    assert "python -m vfbench weights import i3d FILE" in told


# What may be put side by side.


def test_pitfall_16_inception_scores_of_other_splits_or_counts_do_not_mix() -> None:
    measures = protocol().record()["measures"]
    kinds = [{**measures, "is": {**measures["is"], "metric": f"is(splits={splits})"}} for splits in (1, 10)]
    assert len({protocol(measures=kind, n_fake=n).id for kind in kinds for n in (2_048, 10_000)}) == 4
    record = json.loads((ROOT / "results/records/vdm.json").read_text())
    with pytest.raises(UserError, match="n_fake"):
        build([record, {**record, "protocol": {**record["protocol"], "id": "0" * 12, "n_fake": 10_000}}])


def test_pitfall_16_the_inception_score_of_real_clips_stands_beside() -> None:
    real = 8 * np.eye(7)[np.arange(100) % 7]
    score = metric("is").score(LOGITS, real)
    assert score.floor == pytest.approx(7, rel=0.05)
    assert score.value < 0.5 * score.floor


@pytest.mark.parametrize("spec", ["fvd", "kvd", "is", "is(splits=4)", "clipsim", "precision", "coverage"])
def test_pitfall_17_a_score_is_the_same_twice_and_has_an_interval(spec: str) -> None:
    scored = metric(spec)
    pair = inputs(scored)
    first = scored.score(*pair)
    assert first == scored.score(*pair)
    assert first.low <= first.value <= first.high
    assert first.low < first.high


def test_pitfall_17_a_clip_has_its_own_seed_whatever_the_batch() -> None:
    sampler = plugins.load("model", "noise", BuildContext(DATA, CPU))
    whole = sampler.sample(asked(5))
    assert torch.equal(sampler.sample([asked(5)[3], asked(5)[1]]), whole[[3, 1]])
    assert len({clip.numpy().tobytes() for clip in whole}) == 5


def test_pitfall_18_the_clip_model_is_part_of_the_protocol_and_scores_are_cosines() -> None:
    models = [f"clip(model='openai/clip-vit-{size}')" for size in ("base-patch32", "large-patch14")]
    assert len({protocol(extractors={"clip": model}).id for model in models}) == 2
    hundredfold = np.full((64, 1), 29.3)
    with pytest.raises(UserError, match="divide by 100"):
        metric("clipsim").score(hundredfold, hundredfold)


def test_pitfall_19_the_two_sides_may_differ_in_number() -> None:
    for spec in ("fvd", "kvd", "precision", "coverage"):
        for fake, real in ((FAKE, REAL), (FAKE[:40], REAL), (FAKE, REAL[:40])):
            score = metric(spec).score(fake, real)
            assert isinstance(score.value, float)
            assert (score.n_fake, score.n_real) == (len(fake), len(real))
    with pytest.raises(UserError, match="generated clips have 1 rows, and at least 2 are needed"):
        metric("fvd").score(FAKE[:1], REAL)
