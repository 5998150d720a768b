"""`vfbench weights status`: installed feature networks, and the commands that get the others."""

from __future__ import annotations

from collections.abc import Iterator

from vfbench.errors import MissingData
from vfbench.weights import cache, catalogue
from vfbench.weights.catalogue import HUB_MODELS, NETWORKS, VERIFICATION_TEXT, Download, HubDownload, Network, Source


def overview() -> str:
    """Paragraph per network: state, file, and the command that gets it."""
    parts = ["\n".join(_summary(network)) for network in NETWORKS.values()]
    return "\n".join([*parts, *(_hub_summary(name, model) for name, model in HUB_MODELS.items())])


def records(name: str | None = None) -> dict[str, dict[str, str]]:
    """State, file and reason of one network or of each, and the command that gets it, by name.

    Raises `UserError` for an unknown name. Networks of the Hugging Face hub are left out: transformers keeps them.
    """
    states = {}
    for network in [catalogue.network(name)] if name else NETWORKS.values():
        state, reason = weight_state(network)
        path, command = str(cache.weights_path(network.name)), catalogue.fetch_command(network.name)
        states[network.name] = {"state": state, "path": path, "reason": reason, "fetch": command}
    return states


def details(name: str) -> str:
    """Full description of one network: state, verification, every source with hash, size and licence."""
    if name in HUB_MODELS:
        return _hub_summary(name, HUB_MODELS[name])
    network = catalogue.network(name)
    verification = f"  verified by {VERIFICATION_TEXT[network.verification]}"
    note = [f"  {network.note}"] if network.note else []
    sources = [line for source in network.sources for line in _source_lines(source)]
    by_hand = [f"  by hand: {address}" for address in network.manual]
    return "\n".join([*_summary(network), verification, *note, *sources, *by_hand])


def weight_state(network: Network) -> tuple[str, str]:
    """`verified`, `not verified`, `missing` or `damaged`, and the reason."""
    if not cache.weights_path(network.name).exists():
        return "missing", ""
    from vfbench.weights import verify

    try:
        result = verify.verify_weights(verify.read_converted(network)[0])
    except MissingData as error:
        return "damaged", str(error).partition("\n")[0]
    return ("verified" if result.verified else "not verified"), result.text


def _summary(network: Network) -> Iterator[str]:
    state, reason = weight_state(network)
    yield f"{network.name}: {state}, {cache.weights_path(network.name)}"
    yield f"  {network.description}"
    if reason:
        yield f"  {reason}"
    if state in ("missing", "damaged"):
        yield f"  get it: {catalogue.fetch_command(network.name)}"
        yield f"      or: {catalogue.import_command(network.name)}"


def _hub_summary(name: str, model: HubDownload) -> str:
    return (
        f"{name}: {model.repository} of the Hugging Face hub, in the cache of transformers (HF_HOME)\n"
        f"  get it: {model.fetch_command}"
    )


def _source_lines(source: Source) -> Iterator[str]:
    yield f"  source, licence {source.licence}:"
    for file in source.files:
        yield f"    {file.name}, {_size_text(file)}, SHA-256 {file.sha256 or 'unknown'}"
        yield from (f"      {url}" for url in file.urls)


def _size_text(file: Download) -> str:
    return f"{file.size} bytes" if file.size else "size unknown"
