"""The gate on runs of a real model, with and without a planted regression: python benchmarks/gate_regression.py

Damages a shipped checkpoint --draws times by normal noise on its weights, and gates each against the undamaged run of
the same seed: the test is paired. --noise lists the sizes of the noise, in standard deviations of each tensor. Then
repeats the undamaged run with --draws other seeds, and gates each against the first: unpaired.
Counts how often the rule fails. Finished runs are kept in --output, so the same command goes on. Writes
results/gate-regression.md.
"""

from __future__ import annotations

import argparse
import hashlib
import textwrap
from collections import Counter
from pathlib import Path
from statistics import median

import torch
from _measure import make_parser

import vfbench
from vfbench.report.gate import GateResult, Status
from vfbench.utils import files, tensor_files
from vfbench.utils.environment import cpu_name

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "results" / "gate-regression.md"
SHIPPED = ROOT / "vfbench" / "checkpoints" / "shapes"


def main() -> None:
    parser = make_parser(__doc__, model="videofusion", steps=5, clips=96, draws=20, noise="0.25", rule="fvd:+5%")
    parser.add_argument("--output", default="runs/gate-regression")
    arguments = parser.parse_args()
    output, shipped = Path(arguments.output), SHIPPED / arguments.model

    def run(name: str, seed: int, checkpoint: Path) -> Path:
        spec, folder = f"{arguments.model}(steps={arguments.steps})", output / name
        numbers = {"num_samples": arguments.clips, "metrics": ["fvd"], "device": "cpu"}
        vfbench.run(model=spec, dataset="shapes", checkpoint=checkpoint, seed=seed, output=folder, **numbers)
        return folder

    baseline = run("baseline", 0, shipped)
    gated: dict[str, list[GateResult]] = {}
    for noise in arguments.noise.split(","):
        outcomes = gated[f"planted regression, noise {noise}, same seed"] = []
        for draw in range(1, arguments.draws + 1):
            checkpoint = damaged(shipped, output / f"checkpoint-{noise}-{draw}", float(noise), draw)
            outcomes += vfbench.gate(run(f"damaged-{noise}-{draw}", 0, checkpoint), baseline, [arguments.rule])
    outcomes = gated["unchanged, other seeds"] = []
    for draw in range(1, arguments.draws + 1):
        outcomes += vfbench.gate(run(f"repeat-{draw}", draw, shipped), baseline, [arguments.rule])
    files.write_text(PAGE, page(arguments, gated))


def damaged(checkpoint: Path, folder: Path, noise: float, seed: int) -> Path:
    """Copy of a checkpoint with normal noise on its weights, `noise` standard deviations of each tensor."""
    if folder.exists():
        return folder
    tensors, generator = tensor_files.read(checkpoint / "model.safetensors"), torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel() > 1:
            values = tensor.float()
            values += noise * values.std() * torch.randn(values.shape, generator=generator)
            tensors[name] = values.to(tensor.dtype)
    temporary = folder.with_suffix(".part")
    temporary.mkdir(parents=True, exist_ok=True)
    tensor_files.write(temporary / "model.safetensors", tensors)
    digest = hashlib.sha256((temporary / "model.safetensors").read_bytes()).hexdigest()
    files.write_json(temporary / "config.json", {**files.read_json(checkpoint / "config.json"), "sha256": digest})
    temporary.rename(folder)
    return folder


def page(arguments: argparse.Namespace, gated: dict[str, list[GateResult]]) -> str:
    """Page with a table of statuses, and how it was made."""
    options, rows = vars(arguments), []
    weights = files.file_sha256(SHIPPED / arguments.model / "model.safetensors")[:12]
    for name, outcomes in gated.items():
        statuses = Counter(each.status for each in outcomes)
        failed = statuses[Status.REGRESSION]
        rise = median(each.difference for each in outcomes) / outcomes[0].baseline
        seen = median(each.detectable for each in outcomes) / outcomes[0].baseline
        others = ", ".join(f"{count} {status.value}" for status, count in statuses.items())
        rows.append(f"| {name} | {failed} of {len(outcomes)} | {rise:+.0%} | {seen:+.0%} | {others} |")
    text = (
        f"Runs of {options['model']} (weights {weights}) with {options['steps']} sampling steps, {options['clips']} "
        f"clips each, gated by `{options['rule']}`. A planted regression is normal noise on the weights, in standard "
        "deviations of each tensor. Rise: median change of FVD since the baseline. Detectable: the rise that the "
        "gate says it finds in 80 % of cases, median."
    )
    command = " ".join(f"--{name} {value}" for name, value in options.items() if name not in ("output", "rule"))
    return "\n".join(
        [
            "# The gate on runs of a model",
            "",
            textwrap.fill(text, 120),
            "",
            "| runs | failed | rise | detectable | statuses |",
            "| :-- | --: | --: | --: | :-- |",
            *rows,
            "",
            f"Made by `python benchmarks/gate_regression.py {command}` on {cpu_name()}, torch {torch.__version__}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
