"""The main job: plan -> generate -> score -> result."""

from __future__ import annotations

import torch

from vfbench.interfaces import Configured, Staged
from vfbench.pipeline import dataset_card
from vfbench.pipeline.cost import peak_memory
from vfbench.pipeline.features import real_features
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.generate import generate, load
from vfbench.pipeline.plan import Plan
from vfbench.pipeline.result import write_result, write_scored
from vfbench.pipeline.sample import is_control
from vfbench.pipeline.scores import scored_tensors, scores
from vfbench.report.results import SCHEMA, Cost, ProtocolRecord, Result, StageRecord
from vfbench.utils import console, memory


def run(plan: Plan) -> Result:
    """Carry out a plan and return the result, as `results.json` in the run folder holds it.

    The same plan again resumes: whatever ends the process, finished chunks are kept.
    """
    subject = f"this run ({plan.folder} keeps what is done)"
    with RunFolder.hold(plan.folder, plan.specification) as folder, memory.require_memory(subject):
        return _run(plan, folder)


def _run(plan: Plan, folder: RunFolder) -> Result:
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(plan.device)
    setup, requests, sampler = plan.setup, plan.requests, plan.sampler
    data = dataset_card.write(folder, setup)
    reals = real_features(setup.dataset, setup.protocol, plan.collector, plan.device, setup.manifest)
    seconds = generate(folder, sampler, requests, plan.collector, plan.batch_size, sum(plan.cost.calls.values()))
    console.info("score: value, interval and floor of each metric")
    sources = [(request.split, request.source) for request in requests]
    fake = load(folder, requests, plan.collector)
    records = scores(setup.protocol, setup.metrics, fake, reals, sources)
    write_scored(folder, scored_tensors(fake, reals, sources))
    result = Result(
        schema=SCHEMA,
        run_id=folder.run_id,
        run_dir=str(folder.path),
        model=plan.model.name,
        model_spec=str(plan.model),
        preset=sampler.preset if isinstance(sampler, Configured) else "",
        reference=is_control(sampler),
        weights=sampler.weights,
        dataset=setup.dataset.name,
        data=data,
        protocol=ProtocolRecord.model_validate(setup.protocol.to_json()),
        seed=plan.options.seed,
        scores=records,
        cost=Cost(
            parameters=plan.cost.parameters,
            flops_per_clip=plan.cost.flops_per_clip,
            evaluations=plan.cost.evaluations,
            calls=plan.cost.calls,
            seconds_per_clip=round(seconds / len(requests), 6),
            peak_memory_bytes=peak_memory(plan.device),
        ),
        environment=plan.specification.environment,
        note=setup.remarks(requests),
    )
    if isinstance(sampler, Staged):
        flops = plan.cost.stages
        stages = {
            name: StageRecord(weights=stage.weights, flops_per_clip=flops[name])
            for name, stage in sampler.stages.items()
        }
        result = result.model_copy(update={"stages": stages})
    return write_result(folder, result)
