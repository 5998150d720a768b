"""The main job: plan -> generate -> evaluate -> result."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vfbench import card, files, memory, render, table
from vfbench.cost import peak_memory
from vfbench.errors import MissingData
from vfbench.evaluate import made_of, real_features, scores
from vfbench.generate import generate, load
from vfbench.plan import Plan
from vfbench.store import SCORED, RunFolder, read_tensors, write_tensors

SCHEMA = 1


def run(plan: Plan) -> dict[str, Any]:
    """Do what was planned and return the result, as it is written to `results.json` in the run folder.

    The same plan again resumes: whatever ends the process, whole chunks are kept.
    """
    said = f"this run ({plan.folder} keeps what is done)"
    with RunFolder.hold(plan.folder, plan.specification) as folder, memory.needed(said):
        return _run(plan, folder)


def _run(plan: Plan, folder: RunFolder) -> dict[str, Any]:
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(plan.device)
    measuring, protocol = plan.measuring, plan.measuring.protocol
    data = card.write(folder, measuring)
    reals = real_features(measuring.dataset, protocol, plan.wanted, plan.device, measuring.manifest)
    seconds = generate(folder, plan.sampler, plan.requests, plan.wanted, plan.batch_size)
    print("score: value, interval and floor of each metric", file=sys.stderr)
    sources = [(request.split, request.source) for request in plan.requests]
    fake = load(folder, plan.requests, plan.wanted)
    found = scores(protocol, measuring.metrics, fake, reals, sources)
    keep_scored(folder, made_of(fake, reals, sources))
    count = len(plan.requests)
    result = {
        "schema": SCHEMA,
        "run_id": plan.specification["id"],
        "run_dir": str(folder.path),
        "model": plan.model.name,
        "model_spec": str(plan.model),
        "preset": str(getattr(plan.sampler, "preset", "")),
        "reference": bool(getattr(plan.sampler, "reference", False)),
        "weights": plan.sampler.weights,
        "dataset": measuring.dataset.name,
        "data": data,
        "protocol": protocol.record(),
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
        "note": measuring.remarks(plan.requests),
    }
    keep(folder, result)
    return result


def keep_scored(folder: RunFolder, tensors: dict[str, Tensor]) -> None:
    """Write what scores were made of, beside what an earlier command of the same run left there."""
    path, earlier = folder.path / SCORED, dict[str, Tensor]()
    if path.exists():
        with contextlib.suppress(ValueError):  # damaged, or another run's: it is made anew
            earlier = read_tensors(path, run=folder.run_id)[0]
    write_tensors(path, {**earlier, **tensors}, run=folder.run_id)


def keep(folder: RunFolder, result: dict[str, Any]) -> None:
    """Write a result and its table into its folder; what an earlier command of the same run measured stays in it."""
    if folder.results.exists():
        with contextlib.suppress(MissingData):  # damaged: it is made anew
            (earlier,) = table.load([folder.results])
            if earlier.get("run_id") == result["run_id"]:
                _take_over(earlier, result)
    files.write_json(folder.results, result)
    made = table.build([result], allow_mixed=True)
    write = {"md": render.to_markdown, "csv": render.to_csv, "tex": render.to_latex}
    for suffix, text in write.items():
        files.write_text(folder.tables / f"table.{suffix}", text(made))


def _take_over(earlier: Mapping[str, Any], result: dict[str, Any]) -> None:
    """Add the scores and notes of an earlier result of the same run, and the memory that it took if that was more.

    For a command that finds the clips there has made none.
    """
    found = {**earlier["scores"], **result["scores"]}
    result["scores"] = {name: found[name] for name in result["protocol"]["measures"] if name in found}
    notes = [note for each in (earlier, result) for note in str(each.get("note") or "").split("; ")]
    result["note"] = "; ".join(filter(None, dict.fromkeys(notes)))
    if result["cost"]:
        peaks = [each["cost"]["peak_memory_bytes"] for each in (earlier, result)]
        result["cost"]["peak_memory_bytes"] = max(peaks)
