"""Protocol ids, clips, features, weights and scores of small runs: record them at one commit, check them at another.

    python benchmarks/unchanged.py record before.json      # at the old commit
    python benchmarks/unchanged.py check before.json       # at the new one: exit 1 and a line for each difference

Everything goes through the command line, so that the same script runs at both commits. On one machine all must be
equal; `--tolerance 1e-6` allows that much, relative, between machines. Real clips come from VFBENCH_TEST_DATA.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TRAINED = (("videofusion", "tiny"), ("vdm", "tiny"), ("vdit", "tiny"), ("pyoco", "tiny"), ("pyoco", "tiny-progressive"))
CONTROLS = ("noise", "real", "frozen", "corrupted(kind='blur', strength=1.0)")
REAL_DATASETS = {"ucf101": "ucf101", "sky_timelapse": "sky_timelapse", "taichi_hd": "taichi_hd"}
PRESETS = (
    *("strict", "cd-fvd", "deepmind", "digan", "latte", "lvdm", "magvit", "mcvd", "pvdm", "stylegan-v", "tats"),
    "videogpt",
)


def vfbench(*words: object) -> str:
    """Run one command in this process; return its stdout. Raises RuntimeError with its stderr if it fails."""
    from vfbench.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
    if code:
        raise RuntimeError(f"exit {code}: {' '.join(map(str, words))}\n{err.getvalue()[-1500:]}")
    return out.getvalue()


def tensor_hash(file: Path) -> str:
    """SHA-256 of names, types, shapes and bytes of the tensors in a safetensors file."""
    from safetensors.torch import load_file

    total = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        total.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}/".encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


def run(folder: Path, *words: object) -> dict[str, Any]:
    """The parts of a run that must not change."""
    vfbench("run", "--device", "cpu", "--smoke", "--keep-clips", "--output", folder, *words)
    result = json.loads((folder / "results.json").read_text())
    cost = {key: result["cost"][key] for key in ("parameters", "flops_per_clip", "evaluations", "calls")}
    return {
        "keys": sorted(result),
        "protocol": result["protocol"],
        "weights": result["weights"],
        "scores": result["scores"],
        "cost": cost,
        "chunks": {file.name: tensor_hash(file) for file in sorted((folder / "chunks").glob("*.safetensors"))},
    }


def training(folder: Path, model: str, preset: str) -> dict[str, Any]:
    """Weights and configuration keys after two steps."""
    options = ("--steps", 2, "--batch-size", 2, "--save-every", 2, "--sample-every", 1000, "--device", "cpu")
    vfbench("train", "--model", model, "--preset", preset, "--dataset", "shapes", "--output", folder, *options)
    config = json.loads((folder / "config.json").read_text())
    return {"tensors": tensor_hash(folder / "model.safetensors"), "keys": sorted(config)}


def protocol_id(dataset: str, preset: str, *words: object) -> str:
    """The id that a preset has on a dataset, with random feature networks."""
    options = ("--smoke", "--weights", "random", "--device", "cpu", "--dry-run", "--json", "-n", 8)
    text = vfbench("run", "--model", "noise", "--dataset", dataset, "--protocol", preset, *options, *words)
    return str(json.loads(text)["determines"]["protocol"]["id"])


def measurements(scratch: Path) -> Iterator[tuple[str, Any]]:
    """Name and value of everything that must stay as it is."""
    for model in CONTROLS:
        yield (
            f"run {model}",
            run(scratch / "control" / hashlib.sha256(model.encode()).hexdigest()[:8], "--model", model),
        )
    for model in ("videofusion", "vdm"):
        yield f"run shipped {model}", run(scratch / "shipped" / model, "--model", model, "--steps", 4)
    for model, preset in TRAINED:
        folder = scratch / f"trained-{model}-{preset}"
        yield f"train {model} {preset}", training(folder, model, preset)
        words = ("--model", model, "--checkpoint", folder, "--steps", 3, "--guidance", 2.0)
        yield f"run trained {model} {preset}", run(scratch / f"run-{model}-{preset}", *words)
    yield "run ddpm", run(scratch / "ddpm", "--model", "videofusion", "--steps", 4, "--solver", "ddpm")
    clips = scratch / "clips"
    vfbench("generate", "--output", clips, "--format", "npy", "--steps", 3, "-n", 8, "--device", "cpu")
    files = sorted((clips / "clips").iterdir())
    yield "generate", {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    score = ("score", "--real", "shapes", "--fake", clips / "clips", "--smoke", "--device", "cpu")
    vfbench(*score, "--prompts", clips / "prompts.tsv", "--output", scratch / "score")
    result = json.loads((scratch / "score" / "results.json").read_text())
    yield "score", {key: result[key] for key in ("protocol", "scores", "fake")} | {"keys": sorted(result)}
    vfbench("data", "stats", "shapes", "--output", scratch / "stats", "--smoke", "--device", "cpu")
    yield "stats", {file.name: tensor_hash(file) for file in sorted((scratch / "stats").glob("*.safetensors"))}
    for preset in PRESETS:
        yield f"id shapes {preset}", protocol_id("shapes", preset)
    for preset in ("strict", "mcvd"):
        options = ("--model", "noise", "--protocol", preset, "--weights", "random", "-n", 8, "--num-real", 8)
        yield f"run {preset}", run(scratch / f"preset-{preset}", *options)
    data = Path(os.environ.get("VFBENCH_TEST_DATA", "../shared/data"))
    for dataset, folder_name in REAL_DATASETS.items() if data.is_dir() else ():
        for preset in PRESETS:
            root = (data / folder_name).resolve()
            with contextlib.suppress(RuntimeError):  # too few clips for this preset
                yield f"id {dataset} {preset}", protocol_id(dataset, preset, "--data-root", root)


def without_paths(value: Any, scratch: str) -> Any:
    """A measurement with the scratch folder taken out of its texts."""
    if isinstance(value, Mapping):
        return {key: without_paths(item, scratch) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item, scratch) for item in value]
    return value.replace(scratch, "SCRATCH") if isinstance(value, str) else value


def differences(old: Any, new: Any, tolerance: float, where: str = "") -> Iterator[str]:
    """One line for each place in which two measurements differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in old or key not in new:
                yield f"{where}/{key}: only in the {'old' if key in old else 'new'} one"
            else:
                yield from differences(old[key], new[key], tolerance, f"{where}/{key}")
    elif isinstance(old, float) and isinstance(new, float):
        if not (old == new or math.isclose(old, new, rel_tol=tolerance, abs_tol=0.0)):
            yield f"{where}: {old!r} became {new!r}"
    elif old != new:
        yield f"{where}: {old!r} became {new!r}"


def main() -> int:
    """Record or check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("record", "check"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder).resolve()
        os.environ["VFBENCH_CACHE"] = str(scratch / "cache")
        new: dict[str, Any] = {}
        for name, value in measurements(scratch):
            new[name] = without_paths(value, str(scratch))
            print(name, file=sys.stderr)
    if given.action == "record":
        given.file.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
        return 0
    old = json.loads(given.file.read_text())
    found = list(differences(old, json.loads(json.dumps(new)), given.tolerance))
    print("\n".join(found) if found else f"{len(new)} measurements are unchanged")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
