"""The setup of a measurement: protocol, real clips, metrics and networks, loaded and checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vfbench import plugins
from vfbench.clips import manifest as manifests
from vfbench.clips.manifest import Manifest
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipLimits, Dataset, Extractor, Metric, Remarks, Request, Split, VideoBacked, is_part
from vfbench.pipeline import extractors, real_clips
from vfbench.pipeline.options import EvalOptions
from vfbench.plugins import Spec
from vfbench.protocol.protocol import SMOKE_CLIPS, Measure, Protocol, extractor_ids
from vfbench.protocol.resolve import Rules, dataset_spec, departures, resolve_rules
from vfbench.utils import text

CLIPS = {"cpu": 256, "cuda": 2048}  # generated clips, where neither user nor protocol says how many


@dataclass(frozen=True)
class EvalSetup:
    """A protocol with its dataset, metrics and extractors, under the names that the protocol has for them."""

    dataset: Dataset
    protocol: Protocol
    metrics: Mapping[str, Metric]
    extractors: Mapping[str, Extractor]
    manifest: Manifest  # the real clips
    smoke: bool
    departures: str = ""  # from the preset

    @property
    def outputs(self) -> dict[str, list[str]]:
        """The outputs that the metrics read, by extractor."""
        return extractors.outputs(self.protocol.measures, self.metrics)

    @property
    def dataset_note(self) -> str:
        """The dataset's note on its clips, such as how many of the listed videos are missing; often empty."""
        return self.dataset.note if isinstance(self.dataset, VideoBacked) else ""

    @property
    def note(self) -> str:
        """Warnings on real clips and networks for the reader of the scores; empty where there are none."""
        smoke = "smoke run of a few clips" * self.smoke
        nonstandard = [name for name, each in self.extractors.items() if each.weight_status == "nonstandard"]
        weights = (
            f"NOT the published weights: {', '.join(nonstandard)}; these scores are not comparable"
            if nonstandard
            else ""
        )
        return "; ".join(filter(None, [self.dataset_note, self.departures, smoke, weights]))

    def remarks(self, requests: Sequence[Request]) -> str:
        """The note, with the extractors' remarks on these requests, such as captions that are too long."""
        readers = [self.extractors[name] for name, outputs in self.outputs.items() if "similarity" in outputs]
        remarks = [each.note(requests) for each in readers if isinstance(each, Remarks)]
        return "; ".join(filter(None, [self.note, *remarks]))


def prepare(spec: Spec, device: torch.device, options: EvalOptions, num_samples: int | None = None) -> EvalSetup:
    """Load and check everything that measuring on the dataset `spec` needs, the cheap first.

    `num_samples` clips are generated for one score, by default as many as the protocol says. Raises `UserError` for
    options that do not fit together, and `MissingData` for missing clips or weights, with the command that gets them.
    """
    original = resolve_rules(spec, options.protocol, smoke=options.smoke)
    metrics, measures = _metrics(options.metrics, original.measures)
    specs = extractors.specs(original, measures, options.extractors, untrained=options.weights == "random")
    n_fake = _num_fake(original, options, device, num_samples)
    if not options.smoke:
        require_enough(metrics, n_fake)
    dataset: Dataset = plugins.load("dataset", dataset_spec(spec, original))
    listed = manifests.read_manifest(Path(options.manifest)) if options.manifest else None
    n_real = _num_real(original, options, dataset, listed)
    left_out = ""
    if options.smoke:
        metrics, left_out = computable(metrics, n_fake, n_real, chosen=options.metrics)
    else:
        require_enough(metrics, n_fake, n_real)
    loaded = extractors.load(specs, measures, list(metrics), dataset.shape.frames, device, original.name)
    settled = replace(
        original,
        name=_name(original, options.num_real, num_samples),
        measures=measures,
        n_fake=n_fake,
        n_real=n_real,
        repeats=listed.draws if listed else original.repeats,
        prompts=_prompts(original.prompts, dataset),
    )
    protocol = _protocol(settled, dataset, specs, loaded, options.smoke)
    protocol, manifest = _with_manifest(options, protocol, dataset, listed)
    other_prompts = (
        f"labels and captions are those of {protocol.prompts} clips, since there are no others"
        if protocol.prompts != original.prompts
        else ""
    )
    departed = "; ".join(filter(None, [departures(original, spec), other_prompts, left_out]))
    return EvalSetup(dataset, protocol, metrics, loaded, manifest, options.smoke, departed)


def _metrics(chosen: Sequence[str], given: Mapping[str, Measure]) -> tuple[dict[str, Metric], dict[str, Measure]]:
    """Metrics to compute, with their parts, and the protocol's measures extended by those of the user.

    A metric that the protocol does not name, or has with other options, changes the protocol.
    """
    measures = dict(given)
    first_source = next(iter(measures.values())).source
    metrics: dict[str, Metric] = {}
    for metric in chosen or measures:
        spec = plugins.parse(metric) if metric not in measures else Spec(metric)
        name = plugins.public_name(spec.name)
        if name not in measures or spec.options:
            default_source = plugins.constants("metric", spec.name).source or first_source
            source = measures[name].source if name in measures else default_source
            measures[name] = Measure(metric=str(plugins.with_defaults("metric", spec, name)), source=source)
        metrics[name] = plugins.load("metric", measures[name].metric)
        for part, part_spec in _parts(metrics[name], measures[name]).items():
            measures.setdefault(part, Measure(metric=part_spec, source=measures[name].source))
            metrics[part] = plugins.load("metric", measures[part].metric)
    return metrics, measures


def _parts(metric: Metric, measure: Measure) -> Mapping[str, str]:
    """Specs of the metrics that detail a metric; none for one that is such a part itself."""
    return {} if is_part(metric) else plugins.constants("metric", plugins.parse(measure.metric).name).parts


def _num_fake(rules: Rules, options: EvalOptions, device: torch.device, num_samples: int | None) -> int:
    """Number of clips generated for one score."""
    default = SMOKE_CLIPS["n_fake"] if options.smoke else rules.n_fake or CLIPS[device.type]
    return default if num_samples is None else num_samples


def _with_manifest(
    options: EvalOptions, protocol: Protocol, dataset: Dataset, listed: Manifest | None
) -> tuple[Protocol, Manifest]:
    """The manifest of real clips, and the protocol; another protocol where a given manifest lists other clips."""
    drawn = real_clips.draw(dataset, protocol)
    if listed is None or listed.real == drawn.real:
        real_clips.located(dataset, protocol.split, [row.place for row in drawn.rows])  # raises for clips too short
        return protocol, drawn
    try:
        real_clips.located(dataset, protocol.split, [row.place for row in listed.rows])
    except UserError as error:
        raise type(error)(f"--manifest {options.manifest}: {error}") from error
    name = str(plugins.parse(protocol.name).merged({"manifest": listed.sha256[:12]}))
    return protocol.model_copy(update={"selection": "manifest", "manifest": listed.sha256, "name": name}), listed


def _prompts(preferred: Split, dataset: Dataset) -> Split:
    """The split that labels and captions come from: the preferred one, or the other where that has no clips."""
    other: Split = "test" if preferred == "train" else "train"
    return preferred if dataset.size(preferred) or not dataset.size(other) else other


def _num_real(rules: Rules, options: EvalOptions, dataset: Dataset, listed: Manifest | None) -> int:
    """Number of real clips in a score.

    Raises `MissingData` where the dataset has fewer, and `UserError` where a manifest has another number than asked.
    """
    if listed is None:
        return _available_real(rules, options, dataset)
    count = len(listed.places(0, "real"))
    if options.num_real not in (None, count):
        raise UserError(
            f"--num-real {options.num_real}: --manifest {options.manifest} has {count}; leave out one of the two"
        )
    if count < options.min_real:
        raise UserError(f"--manifest {options.manifest}: {count} real clips, a score needs at least {options.min_real}")
    return count


def _available_real(rules: Rules, options: EvalOptions, dataset: Dataset) -> int:
    """Number of real clips in a score without a manifest; raises `MissingData` where the dataset has fewer."""
    available = real_clips.available(dataset, rules.split)
    count = available if rules.n_real == "all" else rules.n_real
    count = min(SMOKE_CLIPS["n_real"], available) if options.smoke else count
    count = count if options.num_real is None else options.num_real
    needed = max(count, options.min_real)
    if available < needed:
        hint = "; --num-real N takes fewer, and says so in the protocol" if available >= options.min_real else ""
        note = f" ({dataset.note})" if isinstance(dataset, VideoBacked) and dataset.note else ""
        raise MissingData(
            f"{dataset.name} has {available:,} real clips here ({rules.split}), and {needed:,} are needed{hint}{note}"
        )
    return count


def _protocol(
    rules: Rules, dataset: Dataset, specs: Mapping[str, str], loaded: Mapping[str, Extractor], smoke: bool
) -> Protocol:
    nonstandard = any(extractor.weight_status == "nonstandard" for extractor in loaded.values())
    return rules.protocol(
        dataset=dataset.name,
        data_fingerprint=dataset.fingerprint,
        frames=dataset.shape.frames,
        height=dataset.shape.height,
        width=dataset.shape.width,
        stride=dataset.stride if isinstance(dataset, VideoBacked) else 1,
        comparable=rules.comparable and not (nonstandard or smoke),
        extractors=extractor_ids(specs, loaded),
    )


def _name(rules: Rules, num_real: int | None, num_fake: int | None) -> str:
    """The name of the rules, with the numbers of clips where the user asks for others."""
    changed = {
        key: count
        for key, count, default in (("n_real", num_real, rules.n_real), ("n_fake", num_fake, rules.n_fake))
        if count is not None and count != (count if default is None else default)
    }
    return str(Spec(rules.name, changed))


def require_enough(metrics: Mapping[str, Metric], fakes: int, reals: int | None = None) -> None:
    """Raise `UserError` when a metric means nothing with so few generated, or real, clips."""
    for kind, count in {"generated": fakes, "real": reals}.items():
        if count is None:
            continue
        short = {name: each.minimum for name, each in metrics.items() if count < each.minimum and not is_part(each)}
        if short:
            named = ", ".join(f"{name} needs {minimum}" for name, minimum in short.items())
            raise UserError(
                f"{text.count(count, f'{kind} clip')}, too few: {named}; --smoke tries the path with fewer "
                "(not comparable)"
            )


def computable(
    metrics: Mapping[str, Metric], fakes: int, reals: int, *, chosen: Sequence[str]
) -> tuple[dict[str, Metric], str]:
    """The metrics that have a value for so few clips, for a smoke run, and a remark on the others.

    Raises `UserError` where none is left, or the user chose one that has none.
    """
    fewest = {name: each.fewest_clips if isinstance(each, ClipLimits) else (2, 2) for name, each in metrics.items()}
    few = {name: least for name, least in fewest.items() if fakes < least[0] or reals < least[1]}
    if not few:
        return dict(metrics), ""
    needs = ", ".join(f"{name} needs {fake} generated and {real} real clips" for name, (fake, real) in few.items())
    if few.keys() & {plugins.public_name(plugins.parse(metric).name) for metric in chosen} or len(few) == len(metrics):
        raise UserError(
            f"{fakes:,} generated and {reals:,} real clips, too few: {needs}; give more, or other --metrics"
        )
    return {name: each for name, each in metrics.items() if name not in few}, f"too few clips for some metrics: {needs}"
