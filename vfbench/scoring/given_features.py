"""Scores of features against features. Their network is not known, so the numbers compare with nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vfbench import clips, plugins
from vfbench.clips import ClipFolder
from vfbench.errors import UserError
from vfbench.interfaces import Groups, Metric
from vfbench.pipeline.eval_setup import computable, require_enough
from vfbench.pipeline.features import group_numbers
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.scores import score_record
from vfbench.plugins import Spec
from vfbench.protocol.resolve import resolve_rules
from vfbench.report.result_parts import ProtocolRecord, ScoreRecord
from vfbench.scoring.job import ScorePlan, default_name, folder_and_specification, given_record
from vfbench.scoring.options import ScoreOptions
from vfbench.utils import files

DEFAULT_METRICS = ("fvd", "kvd")
SAME_FILES = "real and generated features are the same files"
ROW_OUTPUTS = ("features", "logits")  # network outputs that the rows of a file can be
UNKNOWN = "feature network and frames of the clips are not known: these scores are not comparable"


def plan(options: ScoreOptions, fake: ClipFolder) -> ScorePlan:
    """Find the real features and check that both sides and the metrics fit; raises as `vfbench.scoring.plan`."""
    real = _real(options, fake)
    specs = _specs(options)
    metrics = {name: _metric(name, spec) for name, spec in specs.items()}
    left_out = ""
    if options.smoke:
        metrics, left_out = computable(metrics, len(fake), len(real), chosen=options.metrics)
    else:
        require_enough(metrics, len(fake), len(real))
    sides = clips.read_features(fake), clips.read_features(real)
    if sides[0].shape[1] != sides[1].shape[1]:
        widths = " and ".join(
            f"{side.shape[1]} in {found.root}" for side, found in zip(sides, (fake, real), strict=True)
        )
        raise UserError(f"features of different width, {widths}: they must come from one network")
    groups = Groups(*(group_numbers(clips.row_sources(side)) for side in (fake, real)))
    content_hash = clips.content_hash(fake)
    protocol = _protocol(specs, real, len(fake))
    same = [SAME_FILES] if clips.content_hash(real) == content_hash else []
    warnings = [UNKNOWN, *filter(None, [left_out]), *same]
    determines = {"fake": content_hash, "protocol": protocol.to_json()}
    folder, specification = folder_and_specification(options, fake, torch.device("cpu"), determines)
    return ScorePlan(
        folder=folder,
        specification=specification,
        name=options.name or default_name(fake),
        dataset=real.root.resolve().name,
        protocol=protocol,
        fake=given_record(fake, content_hash, options),
        note="; ".join(warnings),
        lines=(
            ("fake", fake.describe()),
            ("real", real.describe()),
            ("protocol", f"{protocol.id} (features), not comparable"),
            ("metrics", ", ".join(metrics)),
            ("rows", f"{len(fake):,} fake against {len(real):,} real ones"),
            *(("warning", warning) for warning in warnings),
        ),
        compute=partial(_compute, metrics, *sides, groups),
    )


def _real(options: ScoreOptions, fake: ClipFolder) -> ClipFolder:
    """The real features; raises `UserError` where `--real` holds clips, and for flags that features do not take."""
    unused = {
        "--prompts": options.prompts,
        "--paired": options.paired or None,
        "--num-real": options.num_real,
        "--data-root": options.data_root,
        "--extractor": options.extractors or None,
        "--weights": None if options.weights == "default" else options.weights,
    }
    if given := [flag for flag, value in unused.items() if value is not None]:
        raise UserError(f"{', '.join(given)}: {fake.root} holds features, all of which are scored; leave that out")
    path = Path(options.real).expanduser()
    real = clips.detect(path) if path.exists() else None
    if real is None or real.kind != "features":
        other = f"--real {options.real} is a dataset or nothing" if real is None else f"{real.root} clips"
        raise UserError(f"{fake.root} holds features and {other}: give features on both sides, or clips")
    return real


def _specs(options: ScoreOptions) -> dict[str, str]:
    """Specs of the metrics to compute by name, with the protocol's options."""
    measures = resolve_rules(Spec("folder"), options.protocol, smoke=False).measures
    specs = {}
    for text in options.metrics or DEFAULT_METRICS:
        name = plugins.public_name(plugins.parse(text).name)
        specs[name] = measures[text].metric if text in measures else text
    return specs


def _metric(name: str, spec: str) -> Metric:
    metric: Metric = plugins.load("metric", spec)
    if metric.output not in ROW_OUTPUTS:
        rows = " or ".join(ROW_OUTPUTS)
        raise UserError(f"{name} is made of {metric.output}, and rows of a file are {rows}: leave it out")
    return metric


def _protocol(specs: Mapping[str, str], real: ClipFolder, count: int) -> ProtocolRecord:
    """Record of the known protocol fields, with their hash as the id."""
    known = {
        "comparable": False,
        "dataset": real.root.resolve().name,
        "data_fingerprint": clips.content_hash(real),
        "n_real": len(real),
        "n_fake": count,
        "measures": {name: {"metric": spec, "source": "unknown.features"} for name, spec in specs.items()},
        "extractors": {"unknown": "whatever made the features"},
    }
    return ProtocolRecord.model_validate({"id": files.json_digest(known)[:12], "name": "features", **known})


def _compute(
    metrics: Mapping[str, Metric], fake: Tensor, real: Tensor, groups: Groups, folder: RunFolder
) -> dict[str, ScoreRecord]:
    del folder  # there is nothing to look at
    scores = {name: metric.score(fake.numpy(), real.numpy(), groups=groups) for name, metric in metrics.items()}
    return {name: score_record(metrics[name], score) for name, score in scores.items()}
