"""`weights`: get and prove the published feature networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vfbench.cli._options import option

weights = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Get and prove published feature networks.")
NETWORK = "i3d, c3d, inception or videomae; see `vfbench weights where`."


@weights.command("fetch")
def weights_fetch(name: Annotated[str, typer.Argument(help=NETWORK)]) -> None:
    """Download the weights of a network, prove and convert them; goes on where it stopped."""
    from vfbench.weights import catalogue, fetch

    place, judgement = fetch.fetch(catalogue.network(name))
    print(f"{name}: {judgement.text}\n{place}")


@weights.command("import")
def weights_import(
    name: Annotated[str, typer.Argument(help=NETWORK)],
    file: Annotated[Path, typer.Argument(help="File, or TensorFlow checkpoint, in any published format.")],
    mean: Annotated[Path | None, option("--mean", help="The mean clip of C3D, mean2.npz.")] = None,
    force: Annotated[bool, option("--force", help="Take weights that are not the published ones.")] = False,
) -> None:
    """Prove and convert weights that are already on this machine."""
    from vfbench.weights import catalogue, convert

    place, judgement = convert.convert(catalogue.network(name), file, mean=mean, force=force)
    print(f"{name}: {judgement.text}\n{place}")


@weights.command("verify")
def weights_verify(
    name: Annotated[str | None, typer.Argument(help=f"{NETWORK} All that are here by default.")] = None,
    file: Annotated[Path | None, typer.Argument(help="A file to verify instead of the converted one.")] = None,
) -> None:
    """Say whether weights are the published ones; exit 4 when they are not, naming the tensors."""
    from vfbench.weights import catalogue, convert

    if name:
        print(f"{name}: {convert.verify(catalogue.network(name), file)}")
        return
    found = {}
    for network in convert.present():
        found[network] = convert.verdict(network)
        print(f"{network.name}: {found[network]}")
    convert.require(found)


@weights.command("where")
def weights_where(
    name: Annotated[str | None, typer.Argument(help="One network, with all its sources.")] = None,
) -> None:
    """Say which weights are here, where, and how to get the others."""
    from vfbench.weights import status

    print(status.details(name) if name else status.overview())
