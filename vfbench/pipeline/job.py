"""The main job: plan -> generate -> evaluate -> result."""

from __future__ import annotations

import sys
from typing import Any

import torch

from vfbench.pipeline import dataset_card
from vfbench.pipeline.cost import peak_memory
from vfbench.pipeline.features import real_features
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.generate import generate, load
from vfbench.pipeline.plan import Plan
from vfbench.pipeline.result import SCHEMA, keep, keep_scored
from vfbench.pipeline.scores import made_of, scores
from vfbench.utils import memory


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
    data = dataset_card.write(folder, measuring)
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
