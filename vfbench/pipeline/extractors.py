"""The feature networks of a measurement: which ones, in which form, loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from vfbench import plugins
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Extractor
from vfbench.plugins import Spec
from vfbench.protocol.protocol import Measure


def chosen(
    given: Mapping[str, Any],
    measures: Mapping[str, Mapping[str, str]],
    extractors: Sequence[str],
    *,
    untrained: bool,
) -> dict[str, str]:
    """The specs of all networks by their label: the protocol's, those that added metrics read, those the user says.

    `given` are the fields of the protocol's rules, `measures` those with added metrics, `extractors` the user's
    LABEL=SPEC. Raises `UserError` for a label that there is not, and where `untrained` networks cannot be had.
    """
    labels, known = (
        sorted({measure["source"].partition(".")[0] for measure in some.values()})
        for some in (measures, given["measures"])
    )
    networks = {label: label if label in known else _network(label) for label in labels}
    networks |= given.get("extractors", {})
    for text in extractors:
        label, _, spec = (part.strip() for part in text.partition("="))
        if label not in networks:
            raise unknown("network to replace (--extractor LABEL=SPEC)", label, networks)
        networks[label] = _network(spec)
    if not untrained:
        return networks
    random = {label: _untrained(network) for label, network in networks.items()}
    if random == networks:
        raise UserError(f"--weights random: {', '.join(networks)} has no random weights; leave it out")
    return random


def _network(text: str) -> str:
    spec = plugins.parse(text)
    whole = plugins.whole("extractor", spec).options
    usual = {name for name in ("weights",) if name not in spec.options}  # which ones they are, the standing tells
    return str(Spec(spec.name, {name: value for name, value in whole.items() if name not in usual}))


def outputs(measures: Mapping[str, Any], metrics: Iterable[str]) -> dict[str, list[str]]:
    """Of each network that the metrics need: what of it."""
    needed: dict[str, set[str]] = {}
    for name in metrics:
        network, _, output = Measure.model_validate(measures[name]).source.partition(".")
        needed.setdefault(network, set()).add(output)
    return {network: sorted(outputs) for network, outputs in sorted(needed.items())}


def load(
    networks: Mapping[str, str], needed: Mapping[str, Sequence[str]], device: torch.device
) -> dict[str, Extractor]:
    """The networks that are needed, of specs by label.

    Raises `UserError` where one has no such output, and `MissingData` with the command that gets its weights.
    """
    loaded: dict[str, Extractor] = {}
    for label, wanted in needed.items():
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
