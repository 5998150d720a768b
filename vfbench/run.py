"""The main job: plan -> generate -> evaluate -> result."""

from __future__ import annotations

import sys
from typing import Any

import torch

from vfbench import files, render, table
from vfbench.cost import peak_memory
from vfbench.errors import BadEnvironment
from vfbench.evaluate import real_features, scores
from vfbench.generate import generate, load
from vfbench.plan import Plan
from vfbench.store import RunFolder

SCHEMA = 1


def run(plan: Plan) -> dict[str, Any]:
    """Do what was planned and return the result, as it is written to `results.json` in the run folder.

    The same plan again resumes: whatever ends the process, whole chunks are kept.
    """
    with RunFolder.hold(plan.folder, plan.specification) as folder:
        try:
            return _run(plan, folder)
        except torch.OutOfMemoryError as error:
            raise BadEnvironment(
                f"the GPU has too little memory for batches of {plan.batch_size}: "
                f"give the same command with a smaller --batch-size; {folder.path} keeps what is done"
            ) from error


def _run(plan: Plan, folder: RunFolder) -> dict[str, Any]:
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(plan.device)
    real = real_features(plan.dataset, plan.protocol, plan.wanted, plan.device)
    seconds = generate(folder, plan.sampler, plan.requests, plan.wanted, plan.batch_size)
    print("score: value, interval and floor of each metric", file=sys.stderr)
    found = scores(plan.protocol, plan.metrics, load(folder, plan.requests, plan.wanted), real)
    count = len(plan.requests)
    result = {
        "schema": SCHEMA,
        "run_id": plan.specification["id"],
        "run_dir": str(folder.path),
        "model": plan.model.name,
        "model_spec": str(plan.model),
        "reference": bool(getattr(plan.sampler, "reference", False)),
        "weights": plan.sampler.weights,
        "dataset": plan.dataset.name,
        "protocol": plan.protocol.record(),
        "seed": plan.options.seed,
        "scores": found,
        "cost": {
            "parameters": plan.cost.parameters,
            "flops_per_clip": plan.cost.flops_per_clip,
            "evaluations": plan.cost.evaluations,
            "calls": plan.cost.calls,
            "seconds_per_clip": round(seconds / count, 6),
            "peak_memory_bytes": peak_memory(plan.device),
        },
        "environment": plan.specification["environment"],
        "note": getattr(plan.dataset, "note", ""),
    }
    files.write_json(folder.results, result)
    _tables(folder, result)
    return result


def _tables(folder: RunFolder, result: dict[str, Any]) -> None:
    made = table.build([result], allow_mixed=True)
    write = {"md": render.to_markdown, "csv": render.to_csv, "tex": render.to_latex}
    for suffix, text in write.items():
        files.write_text(folder.tables / f"table.{suffix}", text(made))
