"""`weights`: download, import and verify published feature networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vfbench.cli import _options as flags
from vfbench.cli._help import Command, Group
from vfbench.cli._options import option
from vfbench.utils import console

weights = typer.Typer(
    cls=Group, no_args_is_help=True, rich_markup_mode=None, help="Get and verify published feature networks."
)
NETWORK = "i3d, c3d, inception, videomae or alexnet; see `vfbench weights status`."


@weights.command("fetch", cls=Command)
def weights_fetch(name: Annotated[str, typer.Argument(help=NETWORK)]) -> None:
    """Download, verify and convert the weights of a network; the same command resumes."""
    from vfbench.weights import catalogue

    network = catalogue.network(name)  # refuses a wrong name before torch is imported
    from vfbench.weights import fetch

    path, result = fetch.fetch(network)
    console.result(f"{name}: {result.text}\n{path}")


@weights.command("import", cls=Command)
def weights_import(
    name: Annotated[str, typer.Argument(help=NETWORK)],
    file: Annotated[Path, typer.Argument(help="File, or TensorFlow checkpoint, in any published format.")],
    mean: Annotated[Path | None, option("--mean", help="Mean clip of C3D, mean2.npz.")] = None,
    force: Annotated[bool, option("--force", help="Accept weights that are not the published ones.")] = False,
) -> None:
    """Verify and convert weights that are already on this machine."""
    from vfbench.weights import catalogue

    network = catalogue.network(name)
    from vfbench.weights import convert

    path, result = convert.import_weights(network, file, mean=mean, force=force)
    console.result(f"{name}: {result.text}\n{path}")


@weights.command("verify", cls=Command)
def weights_verify(
    name: Annotated[str | None, typer.Argument(help=f"{NETWORK} All installed ones by default.")] = None,
    file: Annotated[Path | None, typer.Argument(help="File to verify instead of the converted one.")] = None,
) -> None:
    """Check that weights are the published ones; exit 4 with the names of the tensors that differ."""
    from vfbench.weights import catalogue, convert

    if name:
        console.result(f"{name}: {convert.verify(catalogue.network(name), file)}")
        return
    results = {}
    for network in convert.installed_networks():
        results[network] = convert.verify_or_message(network)
        console.result(f"{network.name}: {results[network]}")
    convert.require_verified(results)


@weights.command("status", cls=Command)
def weights_status(
    name: Annotated[str | None, typer.Argument(help="Network to show with all its sources.")] = None,
    as_json: flags.AsJson = False,
) -> None:
    """List the installed weights and their paths, and how to get the others."""
    from vfbench.utils import files
    from vfbench.weights import status

    if as_json:
        print(files.as_json(status.records(name)), end="")
        return
    console.result(status.details(name) if name else status.overview())
