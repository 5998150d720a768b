"""What a run measures: protocol, real clips, metrics and networks, loaded and checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vfbench import plugins
from vfbench.clips import manifest as manifests
from vfbench.clips.manifest import Manifest
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Dataset, Extractor, Metric, Request, Split
from vfbench.pipeline import extractors as networks
from vfbench.pipeline import real_clips
from vfbench.plugins import Spec
from vfbench.protocol.protocol import SMOKE_CLIPS, Protocol, extractor_ids
from vfbench.protocol.resolve import cut, departures, rules

CLIPS = {"cpu": 256, "cuda": 2048}  # generated clips, where neither user nor protocol says how many
LEAST_REAL = 4  # two halves of two clips: fewer have no floor
WEIGHTS = ("default", "random")


@dataclass(frozen=True)
class EvalOptions:
    """What a user may say of a measurement; None and () mean the protocol's own."""

    protocol: str | None = None
    metrics: Sequence[str] = ()
    n_fake: int | None = None
    n_real: int | None = None
    weights: str = "default"  # or `random`: untrained networks, for whoever has no weights and tries the path
    extractors: Sequence[str] = ()  # LABEL=SPEC: other networks, or other options of one
    smoke: bool = False
    manifest: Path | str | None = None  # the list of real clips to score


@dataclass(frozen=True)
class EvalSetup:
    """A protocol with all that it needs, by the names that it has for them."""

    dataset: Dataset
    protocol: Protocol
    metrics: Mapping[str, Metric]
    extractors: Mapping[str, Extractor]
    manifest: Manifest  # the real clips
    smoke: bool
    departures: str = ""  # of the preset

    @property
    def outputs(self) -> dict[str, list[str]]:
        """What the metrics need of each extractor."""
        return networks.outputs(self.protocol.measures, self.metrics)

    @property
    def note(self) -> str:
        """What a reader must know of the real clips and the networks; empty where there is nothing."""
        few = "smoke run of a few clips" * self.smoke
        others = [name for name, extractor in self.extractors.items() if extractor.weight_status == "nonstandard"]
        weights = f"NOT the published weights: {', '.join(others)}; these numbers compare with nothing" * bool(others)
        return "; ".join(filter(None, [getattr(self.dataset, "note", ""), self.departures, few, weights]))

    def remarks(self, requests: Sequence[Request]) -> str:
        """The note, with what the networks have to say of these requests, such as captions that are too long."""
        asked = (name for name, outputs in self.outputs.items() if "similarity" in outputs)
        tell = (getattr(self.extractors[name], "note", None) for name in asked)
        return "; ".join(filter(None, [self.note, *(note(requests) for note in tell if note)]))


def prepare(spec: Spec, device: torch.device, asked: EvalOptions) -> EvalSetup:
    """Load and check all that measuring on the dataset `spec` needs, the cheap first.

    Raises `UserError` for what does not fit together, and `MissingData` for clips or weights that are not here, with
    the command that gets them.
    """
    if asked.weights not in WEIGHTS:
        raise unknown("choice of --weights", asked.weights, WEIGHTS)
    given = rules(spec, asked.protocol, smoke=asked.smoke)
    metrics, measures = _metrics(asked.metrics, given["measures"])
    specs = networks.chosen(given, measures, asked.extractors, untrained=asked.weights == "random")
    fields = {**given, "measures": measures, "n_fake": _fakes(asked, given, device)}
    if not asked.smoke:
        require_enough(metrics, fields["n_fake"])
    dataset: Dataset = plugins.load("dataset", cut(spec, fields))
    listed = manifests.read(Path(asked.manifest)) if asked.manifest else None
    fields |= _reals(asked, fields, dataset, listed)
    fields["prompts"] = _prompts(fields, dataset)
    if not asked.smoke:
        require_enough(metrics, fields["n_fake"], fields["n_real"])
    fields["name"] = _name(given, asked)
    extractors = networks.load(specs, networks.outputs(measures, metrics), device)
    protocol = _protocol(fields, dataset, specs, extractors, asked.smoke)
    protocol, manifest = _chosen(asked, protocol, dataset, listed)
    other = f"labels and captions are those of {protocol.prompts} clips, since there are no others"
    asked_otherwise = protocol.prompts != given.get("prompts", "test")
    departed = "; ".join(filter(None, [departures(given, spec), other * asked_otherwise]))
    return EvalSetup(dataset, protocol, metrics, extractors, manifest, asked.smoke, departed)


def _metrics(
    asked: Sequence[str], given: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, Metric], dict[str, Mapping[str, str]]]:
    """The metrics to compute, and the protocol's measures with what it does not name added.

    A metric that the protocol does not name, or has with other options, makes the protocol another one.
    """
    measures = dict(given)
    first = next(iter(measures.values()))["source"]
    metrics: dict[str, Metric] = {}
    for text in asked or measures:
        spec = plugins.parse(text) if text not in measures else Spec(text)
        name = plugins.public(spec.name)
        if name not in measures or spec.options:
            # By what its file names, else by what the first measure reads.
            source = getattr(plugins.module("metric", spec.name), "SOURCE", first)
            measures[name] = {
                "source": source,
                **measures.get(name, {}),
                "metric": str(plugins.whole("metric", spec, name)),
            }
        metrics[name] = plugins.load("metric", measures[name]["metric"])
    return metrics, measures


def _fakes(asked: EvalOptions, fields: Mapping[str, Any], device: torch.device) -> int:
    """How many clips are generated for one score."""
    least = SMOKE_CLIPS["n_fake"] if asked.smoke else fields.get("n_fake", CLIPS[device.type])
    count = least if asked.n_fake is None else asked.n_fake
    if count < 2:
        raise UserError(f"a score needs at least 2 generated clips, not {count}")
    return int(count)


def _chosen(
    asked: EvalOptions, protocol: Protocol, dataset: Dataset, listed: Manifest | None
) -> tuple[Protocol, Manifest]:
    """The list of real clips, and the protocol, which is another one where it does not draw the clips of the list."""
    drawn = real_clips.draw(dataset, protocol)
    if listed is None or listed.real == drawn.real:
        return protocol, drawn
    try:
        real_clips.located(dataset, protocol.split, [row.place for row in listed.rows])
    except UserError as error:
        raise type(error)(f"--manifest {asked.manifest}: {error}") from error
    own = {"selection": "manifest", "manifest": listed.sha256}
    name = str(plugins.parse(protocol.name).merged({"manifest": listed.sha256[:12]}))
    return protocol.model_copy(update={**own, "name": name}), listed


def _prompts(fields: Mapping[str, Any], dataset: Dataset) -> Split:
    """The split that labels and captions are taken from: the other one where the rules' has no clips.

    A flat folder has one split only. The protocol records which it was, and the note says so.
    """
    wanted: Split = fields.get("prompts", "test")
    other: Split = "test" if wanted == "train" else "train"
    return wanted if dataset.size(wanted) or not dataset.size(other) else other


def _reals(asked: EvalOptions, fields: Mapping[str, Any], dataset: Dataset, listed: Manifest | None) -> dict[str, int]:
    """How many real clips a score takes, and how many draws of them where a list says it.

    Raises `MissingData` where there are fewer, and `UserError` where the list has another number than is asked for.
    """
    if listed is None:
        return {"n_real": _counted(asked, fields, dataset)}
    count = len(listed.places(0, "real"))
    if asked.n_real not in (None, count):
        raise UserError(f"--num-real {asked.n_real}: --manifest {asked.manifest} has {count}; leave out one of the two")
    if count < LEAST_REAL:
        raise UserError(f"--manifest {asked.manifest}: {count} real clips, a score needs at least {LEAST_REAL}")
    return {"n_real": count, "repeats": listed.draws}


def _counted(asked: EvalOptions, fields: Mapping[str, Any], dataset: Dataset) -> int:
    """How many real clips a score takes; raises `MissingData` where there are fewer."""
    split = fields.get("split", "train")
    there = real_clips.available(dataset, split)
    wanted = there if fields["n_real"] == "all" else fields["n_real"]
    wanted = min(SMOKE_CLIPS["n_real"], there) if asked.smoke else wanted
    wanted = wanted if asked.n_real is None else asked.n_real
    if wanted < LEAST_REAL and there >= LEAST_REAL:
        raise UserError(f"--num-real {wanted}: a score and its floor need at least {LEAST_REAL} real clips")
    if there < wanted or there < LEAST_REAL:
        few = "; --num-real N takes fewer, and says so in the protocol" if there >= LEAST_REAL else ""
        note: str = getattr(dataset, "note", "")
        needed = f"{max(wanted, LEAST_REAL):,} are needed{few}{f' ({note})' if note else ''}"
        raise MissingData(f"{dataset.name} has {there:,} real clips here ({split}), and {needed}")
    return int(wanted)


def _protocol(
    fields: Mapping[str, Any],
    dataset: Dataset,
    specs: Mapping[str, str],
    loaded: Mapping[str, Extractor],
    smoke: bool,
) -> Protocol:
    shape = dataset.shape
    others = any(extractor.weight_status == "nonstandard" for extractor in loaded.values())
    return Protocol(
        **{
            **fields,
            "dataset": dataset.name,
            "data_fingerprint": dataset.fingerprint,
            "frames": shape.frames,
            "height": shape.height,
            "width": shape.width,
            "stride": getattr(dataset, "stride", 1),
            "comparable": fields.get("comparable", True) and not (others or smoke),
            "extractors": extractor_ids(specs, loaded),
        }
    )


def _name(given: Mapping[str, Any], asked: EvalOptions) -> str:
    """The name of the rules, with the numbers of clips where the user asks for others than they have."""
    numbers = {"n_real": asked.n_real, "n_fake": asked.n_fake}
    changed = {key: n for key, n in numbers.items() if n is not None and given.get(key, n) != n}
    return str(Spec(given["name"], changed))


def require_enough(metrics: Mapping[str, Metric], fakes: int, reals: int | None = None) -> None:
    """Raise `UserError` when a metric means nothing with so few generated, or real, clips."""
    for kind, count in {"generated": fakes, "real": reals}.items():
        short = {
            name: metric.minimum for name, metric in metrics.items() if count is not None and count < metric.minimum
        }
        if short:
            named = ", ".join(f"{name} needs {minimum}" for name, minimum in short.items())
            raise UserError(
                f"{count:,} {kind} clips are too few: {named}; --smoke tries the path with fewer (not comparable)"
            )
