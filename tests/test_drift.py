"""Tests of `vfbench drift`: closed forms of each column, pairing by request, and inputs that cannot be paired."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command, flip_byte
from resultfiles import PROTOCOL, record, score
from torch import Tensor
from torch.nn import functional as F

import vfbench
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import derive_seed
from vfbench.report import compare, similarity
from vfbench.report.results import Result
from vfbench.utils import files
from vfbench.utils.tensor_files import write_tensors
from vfbench.weights import load

SHAPE = (6, 2, 3, 32, 32)  # clips, frames, channels, height, width


def clips(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randint(60, 190, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def write_run(
    folder: Path,
    content: Tensor,
    *,
    seed: int = 0,
    seconds: float = 1.0,
    data: str = "f",
    chunk: int = 4,
    **protocol: Any,
) -> Path:
    """Folder as a run with --keep-clips leaves it, with the mean of each clip's pixels as its features."""
    count, run = len(content), f"run-{folder.name.encode().hex()}-{seed}"
    measures = {"fvd": {"metric": "fvd(ddof=1)", "source": "net.features"}}
    rules = {**PROTOCOL, "measures": measures, "extractors": {"net": "a" * 64}, "n_fake": count, **protocol}
    rules |= {"prompts": "test", "data_fingerprint": data}
    result = record(folder.name, protocol=rules, run=run) | {"seed": seed, "cost": {"seconds_per_clip": seconds}}
    result["scores"] = {"fvd": score(float(content.float().mean()), n_real=8, n_fake=count)}
    folder.mkdir(parents=True)
    Result.model_validate(result).write(folder / "results.json")
    files.write_json(folder / "run.json", {"id": run, "determines": {"seed": seed, "protocol": rules}})
    (folder / "chunks").mkdir()
    for number, part in enumerate(torch.split(content, chunk)):
        path, requests = (
            folder / "chunks" / f"{number:06}.safetensors",
            f"{number * chunk}-{number * chunk + len(part) - 1}",
        )
        write_tensors(path, {"clips": part.clone()}, run=run, requests=requests)
    real = torch.randn(8, 3, generator=torch.Generator().manual_seed(9))
    features = content.float().mean(dim=(1, 3, 4))
    tensors = {"fake.net.features": features, "real.0.net.features": real}
    groups = {"fake.groups": torch.arange(count), "real.0.groups": torch.arange(8)}
    write_tensors(folder / "scored.safetensors", {**tensors, **groups}, run=run)
    return folder


def psnr(a: Tensor, b: Tensor) -> list[float]:
    """PSNR of each clip by its definition: mean over frames."""
    errors = ((a.double() - b.double()) ** 2).mean(dim=(2, 3, 4)).numpy()
    return [float(x) for x in (10 * np.log10(255**2 / errors)).mean(axis=1)]


def test_each_column_has_its_closed_form(tmp_path: Path) -> None:
    first, second = clips(), clips(1)
    a = write_run(tmp_path / "slow", first, seconds=3.0)
    b = write_run(tmp_path / "fast", second, seconds=1.5, chunk=5)
    (row,) = vfbench.drift(a, b, device="cpu").rows
    assert row.measures["psnr"].values == pytest.approx(psnr(first, second), rel=1e-5)
    values = np.array(row.measures["psnr"].values)
    assert row.measures["psnr"].half_width == pytest.approx(2.5706 * values.std(ddof=1) / math.sqrt(6), rel=1e-4)
    means = [content.float().mean(dim=(1, 3, 4)) for content in (first, second)]
    assert row.measures["feature_distance"].values == pytest.approx(
        (means[0] - means[1]).norm(dim=1).tolist(), rel=1e-5
    )
    assert row.requests == tuple(str(derive_seed(0, index)) for index in range(6))
    assert (row.speed_up, row.equal) == (2.0, 0)
    (expected,) = compare.compare(b, a, ["fvd"])
    assert row.fvd is not None
    assert (row.fvd.comparison, row.fvd.unpaired_because) == (expected.comparison, "")
    assert "alexnet" in row.measures["lpips"].missing


@pytest.mark.slow
def test_a_constant_shift_and_equal_clips(tmp_path: Path) -> None:
    content = clips()
    names = {"a": content, "same": content, "brighter": content + 5}
    a, same, brighter = (write_run(tmp_path / name, each) for name, each in names.items())
    equal, shifted = vfbench.drift(a, same, brighter, device="cpu").rows
    assert equal.equal == 6
    assert set(equal.measures["psnr"].values) == {similarity.EQUAL_PSNR}
    assert equal.measures["ssim"].value == pytest.approx(1, abs=1e-6)
    assert shifted.measures["psnr"].value == pytest.approx(20 * math.log10(255 / 5), rel=1e-5)
    assert 0.9 < shifted.measures["ssim"].value < 1
    assert shifted.measures["psnr"].half_width == pytest.approx(0, abs=1e-5)


def test_ssim_is_that_of_its_authors() -> None:
    """One window of a Gaussian with standard deviation 1.5 at each place that has a whole window."""
    a, b = (clips(seed, (1, 3, 16, 16)).double() for seed in (0, 1))
    line = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 11, 11)

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x, window, groups=3)

    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2, mean(a * b) - mu_a * mu_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = ((2 * mu_a * mu_b + c1) * (2 * cov + c2)) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
    assert float(similarity._ssim(a.float(), b.float())) == pytest.approx(float(ssim.mean()), rel=1e-3)


@pytest.mark.slow
def test_lpips_is_the_weighted_distance_of_alexnets_features(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import alexnet

    monkeypatch.setattr(similarity, "load_weights", lambda net, name: load.load_weights(net, name, "random"))
    network, backbone = similarity.perceptual_network(), alexnet(weights=None)
    load.load_weights(backbone, "alexnet", "random")
    a, b = (clips(seed, (2, 3, 40, 40)).float() / 127.5 - 1 for seed in (0, 1))
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total, sides = torch.zeros(2), [(x - shift[:, None, None]) / scale[:, None, None] for x in (a, b)]
    heads = iter(network.lins)
    with torch.inference_mode():
        for number, layer in enumerate(backbone.features[:12]):
            sides = [layer(x) for x in sides]
            if number in (1, 4, 7, 9, 11):  # after each convolution
                unit = [F.normalize(x, dim=1) for x in sides]
                weights = next(heads).model[-1].weight
                total += F.conv2d((unit[0] - unit[1]) ** 2, weights).mean(dim=(1, 2, 3))
    assert network(a, b).flatten().tolist() == pytest.approx(total.tolist(), rel=1e-4)
    closeness = similarity.Similarity()
    closeness.add(clips(0, SHAPE[1:]), clips(0, SHAPE[1:]))
    assert closeness.scores["lpips"].values == (0.0,)


def test_the_command_writes_table_csv_json_and_plot(tmp_path: Path, vfbench: Command) -> None:
    a, b = (write_run(tmp_path / name, clips(i)) for i, name in enumerate(["a", "b$\x1b[31m|x"]))
    files_written = ("--csv", tmp_path / "d.csv", "--plot", tmp_path / "d.png")
    outcome = vfbench("drift", a, b, "--device", "cpu", *files_written)
    assert outcome.code == 0, outcome.err
    assert "weights import alexnet" in outcome.out.replace("\n  ", " ")
    assert "\x1b" not in outcome.out
    assert (tmp_path / "d.csv").read_text().count("\n") == 7
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    printed = json.loads(vfbench("drift", a, b, "--device", "cpu", "--json").out)
    assert len(printed["rows"][0]["clips"]) == 6
    assert printed["rows"][0]["measures"]["lpips"]["mean"] is None
    assert vfbench("drift", a, b, "--plot", "d.txt").code == 2


def test_a_plot_without_matplotlib_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (write_run(tmp_path / name, clips(i, (2, 1, 3, 12, 12))) for i, name in enumerate("ab"))
    result = vfbench.drift(a, b, device="cpu")
    assert "31 or more" in result.rows[0].measures["lpips"].missing
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(BadEnvironment, match="pip install matplotlib"):
        result.plot(tmp_path / "d.png")


def cut_chunk(folder: Path) -> None:
    (folder / "chunks" / "000000.safetensors").unlink()


def damage_chunk(folder: Path) -> None:
    flip_byte(folder / "chunks" / "000001.safetensors", -3)


def drop_clips(folder: Path) -> None:
    for number, path in enumerate(sorted((folder / "chunks").iterdir())):
        run = f"run-{folder.name.encode().hex()}-0"
        write_tensors(path, {"net.features": torch.zeros(4, 3)}, run=run, requests=f"{4 * number}-{4 * number + 3}")


def write_score(folder: Path) -> None:
    files.write_json(folder / "run.json", {"id": "x", "determines": {"fake": "x"}})


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (cut_chunk, 4, "missing or damaged"),
        (damage_chunk, 4, "000001.safetensors"),
        (drop_clips, 4, "--keep-clips"),
        (lambda folder: [path.unlink() for path in (folder / "chunks").iterdir()], 4, "--keep-clips"),
        (lambda folder: (folder / "run.json").write_text("{"), 4, "run.json"),
        (lambda folder: (folder / "run.json").write_text('{"id": 1}'), 4, "run.json"),
        (write_score, 2, "made elsewhere"),
        (lambda folder: (folder / "results.json").unlink(), 4, "results.json"),
        (lambda folder: (folder / "scored.safetensors").write_bytes(b"x"), 4, "scored.safetensors"),
    ],
)
def test_spoilt_runs_are_refused(
    spoil: Callable[[Path], object], code: int, message: str, tmp_path: Path, vfbench: Command
) -> None:
    a, b = (write_run(tmp_path / name, clips(i)) for i, name in enumerate("ab"))
    spoil(b)
    outcome = vfbench("drift", a, b, "--device", "cpu")
    assert (outcome.code, message in outcome.err, "Traceback" in outcome.err) == (code, True, False), outcome.err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "--seed"),
        ({"data": "other"}, "--dataset"),
        ({"content": clips(1, (6, 2, 3, 16, 32))}, "2x3x16x32"),
        ({"content": clips(1, (6, 3, 3, 32, 32))}, "3x3x32x32"),
    ],
)
def test_runs_of_other_requests_or_shapes_are_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", clips()), write_run(tmp_path / "b", **{"content": clips(1), **changed})
    with pytest.raises(UserError, match=message):
        vfbench.drift(a, b, device="cpu")
    with pytest.raises(UserError, match="at least one"):
        vfbench.drift(a)


@pytest.mark.slow
def test_cells_that_stay_empty_have_a_reason(tmp_path: Path) -> None:
    a, longer = write_run(tmp_path / "a", clips()), write_run(tmp_path / "longer", clips(1, (9, *SHAPE[1:])), id="b")
    (row,) = vfbench.drift(a, longer, device="cpu").rows
    assert (len(row.requests), row.fvd) == (6, None)
    assert any("3 clips" in note for note in row.notes)
    assert any("different protocols" in note for note in row.notes)
    other = write_run(tmp_path / "other", clips(1), extractors={"net": "b" * 64}, id="c")
    (row,) = vfbench.drift(a, other, device="cpu").rows
    assert "different networks" in row.measures["feature_distance"].missing
    content = json.loads((a / "results.json").read_text())
    (a / "results.json").write_text(json.dumps({**content, "cost": None}))
    (row,) = vfbench.drift(a, write_run(tmp_path / "b", clips(1)), device="cpu").rows
    assert row.speed_up is None
    assert any("seconds" in note for note in row.notes)


def test_an_edited_result_is_named(tmp_path: Path, vfbench: Command) -> None:
    a, b = (write_run(tmp_path / name, clips(i)) for i, name in enumerate("ab"))
    content = json.loads((b / "results.json").read_text())
    (b / "results.json").write_text(json.dumps({**content, "cost": {"seconds_per_clip": 0.001}}))
    assert "edited" in vfbench("drift", a, b, "--device", "cpu").err


# Folders of clips.


def write_arrays(folder: Path, content: Tensor, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name, clip in zip(names, content, strict=True):
        np.save(folder / f"{name}.npy", clip[None].permute(0, 1, 3, 4, 2).numpy())
    return folder


def write_generated(folder: Path, content: Tensor, *, seed: int = 0, asked: str = "a cat") -> Path:
    names = [f"{index:06}" for index in range(len(content))]
    write_arrays(folder / "clips", content, names)
    entries = [{"name": f"{name}.npy[0]", "asked": asked, "seed": derive_seed(seed, i)} for i, name in enumerate(names)]
    files.write_json(folder / "generate.json", {"clips": entries})
    return folder


@pytest.mark.slow
def test_clips_of_folders_are_paired_by_name_and_of_generate_by_seed(tmp_path: Path) -> None:
    first, second, order = clips(), clips(1), [3, 1, 0, 2, 5, 4]
    names = [f"clip{index}" for index in range(6)]
    a = write_arrays(tmp_path / "a", first, names)
    b = write_arrays(tmp_path / "b", second[order], [names[index] for index in order])
    (row,) = vfbench.drift(a, b, device="cpu").rows
    assert row.measures["psnr"].values == pytest.approx(psnr(first, second), rel=1e-5)
    assert (row.fvd, row.speed_up, bool(row.measures["feature_distance"].missing)) == (None, None, True)
    made = [write_generated(tmp_path / name, each) for name, each in (("made", first), ("again", second))]
    for left, right in (made, (write_run(tmp_path / "run", first), made[1])):
        (row,) = vfbench.drift(left, right, device="cpu").rows
        assert row.measures["psnr"].values == pytest.approx(psnr(first, second), rel=1e-5)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    names = [f"clip{index}" for index in range(6)]
    a = write_arrays(tmp_path / "a", clips(), names)
    with pytest.raises(MissingData, match="clip5"):
        vfbench.drift(a, write_arrays(tmp_path / "less", clips()[:5], names[:5]), device="cpu")
    with pytest.raises(UserError, match="no request in common"):
        vfbench.drift(a, write_run(tmp_path / "run", clips()), device="cpu")
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "absent"):
        with pytest.raises(MissingData, match=nothing):
            vfbench.drift(a, tmp_path / nothing, device="cpu")
    np.save(tmp_path / "features.npy", np.zeros((6, 4), np.float32))
    with pytest.raises(UserError, match="features"):
        vfbench.drift(a, tmp_path / "features.npy", device="cpu")
    made = write_generated(tmp_path / "made", clips())
    with pytest.raises(UserError, match="a dog"):
        vfbench.drift(made, write_generated(tmp_path / "dogs", clips(), asked="a dog"), device="cpu")
    (made / "clips" / "000003.npy").unlink()
    with pytest.raises(MissingData, match="000003"):
        vfbench.drift(made, made, device="cpu")
    files.write_json(made / "generate.json", {"clips": [{"name": 1}]})
    with pytest.raises(MissingData, match="damaged"):
        vfbench.drift(made, made, device="cpu")
