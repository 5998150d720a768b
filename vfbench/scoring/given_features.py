"""Features against features: numbers of a network that nobody names, which compare with nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vfbench import clips, plugins
from vfbench.clips import ClipFolder
from vfbench.errors import UserError
from vfbench.interfaces import Metric
from vfbench.pipeline.eval_setup import require_enough
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.scores import told
from vfbench.plugins import Spec
from vfbench.protocol.resolve import rules
from vfbench.scoring.job import ScoreOptions, ScorePlan, Scores, found_in, ready
from vfbench.utils import tensor_files

DEFAULT = ("fvd", "kvd")
SAME = "real and generated features are the same files"
READ = ("features", "logits")  # outputs that the rows of a file can be
UNKNOWN = "the network that made these features is not known, nor how their clips were cut: they compare with nothing"


def look(options: ScoreOptions, fake: ClipFolder) -> ScorePlan:
    """Find the real features, and check that both sides and the metrics fit; raises as `vfbench.scoring.look`."""
    real = _real(options, fake)
    specs = _specs(options)
    metrics = {name: _metric(name, spec) for name, spec in specs.items()}
    if not options.smoke:
        require_enough(metrics, len(fake), len(real))
    sides = clips.features(fake), clips.features(real)
    if sides[0].shape[1] != sides[1].shape[1]:
        widths = " and ".join(
            f"{side.shape[1]} in {found.root}" for side, found in zip(sides, (fake, real), strict=True)
        )
        raise UserError(f"features of different width, {widths}: they must come from one network")
    protocol = _protocol(specs, real, len(fake))
    manifest = clips.content_hash(fake)
    lines = [
        ("fake", fake.describe()),
        ("real", real.describe()),
        ("protocol", f"{protocol['id']} (features), not comparable"),
        ("metrics", ", ".join(metrics)),
        ("rows", f"{len(fake):,} fake against {len(real):,} real ones"),
        ("warning", UNKNOWN),
        *([("warning", SAME)] if protocol["data_fingerprint"] == manifest else []),
    ]
    return ready(
        options,
        fake,
        torch.device("cpu"),
        {"fake": manifest, "protocol": protocol},
        lines=lines,
        about={
            "dataset": real.root.resolve().name,
            "protocol": protocol,
            "note": f"{UNKNOWN}; {SAME}" if protocol["data_fingerprint"] == manifest else UNKNOWN,
            "fake": found_in(fake, manifest, options),
        },
        work=partial(_work, metrics, *sides),
    )


def _real(options: ScoreOptions, fake: ClipFolder) -> ClipFolder:
    """The real features; raises `UserError` where there are clips, or for a flag that features take no notice of."""
    said = {
        "--prompts": options.prompts,
        "--num-real": options.num_real,
        "--data-root": options.data_root,
        "--extractor": options.extractors or None,
        "--weights": None if options.weights == "default" else options.weights,
    }
    if odd := [flag for flag, value in said.items() if value is not None]:
        raise UserError(f"{', '.join(odd)}: {fake.root} holds features, all of which are scored; leave that out")
    path = Path(options.real).expanduser()
    found = clips.detect(path) if path.exists() else None
    if found is None or found.kind != "features":
        what = f"--real {options.real} is a dataset or nothing" if found is None else f"{found.root} clips"
        raise UserError(f"{fake.root} holds features and {what}: give features on both sides, or clips")
    return found


def _specs(options: ScoreOptions) -> dict[str, str]:
    """The metrics to compute, each with its options as the protocol has them."""
    measures: Mapping[str, Any] = rules(Spec("folder"), options.protocol, smoke=False)["measures"]
    specs = {}
    for text in options.metrics or DEFAULT:
        name = plugins.public(plugins.parse(text).name)
        specs[name] = measures[text]["metric"] if text in measures else text
    return specs


def _metric(name: str, spec: str) -> Metric:
    metric: Metric = plugins.load("metric", spec)
    if metric.output not in READ:
        raise UserError(f"{name} is made of {metric.output}, and rows of a file are {' or '.join(READ)}: leave it out")
    return metric


def _protocol(specs: Mapping[str, str], real: ClipFolder, count: int) -> dict[str, Any]:
    """What is known of the rules, with an id as a protocol's."""
    known = {
        "comparable": False,
        "dataset": real.root.resolve().name,
        "data_fingerprint": clips.content_hash(real),
        "n_real": len(real),
        "n_fake": count,
        "measures": {name: {"metric": spec, "source": "unknown.features"} for name, spec in specs.items()},
        "extractors": {"unknown": "whatever made the features"},
    }
    return {"id": tensor_files.digest(known)[:12], "name": "features", **known}


def _work(metrics: Mapping[str, Metric], fake: Tensor, real: Tensor, folder: RunFolder) -> Scores:
    del folder  # there is nothing to look at
    return {name: told(metric, metric.score(fake.numpy(), real.numpy())) for name, metric in metrics.items()}
