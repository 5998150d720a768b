"""What a run measures: protocol, real clips, metrics and networks, loaded and checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vfbench import manifest as manifests
from vfbench import plugins, selection
from vfbench.errors import MissingData, UserError, unknown
from vfbench.evaluate import require_enough
from vfbench.interfaces import Dataset, Extractor, Metric, Request
from vfbench.manifest import Manifest
from vfbench.plugins import Spec
from vfbench.protocol import SMOKE_CLIPS, Measure, Protocol, described
from vfbench.rules import cut, departures, rules

CLIPS = {"cpu": 256, "cuda": 2048}  # generated clips, where neither user nor protocol says how many
LEAST_REAL = 4  # two halves of two clips: fewer have no floor
WEIGHTS = ("default", "random")


@dataclass(frozen=True)
class Asked:
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
class Measuring:
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
        return _outputs(self.protocol.measures, self.metrics)

    @property
    def note(self) -> str:
        """What a reader must know of the real clips and the networks; empty where there is nothing."""
        few = "smoke run of a few clips" * self.smoke
        others = [name for name, extractor in self.extractors.items() if extractor.standing == "other"]
        weights = f"NOT the published weights: {', '.join(others)}; these numbers compare with nothing" * bool(others)
        return "; ".join(filter(None, [getattr(self.dataset, "note", ""), self.departures, few, weights]))

    def remarks(self, requests: Sequence[Request]) -> str:
        """The note, with what the networks have to say of these requests, such as captions that are too long."""
        asked = (name for name, outputs in self.outputs.items() if "similarity" in outputs)
        tell = (getattr(self.extractors[name], "note", None) for name in asked)
        return "; ".join(filter(None, [self.note, *(note(requests) for note in tell if note)]))


def prepare(spec: Spec, device: torch.device, asked: Asked) -> Measuring:
    """Load and check all that measuring on the dataset `spec` needs, the cheap first.

    Raises `UserError` for what does not fit together, and `MissingData` for clips or weights that are not here, with
    the command that gets them.
    """
    if asked.weights not in WEIGHTS:
        raise unknown("choice of --weights", asked.weights, WEIGHTS)
    given = rules(spec, asked.protocol, smoke=asked.smoke)
    metrics, measures = _metrics(asked.metrics, given["measures"])
    networks = _networks(asked, given, measures)
    fields = {**given, "measures": measures, "n_fake": _fakes(asked, given, device)}
    if not asked.smoke:
        require_enough(metrics, fields["n_fake"])
    dataset: Dataset = plugins.load("dataset", cut(spec, fields))
    listed = manifests.read(Path(asked.manifest)) if asked.manifest else None
    fields |= _reals(asked, fields, dataset, listed)
    if not asked.smoke:
        require_enough(metrics, fields["n_fake"], fields["n_real"])
    fields["name"] = _name(given, asked)
    extractors = _load(networks, _outputs(measures, metrics), device)
    protocol = _protocol(fields, dataset, networks, extractors, asked.smoke)
    protocol, manifest = _chosen(protocol, dataset, listed)
    return Measuring(dataset, protocol, metrics, extractors, manifest, asked.smoke, departures(given, spec))


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
            measures[name] = {"source": source, **measures.get(name, {}), "metric": str(_whole("metric", spec, name))}
        metrics[name] = plugins.load("metric", measures[name]["metric"])
    return metrics, measures


def _whole(kind: plugins.Kind, spec: Spec, name: str) -> Spec:
    """A spec with the options that were not given, as they are now: a later default must not pass for this one."""
    return Spec(name, {**plugins.options(kind, spec.name), **spec.options})


def _networks(asked: Asked, given: Mapping[str, Any], measures: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The specs of all networks by their label: the protocol's, those that added metrics read, those the user says."""
    labels, known = (
        sorted({measure["source"].partition(".")[0] for measure in some.values()})
        for some in (measures, given["measures"])
    )
    networks = {label: label if label in known else _network(label) for label in labels}
    networks |= given.get("extractors", {})
    for text in asked.extractors:
        label, _, spec = (part.strip() for part in text.partition("="))
        if label not in networks:
            raise unknown("network to replace (--extractor LABEL=SPEC)", label, networks)
        networks[label] = _network(spec)
    if asked.weights != "random":
        return networks
    untrained = {label: _untrained(network) for label, network in networks.items()}
    if untrained == networks:
        raise UserError(f"--weights random: {', '.join(networks)} has no random weights; leave it out")
    return untrained


def _network(text: str) -> str:
    spec = plugins.parse(text)
    whole = _whole("extractor", spec, spec.name).options
    usual = {name for name in ("weights",) if name not in spec.options}  # which ones they are, the standing tells
    return str(Spec(spec.name, {name: value for name, value in whole.items() if name not in usual}))


def _outputs(measures: Mapping[str, Any], metrics: Mapping[str, Metric]) -> dict[str, list[str]]:
    """Of each network that the metrics need: what of it."""
    needed: dict[str, set[str]] = {}
    for name in metrics:
        network, _, output = Measure.model_validate(measures[name]).source.partition(".")
        needed.setdefault(network, set()).add(output)
    return {network: sorted(outputs) for network, outputs in sorted(needed.items())}


def _load(
    networks: Mapping[str, str], outputs: Mapping[str, Sequence[str]], device: torch.device
) -> dict[str, Extractor]:
    """The networks that are needed; raises `UserError` where one has no such output."""
    loaded: dict[str, Extractor] = {}
    for label, wanted in outputs.items():
        try:
            loaded[label] = plugins.load("extractor", networks[label], device)
        except MissingData as error:
            raise MissingData(f"{error}\nor try the path without them: --weights random (not comparable)") from error
        for output in wanted:
            if output not in loaded[label].outputs:
                raise unknown(f"output of extractor {networks[label]}", output, loaded[label].outputs)
    return loaded


def _untrained(spec: str) -> str:
    """The spec of a network with random weights, where it can have such."""
    network = plugins.parse(spec)
    takes = "weights" in plugins.options("extractor", network.name)
    return str(network.merged({"weights": "random"})) if takes else spec


def _fakes(asked: Asked, fields: Mapping[str, Any], device: torch.device) -> int:
    """How many clips are generated for one score."""
    least = SMOKE_CLIPS["n_fake"] if asked.smoke else fields.get("n_fake", CLIPS[device.type])
    count = least if asked.n_fake is None else asked.n_fake
    if count < 2:
        raise UserError(f"a score needs at least 2 generated clips, not {count}")
    return int(count)


def _chosen(protocol: Protocol, dataset: Dataset, listed: Manifest | None) -> tuple[Protocol, Manifest]:
    """The list of real clips, and the protocol, which is another one where it does not draw the clips of the list."""
    drawn = selection.draw(dataset, protocol)
    if listed is None or listed.real == drawn.real:
        return protocol, drawn
    for number in range(listed.draws):
        selection.located(dataset, protocol.split, listed.places(number, "real") + listed.places(number, "spare"))
    own = {"selection": "manifest", "manifest": listed.sha256}
    name = str(plugins.parse(protocol.name).merged({"manifest": listed.sha256[:12]}))
    return protocol.model_copy(update={**own, "name": name}), listed


def _reals(asked: Asked, fields: Mapping[str, Any], dataset: Dataset, listed: Manifest | None) -> dict[str, int]:
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


def _counted(asked: Asked, fields: Mapping[str, Any], dataset: Dataset) -> int:
    """How many real clips a score takes; raises `MissingData` where there are fewer."""
    split = fields.get("split", "train")
    there = selection.available(dataset, split)
    wanted = there if fields["n_real"] == "all" else fields["n_real"]
    wanted = min(SMOKE_CLIPS["n_real"], there) if asked.smoke else wanted
    wanted = wanted if asked.n_real is None else asked.n_real
    if wanted < LEAST_REAL and there >= LEAST_REAL:
        raise UserError(f"--num-real {wanted}: a score and its floor need at least {LEAST_REAL} real clips")
    if there < wanted or there < LEAST_REAL:
        few = "; --num-real N takes fewer, and says so in the protocol" if there >= LEAST_REAL else ""
        raise MissingData(
            f"{dataset.name} has {there:,} real clips here ({split}), and {max(wanted, LEAST_REAL):,} are needed{few}"
        )
    return int(wanted)


def _protocol(
    fields: Mapping[str, Any],
    dataset: Dataset,
    networks: Mapping[str, str],
    loaded: Mapping[str, Extractor],
    smoke: bool,
) -> Protocol:
    shape = dataset.shape
    others = any(extractor.standing == "other" for extractor in loaded.values())
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
            "extractors": described(networks, loaded),
        }
    )


def _name(given: Mapping[str, Any], asked: Asked) -> str:
    """The name of the rules, with the numbers of clips where the user asks for others than they have."""
    numbers = {"n_real": asked.n_real, "n_fake": asked.n_fake}
    changed = {key: n for key, n in numbers.items() if n is not None and given.get(key, n) != n}
    return str(Spec(given["name"], changed))
