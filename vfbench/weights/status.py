"""`vfbench weights where`: what of the published feature networks is here, and how to get the rest."""

from __future__ import annotations

from collections.abc import Iterator

from vfbench.errors import MissingData
from vfbench.weights import cache, catalogue, verify
from vfbench.weights.catalogue import HUB, NETWORKS, PROOFS, Download, Hub, Network, Source


def overview() -> str:
    """A paragraph for each network: its state, its file, and the command that gets it."""
    parts = ["\n".join(_short(network)) for network in NETWORKS.values()]
    return "\n".join([*parts, *(_of_hub(name, model) for name, model in HUB.items())])


def details(name: str) -> str:
    """All that is known of one network: its state, what proves it, every source with its hash, size and licence."""
    if name in HUB:
        return _of_hub(name, HUB[name])
    network = catalogue.network(name)
    rest = [f"  proven by {PROOFS[network.proof]}", *([f"  {network.note}"] if network.note else [])]
    sources = [line for source in network.sources for line in _source(source)]
    by_hand = [f"  by hand: {place}" for place in network.manual]
    return "\n".join([*_short(network), *rest, *sources, *by_hand])


def state(network: Network) -> tuple[str, str]:
    """`proven`, `not proven`, `missing` or `damaged`, and why."""
    if not cache.place(network.name).exists():
        return "missing", ""
    try:
        judgement = verify.judge(verify.read(network)[0])
    except MissingData as error:
        return "damaged", str(error).partition("\n")[0]
    return ("proven" if judgement.standard else "not proven"), judgement.text


def _short(network: Network) -> Iterator[str]:
    word, why = state(network)
    yield f"{network.name}: {word}, {cache.place(network.name)}"
    yield f"  {network.what}"
    if why:
        yield f"  {why}"
    if word in ("missing", "damaged"):
        yield f"  get it: {catalogue.fetching(network.name)}"
        yield f"      or: {catalogue.importing(network.name)}"


def _of_hub(name: str, model: Hub) -> str:
    return (
        f"{name}: {model.repository} of the Hugging Face hub, in the cache of transformers (HF_HOME)\n"
        f"  get it: {model.fetching}"
    )


def _source(source: Source) -> Iterator[str]:
    yield f"  source, licence {source.licence}:"
    for file in source.files:
        yield f"    {file.name}, {_size(file)}, SHA-256 {file.sha256 or 'unknown'}"
        yield from (f"      {url}" for url in file.urls)


def _size(file: Download) -> str:
    return f"{file.size} bytes" if file.size else "size unknown"
