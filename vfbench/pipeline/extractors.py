"""The feature networks of a measurement: which ones, in which form, loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from vfbench import plugins
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Extractor, FrameLimits
from vfbench.plugins import Spec
from vfbench.protocol.protocol import Measure
from vfbench.protocol.resolve import Rules


def specs(rules: Rules, measures: Mapping[str, Measure], replaced: Sequence[str], *, untrained: bool) -> dict[str, str]:
    """Specs of all networks by label: the protocol's, those that added metrics read, those that the user replaced.

    `measures` are those of the rules and of added metrics, `replaced` the user's LABEL=SPEC. Raises `UserError` for an
    unknown label, and for `untrained` networks where none can have random weights.
    """
    labels, known = (
        sorted({measure.source.partition(".")[0] for measure in each.values()}) for each in (measures, rules.measures)
    )
    networks = {label: label if label in known else _with_defaults(label) for label in labels}
    networks |= rules.extractors
    for text in replaced:
        label, _, spec = (part.strip() for part in text.partition("="))
        if label not in networks:
            raise unknown("network to replace (--extractor LABEL=SPEC)", label, networks)
        networks[label] = _with_defaults(spec)
    if not untrained:
        return networks
    random = {label: _untrained(network) for label, network in networks.items()}
    if random == networks:
        read = ", ".join(f"{network} (of {', '.join(_readers(measures, network))})" for network in networks)
        raise UserError(f"--weights random: {read} has no random weights; leave it out")
    return random


def _with_defaults(text: str) -> str:
    """A spec with the default of every option but `weights`, whose status the protocol id holds."""
    spec = plugins.parse(text)
    options = plugins.with_defaults("extractor", spec).options
    omitted = {"weights"} - set(spec.options)
    return str(Spec(spec.name, {name: value for name, value in options.items() if name not in omitted}))


def outputs(measures: Mapping[str, Measure], metrics: Iterable[str]) -> dict[str, list[str]]:
    """The outputs that the metrics read, by network."""
    needed: dict[str, set[str]] = {}
    for name in metrics:
        network, _, output = measures[name].source.partition(".")
        needed.setdefault(network, set()).add(output)
    return {network: sorted(outputs) for network, outputs in sorted(needed.items())}


def load(
    networks: Mapping[str, str],
    measures: Mapping[str, Measure],
    metrics: Iterable[str],
    frames: int,
    device: torch.device,
    protocol: str,
) -> dict[str, Extractor]:
    """The networks that the metrics need, of specs by label, for clips of `frames` frames.

    Raises `UserError` where one has no such output or cannot read so many frames, and `MissingData` with the command
    that gets its weights. Each error names the metrics that need the network, which the user need not have named.
    """
    loaded: dict[str, Extractor] = {}
    for label, needed in outputs(measures, metrics).items():
        readers = ", ".join(_readers({name: measures[name] for name in metrics}, label))
        purpose = f"network {label}, for {readers} of protocol {protocol}"
        try:
            extractor: Extractor = plugins.load("extractor", networks[label], device)
            for output in needed:
                if output not in extractor.outputs:
                    raise unknown(f"output of extractor {networks[label]}", output, extractor.outputs)
            if isinstance(extractor, FrameLimits):
                extractor.require_frames(frames, needed)
        except MissingData as error:
            advice = "or try the path without them: --weights random (not comparable)"
            raise MissingData(f"{purpose}: {error}\n{advice}") from error
        except UserError as error:
            raise type(error)(f"{purpose}: {error}; or choose other --metrics") from error
        loaded[label] = extractor
    return loaded


def _readers(measures: Mapping[str, Measure], network: str) -> list[str]:
    """The metrics that read a network."""
    return [name for name, each in measures.items() if each.source.partition(".")[0] == network]


def _untrained(spec: str) -> str:
    """The spec of a network with random weights, where it can have such."""
    network = plugins.parse(spec)
    takes = "weights" in plugins.options("extractor", network.name)
    return str(network.merged({"weights": "random"})) if takes else spec
