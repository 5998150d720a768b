"""The main job: plan -> generate -> score -> result."""

from __future__ import annotations

from collections.abc import Sequence

from vfbench.interfaces import Configured, Remarks, Staged, Tunable
from vfbench.pipeline import dataset_card
from vfbench.pipeline.feature_chunks import FeatureChunks
from vfbench.pipeline.features import RealFeatures, real_features
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.generate import generate
from vfbench.pipeline.plan import Plan
from vfbench.pipeline.result import write_result, write_scored
from vfbench.pipeline.sample import is_control
from vfbench.pipeline.scores import scored_tensors, scores
from vfbench.pipeline.worker_job import announce
from vfbench.pipeline.workers import Rank, Worker
from vfbench.report import results
from vfbench.report.result_parts import Cost, DataRecord, ProtocolRecord, StageRecord
from vfbench.report.results import SCHEMA, Result
from vfbench.utils import console, environment, memory
from vfbench.utils import device as devices

SCORES = "scores"  # what one worker computes when all chunks are there


def run(plan: Plan) -> Result:
    """Carry out a plan and return the result, as `results.json` in the run folder holds it.

    The same plan again resumes: whatever ends the process, finished chunks are kept. The same plan in several processes
    shares the work, and one of them writes the result.
    """
    folder = RunFolder.join(plan.folder, plan.specification)
    subject = f"this run ({folder.name} keeps what is done)"
    announce(folder.name, plan.describe())
    worker = Worker(folder.path, Rank.from_environment(), plan.patience, folder.store)
    with devices.threads(folder.layout.threads), worker.working(), memory.require_memory(subject):
        return _run(plan, folder, worker)


def _run(plan: Plan, folder: RunFolder, worker: Worker) -> Result:
    setup, calls, before = plan.setup, sum(plan.cost.calls.values()), _stamp(folder)
    if folder.layout.batch_size != plan.batch_size:
        console.info(
            f"batches of {folder.layout.batch_size}, fixed when this run began; to change them, choose another --output"
        )
    data = dataset_card.write(folder, setup)
    folder.publish(folder.card, folder.manifest, folder.samples / "real")
    reals = real_features(setup.dataset, setup.protocol, plan.collector, plan.device, setup.manifest, worker)
    rest = (plan.sampler, plan.requests, plan.device, calls, worker, plan.profiled_batch)
    maker = FeatureChunks(folder, *rest, collector=plan.collector)
    generate(maker)
    maker.require_no_failure()
    result: Result | None = None

    def is_scored(_: str) -> bool:
        """True where another worker has written the result since this one began."""
        nonlocal result
        if _stamp(folder) != before:
            (written,) = results.load([folder.results])
            result = written if setup.metrics.keys() <= written.scores.keys() else None
        return result is not None

    for _ in worker.share([SCORES], is_scored):
        result = _score(plan, maker, data, reals)
        worker.clear()
    assert result is not None
    return result


def _stamp(folder: RunFolder) -> tuple[int, int] | None:
    """State of the result's file, another after each writing; None where there is none."""
    folder.fetch(folder.results)
    try:
        status = folder.results.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def _score(plan: Plan, maker: FeatureChunks, data: DataRecord, reals: Sequence[RealFeatures]) -> Result:
    """Score the chunks and write the result; several workers that do so at once write the same."""
    setup, folder, requests, sampler = plan.setup, maker.folder, plan.requests, plan.sampler
    console.info("score: value, interval and floor of each metric")
    sources = [(request.split, request.source) for request in requests]
    fake = maker.load()
    records = scores(setup.protocol, setup.metrics, fake, reals, sources)
    write_scored(folder, scored_tensors(fake, reals, sources))
    timings = [maker.timing(name) for name in maker.chunks]
    sampler_note = sampler.note(requests) if isinstance(sampler, Remarks) else ""
    result = Result(
        schema=SCHEMA,
        run_id=folder.run_id,
        run_dir=folder.name,
        model=plan.model.name,
        model_spec=str(plan.model),
        preset=sampler.preset if isinstance(sampler, Configured) else "",
        sampling=dict(sampler.sampling_options) if isinstance(sampler, Tunable) else {},
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
            seconds_per_clip=round(sum(each.seconds for each in timings) / len(requests), 6),
            peak_memory_bytes=max(each.peak_memory_bytes for each in timings),
        ),
        environment=environment.environment(plan.device.type),
        note="; ".join(filter(None, [sampler_note, setup.remarks(requests)])),
    )
    if isinstance(sampler, Staged):
        flops = plan.cost.stages
        stages = {
            name: StageRecord(weights=stage.weights, flops_per_clip=flops[name])
            for name, stage in sampler.stages.items()
        }
        result = result.model_copy(update={"stages": stages})
    return write_result(folder, result)
